//! Runs publishers and subscribers, and measures messages per second and the time of each message.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_tokio::proto::num::to_usize;
use mqtt_tokio::proto::{Properties, QoS, Subscription, TopicFilter, TopicName};
use mqtt_tokio::{Handle, Messages, Outgoing, Ticket};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::clients::{self, Clients};
use super::counts::{Counts, increase};
use super::naming::{Named, Role};
use super::{Bench, percentiles_as_json, percentiles_in_words, rate, show};
use crate::failure::{Failure, fail};
use crate::{link, output};

/// How many acknowledgements one publisher awaits at the same time.
const WINDOW: usize = 1_000;

/// The result of a run, in addition to the counters.
struct Report<'a> {
    bench: &'a Bench,
    counts: &'a Counts,
    seconds: f64,
    expected: u64,
}

/// Connects all clients, publishes for the duration, and reports.
pub(super) async fn measure(bench: &Rc<Bench>, clients: &Rc<Clients>) -> Result<(), Failure> {
    let counts = Counts::new(bench.per_second);
    let run = tokio::select! {
        run = connect(bench, clients, &counts) => run?,
        () = mqtt_broker_host::signals::interrupted() => return Err(fail("interrupted")),
    };
    let start = Instant::now();
    let mut publishers = JoinSet::new();
    for (n, (named, handle)) in (0..).zip(run.publishers) {
        let publisher = Publisher {
            bench: Rc::clone(bench),
            counts: Rc::clone(&counts),
            topic: clients.names.topic(&named),
            wait: bench.ramp * n / bench.publishers,
        };
        publishers.spawn_local(publisher.run(handle));
    }
    let interrupted = tokio::select! {
        published = all(&mut publishers) => published.map(|()| false)?,
        never = show::progress(bench, &counts, bench.ramp + bench.duration) => match never {},
        () = mqtt_broker_host::signals::interrupted() => true,
    };
    publishers.shutdown().await;
    let expected = expected(bench, &counts);
    if !interrupted {
        counts.settle(expected).await;
    }
    for handle in run.subscribers {
        handle.close(Duration::ZERO).await;
    }
    let end = counts.last.get().unwrap_or_else(Instant::now);
    let report = Report {
        bench,
        counts: &counts,
        seconds: end.duration_since(start).as_secs_f64(),
        expected,
    };
    if bench.json {
        output(format_args!("{}\n", report.to_json()));
    } else {
        output(format_args!("{}", report.to_table()));
    }
    match report.lost() {
        _ if interrupted => Err(fail("interrupted")),
        lost if lost > 0 && bench.qos > QoS::AtMostOnce => {
            Err(fail(format!("{lost} messages were lost")))
        }
        _ => Ok(()),
    }
}

/// The connected clients.
struct Run {
    publishers: Vec<(Named, Handle)>,
    subscribers: Vec<Handle>,
}

async fn connect(bench: &Bench, clients: &Clients, counts: &Rc<Counts>) -> Result<Run, Failure> {
    let mut subscribers = Vec::new();
    for (named, handle) in connect_all(clients, Role::Subscriber, bench.subscribers).await? {
        let filter = if bench.pairs {
            let n = named.number - bench.publishers;
            clients.names.topic(&clients.named(Role::Publisher, n))
        } else {
            clients.names.filter()
        };
        let filter = TopicFilter::new(&filter)
            .map_err(|error| fail(format!("topic {filter:?}: {error}")))?;
        let filters = [Subscription::new(filter, bench.qos)];
        let messages = handle.subscribe_all(&filters, Properties::EMPTY).await?;
        tokio::task::spawn_local(count(messages, Rc::clone(counts)));
        subscribers.push(handle);
    }
    let publishers = connect_all(clients, Role::Publisher, bench.publishers).await?;
    Ok(Run {
        publishers,
        subscribers,
    })
}

/// Connects the clients of a role in the order of their numbers. Fails if one attempt fails.
async fn connect_all(
    clients: &Clients,
    role: Role,
    count: u32,
) -> Result<Vec<(Named, Handle)>, Failure> {
    let mut connected = Vec::new();
    let mut failed = None;
    let each = |attempt: clients::Attempt| match attempt.result {
        Ok(handle) => connected.push((attempt.named, handle)),
        Err(failure) => failed = failed.take().or(Some(failure)),
    };
    clients.connect(role, count, each).await;
    if let Some(failure) = failed {
        return Err(failure);
    }
    connected.sort_unstable_by_key(|(named, _)| named.number);
    Ok(connected)
}

