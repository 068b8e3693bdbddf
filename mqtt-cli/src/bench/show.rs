//! Shows the progress of a run: a line for each second, or a progress bar on a terminal.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde_json::json;
use tokio::time::{interval, interval_at};

use super::counts::Counts;
use super::{Bench, percentiles_as_json, percentiles_in_words};
use crate::output;

const SECOND: Duration = Duration::from_secs(1);
/// How often the bar is drawn.
const FRAME: Duration = Duration::from_millis(200);

/// Prints the counters until the caller drops this. `length` is the time of the run.
pub(super) async fn progress(bench: &Bench, counts: &Counts, length: Duration) -> Infallible {
    if bench.per_second {
        lines(bench, counts).await
    } else if std::io::stderr().is_terminal() {
        bar(bench, counts, length).await
    } else {
        std::future::pending().await
    }
}

/// The counters at one time.
#[derive(Clone, Copy, Default)]
struct Sample {
    connected: u64,
    published: u64,
    received: u64,
}

impl Sample {
    fn of(counts: &Counts) -> Self {
        Self {
            connected: counts.connected.get(),
            published: counts.published.get(),
            received: counts.received.get(),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            connected: self.connected,
            published: self.published - before.published,
            received: self.received - before.received,
        }
    }

    fn to_json(self, second: u64, times: &Histogram<u64>) -> serde_json::Value {
        json!({
            "second": second,
            "connected": self.connected,
            "published": self.published,
            "received": self.received,
            "latency_us": percentiles_as_json(times),
        })
    }

    fn to_line(self, bench: &Bench, second: u64, times: &Histogram<u64>) -> String {
        let times = percentiles_in_words(times);
        if bench.connect.is_some() {
            return format!("{second:>4} s  {} connected, {times}", self.connected);
        }
        format!(
            "{second:>4} s  {} published, {} received, {times}",
            self.published, self.received
        )
    }
}

async fn lines(bench: &Bench, counts: &Counts) -> Infallible {
    let mut before = Sample::of(counts);
    let mut pace = interval_at(tokio::time::Instant::now() + SECOND, SECOND);
    let mut second = 0;
    loop {
        pace.tick().await;
        second += 1;
        let now = Sample::of(counts);
        let (sample, times) = (now.since(before), counts.take_recent());
        if bench.json {
            output(format_args!("{}\n", sample.to_json(second, &times)));
        } else {
            output(format_args!("{}\n", sample.to_line(bench, second, &times)));
        }
        before = now;
    }
}

async fn bar(bench: &Bench, counts: &Counts, length: Duration) -> Infallible {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {msg}");
    let bar = ProgressBar::new(millis(length))
        .with_finish(ProgressFinish::AndClear)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let start = Instant::now();
    let mut pace = interval(FRAME);
    let mut before = Sample::of(counts);
    loop {
        pace.tick().await;
        let now = Sample::of(counts);
        bar.set_position(millis(start.elapsed()));
        bar.set_message(match bench.connect {
            Some(count) => format!("{} of {count} connected", now.connected),
            None => format!(
                "{} received, {} a second",
                now.received,
                now.since(before).received * 5
            ),
        });
        before = now;
    }
}
