//! Tells people at a terminal how far a run is; tells a log file which phase has begun.

use std::{
    io::{self, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time;

pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// On standard error, so that standard output holds nothing but results.
    pub fn new(total: Duration) -> Self {
        let steps = total.as_millis() / STEP.as_millis();
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:30.cyan/blue} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    pub fn begin(&self, what: impl Into<String>) {
        let what = what.into();
        if self.bar.is_hidden() {
            // Nobody need listen.
            let _ = writeln!(io::stderr(), "{what}");
        }
        self.bar.set_message(what);
    }

    /// Waits, and shows it.
    pub async fn wait(&self, duration: Duration) {
        let end = time::Instant::now() + duration;
        while time::Instant::now() < end {
            time::sleep_until(end.min(time::Instant::now() + STEP)).await;
            self.bar.inc(1);
        }
    }
}

/// Also on errors and on signals: what is said next starts on a clean line.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const STEP: Duration = Duration::from_millis(100);
