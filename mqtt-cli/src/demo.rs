//! `mqtt demo`: runs a publisher, a broker and a subscriber in one process, and prints every packet of the clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use mqtt_broker_host::broker::Config;
use mqtt_broker_host::{Guard, Host, control};
use mqtt_tokio::proto::{Packet, QoS, ReasonCode, Version};
use mqtt_tokio::{DialOptions, Handle, Messages, Options};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::args::version;
use crate::failure::{Failure, fail};
use crate::link;
use crate::output;
use crate::tap::{Pass, Watcher, Way};

/// Shows MQTT with a broker on a free port of this machine, a publisher and a subscriber.
///
/// Prints each packet that the two clients send (->) and receive (<-), at each quality of service. Then cuts the connection of
/// the subscriber in the middle of a QoS 2 delivery and shows how the session continues. The demo then exits.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Protocol version: 3.1, 3.1.1 or 5
    #[arg(short = 'V', long = "protocol-version", default_value = "5", value_parser = version)]
    version: Version,
}

const TOPIC: &str = "demo/temperature";
/// The time limit of a step.
const PATIENCE: Duration = Duration::from_secs(10);

impl Demo {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let (control, commands) = control();
        let guard = Guard::new(control)?;
        let host = Host::new(Config::default(), guard, commands);
        let (stop, stopped) = oneshot::channel();
        let story = async {
            let story = Story {
                port: address.port(),
                version: self.version,
            };
            let told = timeout(PATIENCE, story.run_story()).await;
            let _ = stop.send(());
            told.unwrap_or_else(|_| Err(Failure::timed_out("the demo took too long")))
        };
        say(&format!("a broker listens on {address}"));
        let broker = host.run([listener], async {
            let _ = stopped.await;
        });
        let ((), told) = tokio::join!(broker, story);
        told
    }
}

struct Story {
    port: u16,
    version: Version,
}

impl Story {
    async fn run_story(&self) -> Result<(), Failure> {
        let seen = Arc::new(Seen::default());
        let subscriber = self.client("subscriber", &seen);
        say("the subscriber subscribes to demo/#");
        subscriber.first_attempt().await?;
        let messages = subscriber.subscribe("demo/#", QoS::ExactlyOnce).await?;
        say("the publisher connects");
        let publisher = self.client("publisher", &Arc::default());
        publisher.first_attempt().await?;
        let mut pair = Pair {
            publisher,
            subscriber,
            messages,
        };
        for (qos, promise) in [
            (QoS::AtMostOnce, "at most once: PUBLISH has no answer"),
            (QoS::AtLeastOnce, "at least once: PUBACK answers PUBLISH"),
            (
                QoS::ExactlyOnce,
                "exactly once: PUBREC, PUBREL and PUBCOMP follow",
            ),
        ] {
            say(&format!("QoS {}, {promise}", qos.get()));
            pair.exchange(qos, "21.5").await?;
            seen.all(qos).await;
        }
        say(
            "the same again, but the subscriber's connection is cut before it can answer: the broker sends the message again, \
             marked DUP, and the subscriber hands it over once",
        );
        seen.cut.store(true, Ordering::Relaxed);
        pair.exchange(QoS::ExactlyOnce, "22.0").await?;
        seen.all(QoS::ExactlyOnce).await;
        say("goodbye");
        pair.publisher.close(link::GOODBYE).await;
        pair.subscriber.close(link::GOODBYE).await;
        if seen.cut.load(Ordering::Relaxed) {
            return Err(fail("the connection was not cut"));
        }
        if pair.messages.next().await.is_some() {
            return Err(fail("a message came twice"));
        }
        say("4 messages published, 4 received, each once");
        Ok(())
    }

    /// Starts a client that prints its packets.
    fn client(&self, name: &'static str, seen: &Arc<Seen>) -> Handle {
        let mut options = Options::new("127.0.0.1", self.port);
        options.version = self.version;
        options.client_id = name.to_owned();
        options.clean_start = false;
        options.session_expiry = 60;
        options.back_off.first = Duration::from_millis(1);
        let seen = Arc::clone(seen);
        let dial = link::Dial::new(&options, DialOptions::default());
        link::start_watched(options, dial, move || {
            let seen = Arc::clone(&seen);
            let watcher: Watcher = Box::new(move |way, packet, summary| {
                let arrow = match way {
                    Way::In => "<-",
                    Way::Out => "->",
                };
                output(format_args!("  {name:10} {arrow} {summary}\n"));
                let pass = seen.watch(way, packet);
                if pass == Pass::Cut {
                    output(format_args!("  {name:10} -- cut --\n"));
                }
                pass
            });
            Some(watcher)
        })
    }
}

/// Signals for packets of a client, and the request to cut its connection.
#[derive(Default)]
struct Seen {
    /// Whether to cut the connection after the next QoS 2 message.
    cut: AtomicBool,
    /// Signals the last packet of a delivery.
    acknowledged: Notify,
}

impl Seen {
    fn watch(&self, way: Way, packet: &Packet<'_>) -> Pass {
        match (way, packet) {
            (Way::Out, Packet::PubAck(_) | Packet::PubComp(_)) => self.acknowledged.notify_one(),
            (Way::In, Packet::Publish(publish))
                if publish.qos() == QoS::ExactlyOnce && self.cut.swap(false, Ordering::Relaxed) =>
            {
                return Pass::Cut;
            }
            _ => {}
        }
        Pass::On
    }

    /// Waits for the last packet of one delivery.
    async fn all(&self, qos: QoS) {
        if qos > QoS::AtMostOnce {
            self.acknowledged.notified().await;
        }
    }
}

/// The two clients.
struct Pair {
    publisher: Handle,
    subscriber: Handle,
    messages: Messages,
}

impl Pair {
    /// Sends one message, and waits until the broker has acknowledged it and the subscriber has received it.
    async fn exchange(&mut self, qos: QoS, payload: &str) -> Result<(), Failure> {
        let ticket = self.publisher.publish(TOPIC, qos, false, payload).await?;
        let outcome = ticket.await;
        if !outcome.is_success() {
            return Err(fail(format!("the message was not published: {outcome}")));
        }
        match self.messages.next().await {
            // Acknowledges by hand, because the stream acknowledges only when the next message is requested.
            Some(received) if received.payload == payload.as_bytes() => self
                .subscriber
                .acknowledge(&received, ReasonCode::Success)
                .map_err(Failure::from),
            other => Err(fail(format!(
                "{payload} was published, received was {other:?}"
            ))),
        }
    }
}

fn say(text: &str) {
    output(format_args!("\n{text}\n"));
}
