//! `mqtt bench`: sends load to a broker, or keeps connections to it open, and measures it.

mod clients;
mod connections;
mod counts;
mod load;
mod naming;
mod show;

use std::rc::Rc;
use std::time::Duration;

use clap::{ArgAction, Args};
use hdrhistogram::Histogram;
use mqtt_tokio::proto::{QoS, Version};
use serde_json::json;
use tokio::task::LocalSet;

use crate::args::{qos, seconds, version};
use crate::failure::{Failure, fail};
use crate::tls::TlsArgs;

/// Measures a broker: throughput, the time from publisher to subscriber, and with --connect the time to connect.
///
/// Each publisher has a topic, and every subscriber gets all topics, or with --pairs the topic of its number. With --connect the
/// clients only connect, and stay connected for the time of --duration. Clients and measurement share one thread; two cores are
/// enough for this program and a broker on the same machine. Times have three exact digits. Exits with 1 if messages at QoS 1 or
/// 2 were lost, or connections failed or were lost.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, after_help = EXAMPLES)]
pub(crate) struct Bench {
    /// Host name or address of the broker
    #[arg(short = 'h', long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// Port of the broker [default: 1883, with TLS 8883, with WebSocket 80 and 443]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Local address to connect from; several are used in turn
    #[arg(short = 'A', long = "from", value_name = "ADDRESS")]
    from: Vec<String>,
    /// Client identifiers; needs %i [default: bench-PROCESS-pub-%i and bench-PROCESS-sub-%i]
    #[arg(short = 'i', long, value_name = "ID")]
    id: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD")]
    password: Option<String>,
    /// Protocol version: 3.1, 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1", value_parser = version)]
    protocol_version: Version,
    /// Keep-alive in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u16,
    /// Keep the sessions on the broker, and resume existing ones; needs --id
    #[arg(short = 'c', long, requires = "id")]
    disable_clean_session: bool,
    /// How long the broker keeps the sessions, in seconds (5) [default: for ever with -c, else 0]
    #[arg(short = 'x', long, value_name = "SECONDS")]
    session_expiry_interval: Option<u32>,
    /// Connect this many clients that neither publish nor subscribe
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        conflicts_with_all = ["publishers", "subscribers", "pairs", "rate", "size", "qos", "topic", "ramp"])]
    connect: Option<u32>,
    /// Connections to open per second; 0 opens up to 256 at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    connect_rate: u32,
    /// Repeated attempts to connect a client
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    retries: u32,
    /// Number of publishers
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    publishers: u32,
    /// Number of subscribers
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    subscribers: u32,
    /// Give each subscriber the topic of one publisher; needs the same number of both
    #[arg(long)]
    pairs: bool,
    /// Messages per second of each publisher; 0 publishes as fast as the broker takes them
    #[arg(short, long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    rate: u32,
    /// Start the publishers one after another within this time, in seconds, so that the load increases
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    ramp: Duration,
    /// Bytes of a payload, at least 8
    #[arg(short, long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=16_777_216))]
    size: u32,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Time to publish, or to keep the connections open, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// Topic of each publisher; /%i is added if it has no placeholder [default: mqtt-bench/PROCESS/%i]
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Print a line for each second
    #[arg(long)]
    per_second: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    tls: TlsArgs,
}

const EXAMPLES: &str = "\
In --topic, --username and --id, %i is the number of the client, %c its identifier and %u its user name. Publishers are numbered
from 0, subscribers go on after them. A level of the topic with a placeholder is a + in the filter of the subscribers.

Examples:
  mqtt bench --publishers 10 --rate 100 -q 1 -d 30 --per-second
      10 publishers with 100 messages a second each, and one subscriber
  mqtt bench --publishers 50 --subscribers 50 --pairs --ramp 20 --rate 10 -d 60 --json
      50 conversations that begin within 20 seconds
  mqtt bench --connect 20000 --connect-rate 500 -A 127.0.0.2 -A 127.0.0.3 -d 60
      20,000 connections that are opened by 500 a second and held for a minute
  mqtt bench -h broker.example --cafile ca.pem -i meter-%i -u %c -t site/%c/power
      over TLS, with a user name and a topic for each client";

impl Bench {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if self.pairs && self.publishers != self.subscribers {
            return Err(fail("--pairs needs as many --publishers as --subscribers"));
        }
        if self.session_expiry_interval.is_some() && !self.protocol_version.is_v5() {
            return Err(fail("-x needs MQTT 5: give -V 5"));
        }
        let bench = Rc::new(self);
        let clients = Rc::new(clients::Clients::new(&bench)?);
        LocalSet::new()
            .run_until(async {
                match bench.connect {
                    Some(count) => connections::hold(&bench, &clients, count).await,
                    None => load::measure(&bench, &clients).await,
                }
            })
            .await
    }
}

/// The longest time that is measured: an hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// A histogram of microseconds with three exact digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("the bounds are possible")
}

/// The percentiles of a report, by their names.
const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

fn percentiles_in_words(times: &Histogram<u64>) -> String {
    let mut words = String::new();
    for (name, quantile) in PERCENTILES {
        words += &format!("{name} {} us, ", times.value_at_quantile(quantile));
    }
    format!("{words}longest {} us", times.max())
}

fn percentiles_as_json(times: &Histogram<u64>) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    for (name, quantile) in PERCENTILES {
        object.insert(name.to_owned(), json!(times.value_at_quantile(quantile)));
    }
    object.insert("max".to_owned(), json!(times.max()));
    object.into()
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(events: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        events as f64 / seconds
    } else {
        0.0
    }
}
