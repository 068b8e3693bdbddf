//! Brokers side by side under the same load, on one machine with two cores: `brokers [ROW]... [--seconds N] [--rounds N]
//! [--only BROKER] [--store | --engine]`. `scripts/brokers.sh` builds what it needs and runs it.
//!
//! The load comes from one thread that writes prepared packets and reads only the borders of packets, so that the broker limits
//! the rate. The result is the number of messages delivered per second of the broker's processor time, which the kernel counts
//! exactly and which does not depend on other programs; the rates are printed as well.

mod broker;
mod client;
mod connections;
mod divided;
mod load;
mod relay;
mod relayed;
mod stored;
mod taken_over;

use std::time::Duration;

use mqtt_proto::QoS;

use crate::broker::{BROKERS, Broker, ENGINES, STORES};
use crate::client::Peer;
use crate::connections::{Bad, hostile, idle};
use crate::load::{LOADS, Load, latency, measure, middle};

/// The options of the command line.
struct Table {
    brokers: Vec<&'static str>,
    /// The sessions of subscribers outlive their connections.
    lasting: bool,
    /// Some brokers have a journal on servers of NATS.
    has_engine: bool,
    rounds: usize,
    span: Duration,
}

fn main() {
    let mut rows = Vec::new();
    let (mut seconds, mut rounds, mut only, mut brokers) = (2.0, 3, None, &BROKERS[..]);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--relay" => return relay::relay(&value()),
            "--seconds" => seconds = value().parse().expect("seconds"),
            "--rounds" => rounds = value().parse().expect("a number"),
            "--store" => brokers = &STORES,
            "--engine" => brokers = &ENGINES,
            "--only" => only = Some(value()),
            _ => rows.push(argument),
        }
    }
    let wanted = |name: &str| rows.is_empty() || rows.iter().any(|row| name.contains(row.as_str()));
    let is_asked = |name: &&str| only.as_deref().is_none_or(|only| *name == only);
    let lasting = brokers != BROKERS;
    let has_engine = brokers == ENGINES;
    let table = Table {
        brokers: brokers.iter().copied().filter(is_asked).collect(),
        lasting,
        has_engine,
        rounds,
        span: Duration::from_secs_f64(seconds),
    };
    table.head();
    if lasting {
        return table.stored(wanted);
    }
    for load in LOADS.into_iter().filter(|load| wanted(load.name)) {
        table.load(load);
    }
    if wanted("latency") {
        table.row("QoS 1 at 1,000 a second, latency p50", |broker| {
            let run = |_| latency(&Broker::start(broker), table.span, table.peer(broker));
            let mut all: Vec<f64> = (0..table.rounds).map(run).collect();
            format!("{:.0} us", middle(&mut all))
        });
    }
    if wanted("idle") {
        table.row(
            "memory per idle connection, at 9,000",
            |broker| match broker {
                "relay" => "-".to_owned(),
                broker => format!("{:.0} B", idle(&Broker::start(broker), 9_000)),
            },
        );
    }
    for (name, bad) in [
        ("silent", Bad::Silent),
        ("a byte a second", Bad::Slow),
        ("garbage", Bad::Garbage),
    ] {
        if wanted(name) {
            table.hostile(name, bad);
        }
    }
}

impl Table {
    fn peer(&self, broker: &str) -> Peer {
        match broker {
            "relay" => Peer::Relay,
            _ if self.lasting => Peer::Lasting,
            _ => Peer::Broker,
        }
    }

