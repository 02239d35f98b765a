//! The command line.

#[derive(Clone, Debug)]
pub struct Arguments {
    pub area: String,
    /// How many histories of each scenario and entrant.
    pub seeds: u64,
    /// Where the JSON lines go.
    pub json: Option<String>,
    /// Only scenarios with this in their name.
    pub scenario: Option<String>,
}

impl Arguments {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self { area: String::new(), seeds: SEEDS, json: None, scenario: None };
        let mut seeds = None;
        while let Some(word) = words.next() {
            let place = match word.as_str() {
                "--quick" => {
                    parsed.seeds = QUICK_SEEDS;
                    continue;
                }
                "--json" => &mut parsed.json,
                "--scenario" => &mut parsed.scenario,
                "--seeds" => &mut seeds,
                flag if flag.starts_with('-') => return Err(format!("no flag `{flag}`; {USAGE}")),
                _ if parsed.area.is_empty() => {
                    parsed.area = word;
                    continue;
                }
                _ => return Err(format!("one area at a time, and `{word}` is a second; {USAGE}")),
            };
            *place = Some(words.next().ok_or_else(|| format!("`{word}` wants a value; {USAGE}"))?);
        }
        if let Some(seeds) = seeds {
            let number = seeds.parse().ok().filter(|number| (1..=MOST_SEEDS).contains(number));
            parsed.seeds =
                number.ok_or_else(|| format!("`--seeds {seeds}` is not from 1 to {MOST_SEEDS}; {USAGE}"))?;
        }
        match parsed.area.is_empty() {
            true => Err(USAGE.to_owned()),
            false => Ok(parsed),
        }
    }
}

const SEEDS: u64 = 100;
/// Enough to show that everything works and that the claims hold, within half a minute.
const QUICK_SEEDS: u64 = 5;
/// Two days of computing.
const MOST_SEEDS: u64 = 100_000;
const USAGE: &str =
    "usage: simulate <breaker|cache-oracle> [--quick] [--seeds N] [--json FILE] [--scenario NAME]";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_stand_anywhere() {
        let parsed = parse("--json out breaker --scenario hang --seeds 7").unwrap();
        assert_eq!((parsed.area.as_str(), parsed.seeds), ("breaker", 7));
        assert_eq!((parsed.json.as_deref(), parsed.scenario.as_deref()), (Some("out"), Some("hang")));
        assert_eq!(parse("breaker").unwrap().seeds, SEEDS);
        assert_eq!(parse("--quick breaker").unwrap().seeds, QUICK_SEEDS);
        assert_eq!(parse("--seeds 3 --quick breaker").unwrap().seeds, 3);
    }

    #[test]
    fn what_is_not_understood_is_one_line() {
        for line in
            ["", "--fast", "breaker cache", "breaker --json", "breaker --seeds 0", "breaker --seeds many"]
        {
            let error = parse(line).unwrap_err();
            assert!(error.contains("usage: simulate") && !error.contains('\n'), "{error}");
        }
    }
}
