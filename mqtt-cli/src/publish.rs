//! `mqtt pub`: publishes messages.

use std::collections::VecDeque;
use std::time::Duration;

use clap::Args;
use mqtt_tokio::proto::num::to_u64;
use mqtt_tokio::proto::{Properties, QoS, TopicName, Version};
use mqtt_tokio::{Handle, Outcome, Outgoing, Ticket};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::args::{ConnectArgs, qos, seconds};
use crate::failure::{Failure, fail};
use crate::link::{self, Interruption};
use crate::outbox::{self, Accepted, StoreArgs};
use crate::payload::PayloadArgs;
use crate::printing::print_error;
use crate::progress::Progress;
use crate::store::counted;

/// Publishes messages.
///
/// The options are those of mosquitto_pub. Exits with 0 when every message was sent and, at QoS 1 and 2, acknowledged; with the
/// CONNACK code if the broker refused the connection; otherwise with 1, also for wrong arguments. The program reconnects after
/// a lost connection. At QoS 2 no message is delivered twice if the session outlives the connection (-c and -i). With --store,
/// lines are accepted without a connection, and the number of stored lines is printed. At most 1,024 of them, of 16 MiB together,
/// wait for the broker; the next line waits until one is acknowledged. They are delivered by this process or by the next one with
/// the store, which may have an empty standard input (-l).
#[derive(Args, Debug)]
#[command(
    args_override_self = true,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub(crate) struct Publish {
    /// Topic
    #[arg(short, long, required_unless_present = "url")]
    topic: Option<String>,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Send each line of standard input as a message
    #[arg(short = 'l', long, group = "message_source")]
    stdin_line: bool,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Let the broker keep the message for later subscribers
    #[arg(short, long)]
    retain: bool,
    /// Publish the message this many times
    #[arg(
        long,
        value_name = "TIMES",
        default_value_t = 1,
        conflicts_with = "stdin_line"
    )]
    repeat: u64,
    /// Seconds between two repetitions
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    repeat_delay: Duration,
    /// Limit of unacknowledged messages at QoS 1 and 2 [default: 20]
    #[arg(short = 'M', long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    max_inflight: Option<u16>,
    /// Time to restore a lost connection, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    patience: Duration,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// How many acknowledgements are awaited at the same time; the window of the session is smaller.
const TICKETS: usize = 4_096;

impl Publish {
    pub(crate) async fn run(self, properties: &[Vec<String>]) -> Result<(), Failure> {
        let mut setup = self.connect.setup(properties, Version::V311)?;
        if !setup.subscribe.is_empty() {
            return Err(fail("-D subscribe belongs to mqtt sub"));
        }
        let topic = self
            .topic
            .clone()
            .or_else(|| setup.url_topic.take())
            .ok_or_else(|| fail("the topic is missing: give -t, or a URL with a topic"))?;
        let topic =
            TopicName::new(&topic).map_err(|error| fail(format!("topic {topic:?}: {error}")))?;
        let (properties, alias) = setup.publish.parse()?;
        // The session assigns aliases by itself, up to this number.
        setup.options.config.auto_alias = alias.map_or(0, |alias| alias.get());
        let template = Outgoing {
            retain: self.retain,
            properties: Properties::from(&properties[..]),
            ..Outgoing::new(topic, self.qos, b"")
        };
        if let Some(most) = self.max_inflight {
            setup.options.config.window = most;
            setup.options.config.window_qos2 = most;
        }
        let payload = self.payload()?;
        let is_stored = self.store.is_given();
        self.store.apply(&mut setup.options, self.qos)?;
        let version = setup.options.version;
        let handle = link::start(setup.options, setup.dial, self.connect.debug);
        let (patience, quiet) = (Some(self.patience), self.connect.quiet);
        outbox::check(&handle).await?;
        let work = async {
            // With a store, messages are accepted without a connection.
            if !is_stored {
                handle.connected().await?;
            }
            self.publish_all(&handle, &template, payload.as_deref())
                .await
        };
        let mut interruption = Interruption::new();
        let done = tokio::select! {
            biased;
            done = work => done,
            lost = link::watch(&handle, version, patience, quiet), if !is_stored => Err(lost),
            lost = link::watch_stored(&handle, version, quiet), if is_stored => Err(lost),
            () = interruption.wait() => Err(fail("interrupted")),
        };
        let mut close_time = link::GOODBYE;
        if is_stored && done.is_ok() {
            // Messages of an earlier process may wait in the store.
            close_time = close_time.max(self.patience);
        }
        let remained = link::close(&handle, close_time, &mut interruption).await;
        done?;
        self.reported(remained.len(), handle.undelivered())
    }

