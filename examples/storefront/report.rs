//! What came out: one row per phase, as a table for people, as JSON for programs, as an SVG for slides.

use std::fmt::Write;

use serde::Serialize;

use crate::question::Load;

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
    /// What the readers asked for: what is asked for in one phase is compared with the same in others.
    pub load: Load,
    /// The usual stack, which is measured like ours and promises less.
    pub usual: bool,
    /// Answers to readers while measuring, errors included.
    pub requests: u64,
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub queries_per_request: f64,
    /// Of the whole process, clients included.
    pub cpu_us_per_request: f64,
    pub bytes_sent: u64,
    pub writes_per_second: f64,
    pub errors: u64,
    pub first_error: Option<String>,
    /// Pages with the supplier's last known quote, and with none.
    pub last_known_quotes: u64,
    pub unknown_quotes: u64,
    /// Answers that were judged, warm-up included; those that are stale; and those that are not what was asked for.
    pub judged: u64,
    pub stale_answers: u64,
    pub wrong_answers: u64,
}

impl Phase {
    fn kilobytes_per_request(&self) -> f64 {
        self.bytes_sent as f64 / 1e3 / self.requests.max(1) as f64
    }
}

impl Report {
    /// Without those of the usual stack.
    pub fn stale_answers(&self) -> u64 {
        self.ours().map(|phase| phase.stale_answers).sum()
    }

    fn ours(&self) -> impl Iterator<Item = &Phase> {
        self.phases.iter().filter(|phase| !phase.usual)
    }

    /// The sentence that the exit code hangs on.
    pub fn verdict(&self) -> Result<String, String> {
        if let Some(phase) = self.phases.iter().find(|phase| phase.judged == 0) {
            return Err(format!("Nothing is shown: no answer was judged in the phase {:?}.", phase.name));
        }
        if let Some(phase) = self.phases.iter().find(|phase| phase.wrong_answers > 0) {
            let wrong = grouped(phase.wrong_answers);
            return Err(format!(
                "WRONG: {wrong} answers in the phase {:?} were not what was asked for.",
                phase.name
            ));
        }
        let judged = grouped(self.ours().map(|phase| phase.judged).sum());
        match self.stale_answers() {
            0 => Ok(format!("Of our {judged} answers none was stale.")),
            stale => Err(format!(
                "STALE: {} of our {judged} answers were older than a write that had been answered before they were asked for.",
                grouped(stale)
            )),
        }
    }

