//! What came out: one row per phase, as a table for people, as JSON for programs, as an SVG for slides.

use std::fmt::Write;

use serde::Serialize;

/// One run, as `--json` writes it.
#[derive(Serialize)]
pub struct Report {
    /// Where the product keys came from.
    pub keys: String,
    pub seed: u64,
    pub products: u64,
    pub clients: usize,
    pub clients_writing: usize,
    pub seconds_per_phase: u64,
    pub phases: Vec<Phase>,
}

#[derive(Clone, Serialize)]
pub struct Phase {
    pub name: String,
    /// Answers to requests for pages while measuring, errors included.
    pub requests: u64,
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub queries_per_request: f64,
    pub bytes_sent: u64,
    pub writes_per_second: f64,
    pub errors: u64,
    pub first_error: Option<String>,
    /// Pages with the supplier's last known quote, and with none.
    pub last_known_quotes: u64,
    pub unknown_quotes: u64,
    /// Pages that the oracle judged, warm-up included, and those that it found stale.
    pub judged: u64,
    pub stale_answers: u64,
}

impl Report {
    pub fn stale_answers(&self) -> u64 {
        self.phases.iter().map(|phase| phase.stale_answers).sum()
    }

    /// The sentence that the exit code hangs on.
    pub fn verdict(&self) -> Result<String, String> {
        if let Some(phase) = self.phases.iter().find(|phase| phase.judged == 0) {
            return Err(format!("Nothing is shown: no page was judged in the phase {:?}.", phase.name));
        }
        let judged = grouped(self.phases.iter().map(|phase| phase.judged).sum());
        match self.stale_answers() {
            0 => Ok(format!("Of {judged} pages none was stale.")),
            stale => Err(format!(
                "STALE: {} of {judged} pages were older than a write that had been answered before they were asked for.",
                grouped(stale)
            )),
        }
    }

    /// What the table leaves out, and the verdict.
    pub fn notes(&self) -> String {
        let mut notes = format!(
            "{} clients, {} of them writing; keys: {}; {} s per phase. Requests are those for pages,\n\
             errors included, and so are latencies (as clients see them, rounded up by at most 1/16) and queries. Clients\n\
             and service share the machine. Writers wait for their answers, so slow phases bear fewer writes.\n",
            self.clients, self.clients_writing, self.keys, self.seconds_per_phase
        );
        for phase in &self.phases {
            if let Some(error) = &phase.first_error {
                let _ = writeln!(notes, "{}: {} errors, such as {error}", phase.name, grouped(phase.errors));
            }
            if phase.last_known_quotes + phase.unknown_quotes > 0 {
                let share = |count| 100.0 * count as f64 / phase.requests as f64;
                let _ = writeln!(
                    notes,
                    "{}: {:.1} % of the pages showed the supplier's last known quote, marked as such, {:.1} % none",
                    phase.name,
                    share(phase.last_known_quotes),
                    share(phase.unknown_quotes)
                );
            }
        }
        let (Ok(verdict) | Err(verdict)) = self.verdict();
        notes.push_str(&verdict);
        notes
    }

    pub fn table(&self) -> String {
        let heads = [
            "phase",
            "requests/s",
            "writes/s",
            "p50 ms",
            "p99 ms",
            "queries/request",
            "MB sent",
            "errors",
            "stale answers",
        ];
        let mut rows = vec![heads.map(String::from)];
        rows.extend(self.phases.iter().map(|phase| {
            [
                phase.name.clone(),
                grouped(phase.requests_per_second.round() as u64),
                grouped(phase.writes_per_second.round() as u64),
                format!("{:.1}", phase.p50_ms),
                format!("{:.1}", phase.p99_ms),
                format!("{:.2}", phase.queries_per_request),
                format!("{:.1}", phase.bytes_sent as f64 / 1e6),
                grouped(phase.errors),
                grouped(phase.stale_answers),
            ]
        }));
        aligned(&rows)
    }

