//! Where to connect and how.

use std::time::Duration;

use mqtt_proto::{Connect, Properties, Property, QoS, TopicName, Version, Will};
use mqtt_session::{BackOff, Config};

use crate::error::Error;

/// The options of a connection: make them from a URL or a host, then assign fields.
///
/// ```
/// use adapter_core::Options;
/// let mut options = Options::from_url("mqtt://user:secret@broker.example:1884").unwrap();
/// options.client_id = "pump-7".into();
/// options.clean_start = false;
/// assert_eq!((options.host.as_str(), options.port), ("broker.example", 1884));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Host name or address.
    pub host: String,
    /// Port. Default 1883.
    pub port: u16,
    /// Protocol version. Default 3.1.1.
    pub version: Version,
    /// Client identifier; empty asks the server for one. Default empty.
    pub client_id: String,
    /// Clean session (3.1.1) or clean start (5). In 5 only the first connection starts clean, so that a reconnect
    /// resumes if [`Self::session_expiry`] lets it. Default `true`.
    pub clean_start: bool,
    /// Go on with a session that the server keeps for this client identifier although nothing of it was kept here
    /// ([`mqtt_session::Client::assume_session`]). Default `false`.
    pub assume_session: bool,
    /// Keep-alive in seconds, 0 for none. Default 60.
    pub keep_alive: u16,
    /// User name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// Will.
    pub will: Option<OwnedWill>,
    /// How long the session outlives a connection, in seconds; `u32::MAX` for ever (5). Default 0.
    pub session_expiry: u32,
    /// How many QoS 1 and 2 messages may come at once (5). Default 256.
    pub receive_maximum: u16,
    /// The highest topic alias accepted (5). Default 16.
    pub topic_alias_maximum: u16,
    /// Ask the server for what a response topic can be made of (5). Default `false`.
    pub request_response_information: bool,
    /// Let the server send reason strings and user properties where something failed (5). Default `true`.
    pub request_problem_information: bool,
    /// User properties of CONNECT (5).
    pub user_properties: Vec<(String, String)>,
    /// How the session behaves. Its packet limit, 1 MiB by default, is announced (5).
    pub config: Config,
    /// How reconnection backs off.
    pub back_off: BackOff,
    /// How long dialling may take. Default 10 s.
    pub dial_timeout: Duration,
    /// Messages that may wait in each subscription before reading pauses. Default 1,024.
    pub subscription_queue: usize,
}

/// A will that owns what it says.
#[derive(Clone, Debug, Default)]
pub struct OwnedWill {
    /// Its topic; CONNECT is refused here if it is none.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Seconds between the end of the connection and the will (5).
    pub delay: u32,
    /// The payload is text (5).
    pub is_text: bool,
    /// Seconds after which the will is of no use to who did not get it (5).
    pub expiry: Option<u32>,
    /// What the payload is (5).
    pub content_type: Option<String>,
    /// Where an answer is to go (5).
    pub response_topic: Option<String>,
    /// What the answer is to carry (5).
    pub correlation_data: Option<Vec<u8>>,
    /// User properties of the will (5).
    pub user_properties: Vec<(String, String)>,
}

impl OwnedWill {
    fn properties(&self) -> Result<Vec<Property<'_>>, Error> {
        let mut properties = Vec::new();
        if self.delay > 0 {
            properties.push(Property::WillDelayInterval(self.delay));
        }
        if self.is_text {
            properties.push(Property::PayloadFormatIndicator(true));
        }
        properties.extend(self.expiry.map(Property::MessageExpiryInterval));
        properties.extend(self.content_type.as_deref().map(Property::ContentType));
        if let Some(topic) = &self.response_topic {
            properties.push(Property::ResponseTopic(topic_name(
                "response topic",
                topic,
            )?));
        }
        let data = self.correlation_data.as_deref();
        properties.extend(data.map(Property::CorrelationData));
        properties.extend(pairs(&self.user_properties));
        Ok(properties)
    }
}

fn pairs(properties: &[(String, String)]) -> impl Iterator<Item = Property<'_>> {
    properties
        .iter()
        .map(|(name, value)| Property::UserProperty(name, value))
}

fn topic_name<'a>(what: &str, topic: &'a str) -> Result<TopicName<'a>, Error> {
    TopicName::new(topic).map_err(|error| Error::Options(format!("{what}: {error}")))
}

