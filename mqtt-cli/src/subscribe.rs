//! `mqtt sub`: subscribes and prints messages.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mqtt_tokio::proto::{
    Properties, QoS, ReasonCode, RetainHandling, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_tokio::{Error, Handle, Messages, Outgoing, QoS0Overflow, ReceivedMessage};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::args::{ConnectArgs, Setup, qos, seconds};
use crate::failure::{Failure, fail};
use crate::format::Format;
use crate::link::{self, Interruption};
use crate::outbox::{self, Output, StoreArgs};
use crate::printing::{Printing, print, print_error};
use crate::source::{Source, Step};

/// How many messages are printed before the connection, the clock and Ctrl-C are handled.
const TURN: u32 = 64;

/// The error for a stream that ended because the broker lost the session and refused to subscribe again.
const OVER: &str = "the broker refused the subscription when it was made again";

/// Subscribes and prints messages.
///
/// The options are those of mosquitto_sub. Exits with 0 when -C or -E is done or on Ctrl-C; with 27 at the end of the time of -W;
/// with the CONNACK code if the broker refused the connection; otherwise with 1, also for wrong arguments. The program
/// reconnects after a lost connection. A message is acknowledged after it was printed.
#[derive(Args, Debug)]
#[command(
    args_override_self = true,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub(crate) struct Subscribe {
    /// Topic filter. May be repeated
    #[arg(short, long, required_unless_present_any = ["url", "unsubscribe"])]
    topic: Vec<String>,
    /// Topic filter of messages that are not printed. May be repeated
    #[arg(short = 'T', long)]
    filter_out: Vec<String>,
    /// Topic filter to unsubscribe from in a kept session. May be repeated
    #[arg(short = 'U', long)]
    unsubscribe: Vec<String>,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// End after this many messages
    #[arg(short = 'C', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this many seconds, with exit code 27
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// End as soon as the broker has answered the subscriptions
    #[arg(short = 'E', long)]
    exit_subscribed: bool,
    #[command(flatten)]
    printing: Printing,
    /// Print a random share of the messages: 0.1 to 100 percent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    random_filter: Option<f64>,
    /// Do not print retained messages
    #[arg(short = 'R', long)]
    no_retained: bool,
    /// Print only retained messages, and end with the first message that is not retained
    #[arg(long, conflicts_with = "no_retained")]
    retained_only: bool,
    /// Clear each retained message that is received, with an empty one at QoS 1
    #[arg(long)]
    remove_retained: bool,
    /// When the broker sends retained messages (5): always, new (only for a new subscription) or never
    #[arg(long, value_name = "WHEN", value_parser = retain_handling)]
    retain_handling: Option<RetainHandling>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print to this file. After a crash, lines that were not acknowledged are removed, because their messages come again: each
    /// message at QoS 2 is in the file exactly once
    #[arg(long, value_name = "FILE", requires = "store")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subscribe {
    pub(crate) async fn run(mut self, properties: &[Vec<String>]) -> Result<(), Failure> {
        let Setup {
            mut options,
            dial,
            url_topic,
            publish,
            subscribe,
        } = self.connect.setup(properties, Version::V311)?;
        if !publish.is_empty() {
            return Err(fail("-D publish belongs to mqtt pub"));
        }
        self.topic.extend(url_topic);
        let format = self.printing.format()?;
        let wanted = self.subscriptions()?;
        let given_up = filters(&self.unsubscribe)?;
        let filter_out = filters(&self.filter_out)?;
        if wanted.is_empty() && given_up.is_empty() {
            return Err(fail("the topic is missing: give -t, or a URL with a topic"));
        }
        // With -E no message is printed, so reading must not wait for them.
        options.qos0_overflow = if self.exit_subscribed {
            QoS0Overflow::DropNewest
        } else {
            QoS0Overflow::PauseReading
        };
        let version = options.version;
        if self.retain_handling.is_some() && !version.is_v5() {
            return Err(fail("--retain-handling needs MQTT 5: give -V 5"));
        }
        let (subscribe, _) = subscribe.parse()?;
        let is_new = !self.store.exists();
        self.store.apply(&mut options, self.qos)?;
        let handle = link::start(options, dial, self.connect.debug);
        outbox::check(&handle).await?;
        let mut output = self.open_output(&handle, is_new)?;
        // Subscribes before the connection is open, so that the stream gets the first messages of a kept session.
        let mut source = Source::new(&handle);
        if !given_up.is_empty() {
            source.unsubscribe(&handle, &given_up);
        }
        if !wanted.is_empty() {
            source.subscribe(&handle, &wanted, Properties::from(&subscribe[..]));
        }
        let mut interruption = Interruption::new();
        let done = tokio::select! {
            biased;
            done = self.work(&handle, &mut source, &format, (&filter_out, output.as_mut())) => done,
            lost = self.lost(&handle, version) => Err(lost),
            () = passed(self.timeout) => Err(Failure::timed_out("timed out")),
            () = interruption.wait() => Ok(()),
        };
        // The source exists until the connection is closed, so messages that were not printed stay in the kept session.
        let _ = link::close(&handle, link::GOODBYE, &mut interruption).await;
        drop(source);
        done
    }

    fn open_output(&self, handle: &Handle, is_new: bool) -> Result<Option<Output>, Failure> {
        let note = handle.note();
        self.store
            .open_output(self.output.as_deref(), note.as_deref(), is_new)
    }

    /// Returns when waiting for the broker is useless.
    async fn lost(&self, handle: &Handle, version: Version) -> Failure {
        if self.store.is_given() {
            link::watch_stored(handle, version, self.connect.quiet).await
        } else {
            link::watch(handle, version, None, self.connect.quiet).await
        }
    }

    fn subscriptions(&self) -> Result<Vec<Subscription<'_>>, Failure> {
        let filters = filters(&self.topic)?.into_iter();
        let subscriptions = filters.map(|filter| Subscription {
            retain_handling: self.retain_handling.unwrap_or_default(),
            ..Subscription::new(filter, self.qos)
        });
        Ok(subscriptions.collect())
    }

    async fn work(
        &self,
        handle: &Handle,
        source: &mut Source,
        format: &Format,
        (filter_out, mut output): (&[TopicFilter<'_>], Option<&mut Output>),
    ) -> Result<(), Failure> {
        if self.exit_subscribed {
            while source.is_waiting() {
                match source.answer().await {
                    Step::Subscribed(answer) => drop(self.granted(answer)?),
                    Step::Unsubscribed(answer) => drop(answer?),
                    Step::Message(_) | Step::Over => {}
                }
            }
            return Ok(());
        }
        let mut printed = 0;
        let mut in_a_row = 0;
        loop {
            match source.next().await {
                Step::Subscribed(answer) => source.subscribed(self.granted(answer)?),
                Step::Unsubscribed(answer) => drop(answer?),
                Step::Over => return Err(fail(OVER)),
                Step::Message(message) => {
                    if self.retained_only && !message.retain {
                        return Ok(());
                    }
                    let hidden =
                        (self.no_retained && message.retain) || is_out(filter_out, message.topic());
                    if !hidden {
                        if self.remove_retained && message.retain {
                            clear(handle, message.topic()).await?;
                        }
                        let output = output.as_deref_mut();
                        if !self.write(handle, format, &message, output)? {
                            return Ok(());
                        }
                        printed += 1;
                    }
                    // The message is acknowledged now, because after the last one no other message is requested.
                    handle.acknowledge(&message, ReasonCode::Success).ok();
                    if self.count == Some(printed) {
                        return Ok(());
                    }
                }
            }
            in_a_row += 1;
            if in_a_row == TURN {
                in_a_row = 0;
                yield_now().await;
            }
        }
    }

    /// Returns the stream, unless the broker refused all filters.
    fn granted(&self, answer: Result<Messages, Error>) -> Result<Messages, Failure> {
        let codes = match &answer {
            Ok(messages) => messages.granted(),
            Err(Error::SubscriptionRefused(codes)) => codes,
            Err(error) => return Err(error.clone().into()),
        };
        let mut refused = Vec::new();
        for (code, filter) in codes.iter().zip(&self.topic) {
            if code.is_error() {
                refused.push(format!("subscription to {filter:?} refused: {code}"));
            } else if code.get() < self.qos.get() && !self.connect.quiet {
                let granted = code.get();
                print_error(&format!(
                    "mqtt: the broker granted QoS {granted} to {filter:?}"
                ));
            }
        }
        let messages = answer.map_err(|_| fail(refused.join("; ")))?;
        refused
            .iter()
            .for_each(|line| print_error(&format!("mqtt: {line}")));
        Ok(messages)
    }

    /// Prints a message. Returns whether the output is still open.
    fn write(
        &self,
        handle: &Handle,
        format: &Format,
        message: &ReceivedMessage,
        output: Option<&mut Output>,
    ) -> Result<bool, Failure> {
        if self.random_filter.is_some_and(|percent| !chance(percent)) {
            return Ok(true);
        }
        if self.printing.skips(message) {
            return Ok(true);
        }
        match self.printing.line(format, message) {
            Ok(line) => {
                let Some(output) = output else {
                    return print(&line);
                };
                let is_noted = message.id().is_some();
                let note = output.write(&line, is_noted)?;
                if is_noted {
                    handle.acknowledge_with(message, &note)?;
                }
                Ok(true)
            }
            Err(why) => {
                print_error(&format!("mqtt: {why}"));
                Ok(true)
            }
        }
    }
}

/// Clears the retained message of a topic.
async fn clear(handle: &Handle, topic: TopicName<'_>) -> Result<(), Failure> {
    let empty = Outgoing {
        retain: true,
        ..Outgoing::new(topic, QoS::AtLeastOnce, b"")
    };
    // Closing the handle waits for these acknowledgements.
    drop(handle.publish_message(&empty).await?);
    Ok(())
}

/// Returns true with this probability in percent.
fn chance(percent: f64) -> bool {
    let number = getrandom::u32().unwrap_or(0);
    f64::from(number) / (f64::from(u32::MAX) + 1.0) * 100.0 < percent
}

fn percent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|percent| (0.1..=100.0).contains(percent))
        .ok_or_else(|| "the share must be 0.1 to 100".to_owned())
}

fn retain_handling(text: &str) -> Result<RetainHandling, String> {
    match text {
        "always" => Ok(RetainHandling::Send),
        "new" => Ok(RetainHandling::SendIfNew),
        "never" => Ok(RetainHandling::DoNotSend),
        _ => Err("retained messages are sent always, new or never".to_owned()),
    }
}

/// Waits for `span`, or for ever without one.
pub(crate) async fn passed(span: Option<Duration>) {
    match span {
        Some(span) => sleep(span).await,
        None => std::future::pending().await,
    }
}

pub(crate) fn filters(texts: &[String]) -> Result<Vec<TopicFilter<'_>>, Failure> {
    texts
        .iter()
        .map(|text| {
            TopicFilter::new(text).map_err(|error| fail(format!("topic filter {text:?}: {error}")))
        })
        .collect()
}

fn is_out(filters: &[TopicFilter<'_>], topic: TopicName<'_>) -> bool {
    filters.iter().any(|filter| filter.matches(topic))
}
