//! The command line.

use swiftwater_benches::versus::Effort;

#[derive(Clone, Debug)]
pub struct Arguments {
    pub area: String,
    pub effort: Effort,
    /// Where the JSON lines go.
    pub json: Option<String>,
    /// Only cases with this in their name.
    pub case: Option<String>,
    /// Traces of keys, for the hit ratios of the cache.
    pub traces: Option<String>,
    /// Files to compress besides those that are made up.
    pub documents: Option<String>,
}

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            area: String::new(),
            effort: Effort::FULL,
            json: None,
            case: None,
            traces: None,
            documents: None,
        };
        while let Some(word) = words.next() {
            let place = match word.as_str() {
                "--quick" => {
                    parsed.effort = Effort::QUICK;
                    continue;
                }
                "--case" => &mut parsed.case,
                "--documents" => &mut parsed.documents,
                "--json" => &mut parsed.json,
                "--traces" => &mut parsed.traces,
                flag if flag.starts_with('-') => return Err(format!("no flag `{flag}`; {USAGE}")),
                _ if parsed.area.is_empty() => {
                    parsed.area = word;
                    continue;
                }
                _ => return Err(format!("one area at a time, and `{word}` is a second; {USAGE}")),
            };
            *place = Some(words.next().ok_or_else(|| format!("`{word}` wants a value; {USAGE}"))?);
        }
        match parsed.area.is_empty() {
            true => Err(USAGE.to_owned()),
            false => Ok(parsed),
        }
    }
}

const USAGE: &str = "usage: versus <batch|breaker|cache|compress|pool> [--quick] [--json FILE] [--case NAME] \
                     [--traces DIR] [--documents DIR]";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_stand_anywhere() {
        let parsed = parse("--quick cache --json out --case hit").unwrap();
        assert!(parsed.effort.quick);
        assert_eq!(
            (parsed.area.as_str(), parsed.json.as_deref(), parsed.case.as_deref()),
            ("cache", Some("out"), Some("hit"))
        );
        assert!(!parse("pool").unwrap().effort.quick);
    }

    #[test]
    fn what_is_not_understood_is_one_line() {
        for line in ["", "--fast", "cache pool", "cache --json"] {
            let error = parse(line).unwrap_err();
            assert!(error.contains("usage: versus") && !error.contains('\n'), "{error}");
        }
    }
}