impl Options {
    /// A connection to `host` with all else by default.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            version: Version::V311,
            client_id: String::new(),
            clean_start: true,
            assume_session: false,
            keep_alive: 60,
            user_name: None,
            password: None,
            will: None,
            session_expiry: 0,
            receive_maximum: 256,
            topic_alias_maximum: 16,
            request_response_information: false,
            request_problem_information: true,
            user_properties: Vec::new(),
            config: Config::default(),
            back_off: BackOff::default(),
            dial_timeout: Duration::from_secs(10),
            subscription_queue: 1_024,
        }
    }

    /// From `mqtt://[user[:password]@]host[:port]`; an address of version 6 stands in brackets, what is special in user
    /// or password as `%40`.
    ///
    /// # Errors
    /// [`Error::Url`] for anything else. `mqtts` is not one of them: bring a TLS stream to the adapter's constructor.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Url(format!("{url}: {why}"));
        let rest = url
            .strip_prefix("mqtt://")
            .ok_or_else(|| wrong("it does not begin with mqtt://"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6
                    .split_once(']')
                    .ok_or_else(|| wrong("a bracket is missing"))?;
                (
                    host,
                    port.strip_prefix(':')
                        .or_else(|| port.is_empty().then_some("1883")),
                )
            }
            None => address
                .split_once(':')
                .map_or((address, Some("1883")), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(wrong("there is no host"));
        }
        let port = port
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| wrong("the port is no number up to 65535"))?;
        let mut options = Self::new(host, port);
        if let Some(user) = user {
            let (name, password) = user
                .split_once(':')
                .map_or((user, None), |(name, password)| (name, Some(password)));
            let decode =
                |text| unescape(text).ok_or_else(|| wrong("a % is not followed by two hex digits"));
            let name = String::from_utf8(decode(name)?)
                .map_err(|_| wrong("the user name is not UTF-8"))?;
            options.user_name = Some(name);
            options.password = password.map(decode).transpose()?;
        }
        Ok(options)
    }

    /// Gives the CONNECT that these options make to `then`.
    ///
    /// # Errors
    /// A will whose topic is none.
    pub(crate) fn with_connect<R>(
        &self,
        clean_start: bool,
        client_id: &str,
        then: impl FnOnce(&Connect<'_>) -> R,
    ) -> Result<R, Error> {
        let v5 = self.version.is_v5();
        let mut properties = Vec::new();
        if v5 {
            properties.extend([
                Property::SessionExpiryInterval(self.session_expiry),
                Property::ReceiveMaximum(self.receive_maximum.max(1)),
                Property::MaximumPacketSize(self.config.packet_limit.max(1)),
                Property::TopicAliasMaximum(self.topic_alias_maximum),
            ]);
            if self.request_response_information {
                properties.push(Property::RequestResponseInformation(true));
            }
            if !self.request_problem_information {
                properties.push(Property::RequestProblemInformation(false));
            }
            properties.extend(pairs(&self.user_properties));
        }
        let will_properties = match &self.will {
            Some(will) if v5 => will.properties()?,
            _ => Vec::new(),
        };
        let will = match &self.will {
            Some(will) => Some(Will {
                topic: topic_name("will topic", &will.topic)?,
                payload: &will.payload,
                qos: will.qos,
                retain: will.retain,
                properties: Properties::from(&will_properties[..]),
            }),
            None => None,
        };
        Ok(then(&Connect {
            version: self.version,
            clean_start,
            keep_alive: self.keep_alive,
            client_id,
            will,
            user_name: self.user_name.as_deref(),
            password: self.password.as_deref(),
            properties: Properties::from(&properties[..]),
        }))
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        plain.push(u8::try_from(value).ok()?);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_who() {
        let parse = |url| Options::from_url(url).map(|o| (o.host, o.port, o.user_name, o.password));
        assert_eq!(parse("mqtt://h"), Ok(("h".into(), 1883, None, None)));
        assert_eq!(
            parse("mqtt://127.0.0.1:99/"),
            Ok(("127.0.0.1".into(), 99, None, None))
        );
        assert_eq!(parse("mqtt://[::1]:7"), Ok(("::1".into(), 7, None, None)));
        let user = Some("a@b".to_owned());
        assert_eq!(
            parse("mqtt://a%40b:p:w@h:1"),
            Ok(("h".into(), 1, user, Some(b"p:w".to_vec())))
        );
        for wrong in [
            "h",
            "http://h",
            "mqtt://",
            "mqtt://h:x",
            "mqtt://h:70000",
            "mqtt://[::1",
            "mqtt://%4@h",
            "mqtt://[::1]x",
        ] {
            assert!(matches!(parse(wrong), Err(Error::Url(_))), "{wrong}");
        }
    }
}
