//! Parses the options that `mqtt pub` and `mqtt sub` share, with the letters and meanings of mosquitto's programs.

use std::time::Duration;

use clap::{ArgAction, Args};
use mqtt_tokio::proto::{PropertyId, QoS, Version};
use mqtt_tokio::{Options, OwnedWill, Publication};

use crate::failure::{Failure, fail};
use crate::link::{Dial, local_addresses};
use crate::properties::{Typed, TypedList};
use crate::tls::TlsArgs;

/// The options for the broker and the identity of the client.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// Host name or address of the broker [default: localhost]
    #[arg(short = 'h', long, value_name = "HOST")]
    host: Option<String>,
    /// Port of the broker [default: 1883, with TLS 8883, with WebSocket 80 and 443]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Local address or host name to connect from
    #[arg(short = 'A', value_name = "ADDRESS")]
    bind: Option<String>,
    /// Network interface to connect through, such as eth0 (Linux)
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Seconds without traffic after which the system asks whether the broker is there, beside MQTT's keep-alive
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    tcp_keepalive: Option<Duration>,
    /// Accepted for scripts of mosquitto's programs: small packets are always sent without delay
    #[arg(long)]
    nodelay: bool,
    /// Broker, user and topic in one URL: [mqtt|mqtts|ws|wss]://[user[:password]@]host[:port]/topic
    #[arg(short = 'L', long, value_name = "URL")]
    url: Option<String>,
    /// Client identifier [default: the broker assigns one]
    #[arg(short, long, value_name = "ID")]
    id: Option<String>,
    /// Client identifier made of this prefix and the process id
    #[arg(short = 'I', long, value_name = "PREFIX", conflicts_with = "id")]
    id_prefix: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    username: Option<String>,
    /// Password
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        allow_hyphen_values = true
    )]
    password: Option<String>,
    /// Keep-alive in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u16,
    /// Protocol version: 3.1 (mqttv31), 3.1.1 (mqttv311) or 5 (mqttv5) [default: 3.1.1, of mqtt rr 5]
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = version)]
    protocol_version: Option<Version>,
    /// Keep the session on the broker, and resume an existing one; needs -i
    #[arg(short = 'c', long)]
    disable_clean_session: bool,
    /// How long the broker keeps the session, in seconds; -1 for ever (5) [default: -1 with -c, else 0]
    #[arg(short = 'x', long, value_name = "SECONDS", allow_hyphen_values = true)]
    session_expiry_interval: Option<String>,
    /// A property (5): connect, publish, subscribe or will, then its name and value. May be repeated
    #[arg(short = 'D', long = "property", value_name = "COMMAND NAME VALUE", num_args = 3..=4, action = ArgAction::Append)]
    properties: Vec<String>,
    /// Topic of the will
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// Payload of the will
    #[arg(
        long,
        value_name = "TEXT",
        requires = "will_topic",
        allow_hyphen_values = true
    )]
    will_payload: Option<String>,
    /// QoS of the will
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0", value_parser = qos)]
    will_qos: QoS,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// Longest wait between two attempts to reconnect, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    longest_wait: Duration,
    /// Print every packet on standard error
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Print no warnings
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// The result of parsing a command line.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) options: Options,
    pub(crate) dial: Dial,
    /// The topic in the URL.
    pub(crate) url_topic: Option<String>,
    pub(crate) publish: TypedList,
    pub(crate) subscribe: TypedList,
}

/// Parses a version by any of its names.
pub(crate) fn version(text: &str) -> Result<Version, String> {
    match text.to_ascii_lowercase().as_str() {
        "3.1" | "31" | "mqttv31" => Ok(Version::V31),
        "3.1.1" | "311" | "mqttv311" => Ok(Version::V311),
        "5" | "5.0" | "mqttv5" => Ok(Version::V5),
        _ => Err("the versions are 3.1, 3.1.1 and 5".to_owned()),
    }
}

/// Parses a quality of service.
pub(crate) fn qos(text: &str) -> Result<QoS, String> {
    text.parse()
        .ok()
        .and_then(QoS::new)
        .ok_or_else(|| "QoS is 0, 1 or 2".to_owned())
}

/// Parses seconds with a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "seconds are a number of at least 0".to_owned())
}

