//! What a scenario found out: for people in Markdown, for programs in JSON.

use std::{collections::BTreeMap, iter::once};

use serde::Serialize;
use swiftwater_benches::versus::Spread;

pub struct Scenario {
    pub name: &'static str,
    /// Where there are several of it.
    pub form: Option<&'static str>,
    /// Takes the number of seeds.
    pub run: fn(u64) -> Report,
}

impl Scenario {
    /// What people call it.
    pub fn title(&self) -> String {
        self.form.map_or_else(|| self.name.to_owned(), |form| format!("{}, {form}", self.name))
    }
}

pub struct Report {
    /// What was simulated, and how to read the figures.
    pub about: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    /// The claims that do not hold.
    pub broken: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// In JSON.
    pub key: &'static str,
    /// In the table.
    pub title: &'static str,
    pub show: Show,
    pub over: Over,
}

#[derive(Clone, Copy, Debug)]
pub enum Show {
    /// Whole, with its thousands apart.
    Count,
    Number,
    Percent,
    Seconds,
}

/// What the numbers of several seeds become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Over {
    /// One number: their mean.
    Mean,
    /// The median, and the least and the greatest where they differ from it.
    Spread,
}

/// One entrant.
pub struct Row {
    pub entrant: String,
    /// Ours, in one configuration or another.
    pub ours: bool,
    /// A figure for each column.
    pub figures: Vec<Spread>,
}

impl Column {
    pub const fn new(key: &'static str, title: &'static str, show: Show) -> Self {
        Self { key, title, show, over: Over::Spread }
    }

    pub const fn mean(self) -> Self {
        Self { over: Over::Mean, ..self }
    }

    /// What was never reached in a seed is infinite there.
    pub fn figure(&self, numbers: &[f64]) -> Spread {
        let of = |numbers: &[f64]| Spread::of(numbers.iter().copied()).expect("at least one seed");
        match self.over {
            Over::Mean => of(&[numbers.iter().sum::<f64>() / numbers.len() as f64]),
            Over::Spread => of(numbers),
        }
    }

    fn cell(&self, Spread { min, median, max }: Spread) -> String {
        let [least, middle, most] = [min, median, max].map(|number| self.show.digits(number));
        match least == most {
            true => middle,
            false => format!("{middle} ({least} to {most})"),
        }
    }
}

impl Show {
    fn digits(self, number: f64) -> String {
        match self {
            _ if number.is_infinite() => "never".to_owned(),
            Self::Count => grouped(number as u64),
            Self::Number if number != 0.0 && number < 10.0 => format!("{number:.2}"),
            Self::Number => format!("{number:.0}"),
            Self::Percent => format!("{:.2} %", 100.0 * number),
            Self::Seconds => format!("{number:.1} s"),
        }
    }
}

/// 1,234,567.
fn grouped(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1000), number % 1000),
    }
}

impl Report {
    /// A row of what each seed found, a number for each column.
    pub fn row(&mut self, entrant: impl Into<String>, ours: bool, seeds: &[Vec<f64>]) {
        let figure = |(place, column): (usize, &Column)| {
            column.figure(&seeds.iter().map(|seed| seed[place]).collect::<Vec<_>>())
        };
        let figures = self.columns.iter().enumerate().map(figure).collect();
        self.rows.push(Row { entrant: entrant.into(), ours, figures });
    }
}

/// Padded so that it reads well in a terminal too.
pub fn table(scenario: &Scenario, report: &Report) -> String {
    let head = once(String::new()).chain(report.columns.iter().map(|column| column.title.to_owned()));
    let row = |row: &Row| {
        let name = if row.ours { format!("**{}**", row.entrant) } else { row.entrant.clone() };
        once(name)
            .chain(report.columns.iter().zip(&row.figures).map(|(column, figure)| column.cell(*figure)))
            .collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = once(head.collect()).chain(report.rows.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = format!("| {:<1$} |", row[0], widths[0]);
        row.iter().zip(&widths).skip(1).for_each(|(cell, width)| line += &format!(" {cell:>width$} |"));
        line + "\n"
    };
    let rule = widths.iter().skip(1).fold(format!("|{}|", "-".repeat(widths[0] + 2)), |rule, width| {
        rule + &format!("{}:|", "-".repeat(width + 1))
    });
    let broken: String = report.broken.iter().map(|claim| format!("\nDoes not hold: {claim}.\n")).collect();
    let body: String = rows[1..].iter().map(line).collect();
    format!("## {}\n\n{}\n\n{}{rule}\n{body}{broken}", scenario.title(), report.about, line(&rows[0]))
}

/// A line for each entrant, without its end. What was never reached is null.
pub fn json(area: &str, scenario: &Scenario, report: &Report) -> Vec<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        area: &'a str,
        scenario: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        form: Option<&'a str>,
        entrant: &'a str,
        figures: BTreeMap<&'a str, Spread>,
    }
    let line = |row: &Row| {
        let figures = report.columns.iter().zip(&row.figures);
        let figures = figures.map(|(column, figure)| (column.key, figure.rounded())).collect();
        let Scenario { name, form, .. } = *scenario;
        let line = Line { area, scenario: name, form, entrant: &row.entrant, figures };
        serde_json::to_string(&line).expect("numbers and names")
    };
    report.rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANG: Scenario = Scenario { name: "hang", form: Some("time-outs"), run: |_| report() };

    fn report() -> Report {
        let columns = vec![
            Column::new("recovery", "to recover", Show::Seconds),
            Column::new("never", "seeds that never do", Show::Percent).mean(),
        ];
        let mut report = Report { about: "About.".into(), columns, rows: Vec::new(), broken: Vec::new() };
        report.row("none", false, &[vec![f64::INFINITY, 1.0], vec![f64::INFINITY, 1.0]]);
        report.row("ours", true, &[vec![2.0, 0.0], vec![4.0, 0.0], vec![f64::INFINITY, 1.0]]);
        report
    }

    #[test]
    fn a_table_says_what_never_happened() {
        let table = table(&HANG, &report());
        assert!(table.starts_with("## hang, time-outs\n\nAbout.\n"), "{table}");
        let none = "| none     |                  never |            100.00 % |\n";
        assert!(table.contains(none), "{table}");
        assert!(table.contains("| **ours** | 4.0 s (2.0 s to never) |"), "{table}");
    }

    #[test]
    fn counts_are_whole() {
        assert_eq!(
            [0.0, 7.0, 1000.0, 12_034_567.0].map(|n| Show::Count.digits(n)),
            ["0", "7", "1,000", "12,034,567"]
        );
    }

    #[test]
    fn json_has_a_line_for_each_entrant_and_null_for_never() {
        let lines = json("breaker", &HANG, &report());
        let none = concat!(
            r#"{"area":"breaker","scenario":"hang","form":"time-outs","entrant":"none","figures":{"#,
            r#""never":{"min":1.0,"median":1.0,"max":1.0},"recovery":{"min":null,"median":null,"max":null}}}"#,
        );
        assert_eq!((lines.len(), lines[0].as_str()), (2, none));
    }
}
