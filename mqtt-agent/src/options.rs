//! What the agent is to do: whom to connect to, as whom, and what happens to messages.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use mqtt_proto::{
    Connect, MAX_PACKET, Properties, Property, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_session::{BackOff, Config};

use crate::authentication::{CredentialsSource, MakeAuthenticator};
use crate::error::Error;
use crate::subscriptions::Wanted;
use crate::url::Scheme;
use crate::will::OwnedWill;

/// The options of a client: make them from a URL or a host, then assign fields.
///
/// ```
/// use mqtt_agent::{Options, proto::QoS};
/// let mut options = Options::from_url("mqtt://user:secret@broker.example:1884").unwrap();
/// options.client_id = "pump-7".into();
/// options.clean_start = false;
/// options.subscribe("pumps/7/start", QoS::AtLeastOnce).unwrap();
/// assert_eq!((options.host.as_str(), options.port), ("broker.example", 1884));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Host name or address, for the adapter that dials.
    pub host: String,
    /// Port. Default 1883.
    pub port: u16,
    /// What the connection goes through. Default TCP.
    pub scheme: Scheme,
    /// The path of WebSocket, with what follows a `?`, or that of a Unix socket, where `@name` is an abstract one of Linux. Default
    /// `/mqtt`.
    pub path: String,
    /// Protocol version. Default 3.1.1.
    pub version: Version,
    /// Client identifier; empty asks the server for one. Default empty.
    pub client_id: String,
    /// Clean session (3.1.1) or clean start (5). In 5 only the first connection starts clean, so that a reconnect
    /// resumes if [`Self::session_expiry`] lets it. Default `true`.
    pub clean_start: bool,
    /// Without a clean start, whether the agent goes on with a session of this client identifier that the server has and this
    /// process knows nothing of ([`mqtt_session::Client::assume_session`]). With `false` the agent of MQTT 5 ends such a
    /// connection and starts clean (5 \[MQTT-3.2.2-4\]), which loses the messages that wait there. Default `true`.
    pub assume_session: bool,
    /// Keep-alive in seconds, 0 for none. Default 60.
    pub keep_alive: u16,
    /// User name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// Where new credentials come from before each attempt, if they change.
    pub credentials: Option<CredentialsSource>,
    /// Enhanced authentication (5).
    pub authenticator: Option<MakeAuthenticator>,
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
    /// How the session behaves. The agent itself sets `version`, `acknowledge` and `receive_beyond_maximum`. Its
    /// `packet_limit`, the largest packet that is received, is by default what MQTT allows, 256 MiB, and is announced if it
    /// is lower (5).
    pub config: Config,
    /// Subscriptions to be made with each new session, from the first connection on. Their messages are those of
    /// [`crate::Agent::next_message`] without a subscription. See [`Self::subscribe`].
    pub subscriptions: Vec<OwnedSubscription>,
    /// When messages at QoS 1 and 2 are acknowledged. Default [`AcknowledgeWhen::Taken`].
    pub acknowledge: AcknowledgeWhen,
    /// What happens to messages at QoS 1 and 2 that no subscription of this process claims. Default [`Unclaimed::Hold`].
    pub unclaimed: Unclaimed,
    /// Bytes of received messages at QoS 1 and 2 that the program has not taken or not acknowledged; from then on nothing
    /// is read, so acknowledgements that the program waits for do not arrive either. How many messages a server sends without
    /// an acknowledgement is bounded by [`Self::receive_maximum`] (5) or by the server's own window. Default 64 MiB.
    pub receive_limit: usize,
    /// Messages at QoS 0 that wait in each subscription before [`Self::qos0_overflow`] applies. At least 1, default 16,384.
    pub qos0_queue: usize,
    /// Bytes of them. One message is taken in any case. Default 4 MiB.
    pub qos0_queue_bytes: usize,
    /// What happens when more come. Default [`QoS0Overflow::DropOldest`].
    pub qos0_overflow: QoS0Overflow,
    /// How reconnection backs off.
    pub back_off: BackOff,
    /// What makes the agent stop instead of trying again. Default nothing.
    pub stop_on: StopOn,
    /// How long opening a transport may take. Default 10 s.
    pub dial_timeout: Duration,
}

/// Tells whom it connects to and as whom, never the password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("scheme", &self.scheme)
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .finish_non_exhaustive()
    }
}

/// A subscription that owns its topic filter.
#[derive(Clone, Debug)]
pub struct OwnedSubscription(pub(crate) Wanted);

/// When messages at QoS 1 and 2 are acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum AcknowledgeWhen {
    /// When the program is done with the message: with [`crate::Agent::taken`], which a stream calls when it is asked for the
    /// next message. A process that is killed gets the message in hand again, and loses none.
    #[default]
    Taken,
    /// By [`crate::Agent::acknowledge`], in any order. What is not acknowledged comes again after a reconnect (QoS 1), or
    /// holds its place in the server's window.
    ByHand,
    /// When it arrives, before the program sees it. A process that is killed loses all that waits, up to
    /// [`Options::receive_limit`] bytes; and as no window bounds what waits, a program that stops taking messages stops
    /// reading, with all that is behind them in the transport.
    Arrived,
}

