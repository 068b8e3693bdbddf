//! `mqtt check`: reports the limits of a broker.

use std::io::ErrorKind;
use std::time::Duration;

use clap::{ArgAction, Args};
use mqtt_adapter_core::dial::Dialler;
use mqtt_tokio::Options;
use mqtt_tokio::proto::{
    ConnAck, Connect, Decoded, Encode as _, MAX_PACKET, Packet, PacketId, PropertyId, QoS,
    ReasonCode, Subscribe, Subscription, TopicFilter, Version,
};
use serde_json::{Map, Value, json};

use crate::args::seconds;
use crate::failure::{Failure, fail};
use crate::layered::Layered;
use crate::tls::TlsArgs;

/// Connects in each version and prints the limits of the broker.
///
/// Nothing is published. Exits with 0 if the broker accepts a version; with the code of CONNACK if it refuses all; with 1 if it
/// cannot be reached.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Check {
    /// Host name, address or URL of the broker
    #[arg(default_value = "localhost")]
    host: String,
    /// Port of the broker [default: 1883, with TLS 8883, with WebSocket 80 and 443]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Client identifier [default: mqtt-check and a number]
    #[arg(short, long, value_name = "ID")]
    id: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        requires = "username"
    )]
    password: Option<String>,
    /// How long to wait for each answer, in seconds
    #[arg(short = 'W', long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// A connection on which each request awaits its answer.
struct Probe {
    stream: Layered,
    version: Version,
    buffer: Vec<u8>,
}

/// The results of one version: a line of text and a JSON value for each.
type Facts = Vec<(&'static str, Value)>;

impl Check {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut options = self.options()?;
        let layers = self.tls.apply(&mut options, self.port)?;
        let dialler = Dialler::new(&options, layers);
        let mut versions = Map::new();
        let (mut accepted, mut refused) = (0, None);
        for version in [Version::V5, Version::V311, Version::V31] {
            let facts = match self.probe(&dialler, &options, version)? {
                Ok(facts) => {
                    accepted += 1;
                    facts
                }
                Err(why) => {
                    refused = refused.or(why.code);
                    vec![("refused", json!(why.text))]
                }
            };
            self.print(version, &facts);
            let facts: Map<String, Value> = facts
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            versions.insert(version.to_string(), Value::Object(facts));
        }
        if self.json {
            let object =
                json!({ "host": options.host, "port": options.port, "versions": versions });
            crate::output_json(&object);
        }
        match (accepted, refused) {
            (0, code) => {
                let mut failure = fail("the broker accepts no version");
                failure.code = code.unwrap_or(1);
                Err(failure)
            }
            _ => Ok(()),
        }
    }

    fn options(&self) -> Result<Options, Failure> {
        let mut options = if self.host.contains("://") {
            Options::from_url(&self.host)?
        } else {
            Options::new(self.host.clone(), 1883)
        };
        options.port = self.port.unwrap_or(options.port);
        if let Some(id) = &self.id {
            options.client_id.clone_from(id);
        }
        if let Some(name) = &self.username {
            options.user_name = Some(name.clone());
            options.password = self.password.clone().map(String::into_bytes);
        }
        Ok(options)
    }

    fn print(&self, version: Version, facts: &Facts) {
        if self.json {
            return;
        }
        crate::output(format_args!("MQTT {version}\n"));
        for (name, value) in facts {
            let text = match value {
                Value::Bool(true) => "yes".to_owned(),
                Value::Bool(false) => "no".to_owned(),
                Value::String(text) => crate::decode::show::printable(text),
                other => other.to_string(),
            };
            crate::output(format_args!("  {name:24} {text}\n"));
        }
    }

    /// Checks one version. The outer error means that the broker cannot be reached at all.
    fn probe(
        &self,
        dialler: &Dialler,
        options: &Options,
        version: Version,
    ) -> Result<Result<Facts, Refusal>, Failure> {
        let mut probe = Probe::open(dialler, self, version)?;
        let id = match options.client_id.as_str() {
            "" => format!("mqtt-check-{}", std::process::id()),
            id => id.to_owned(),
        };
        let connect = Connect {
            user_name: options.user_name.as_deref(),
            password: options.password.as_deref(),
            ..Connect::new(version, &id)
        };
        let facts = match probe.exchange(&Packet::Connect(connect), |packet| match packet {
            Packet::ConnAck(connack) if connack.reason.is_error() => Err(refusal(connack, version)),
            Packet::ConnAck(connack) => Ok(connack_facts(connack, version)),
            other => Err(Refusal::text(format!(
                "it answered with {}",
                other.packet_type()
            ))),
        }) {
            Ok(Ok(facts)) => facts,
            Ok(Err(refusal)) => return Ok(Err(refusal)),
            Err(why) => return Ok(Err(Refusal::text(why))),
        };
        let mut facts = facts;
        for (name, filter) in [
            ("wildcards", "mqtt-check/+/#"),
            ("shared subscriptions", "$share/mqtt-check/mqtt-check"),
            ("$SYS", "$SYS/mqtt-check"),
        ] {
            let granted = probe.subscribes(filter);
            facts.push((name, granted.map_or_else(|why| json!(why), Value::Bool)));
        }
        let _ = probe.send(&Packet::Disconnect(mqtt_tokio::proto::Disconnect::default()));
        Ok(Ok(facts))
    }
}

