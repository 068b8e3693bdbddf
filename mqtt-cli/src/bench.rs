//! `mqtt bench`: sends load to a broker and measures it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::IsTerminal;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{ArgAction, Args};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use mqtt_tokio::proto::{Properties, QoS, Subscription, TopicFilter, TopicName, Version};
use mqtt_tokio::{Handle, Messages, Options, Outgoing, QoS0Overflow, Ticket};
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::args::{qos, seconds, version};
use crate::failure::{Failure, fail};
use crate::tls::TlsArgs;
use crate::{link, output};

/// Measures a broker: throughput, and the time from publisher to subscriber.
///
/// Each publisher has a topic of its own, and every subscriber gets all of them, or with --pairs the topic of its number.
/// Clients and measurement share one thread; two cores are enough for this program and a broker beside it. Latencies are
/// exact to three digits. Exits with 1 if messages of QoS 1 or 2 were lost.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Bench {
    /// Host name or address of the broker
    #[arg(short = 'h', long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// Port of the broker [default: 1883, with TLS 8883, with WebSocket 80 and 443]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD")]
    password: Option<String>,
    /// Protocol version: 3.1, 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1", value_parser = version)]
    protocol_version: Version,
    /// Publishers
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    publishers: u32,
    /// Subscribers
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    subscribers: u32,
    /// Give each subscriber the topic of one publisher; needs as many of both
    #[arg(long)]
    pairs: bool,
    /// Messages per second of each publisher; 0 publishes as fast as the broker takes them
    #[arg(short, long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    rate: u32,
    /// Bytes of a payload, 8 at least
    #[arg(short, long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=16_777_216))]
    size: u32,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// How long to publish, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// The topics are below this
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// How many acknowledgements one publisher awaits at once.
const WINDOW: usize = 1_000;
/// After so long without any message, the missing ones count as lost.
const SILENCE: Duration = Duration::from_secs(2);
/// The longest latency that is measured: an hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// Counters that all clients share.
struct Counts {
    start: Instant,
    published: AtomicU64,
    acknowledged: AtomicU64,
    received: AtomicU64,
}

/// What one subscriber received.
struct Seen {
    latencies: Histogram<u64>,
    last: Option<Instant>,
}

/// The result of a run.
struct Report {
    seconds: f64,
    published: u64,
    acknowledged: u64,
    expected: u64,
    received: u64,
    latencies: Histogram<u64>,
}