impl ConnectArgs {
    /// Makes the options of the client. `occurrences` are the groups of values of `-D`, which clap returns as one list. `default`
    /// is the version if the command line has none.
    pub(crate) fn setup(
        &self,
        occurrences: &[Vec<String>],
        default: Version,
    ) -> Result<Setup, Failure> {
        let (mut options, url_topic) = self.address()?;
        let mut layers = self.tls.apply(&mut options, self.port)?;
        if let Some(name) = &self.bind {
            layers.sockets.local_addresses = local_addresses(name)?;
        }
        layers.sockets.interface.clone_from(&self.interface);
        layers.sockets.keep_alive = self.tcp_keepalive;
        let version = self.protocol_version.unwrap_or(default);
        options.version = version;
        options.client_id = match (&self.id, &self.id_prefix) {
            (Some(id), _) => id.clone(),
            (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
            // The URL may have one.
            (None, None) => options.client_id,
        };
        // 3.1 does not allow an empty client identifier.
        if version == Version::V31 && options.client_id.is_empty() {
            options.client_id = format!("mqtt-{}", std::process::id());
        }
        if self.disable_clean_session && options.client_id.is_empty() {
            return Err(fail("-c needs a client identifier: give -i as well"));
        }
        options.clean_start = !self.disable_clean_session;
        options.assume_session = self.disable_clean_session;
        options.session_expiry = self.session_expiry(version)?;
        options.keep_alive = self.keepalive;
        if let Some(name) = &self.username {
            options.user_name = Some(name.clone());
        }
        if let Some(password) = &self.password {
            options.password = Some(password.clone().into_bytes());
        }
        if !version.is_v5() && options.password.is_some() && options.user_name.is_none() {
            return Err(fail("a password without a user name needs MQTT 5"));
        }
        options.will = self.will_topic.as_ref().map(|topic| {
            let payload = self.will_payload.clone().unwrap_or_default().into_bytes();
            let mut message = Publication::new(topic.clone(), self.will_qos, payload);
            message.retain = self.will_retain;
            OwnedWill::new(message)
        });
        options.back_off.first = Duration::from_millis(250).min(self.longest_wait);
        options.back_off.longest = self.longest_wait;
        let (publish, subscribe) = properties(&mut options, occurrences, version)?;
        Ok(Setup {
            dial: Dial::new(&options, layers),
            options,
            url_topic,
            publish,
            subscribe,
        })
    }

    fn address(&self) -> Result<(Options, Option<String>), Failure> {
        let Some(url) = &self.url else {
            let host = match &self.host {
                Some(host) => host.clone(),
                None => self.tls.default_host()?,
            };
            return Ok((Options::new(host, self.port.unwrap_or(1883)), None));
        };
        let scheme = url.find("://").map_or(0, |at| at + 3);
        let (address, topic) = match url.get(scheme..).and_then(|rest| rest.split_once('/')) {
            Some((address, topic)) => (address.len() + scheme, Some(topic)),
            None => (url.len(), None),
        };
        if url.starts_with("unix:") {
            return Err(fail("unix://: give --unix PATH, and -t for the topic"));
        }
        let mut options = Options::from_url(url.get(..address).unwrap_or(url))?;
        // The URL of a configuration file is only a default.
        if let Some(host) = &self.host {
            options.host.clone_from(host);
        }
        options.port = self.port.unwrap_or(options.port);
        Ok((
            options,
            topic.filter(|topic| !topic.is_empty()).map(str::to_owned),
        ))
    }

    fn session_expiry(&self, version: Version) -> Result<u32, Failure> {
        match self.session_expiry_interval.as_deref() {
            None if self.disable_clean_session => Ok(u32::MAX),
            None => Ok(0),
            Some("-1" | "∞") => Ok(u32::MAX),
            Some(text) => {
                let expiry = text.parse().map_err(|_| {
                    fail(format!(
                        "-x {text}: seconds are 0 to 4294967295, or -1 for ever"
                    ))
                })?;
                if !version.is_v5() {
                    return Err(fail("-x needs MQTT 5: give -V 5"));
                }
                Ok(expiry)
            }
        }
    }
}

/// Returns the properties of PUBLISH and SUBSCRIBE; those of CONNECT and the will go into the options.
fn properties(
    options: &mut Options,
    occurrences: &[Vec<String>],
    version: Version,
) -> Result<(TypedList, TypedList), Failure> {
    let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
    for group in occurrences {
        let [command, name, values @ ..] = &group[..] else {
            return Err(fail("-D takes a command, a property and its value"));
        };
        if !version.is_v5() {
            return Err(fail("-D needs MQTT 5: give -V 5"));
        }
        let typed = Typed::new(name, values)?;
        match command.to_ascii_lowercase().as_str() {
            "connect" => connect_property(options, &typed)?,
            "will" => will_property(options, &typed)?,
            "publish" => publish.push(typed),
            "subscribe" => subscribe.push(typed),
            // The client itself sets the properties of these packets.
            "auth" | "disconnect" | "puback" | "pubcomp" | "pubrec" | "pubrel" | "unsubscribe" => {}
            _ => {
                return Err(fail(format!(
                    "-D {command}: properties can be given to connect, publish, subscribe and will"
                )));
            }
        }
    }
    Ok((TypedList::new(publish)?, TypedList::new(subscribe)?))
}

fn connect_property(options: &mut Options, typed: &Typed) -> Result<(), Failure> {
    match typed.id {
        PropertyId::SessionExpiryInterval => options.session_expiry = typed.number()?,
        PropertyId::ReceiveMaximum => options.receive_maximum = typed.number()?,
        PropertyId::MaximumPacketSize => options.config.packet_limit = typed.number()?,
        PropertyId::TopicAliasMaximum => options.topic_alias_maximum = typed.number()?,
        PropertyId::RequestResponseInformation => {
            options.request_response_information = typed.flag()?
        }
        PropertyId::RequestProblemInformation => {
            options.request_problem_information = typed.flag()?
        }
        PropertyId::UserProperty => options.user_properties.push(typed.pair()),
        other => return Err(fail(format!("CONNECT has no {other} here"))),
    }
    Ok(())
}

fn will_property(options: &mut Options, typed: &Typed) -> Result<(), Failure> {
    let will = options
        .will
        .as_mut()
        .ok_or_else(|| fail("-D will needs --will-topic"))?;
    match typed.id {
        PropertyId::WillDelayInterval => will.delay = typed.number()?,
        PropertyId::PayloadFormatIndicator => will.message.is_text = typed.flag()?,
        PropertyId::MessageExpiryInterval => will.message.expiry = Some(typed.number()?),
        PropertyId::ContentType => will.message.content_type = Some(typed.text().to_owned()),
        PropertyId::ResponseTopic => will.message.response_topic = Some(typed.text().to_owned()),
        PropertyId::CorrelationData => will.message.correlation_data = Some(typed.binary()?.into()),
        PropertyId::UserProperty => will.message.user_properties.push(typed.pair()),
        other => return Err(fail(format!("a will has no {other}"))),
    }
    Ok(())
}