    /// The three figures that tell the phases apart, as bars.
    pub fn svg(&self) -> String {
        let panels: [(&str, Figure); 3] = [
            ("Requests per second (longer is better)", |phase| phase.requests_per_second),
            ("p99: 99 of 100 answers come within so many milliseconds (shorter is better)", |phase| {
                phase.p99_ms
            }),
            ("Database queries per request (shorter is better)", |phase| phase.queries_per_request),
        ];
        let bars = self.phases.len() as u32;
        let panel_height = PANEL_HEAD + bars * BAR_STEP + PANEL_GAP;
        let height = TOP + panels.len() as u32 * panel_height;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{MARGIN}\" y=\"30\" font-size=\"18\" font-weight=\"bold\" fill=\"#1c2b33\">storefront</text>\n\
             <text x=\"{MARGIN}\" y=\"50\" fill=\"#5b6b73\">{} clients, {} of them writing; {}; {} stale answers</text>\n",
            self.clients,
            self.clients_writing,
            escaped(&self.keys),
            grouped(self.stale_answers()),
        );
        for (number, (title, figure)) in panels.into_iter().enumerate() {
            let top = TOP + number as u32 * panel_height;
            self.panel(&mut svg, top, title, figure);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn panel(&self, svg: &mut String, top: u32, title: &str, figure: Figure) {
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{}\" font-weight=\"bold\" fill=\"#1c2b33\">{title}</text>",
            top + 14
        );
        let longest = self.phases.iter().map(figure).fold(f64::MIN_POSITIVE, f64::max);
        for (number, phase) in self.phases.iter().enumerate() {
            let value = figure(phase);
            let y = top + PANEL_HEAD + number as u32 * BAR_STEP;
            let length = (value / longest * f64::from(BAR_ROOM)).max(1.0);
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#1c2b33\">{}</text>\
                 <rect x=\"{BAR_LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" fill=\"#1c2b33\">{}</text>",
                BAR_LEFT - 8,
                y + 14,
                escaped(&phase.name),
                COLOURS[number % COLOURS.len()],
                f64::from(BAR_LEFT) + length + 6.0,
                y + 14,
                short(value),
            );
        }
    }
}

type Figure = fn(&Phase) -> f64;

/// The first column is text, the others are numbers.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut table = String::new();
    for (number, row) in rows.iter().enumerate() {
        let _ = write!(table, "{:<1$}", row[0], width(0));
        for (column, cell) in row.iter().enumerate().skip(1) {
            let _ = write!(table, "  {cell:>0$}", width(column));
        }
        table.push('\n');
        if number == 0 {
            let total = (0..N).map(width).sum::<usize>() + 2 * (N - 1);
            let _ = writeln!(table, "{}", "-".repeat(total));
        }
    }
    table
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn short(value: f64) -> String {
    if value >= 100.0 { grouped(value.round() as u64) } else { format!("{value:.2}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const WIDTH: u32 = 860;
const MARGIN: u32 = 24;
const TOP: u32 = 74;
const PANEL_HEAD: u32 = 26;
const PANEL_GAP: u32 = 24;
const BAR_STEP: u32 = 25;
const BAR_HEIGHT: u32 = 19;
const BAR_LEFT: u32 = 250;
/// Leaves room for the figure behind the longest bar.
const BAR_ROOM: u32 = WIDTH - BAR_LEFT - 90;
const COLOURS: [&str; 5] = ["#9aa7ad", "#4f8fba", "#2a9d78", "#d9824b", "#7a5ea8"];

#[cfg(test)]
mod tests {
    use super::*;

    fn report(phases: &[Phase]) -> Report {
        Report {
            keys: "a <trace> & more".into(),
            seed: 1,
            products: 10,
            clients: 64,
            clients_writing: 4,
            seconds_per_phase: 8,
            phases: phases.to_vec(),
        }
    }

    fn phase(name: &str, requests_per_second: f64, stale_answers: u64) -> Phase {
        Phase {
            name: name.into(),
            requests: 8 * requests_per_second as u64,
            requests_per_second,
            p50_ms: 1.234,
            p99_ms: 45.6,
            queries_per_request: 3.0,
            bytes_sent: 12_345_678,
            writes_per_second: 10.0,
            errors: 1234,
            first_error: None,
            last_known_quotes: 0,
            unknown_quotes: 0,
            judged: 1,
            stale_answers,
        }
    }

    #[test]
    fn the_table_lines_up() {
        let report = report(&[phase("bare", 987.6, 0), phase("+ pool", 12_345.0, 2)]);
        let expected = "\
phase   requests/s  writes/s  p50 ms  p99 ms  queries/request  MB sent  errors  stale answers
---------------------------------------------------------------------------------------------
bare           988        10     1.2    45.6             3.00     12.3   1,234              0
+ pool      12,345        10     1.2    45.6             3.00     12.3   1,234              2
";
        assert_eq!(report.table(), expected);
        assert_eq!(report.stale_answers(), 2);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn the_verdict_wants_judged_pages_and_none_of_them_stale() {
        let mut silent = phase("+ cache", 0.0, 0);
        silent.judged = 0;
        assert!(report(&[phase("bare", 1.0, 0)]).verdict().is_ok());
        assert!(report(&[phase("bare", 1.0, 0), silent]).verdict().unwrap_err().contains("\"+ cache\""));
        assert!(report(&[phase("bare", 1.0, 1)]).verdict().unwrap_err().starts_with("STALE: 1 of 1 "));
    }

    #[test]
    fn the_plot_has_a_bar_per_phase_and_figure_and_escapes_its_texts() {
        let svg = report(&[phase("bare", 1.0, 0), phase("<&>", 0.0, 0)]).svg();
        assert_eq!(svg.matches("<rect").count(), 1 + 3 * 2);
        assert!(svg.contains("a &lt;trace&gt; &amp; more") && svg.contains("&lt;&amp;&gt;"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