impl Bench {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if self.pairs && self.publishers != self.subscribers {
            return Err(fail("--pairs needs as many --publishers as --subscribers"));
        }
        let bench = Rc::new(self);
        LocalSet::new().run_until(bench.measure()).await
    }

    async fn measure(self: Rc<Self>) -> Result<(), Failure> {
        let prefix = self
            .topic
            .clone()
            .unwrap_or_else(|| format!("mqtt-bench/{}", std::process::id()));
        let counts = Arc::new(Counts::new());
        let mut subscribers = JoinSet::new();
        let mut handles = Vec::new();
        for n in 0..self.subscribers {
            let filter = if self.pairs {
                format!("{prefix}/{n}")
            } else {
                format!("{prefix}/+")
            };
            let (handle, messages) = self.subscriber(n, &filter).await?;
            handles.push(handle);
            subscribers.spawn_local(count(messages, Arc::clone(&counts)));
        }
        let mut publishers = JoinSet::new();
        let mut connected = Vec::new();
        for n in 0..self.publishers {
            connected.push(self.connect("pub", n).await?);
        }
        let start = Instant::now();
        for (n, handle) in connected.into_iter().enumerate() {
            let topic = format!("{prefix}/{n}");
            publishers.spawn_local(Rc::clone(&self).publisher(handle, topic, Arc::clone(&counts)));
        }
        let interrupted = tokio::select! {
            published = all(&mut publishers) => published.map(|()| false)?,
            never = self.show(&counts, start) => match never {},
            () = mqtt_broker_host::signals::interrupted() => true,
        };
        publishers.shutdown().await;
        let expected = self.expected(&counts);
        if !interrupted {
            counts.settle(expected).await;
        }
        // The streams end with their connections.
        for handle in handles {
            handle.close(Duration::ZERO).await;
        }
        let report = counts.report(subscribers, start, expected).await?;
        if self.json {
            output(format_args!("{}\n", self.to_json(&report)));
        } else {
            output(format_args!("{}", self.to_table(&report)));
        }
        if interrupted {
            return Err(fail("interrupted"));
        }
        match report.expected.saturating_sub(report.received) {
            lost if lost > 0 && self.qos > QoS::AtMostOnce => {
                Err(fail(format!("{lost} messages were lost")))
            }
            _ => Ok(()),
        }
    }

    /// Returns how many messages the subscribers should receive.
    fn expected(&self, counts: &Counts) -> u64 {
        let receivers = if self.pairs {
            1
        } else {
            u64::from(self.subscribers)
        };
        let published = counts.published.load(Ordering::Relaxed);
        published.saturating_mul(receivers)
    }

    async fn connect(&self, role: &str, n: u32) -> Result<Handle, Failure> {
        let version = self.protocol_version;
        let mut options = Options::new(self.host.clone(), self.port.unwrap_or(1883));
        options.version = version;
        options.client_id = format!("bench-{}-{role}-{n}", std::process::id());
        options.user_name.clone_from(&self.username);
        options.password = self.password.clone().map(String::into_bytes);
        options.back_off.attempts = Some(1);
        // Messages must wait when they cannot be counted at once, not be dropped.
        options.qos0_overflow = QoS0Overflow::PauseReading;
        let layers = self.tls.apply(&mut options, self.port)?;
        let dial = link::Dial::new(&options, layers, None);
        let handle = link::start(options, dial, false);
        handle
            .first_attempt()
            .await
            .map_err(|error| Failure::connection(&error, version))?;
        Ok(handle)
    }

    async fn subscriber(&self, n: u32, filter: &str) -> Result<(Handle, Messages), Failure> {
        let handle = self.connect("sub", n).await?;
        let filter =
            TopicFilter::new(filter).map_err(|error| fail(format!("topic {filter:?}: {error}")))?;
        let filters = [Subscription::new(filter, self.qos)];
        let messages = handle.subscribe_all(&filters, Properties::EMPTY).await?;
        Ok((handle, messages))
    }

    async fn publisher(
        self: Rc<Self>,
        handle: Handle,
        topic: String,
        counts: Arc<Counts>,
    ) -> Result<(), Failure> {
        let topic =
            TopicName::new(&topic).map_err(|error| fail(format!("topic {topic:?}: {error}")))?;
        let end = tokio::time::Instant::now() + self.duration;
        let mut pace = (self.rate > 0).then(|| {
            let mut pace = interval(Duration::from_secs(1) / self.rate);
            // After a delay it publishes in a burst, so that the average rate is right.
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            pace
        });
        let mut payload = vec![b'.'; usize::try_from(self.size).unwrap_or(usize::MAX)];
        let mut tickets = VecDeque::new();
        let publish = async {
            loop {
                if let Some(pace) = &mut pace {
                    pace.tick().await;
                }
                if let Some(stamp) = payload.first_chunk_mut() {
                    *stamp = counts.now_micros().to_be_bytes();
                }
                let ticket = handle
                    .publish_message(&Outgoing::new(topic, self.qos, &payload))
                    .await?;
                counts.published.fetch_add(1, Ordering::Relaxed);
                tickets.push_back(ticket);
                if tickets.len() >= WINDOW {
                    acknowledged(&mut tickets, &counts).await?;
                }
                // A single publisher would never wait, and other tasks would not run.
                tokio::task::consume_budget().await;
            }
        };
        tokio::select! {
            biased;
            () = sleep_until(end) => {}
            done = publish => { let _: Result<(), Failure> = done; return done; }
        }
        while !tickets.is_empty() {
            acknowledged(&mut tickets, &counts).await?;
        }
        handle.close(link::GOODBYE).await;
        Ok(())
    }

    /// Shows a progress bar on a terminal.
    async fn show(&self, counts: &Counts, start: Instant) -> Infallible {
        if !std::io::stderr().is_terminal() {
            return std::future::pending().await;
        }
        let millis = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        let style = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {msg}");
        let bar = ProgressBar::new(millis)
            .with_finish(ProgressFinish::AndClear)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut pace = interval(Duration::from_millis(200));
        let mut before = 0;
        loop {
            pace.tick().await;
            let received = counts.received.load(Ordering::Relaxed);
            bar.set_position(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
            bar.set_message(format!(
                "{received} received, {} a second",
                (received - before) * 5
            ));
            before = received;
        }
    }

    fn to_table(&self, report: &Report) -> String {
        let micros = |quantile| report.latencies.value_at_quantile(quantile);
        let rate = rate(report.received, report.seconds);
        let lost = report.expected.saturating_sub(report.received);
        let acknowledged = match self.qos {
            QoS::AtMostOnce => "-".to_owned(),
            _ => report.acknowledged.to_string(),
        };
        format!(
            "publishers    {}\nsubscribers   {}\nversion       {}\nQoS           {}\npayload       {} bytes\nseconds       {:.2}\n\
             published     {}\nacknowledged  {acknowledged}\nreceived      {} ({rate:.0} a second)\nlost          {lost}\n\
             latency       p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, longest {} us\n",
            self.publishers,
            self.subscribers,
            self.protocol_version,
            self.qos.get(),
            self.size,
            report.seconds,
            report.published,
            report.received,
            micros(0.5),
            micros(0.9),
            micros(0.99),
            micros(0.999),
            report.latencies.max(),
        )
    }

    fn to_json(&self, report: &Report) -> serde_json::Value {
        let micros = |quantile| report.latencies.value_at_quantile(quantile);
        json!({
            "publishers": self.publishers,
            "subscribers": self.subscribers,
            "pairs": self.pairs,
            "version": self.protocol_version.to_string(),
            "qos": self.qos.get(),
            "payload_bytes": self.size,
            "rate": self.rate,
            "seconds": report.seconds,
            "published": report.published,
            "acknowledged": report.acknowledged,
            "expected": report.expected,
            "received": report.received,
            "received_per_second": rate(report.received, report.seconds),
            "lost": report.expected.saturating_sub(report.received),
            "latency_us": {
                "p50": micros(0.5),
                "p90": micros(0.9),
                "p99": micros(0.99),
                "p99.9": micros(0.999),
                "max": report.latencies.max(),
            },
        })
    }
}