    /// What the table leaves out, and the verdict.
    pub fn notes(&self) -> String {
        let mut notes = format!(
            "{} clients, {} of them writing; keys: {}; {} s per phase. Requests are those of\n\
             readers, errors included, and so are latencies (as clients see them, rounded up by at most 1/16), queries,\n\
             processor time and bytes. Clients and service share the machine, and the processor time. Writers wait for their\n\
             answers, so slow phases bear fewer writes.\n",
            self.clients, self.clients_writing, self.keys, self.seconds_per_phase
        );
        if let Some(slow) = self.phases.iter().find_map(|phase| phase.load.bytes_per_second()) {
            let _ = writeln!(
                notes,
                "Readers of large documents sit behind lines of {:.0} Mbit/s each.",
                slow * 8.0 / 1e6
            );
        }
        for phase in &self.phases {
            let share = |count| 100.0 * count as f64 / phase.requests as f64;
            if let Some(error) = &phase.first_error {
                let count = grouped(phase.errors + phase.wrong_answers);
                let _ = writeln!(notes, "{}: {count} errors, such as {error}", phase.name);
            }
            if phase.last_known_quotes + phase.unknown_quotes > 0 {
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
            "CPU us/request",
            "KB/request",
            "errors",
            "stale answers",
        ];
        let mut rows = vec![heads.map(String::from)];
        for (number, phase) in self.phases.iter().enumerate() {
            if self.begins_group(number) {
                rows.push(heads.map(|_| String::new()));
            }
            rows.push([
                phase.name.clone(),
                grouped(phase.requests_per_second.round() as u64),
                grouped(phase.writes_per_second.round() as u64),
                format!("{:.1}", phase.p50_ms),
                format!("{:.1}", phase.p99_ms),
                format!("{:.2}", phase.queries_per_request),
                grouped(phase.cpu_us_per_request.round() as u64),
                format!("{:.1}", phase.kilobytes_per_request()),
                grouped(phase.errors),
                grouped(phase.stale_answers),
            ]);
        }
        aligned(&rows)
    }

    /// The four figures that tell the phases apart, as bars.
    pub fn svg(&self) -> String {
        let panels: [(&str, Figure); 4] = [
            ("Requests per second (longer is better)", |phase| phase.requests_per_second),
            ("p99: 99 of 100 answers come within so many milliseconds (shorter is better)", |phase| {
                phase.p99_ms
            }),
            ("Database queries per request (shorter is better)", |phase| phase.queries_per_request),
            ("Kilobytes per request (shorter is better)", Phase::kilobytes_per_request),
        ];
        let panel_height = PANEL_HEAD + self.offset(self.phases.len()) + PANEL_GAP;
        let height = TOP + panels.len() as u32 * panel_height;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{MARGIN}\" y=\"30\" font-size=\"18\" font-weight=\"bold\" fill=\"#1c2b33\">storefront</text>\n\
             <text x=\"{MARGIN}\" y=\"50\" fill=\"#5b6b73\">{} clients, {} of them writing; {}; {} of our answers were stale</text>\n",
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

    /// How far below the first bar the one of this phase is, with a gap wherever something else is asked for.
    fn offset(&self, number: usize) -> u32 {
        let gaps = (1..=number).filter(|&number| self.begins_group(number)).count();
        number as u32 * BAR_STEP + gaps as u32 * GROUP_GAP
    }

    fn begins_group(&self, number: usize) -> bool {
        number > 0 && self.phases.get(number).is_some_and(|phase| phase.load != self.phases[number - 1].load)
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
            let y = top + PANEL_HEAD + self.offset(number);
            let length = (value / longest * f64::from(BAR_ROOM)).max(1.0);
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#1c2b33\">{}</text>\
                 <rect x=\"{BAR_LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" fill=\"#1c2b33\">{}</text>",
                BAR_LEFT - 8,
                y + 14,
                escaped(&phase.name),
                if phase.usual { USUAL } else { colour(phase.load) },
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
        let mut line = format!("{:<1$}", row[0], width(0));
        for (column, cell) in row.iter().enumerate().skip(1) {
            let _ = write!(line, "  {cell:>0$}", width(column));
        }
        let _ = writeln!(table, "{}", line.trim_end());
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

fn colour(load: Load) -> &'static str {
    match load {
        Load::Catalogue | Load::Documents => "#2a9d78",
        Load::Pages => "#4f8fba",
        Load::Recommendations => "#d9824b",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const WIDTH: u32 = 920;
const MARGIN: u32 = 24;
const TOP: u32 = 74;
const PANEL_HEAD: u32 = 26;
const PANEL_GAP: u32 = 24;
const BAR_STEP: u32 = 25;
const BAR_HEIGHT: u32 = 19;
const GROUP_GAP: u32 = 10;
const BAR_LEFT: u32 = 320;
/// Leaves room for the figure behind the longest bar.
const BAR_ROOM: u32 = WIDTH - BAR_LEFT - 90;
const USUAL: &str = "#9aa7ad";

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
            load: Load::Pages,
            usual: false,
            requests: 8 * requests_per_second as u64,
            requests_per_second,
            p50_ms: 1.234,
            p99_ms: 45.6,
            queries_per_request: 3.0,
            cpu_us_per_request: 1_234.5,
            bytes_sent: 12_345_678,
            writes_per_second: 10.0,
            errors: 1234,
            first_error: None,
            last_known_quotes: 0,
            unknown_quotes: 0,
            judged: 1,
            stale_answers,
            wrong_answers: 0,
        }
    }

    #[test]
    fn the_table_lines_up() {
        let mut list = phase("catalogue", 100.0, 0);
        list.load = Load::Catalogue;
        let report = report(&[phase("bare", 987.6, 0), phase("+ pool", 12_345.0, 2), list]);
        let expected = "\
phase      requests/s  writes/s  p50 ms  p99 ms  queries/request  CPU us/request  KB/request  errors  stale answers
-------------------------------------------------------------------------------------------------------------------
bare              988        10     1.2    45.6             3.00           1,235         1.6   1,234              0
+ pool         12,345        10     1.2    45.6             3.00           1,235         0.1   1,234              2

catalogue         100        10     1.2    45.6             3.00           1,235        15.4   1,234              0
";
        assert_eq!(report.table(), expected);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn the_verdict_wants_judged_answers_and_none_of_them_stale() {
        let mut silent = phase("+ cache", 0.0, 0);
        silent.judged = 0;
        assert!(report(&[phase("bare", 1.0, 0)]).verdict().is_ok());
        assert!(report(&[phase("bare", 1.0, 0), silent]).verdict().unwrap_err().contains("\"+ cache\""));
        assert!(report(&[phase("bare", 1.0, 1)]).verdict().unwrap_err().starts_with("STALE: 1 of our 1 "));
    }

    #[test]
    fn the_usual_stack_may_be_stale_but_not_wrong() {
        let mut usual = phase("usual", 1.0, 7);
        usual.usual = true;
        assert!(report(&[phase("bare", 1.0, 0), usual.clone()]).verdict().is_ok());
        usual.wrong_answers = 1;
        assert!(report(&[phase("bare", 1.0, 0), usual]).verdict().unwrap_err().starts_with("WRONG: 1 "));
    }

    #[test]
    fn the_plot_has_a_bar_per_phase_and_figure_and_escapes_its_texts() {
        let svg = report(&[phase("bare", 1.0, 0), phase("<&>", 0.0, 0)]).svg();
        assert_eq!(svg.matches("<rect").count(), 1 + 4 * 2);
        assert!(svg.contains("a &lt;trace&gt; &amp; more") && svg.contains("&lt;&amp;&gt;"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