    /// What a store costs.
    fn stored(&self, wanted: impl Fn(&str) -> bool) {
        let loads = LOADS.into_iter().filter(|load| load.qos > QoS::AtMostOnce);
        for load in loads.filter(|load| wanted(load.name)) {
            self.load(load);
        }
        if wanted("QoS 2 at 1,000 a second, latency p50") {
            self.row("QoS 2 at 1,000 a second, latency p50", |broker| {
                let run = |_| stored::paced_at_qos2(&Broker::start(broker), self.span);
                let mut all: Vec<f64> = (0..self.rounds).map(run).collect();
                format!("{:.0} us", middle(&mut all))
            });
        }
        for others in [0, 10, 100] {
            let name = format!("QoS 0 beside {others} at QoS 2 a second, latency p50, p99");
            if wanted(&name) {
                self.row(&name, |broker| {
                    let run = |_| stored::beside_qos2(&Broker::start(broker), self.span, others);
                    let (mut all, mut late): (Vec<_>, Vec<_>) = (0..self.rounds).map(run).unzip();
                    format!("{:.0}, {:.0} us", middle(&mut all), middle(&mut late))
                });
            }
        }
        let names = [
            ("QoS 1 at 1,000 a second, latency p50", None),
            (
                "one at a time, QoS 1: delivered, acknowledged",
                Some(QoS::AtLeastOnce),
            ),
            (
                "one at a time, QoS 2: delivered, acknowledged",
                Some(QoS::ExactlyOnce),
            ),
        ];
        for (name, qos) in names.into_iter().filter(|(name, _)| wanted(name)) {
            self.row(name, |broker| self.times(broker, qos));
        }
        if self.has_engine {
            if wanted("take over") {
                taken_over::measure();
            }
            if wanted("relayed") {
                relayed::measure(self.rounds, self.span);
            }
            if wanted("divided") {
                divided::measure(self.rounds, self.span);
            }
            return;
        }
        if wanted("flush") {
            let floor = stored::flush(&std::env::temp_dir(), self.span);
            println!("one append of 200 bytes and its flush: {floor:.0} us");
        }
        if wanted("restart") {
            stored::restart();
        }
    }

    fn times(&self, broker: &str, qos: Option<QoS>) -> String {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let broker = Broker::start(broker);
            let Some(qos) = qos else {
                first.push(latency(&broker, self.span, Peer::Lasting));
                continue;
            };
            let (delivered, acknowledged) = stored::one_at_a_time(&broker, self.span, qos);
            first.push(delivered);
            second.push(acknowledged);
        }
        if second.is_empty() {
            return format!("{:.0} us", middle(&mut first));
        }
        format!("{:.0}, {:.0} us", middle(&mut first), middle(&mut second))
    }

    fn head(&self) {
        self.row("", str::to_owned);
        self.row("---", |_| "---:".to_owned());
    }

    /// Prints a row with one cell for each broker.
    fn row(&self, name: &str, cell: impl Fn(&str) -> String) {
        let cells: Vec<_> = self.brokers.iter().map(|broker| cell(broker)).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }

    /// Measures a load with each broker in turn, and prints the median round of each.
    fn load(&self, load: Load) {
        let mut outcomes = vec![Vec::new(); self.brokers.len()];
        for _ in 0..self.rounds {
            for (broker, outcomes) in self.brokers.iter().zip(&mut outcomes) {
                let running = Broker::start(broker);
                outcomes.push(measure(&running, load, self.span, self.peer(broker)));
            }
        }
        let cells: Vec<String> = outcomes
            .iter_mut()
            .map(|outcomes| {
                outcomes.sort_by(|a, b| a.micros_each().total_cmp(&b.micros_each()));
                let middle = outcomes[outcomes.len() / 2];
                format!("{:.0}k ({:.2})", middle.rate() / 1e3, middle.micros_each())
            })
            .collect();
        println!("| {} | {} |", load.name, cells.join(" | "));
    }

    fn hostile(&self, name: &str, bad: Bad) {
        let name = format!("a pair beside 1,000 connections, {name}: times slower");
        self.row(&name, |broker| {
            if broker == "relay" {
                return "-".to_owned();
            }
            let run = |_| hostile(&Broker::start(broker), bad, self.span);
            let mut all: Vec<f64> = (0..self.rounds).map(run).collect();
            format!("{:.2}", middle(&mut all))
        });
    }
}