/// Waits for all publishers, and returns the first error.
async fn all(publishers: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    let mut done = Ok(());
    while let Some(publisher) = publishers.join_next().await {
        let ended = publisher.unwrap_or_else(|error| Err(fail(error)));
        done = done.and(ended);
    }
    done
}

impl Counts {
    /// Waits for the subscribers, whose streams have ended, and combines their results.
    async fn report(
        &self,
        mut subscribers: JoinSet<Seen>,
        start: Instant,
        expected: u64,
    ) -> Result<Report, Failure> {
        let mut latencies = histogram();
        let mut last = None;
        while let Some(seen) = subscribers.join_next().await {
            let seen = seen.map_err(fail)?;
            latencies.add(&seen.latencies).map_err(fail)?;
            last = last.max(seen.last);
        }
        let end = last.unwrap_or_else(Instant::now);
        Ok(Report {
            seconds: end.duration_since(start).as_secs_f64(),
            published: self.published.load(Ordering::Relaxed),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            expected,
            received: self.received.load(Ordering::Relaxed),
            latencies,
        })
    }

    fn new() -> Self {
        Self {
            start: Instant::now(),
            published: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    fn now_micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Waits until all messages arrived, or none has arrived for a while.
    async fn settle(&self, expected: u64) {
        let mut before = self.received.load(Ordering::Relaxed);
        let mut silent = Instant::now();
        while before < expected && silent.elapsed() < SILENCE {
            sleep(Duration::from_millis(10)).await;
            let received = self.received.load(Ordering::Relaxed);
            if received > before {
                (before, silent) = (received, Instant::now());
            }
        }
    }
}

async fn acknowledged(tickets: &mut VecDeque<Ticket>, counts: &Counts) -> Result<(), Failure> {
    let Some(ticket) = tickets.pop_front() else {
        return Ok(());
    };
    let outcome = ticket.await;
    if !outcome.is_success() {
        return Err(fail(format!("a message was not published: {outcome}")));
    }
    counts.acknowledged.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Receives until the connection ends.
async fn count(mut messages: Messages, counts: Arc<Counts>) -> Seen {
    let mut seen = Seen {
        latencies: histogram(),
        last: None,
    };
    while let Some(message) = messages.next().await {
        counts.received.fetch_add(1, Ordering::Relaxed);
        seen.last = Some(Instant::now());
        if let Some(stamp) = message.payload.first_chunk() {
            let micros = counts
                .now_micros()
                .saturating_sub(u64::from_be_bytes(*stamp));
            seen.latencies.saturating_record(micros);
        }
    }
    seen
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("the bounds are possible")
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(messages: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        messages as f64 / seconds
    } else {
        0.0
    }
}