/// Why a version is refused.
struct Refusal {
    text: String,
    code: Option<u8>,
}

impl Refusal {
    const fn text(text: String) -> Self {
        Self { text, code: None }
    }
}

fn refusal(connack: &ConnAck<'_>, version: Version) -> Refusal {
    let code = if version.is_v5() {
        Some(connack.reason.get())
    } else {
        connack.reason.to_return_code()
    };
    Refusal {
        text: connack.reason.to_string(),
        code,
    }
}

/// Returns the limits of CONNACK. Missing ones have the defaults of 5, section 3.2.2.3.
fn connack_facts(connack: &ConnAck<'_>, version: Version) -> Facts {
    let mut facts = vec![("accepted", json!(true))];
    if !version.is_v5() {
        return facts;
    }
    let mut numbers = Vec::new();
    connack
        .properties
        .each_number(&mut |id, number| numbers.push((id, number)));
    let number = |wanted: PropertyId| {
        let found = numbers.iter().find(|(id, _)| *id == wanted);
        found.map(|(_, number)| *number)
    };
    let available = |id| json!(number(id) != Some(0));
    facts.push((
        "maximum QoS",
        json!(number(PropertyId::MaximumQoS).unwrap_or(2)),
    ));
    facts.push(("retained messages", available(PropertyId::RetainAvailable)));
    let packet = number(PropertyId::MaximumPacketSize);
    facts.push((
        "maximum packet size",
        packet.map_or_else(|| json!("no limit"), |size| json!(size)),
    ));
    facts.push((
        "receive maximum",
        json!(number(PropertyId::ReceiveMaximum).unwrap_or(65_535)),
    ));
    facts.push((
        "topic aliases",
        json!(number(PropertyId::TopicAliasMaximum).unwrap_or(0)),
    ));
    facts.push((
        "subscription identifiers",
        available(PropertyId::SubscriptionIdentifierAvailable),
    ));
    if let Some(seconds) = number(PropertyId::ServerKeepAlive) {
        facts.push(("keep-alive", json!(seconds)));
    }
    facts
}

impl Probe {
    fn open(dialler: &Dialler, check: &Check, version: Version) -> Result<Self, Failure> {
        let stream = Layered::open(dialler, check.timeout);
        Ok(Self {
            stream: stream.map_err(|error| Failure::io(&error))?,
            version,
            buffer: Vec::new(),
        })
    }

    fn send(&mut self, packet: &Packet<'_>) -> Result<(), String> {
        let len = packet.encoded_len(self.version);
        let mut bytes = vec![0; len.map_err(|error| error.to_string())?];
        let len = packet.encode(self.version, &mut bytes);
        let len = len.map_err(|error| error.to_string())?;
        self.stream
            .write_all(bytes.get(..len).unwrap_or_default())
            .map_err(|error| error.to_string())
    }

    /// Sends a packet and passes the next received packet to `then`.
    fn exchange<R>(
        &mut self,
        packet: &Packet<'_>,
        then: impl FnOnce(&Packet<'_>) -> R,
    ) -> Result<R, String> {
        self.send(packet)?;
        loop {
            match Packet::decode(&self.buffer, self.version, MAX_PACKET) {
                Ok(Decoded::Packet { packet, consumed }) => {
                    let result = then(&packet);
                    self.buffer.drain(..consumed);
                    return Ok(result);
                }
                Ok(Decoded::Needs(_)) => {}
                Err(error) => return Err(format!("the answer is not MQTT: {error}")),
            }
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err("it closed the connection".to_owned()),
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Err("no answer in time".to_owned());
                }
                Err(error) => return Err(format!("no answer: {error}")),
            }
        }
    }

    /// Returns whether the broker grants a subscription to this filter.
    fn subscribes(&mut self, filter: &str) -> Result<bool, String> {
        let filter = TopicFilter::new(filter).map_err(|error| error.to_string())?;
        let filters = [Subscription::new(filter, QoS::AtMostOnce)];
        let subscribe = Subscribe::new(PacketId::FIRST, &filters[..]);
        self.exchange(&Packet::Subscribe(subscribe), |packet| match packet {
            Packet::SubAck(suback) => {
                Ok(suback.codes.iter().all(|code| !ReasonCode::is_error(code)))
            }
            other => Err(format!("it answered with {}", other.packet_type())),
        })?
    }
}
