//! `mqtt rr`: sends a request and prints its response.

use std::time::Duration;

use clap::Args;
use mqtt_tokio::proto::{Properties, Property, QoS, Subscription, TopicFilter, TopicName, Version};
use mqtt_tokio::{Handle, Messages, Outgoing, QoS0Overflow};

use crate::args::{ConnectArgs, Setup, qos, seconds};
use crate::failure::{Failure, fail};
use crate::format::Format;
use crate::link::{self, Interruption};
use crate::payload::PayloadArgs;
use crate::printing::{Printing, print};
use crate::publish::delivered;
use crate::subscribe::passed;

/// Publishes a request and prints the first message on the response topic.
///
/// The options are those of mosquitto_rr. In MQTT 5 the request contains the response topic. Exits with 0 when a response
/// arrived; with 27 when -W ran out; with the CONNACK code if the broker refused the connection; otherwise with 1.
#[derive(Args, Debug)]
#[command(
    args_override_self = true,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub(crate) struct Request {
    /// Topic of the request
    #[arg(short, long, required_unless_present = "url")]
    topic: Option<String>,
    /// Topic of the response
    #[arg(short = 'e', long, value_name = "TOPIC")]
    response_topic: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Quality of service of request and response: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Ignore a response that was retained
    #[arg(short = 'R', long)]
    no_retained: bool,
    /// End after this many seconds, with exit code 27
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    printing: Printing,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Request {
    pub(crate) async fn run(self, properties: &[Vec<String>]) -> Result<(), Failure> {
        let mut setup = self.connect.setup(properties, Version::V5)?;
        let format = self.printing.format()?;
        let payload = self.payload.read()?;
        setup.options.qos0_overflow = QoS0Overflow::PauseReading;
        let version = setup.options.version;
        let handle = link::start(
            setup.options.clone(),
            setup.dial.clone(),
            self.connect.debug,
        );
        let mut interruption = Interruption::new();
        let done = tokio::select! {
            biased;
            done = self.request(&handle, &setup, &payload, &format) => done,
            lost = link::watch(&handle, version, None, self.connect.quiet) => Err(lost),
            () = passed(self.timeout) => Err(Failure::timed_out("timed out")),
            () = interruption.wait() => Err(fail("interrupted")),
        };
        let _ = link::close(&handle, link::GOODBYE, &mut interruption).await;
        done
    }

    async fn request(
        &self,
        handle: &Handle,
        setup: &Setup,
        payload: &[u8],
        format: &Format,
    ) -> Result<(), Failure> {
        let response = &self.response_topic;
        let wrong = |error| fail(format!("response topic {response:?}: {error}"));
        let filter = TopicFilter::new(response).map_err(wrong)?;
        let response = TopicName::new(response).map_err(wrong)?;
        let topic = self.topic.as_ref().or(setup.url_topic.as_ref());
        let topic =
            topic.ok_or_else(|| fail("the topic is missing: give -t, or a URL with a topic"))?;
        let topic =
            TopicName::new(topic).map_err(|error| fail(format!("topic {topic:?}: {error}")))?;
        let (subscribe, _) = setup.subscribe.parse()?;
        let (mut publish, _) = setup.publish.parse()?;
        if setup.options.version.is_v5() {
            publish.push(Property::ResponseTopic(response));
        }
        // The subscription must exist before the response.
        let filters = [Subscription::new(filter, self.qos)];
        let mut responses = handle
            .subscribe_all(&filters, Properties::from(&subscribe[..]))
            .await?;
        let message = Outgoing {
            properties: Properties::from(&publish[..]),
            ..Outgoing::new(topic, self.qos, payload)
        };
        let ticket = handle.publish_message(&message).await?;
        let response = self.response(&mut responses, format);
        tokio::pin!(response);
        // No response comes for a request that was refused or lost.
        tokio::select! {
            biased;
            done = &mut response => done,
            outcome = ticket => {
                delivered(outcome)?;
                response.await
            }
        }
    }

    /// Prints the first message that is a response.
    async fn response(&self, responses: &mut Messages, format: &Format) -> Result<(), Failure> {
        while let Some(message) = responses.next().await {
            if self.no_retained && message.retain {
                continue;
            }
            print(&self.printing.line(format, &message).map_err(fail)?)?;
            return Ok(());
        }
        Err(fail("the client is closed"))
    }
}