    /// Reports the messages that were not acknowledged: it is no error if they wait in a store. It is one if messages of an earlier
    /// process ended without delivery.
    fn reported(&self, remained: usize, undelivered: u64) -> Result<(), Failure> {
        if undelivered > 0 {
            return Err(fail(format!(
                "{} of the store could not be delivered: refused by the broker, with a quality of service or retain flag that it does \
                 not support, or lost with the session",
                counted(undelivered, "message")
            )));
        }
        match remained {
            0 => Ok(()),
            n if self.store.is_given() => {
                let end = if n == 1 { "s" } else { "" };
                let messages = counted(to_u64(n), "message");
                print_error(&format!("mqtt: {messages} wait{end} in the store"));
                Ok(())
            }
            n => {
                let messages = counted(to_u64(n), "message");
                Err(fail(format!("no acknowledgement came for {messages}")))
            }
        }
    }

    /// Returns the message, unless each line of standard input is one.
    fn payload(&self) -> Result<Option<Vec<u8>>, Failure> {
        if self.stdin_line {
            return Ok(None);
        }
        self.payload.read().map(Some)
    }

    async fn publish_all(
        &self,
        handle: &Handle,
        template: &Outgoing<'_>,
        payload: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let mut tickets = Tickets::default();
        let mut accepted = Accepted::new(self.store.is_given());
        let mut lines = BufReader::new(tokio::io::stdin());
        let mut line = Vec::new();
        let progress =
            Progress::of_input(self.stdin_line && !self.connect.debug && !self.connect.quiet);
        let mut count = 0;
        loop {
            let payload = match payload {
                Some(_) if count == self.repeat => break,
                Some(payload) => payload,
                None => {
                    line.clear();
                    let read = loop {
                        tokio::select! {
                            biased;
                            stored = accepted.first() => stored?,
                            read = lines.read_until(b'\n', &mut line) => break read,
                        }
                    };
                    if read.map_err(|error| fail(format!("standard input: {error}")))? == 0 {
                        break;
                    }
                    line.strip_suffix(b"\n").unwrap_or(&line)
                }
            };
            if count > 0 && !self.repeat_delay.is_zero() {
                tokio::time::sleep(self.repeat_delay).await;
            }
            let message = Outgoing {
                payload,
                ..*template
            };
            let ticket = accepted
                .meanwhile(handle.publish_message(&message))
                .await??;
            accepted.push(&ticket);
            tickets.push(ticket).await?;
            progress.advance(line.len());
            count += 1;
        }
        accepted.finish().await?;
        if !self.store.is_given() {
            return tickets.finish().await;
        }
        // Messages that are not delivered now wait in the store.
        tokio::time::timeout(self.patience, tickets.finish())
            .await
            .unwrap_or(Ok(()))
    }
}

#[derive(Default)]
struct Tickets(VecDeque<Ticket>);

impl Tickets {
    async fn push(&mut self, ticket: Ticket) -> Result<(), Failure> {
        self.0.push_back(ticket);
        while self.0.len() > TICKETS {
            self.first().await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Failure> {
        while !self.0.is_empty() {
            self.first().await?;
        }
        Ok(())
    }

    async fn first(&mut self) -> Result<(), Failure> {
        let Some(ticket) = self.0.pop_front() else {
            return Ok(());
        };
        delivered(ticket.await)
    }
}

/// Returns why a message was not delivered, if it was not.
pub(crate) fn delivered(outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Acknowledged(reason) if reason.is_error() => {
            Err(fail(format!("the broker refused the message: {reason}")))
        }
        Outcome::Acknowledged(_) | Outcome::Sent => Ok(()),
        Outcome::Lost => Err(fail(
            "the connection ended before the message was sent; at QoS 0 it is not sent again",
        )),
        Outcome::InDoubt => Err(fail(
            "the broker lost the session; whether the message arrived is not known",
        )),
        Outcome::TooLarge => Err(fail("the message is larger than the broker takes")),
        Outcome::NotSupported => Err(fail(
            "the broker does not support the quality of service or the retain flag of the message",
        )),
        other => Err(fail(format!("the message was not sent: {other}"))),
    }
}