/// What happens to messages at QoS 1 and 2 that no subscription of this process claims, such as those of a session from
/// before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Unclaimed {
    /// They are held, not acknowledged, until the program subscribes or asks for them. Acknowledgements go out in the order of
    /// the messages (3.1.1 \[MQTT-4.6.0-2\], 5 \[MQTT-4.6.0-2\]), so those of later messages wait behind them: a program that
    /// claims none of them for ever gets nothing else at QoS 1 and 2 once the server's window is full.
    #[default]
    Hold,
    /// They are acknowledged and dropped.
    Discard,
}

/// What happens when the queue of messages at QoS 0 of a subscription is full.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum QoS0Overflow {
    /// The oldest give way, and are counted.
    #[default]
    DropOldest,
    /// The new ones are dropped, and counted.
    DropNewest,
    /// Nothing is read until the queue has room again. Everything behind them in the transport waits as well:
    /// acknowledgements of what the program published, SUBACK, other subscriptions' messages. A program that awaits one of
    /// those before it takes the next message waits for ever.
    PauseReading,
}

/// What makes the agent stop instead of trying again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct StopOn {
    /// The server refuses the credentials ([`Error::is_authentication_failure`]).
    pub authentication_failure: bool,
    /// Another client takes the session over ([`Error::is_session_taken_over`]). Two that share a client identifier and do not
    /// stop take it from each other for ever.
    pub session_taken_over: bool,
}

pub(crate) fn pairs(properties: &[(String, String)]) -> impl Iterator<Item = Property<'_>> {
    properties
        .iter()
        .map(|(name, value)| Property::UserProperty(name, value))
}

pub(crate) fn topic_name<'a>(what: &str, topic: &'a str) -> Result<TopicName<'a>, Error> {
    TopicName::new(topic).map_err(|error| Error::Topic(format!("{what} {topic:?}"), error))
}

impl Options {
    /// A connection to `host` with all else by default.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let mut config = Config::default();
        config.packet_limit = MAX_PACKET;
        Self {
            host: host.into(),
            port,
            scheme: Scheme::Mqtt,
            path: String::from("/mqtt"),
            version: Version::V311,
            client_id: String::new(),
            clean_start: true,
            assume_session: true,
            keep_alive: 60,
            user_name: None,
            password: None,
            credentials: None,
            authenticator: None,
            will: None,
            session_expiry: 0,
            receive_maximum: 256,
            topic_alias_maximum: 16,
            request_response_information: false,
            request_problem_information: true,
            user_properties: Vec::new(),
            config,
            subscriptions: Vec::new(),
            acknowledge: AcknowledgeWhen::default(),
            unclaimed: Unclaimed::default(),
            receive_limit: 64 << 20,
            qos0_queue: 16_384,
            qos0_queue_bytes: 4 << 20,
            qos0_overflow: QoS0Overflow::default(),
            back_off: BackOff::default(),
            stop_on: StopOn::default(),
            dial_timeout: Duration::from_secs(10),
        }
    }

    /// Adds a subscription to be made from the first connection on.
    ///
    /// # Errors
    /// [`Error::Topic`] if `filter` is no topic filter.
    pub fn subscribe(&mut self, filter: &str, qos: mqtt_proto::QoS) -> Result<(), Error> {
        let filter = TopicFilter::new(filter)
            .map_err(|error| Error::Topic(format!("topic filter {filter:?}"), error))?;
        self.subscribe_with(&Subscription::new(filter, qos));
        Ok(())
    }

    /// The same with the options of a subscription (5).
    pub fn subscribe_with(&mut self, subscription: &Subscription<'_>) {
        self.subscriptions
            .push(OwnedSubscription(Wanted::new(subscription)));
    }

    /// Whether the session outlives a connection.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        if self.version.is_v5() {
            self.session_expiry > 0
        } else {
            !self.clean_start
        }
    }

    /// Gives the CONNECT that these options make to `then`. `authentication` is the method and the data of an enhanced
    /// authentication.
    ///
    /// # Errors
    /// A will whose topic is no topic name.
    pub(crate) fn with_connect<R>(
        &self,
        clean_start: bool,
        client_id: &str,
        authentication: Option<(&str, Option<&[u8]>)>,
        then: impl FnOnce(&Connect<'_>) -> R,
    ) -> Result<R, Error> {
        let properties = self.connect_properties(authentication);
        let will_properties = match &self.will {
            Some(will) => will.properties(self.version)?,
            None => Vec::new(),
        };
        let will = match &self.will {
            Some(will) => Some(will.as_will(&will_properties)?),
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

    fn connect_properties<'a>(
        &'a self,
        authentication: Option<(&'a str, Option<&'a [u8]>)>,
    ) -> Vec<Property<'a>> {
        let mut properties = Vec::new();
        if !self.version.is_v5() {
            return properties;
        }
        properties.extend([
            Property::SessionExpiryInterval(self.session_expiry),
            Property::ReceiveMaximum(self.receive_maximum.max(1)),
            Property::TopicAliasMaximum(self.topic_alias_maximum),
        ]);
        if self.config.packet_limit < MAX_PACKET {
            properties.push(Property::MaximumPacketSize(self.config.packet_limit.max(1)));
        }
        if self.request_response_information {
            properties.push(Property::RequestResponseInformation(true));
        }
        if !self.request_problem_information {
            properties.push(Property::RequestProblemInformation(false));
        }
        if let Some((method, data)) = authentication {
            properties.push(Property::AuthenticationMethod(method));
            properties.extend(data.map(Property::AuthenticationData));
        }
        properties.extend(pairs(&self.user_properties));
        properties
    }
}
