//! What people read, and what programs read.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::versus::{Better, Entry, Measured, Role, Spread};

/// A table in Markdown, padded so that it reads well in a terminal too.
pub fn table(measured: &Measured) -> String {
    let Measured { figure, hops, entries } = measured;
    let direction = match figure.better {
        Better::Higher => "higher",
        Better::Lower => "lower",
    };
    let title =
        format!("### {}: {}, {direction} is better\n\n{}\n\n", figure.case, figure.unit, distance(hops));
    let ours = entries.iter().find(|entry| entry.role == Role::Ours).map(|entry| entry.spread.median);
    let head = ["", "median", "min", "max", "ours is better by"].map(str::to_owned);
    let row = |entry: &Entry| {
        let Entry { role, name, spread } = entry;
        let name = match role {
            Role::Floor => format!("floor: {name}"),
            Role::Ours => format!("**{name}**"),
            Role::Rival => name.clone(),
        };
        let better = match ours {
            // Nothing is no multiple of anything.
            Some(ours) if *role != Role::Ours && ours != 0.0 && spread.median != 0.0 => {
                format!("{} x", digits(ratio(figure.better, ours, spread.median)))
            }
            _ => String::new(),
        };
        [name, digits(spread.median), digits(spread.min), digits(spread.max), better]
    };
    let rows: Vec<_> = std::iter::once(head).chain(entries.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let mut line = format!("| {:<1$} |", row[0], widths[0]);
        (1..5).for_each(|column| line += &format!(" {:>1$} |", row[column], widths[column]));
        line + "\n"
    };
    let rule = || {
        let mut rule = format!("|{}|", "-".repeat(widths[0] + 2));
        (1..5).for_each(|column| rule += &format!("{}:|", "-".repeat(widths[column] + 1)));
        rule + "\n"
    };
    title + &line(&rows[0]) + &rule() + &rows[1..].iter().map(line).collect::<String>()
}

/// One line of JSON, without its end.
pub fn json(area: &str, measured: &Measured) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        area: &'a str,
        case: &'a str,
        unit: &'a str,
        better: Better,
        ours: Option<Spread>,
        rivals: BTreeMap<&'a str, Spread>,
        floor: Option<Spread>,
    }
    let Measured { figure, entries, .. } = measured;
    let of = |role| entries.iter().filter(move |entry| entry.role == role);
    let line = Line {
        area,
        case: &figure.case,
        unit: figure.unit,
        better: figure.better,
        ours: of(Role::Ours).next().map(|entry| entry.spread.rounded()),
        rivals: of(Role::Rival).map(|entry| (entry.name.as_str(), entry.spread.rounded())).collect(),
        floor: of(Role::Floor).next().map(|entry| entry.spread.rounded()),
    };
    serde_json::to_string(&line).expect("numbers and names")
}

/// How far apart the processors were, and what that is called: contended figures differ by a multiple.
fn distance(hops: &[Duration]) -> String {
    let name = |hop: &Duration| match hop.as_nanos() {
        0..40 => "siblings",
        40..150 => "near",
        150.. => "far",
    };
    let mut kinds: Vec<_> = hops.iter().map(name).collect();
    kinds.dedup();
    let times: Vec<_> = hops.iter().map(|hop| hop.as_nanos().to_string()).collect();
    format!("A cache line hopped in {} ns ({}).", times.join(", "), kinds.join(", then "))
}

/// How many times better ours is.
fn ratio(better: Better, ours: f64, theirs: f64) -> f64 {
    match better {
        Better::Higher => ours / theirs,
        Better::Lower => theirs / ours,
    }
}

/// Three digits that matter.
fn digits(number: f64) -> String {
    let decimals = match number.abs() {
        0.0 => 0,
        number => (2 - number.log10().floor() as i32).clamp(0, 6) as usize,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::Figure;

    fn measured(better: Better) -> Measured {
        let entry = |role, name: &str, median| Entry {
            role,
            name: name.to_owned(),
            spread: Spread { min: median / 2.0, median, max: median * 2.0 },
        };
        Measured {
            figure: Figure { case: "closed_1t".into(), unit: "ns", better },
            hops: [64, 320].map(Duration::from_nanos).to_vec(),
            entries: vec![
                entry(Role::Ours, "swiftwater", 10.0),
                entry(Role::Rival, "recloser", 25.0),
                entry(Role::Floor, "a load", 0.8126),
            ],
        }
    }

    #[test]
    fn the_table_says_how_much_better_ours_is() {
        let expected = "\
### closed_1t: ns, lower is better

A cache line hopped in 64, 320 ns (near, then far).

|                | median |   min |  max | ours is better by |
|----------------|-------:|------:|-----:|------------------:|
| **swiftwater** |   10.0 |  5.00 | 20.0 |                   |
| recloser       |   25.0 |  12.5 | 50.0 |            2.50 x |
| floor: a load  |  0.813 | 0.406 | 1.63 |          0.0813 x |
";
        assert_eq!(table(&measured(Better::Lower)), expected);
        assert!(table(&measured(Better::Higher)).contains("|           0.400 x |"));
    }

    #[test]
    fn the_json_is_that_of_the_design() {
        let expected = concat!(
            r#"{"area":"breaker","case":"closed_1t","unit":"ns","better":"lower","#,
            r#""ours":{"min":5.0,"median":10.0,"max":20.0},"#,
            r#""rivals":{"recloser":{"min":12.5,"median":25.0,"max":50.0}},"#,
            r#""floor":{"min":0.4063,"median":0.8126,"max":1.625}}"#,
        );
        assert_eq!(json("breaker", &measured(Better::Lower)), expected);
        let mut without = measured(Better::Higher);
        without.entries.pop();
        let line = json("breaker", &without);
        assert!(line.contains(r#""better":"higher""#) && line.ends_with(r#","floor":null}"#), "{line}");
    }

    #[test]
    fn nothing_is_no_multiple() {
        let mut measured = measured(Better::Lower);
        measured.entries[0].spread = Spread { min: 0.0, median: 0.0, max: 0.0 };
        assert!(!table(&measured).contains(" x |"), "{}", table(&measured));
    }

    #[test]
    fn three_digits_matter() {
        assert_eq!(
            [0.0, 0.001_234, 1.0, 99.96, 1234.5].map(digits),
            ["0", "0.00123", "1.00", "100.0", "1234"]
        );
    }
}
