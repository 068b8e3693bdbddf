//! `mqtt sub`.

use std::io::Write;
use std::time::Duration;

use adapter_tokio::proto::{
    Properties, QoS, ReasonCode, Subscription as Filter, TopicFilter, TopicName,
};
use adapter_tokio::{Acknowledge, Handle, Received, Subscription};
use clap::Args;
use tokio::time::sleep;

use crate::args::{ConnectArgs, Setup, qos, seconds};
use crate::failure::{Failure, fail};
use crate::format::Format;
use crate::link;

/// Subscribes and prints what comes.
///
/// The options are mosquitto_sub's. Exits with 0 when -C or -E is done or on Ctrl-C; with 27 when -W ran out; with the
/// CONNACK code if the broker refused the connection; with 2 for wrong arguments; else with 1. A lost connection is
/// repaired. A message is acknowledged after it was printed.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct Subscribe {
    /// Topic filter. May be repeated
    #[arg(short, long, required_unless_present_any = ["url", "unsubscribe"])]
    topic: Vec<String>,
    /// Topic filter of messages that are not printed. May be repeated
    #[arg(short = 'T', long)]
    filter_out: Vec<String>,
    /// Topic filter that a kept session gives up. May be repeated
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
    /// End as soon as the broker answered the subscriptions
    #[arg(short = 'E', long)]
    exit_subscribed: bool,
    /// Print topic and message
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// Print each message in this format: %t topic, %p payload, %q QoS, %r retained, %l length, %x and %X hex, %m packet
    /// identifier, %j and %J JSON, %I and %U time, %C %D %E %F %P %R %S properties, @X strftime, \n and other escapes
    #[arg(short = 'F', long, value_name = "FORMAT")]
    format: Option<String>,
    /// No line end behind a message
    #[arg(short = 'N', long)]
    no_eol: bool,
    /// Do not print messages that were retained
    #[arg(short = 'R', long)]
    no_retained: bool,
    /// Print only messages that were retained, and end with the first that was not
    #[arg(long, conflicts_with = "no_retained")]
    retained_only: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subscribe {
    pub(crate) async fn run(mut self, properties: &[Vec<String>]) -> Result<(), Failure> {
        let Setup {
            mut options,
            url_topic,
            publish,
            subscribe,
        } = self.connect.setup(properties)?;
        if !publish.is_empty() {
            return Err(fail("-D publish belongs to mqtt pub"));
        }
        self.topic.extend(url_topic);
        let format = match (&self.format, self.verbose) {
            (Some(format), _) => Format::parse(format)?,
            (None, true) => Format::verbose(),
            (None, false) => Format::payload(),
        };
        let wanted = filters(&self.topic)?;
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|filter| Filter::new(filter, self.qos))
            .collect();
        let given_up = filters(&self.unsubscribe)?;
        let filter_out = filters(&self.filter_out)?;
        if wanted.is_empty() && given_up.is_empty() {
            return Err(fail("there is no topic: give -t, or one in the URL"));
        }
        options.config.acknowledge = Acknowledge::ByHand;
        let version = options.version;
        let (subscribe, _) = subscribe.parse()?;
        let handle = link::start(options, self.connect.debug);
        let others = handle.other_messages();
        let work = async {
            // Asked for before the connection is there, so that no message of a kept session comes before its printer.
            let leaving = (!given_up.is_empty()).then(|| handle.unsubscribe(&given_up));
            let properties = Properties::from(&subscribe[..]);
            let asked = (!wanted.is_empty()).then(|| handle.subscribe_all(&wanted, properties));
            handle
                .connected()
                .await
                .map_err(|error| Failure::connection(&error, version))?;
            if let Some(leaving) = leaving {
                leaving.await?;
            }
            let messages = match asked {
                Some(asked) => Some(self.granted(asked.await?)?),
                None => None,
            };
            if self.exit_subscribed {
                return Ok(());
            }
            self.print(&handle, messages, others, &format, &filter_out)
                .await
        };
        let limit = async {
            match self.timeout {
                Some(span) => sleep(span).await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            biased;
            done = work => done,
            lost = async {
                // The first connection is waited for by the work itself.
                if handle.connected().await.is_err() { std::future::pending::<()>().await }
                link::watch(&handle, None, self.connect.quiet).await
            } => Err(lost),
            () = limit => Err(Failure::timed_out("timed out")),
            () = link::interrupted() => Ok(()),
        };
        let _ = handle.close(link::GOODBYE).await;
        done
    }

    /// The stream, unless the broker refused all of it.
    fn granted(
        &self,
        (codes, messages): (Vec<ReasonCode>, Subscription),
    ) -> Result<Subscription, Failure> {
        let mut refused = Vec::new();
        for (code, filter) in codes.iter().zip(&self.topic) {
            if code.is_error() {
                refused.push(format!("subscription to {filter:?} refused: {code}"));
            } else if code.get() < self.qos.get() && !self.connect.quiet {
                eprintln!("mqtt: the broker granted QoS {} to {filter:?}", code.get());
            }
        }
        if refused.len() == codes.len() {
            return Err(fail(refused.join("; ")));
        }
        refused.iter().for_each(|line| eprintln!("mqtt: {line}"));
        Ok(messages)
    }

    async fn print(
        &self,
        handle: &Handle,
        mut messages: Option<Subscription>,
        mut others: Subscription,
        format: &Format,
        filter_out: &[TopicFilter<'_>],
    ) -> Result<(), Failure> {
        let mut printed = 0;
        loop {
            let subscribed = async {
                match &mut messages {
                    Some(messages) => messages.next().await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                biased;
                next = subscribed => next,
                next = others.next() => next,
            };
            let Some(message) = next else {
                return Err(fail("the connection ended"));
            };
            if self.retained_only && !message.retain {
                return Ok(());
            }
            let hidden =
                (self.no_retained && message.retain) || is_out(filter_out, message.topic());
            if !hidden {
                if !self.write(format, &message)? {
                    return Ok(());
                }
                printed += 1;
            }
            handle.acknowledge(&message, ReasonCode::Success).ok();
            if self.count == Some(printed) {
                return Ok(());
            }
        }
    }

    /// Whether there is anybody left to print for.
    fn write(&self, format: &Format, message: &Received) -> Result<bool, Failure> {
        let mut line = Vec::new();
        if let Err(why) = format.write(message, &mut line) {
            eprintln!("mqtt: {why}");
            return Ok(true);
        }
        if !self.no_eol {
            line.push(b'\n');
        }
        let mut out = std::io::stdout().lock();
        match out.write_all(&line).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(fail(format!("standard output: {error}"))),
        }
    }
}

fn filters(texts: &[String]) -> Result<Vec<TopicFilter<'_>>, Failure> {
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
