//! Opens connections at a rate, keeps them open, and counts failed and lost ones.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_tokio::{ConnectionEvent, Error, Handle};
use serde_json::json;
use tokio::time::sleep;

use super::clients::{Attempt, Clients};
use super::counts::{Counts, increase};
use super::naming::Role;
use super::{Bench, percentiles_as_json, percentiles_in_words, rate, show};
use crate::failure::{Failure, fail};
use crate::{link, output};

/// The result of a run.
#[derive(Debug, Default)]
struct Outcome {
    /// How long it took to open the connections.
    opening: Duration,
    /// How long they were kept open afterwards.
    held: Duration,
    /// How many attempts failed, by reason.
    failed: BTreeMap<String, u64>,
    lost: u64,
    /// How many were open at the end.
    connected: u64,
}

/// Connects `count` clients, and keeps them connected for the duration.
pub(super) async fn hold(bench: &Bench, clients: &Rc<Clients>, count: u32) -> Result<(), Failure> {
    let counts = Counts::new(bench.per_second);
    let lost = Rc::new(Cell::new(0));
    let mut outcome = Outcome::default();
    let mut handles = Vec::new();
    let start = Instant::now();
    let mut opened = None;
    let work = async {
        let each = |attempt: Attempt| match attempt.result {
            Ok(handle) => {
                counts.opened(attempt.took);
                let counts = Rc::clone(&counts);
                tokio::task::spawn_local(watch(handle.clone(), counts, Rc::clone(&lost)));
                handles.push(handle);
            }
            Err(failure) => *outcome.failed.entry(failure.to_string()).or_default() += 1,
        };
        clients.connect(Role::Idle, count, each).await;
        opened = Some(Instant::now());
        sleep(bench.duration).await;
    };
    let opening = count.checked_div(bench.connect_rate).unwrap_or(0);
    let length = bench.duration + Duration::from_secs(opening.into());
    let interrupted = tokio::select! {
        () = work => false,
        never = show::progress(bench, &counts, length) => match never {},
        () = mqtt_broker_host::signals::interrupted() => true,
    };
    let opened = opened.unwrap_or_else(Instant::now);
    outcome.opening = opened - start;
    outcome.held = opened.elapsed();
    outcome.lost = lost.get();
    outcome.connected = counts.connected.get();
    close(handles).await;
    if bench.json {
        output(format_args!("{}\n", outcome.to_json(bench, &counts)));
    } else {
        output(format_args!("{}", outcome.to_table(bench, &counts)));
    }
    let failed: u64 = outcome.failed.values().sum();
    match (interrupted, failed, outcome.lost) {
        (true, ..) => Err(fail("interrupted")),
        (_, 0, 0) => Ok(()),
        (_, failed, lost) => Err(fail(format!(
            "{failed} connections failed and {lost} were lost"
        ))),
    }
}

/// Counts lost and restored connections of a client until it is closed.
async fn watch(handle: Handle, counts: Rc<Counts>, lost: Rc<Cell<u64>>) {
    let mut events = handle.events();
    drop(handle);
    // The events begin with those of attempts before the first connection, which is already counted.
    let (mut is_up, mut was_up) = (false, false);
    while let Some(event) = events.next().await {
        match event {
            ConnectionEvent::Connected(_) => {
                if was_up {
                    increase(&counts.connected);
                }
                (is_up, was_up) = (true, true);
            }
            ConnectionEvent::Lost(Error::Stopped) | ConnectionEvent::Stopped(Error::Stopped) => {
                return;
            }
            ConnectionEvent::Lost(_) | ConnectionEvent::Stopped(_) if is_up => {
                is_up = false;
                increase(&lost);
                counts.connected.set(counts.connected.get() - 1);
            }
            _ => {}
        }
    }
}

/// Ends all connections at once.
async fn close(handles: Vec<Handle>) {
    let closing: Vec<_> = handles
        .iter()
        .map(|handle| handle.close(link::GOODBYE))
        .collect();
    for close in closing {
        close.await;
    }
}

impl Outcome {
    fn to_table(&self, bench: &Bench, counts: &Counts) -> String {
        let times = counts.times.borrow();
        let opening = self.opening.as_secs_f64();
        let mut table = format!(
            "clients       {}\nversion       {}\nopened        {} in {opening:.2} s ({:.0} a second)\n\
             held          {:.2} s\nlost          {}\nconnected     {} at the end\nconnecting    {}\n",
            bench.connect.unwrap_or_default(),
            bench.protocol_version,
            times.len(),
            rate(times.len(), opening),
            self.held.as_secs_f64(),
            self.lost,
            self.connected,
            percentiles_in_words(&times),
        );
        for (reason, count) in &self.failed {
            table += &format!("failed        {count}: {reason}\n");
        }
        table
    }

    fn to_json(&self, bench: &Bench, counts: &Counts) -> serde_json::Value {
        let times = counts.times.borrow();
        let opening = self.opening.as_secs_f64();
        json!({
            "clients": bench.connect,
            "version": bench.protocol_version.to_string(),
            "connect_rate": bench.connect_rate,
            "opened": times.len(),
            "opening_seconds": opening,
            "opened_per_second": rate(times.len(), opening),
            "failed": self.failed,
            "held_seconds": self.held.as_secs_f64(),
            "lost": self.lost,
            "connected": self.connected,
            "connect_us": percentiles_as_json(&times),
        })
    }
}