/// Returns how many messages the subscribers should receive.
fn expected(bench: &Bench, counts: &Counts) -> u64 {
    let receivers = if bench.pairs {
        1
    } else {
        u64::from(bench.subscribers)
    };
    counts.published.get().saturating_mul(receivers)
}

struct Publisher {
    bench: Rc<Bench>,
    counts: Rc<Counts>,
    topic: String,
    /// How long after the start the publisher begins.
    wait: Duration,
}

impl Publisher {
    async fn run(self, handle: Handle) -> Result<(), Failure> {
        let (bench, counts) = (&self.bench, &self.counts);
        let topic = TopicName::new(&self.topic)
            .map_err(|error| fail(format!("topic {:?}: {error}", self.topic)))?;
        // All publishers end at the same time.
        let end = tokio::time::Instant::now() + bench.ramp + bench.duration;
        let mut payload = vec![b'.'; to_usize(bench.size)];
        let mut tickets = VecDeque::new();
        let publish = async {
            sleep(self.wait).await;
            let mut pace = clients::pace(bench.rate);
            loop {
                clients::due(&mut pace).await;
                if let Some(stamp) = payload.first_chunk_mut() {
                    *stamp = counts.stamp();
                }
                let ticket = handle
                    .publish_message(&Outgoing::new(topic, bench.qos, &payload))
                    .await?;
                increase(&counts.published);
                tickets.push_back(ticket);
                if tickets.len() >= WINDOW {
                    acknowledged(&mut tickets, counts).await?;
                }
                // A fast publisher may never wait, and would keep other tasks from running.
                tokio::task::consume_budget().await;
            }
        };
        tokio::select! {
            biased;
            () = sleep_until(end) => {}
            done = publish => { let _: Result<(), Failure> = done; return done; }
        }
        while !tickets.is_empty() {
            acknowledged(&mut tickets, counts).await?;
        }
        handle.close(link::GOODBYE).await;
        Ok(())
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

async fn acknowledged(tickets: &mut VecDeque<Ticket>, counts: &Counts) -> Result<(), Failure> {
    let Some(ticket) = tickets.pop_front() else {
        return Ok(());
    };
    let outcome = ticket.await;
    if !outcome.is_success() {
        return Err(fail(format!("a message was not published: {outcome}")));
    }
    increase(&counts.acknowledged);
    Ok(())
}

/// Receives until the connection ends.
async fn count(mut messages: Messages, counts: Rc<Counts>) {
    while let Some(message) = messages.next().await {
        counts.arrived(&message.payload);
    }
}

impl Report<'_> {
    fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.counts.received.get())
    }

    fn to_table(&self) -> String {
        let (bench, counts) = (self.bench, self.counts);
        let received = counts.received.get();
        let acknowledged = match bench.qos {
            QoS::AtMostOnce => "-".to_owned(),
            _ => counts.acknowledged.get().to_string(),
        };
        format!(
            "publishers    {}\nsubscribers   {}\nversion       {}\nQoS           {}\npayload       {} bytes\nseconds       {:.2}\n\
             published     {}\nacknowledged  {acknowledged}\nreceived      {received} ({:.0} a second)\nlost          {}\n\
             latency       {}\n",
            bench.publishers,
            bench.subscribers,
            bench.protocol_version,
            bench.qos.get(),
            bench.size,
            self.seconds,
            counts.published.get(),
            rate(received, self.seconds),
            self.lost(),
            percentiles_in_words(&counts.times.borrow()),
        )
    }

    fn to_json(&self) -> serde_json::Value {
        let (bench, counts) = (self.bench, self.counts);
        let received = counts.received.get();
        json!({
            "publishers": bench.publishers,
            "subscribers": bench.subscribers,
            "pairs": bench.pairs,
            "version": bench.protocol_version.to_string(),
            "qos": bench.qos.get(),
            "payload_bytes": bench.size,
            "rate": bench.rate,
            "seconds": self.seconds,
            "published": counts.published.get(),
            "acknowledged": counts.acknowledged.get(),
            "expected": self.expected,
            "received": received,
            "received_per_second": rate(received, self.seconds),
            "lost": self.lost(),
            "latency_us": percentiles_as_json(&counts.times.borrow()),
        })
    }
}
