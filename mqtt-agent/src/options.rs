//! Holds the options of a client: its server, its identity, and the handling of messages.

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
use crate::subscriptions::PlainSubscription;
use crate::url::Scheme;
use crate::will::OwnedWill;

/// The options of a client. Make them from a URL or a host, then assign fields.
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
    /// Host name or address that the adapter dials.
    pub host: String,
    /// TCP port. Default 1883.
    pub port: u16,
    /// The transport: TCP, TLS, WebSocket, both, or a Unix socket. Default TCP.
    pub scheme: Scheme,
    /// The path of WebSocket, including the part after a `?`, or the path of a Unix socket, where `@name` is an abstract socket
    /// of Linux. Default `/mqtt`.
    pub path: String,
    /// Protocol version. Default 3.1.1.
    pub version: Version,
    /// Client identifier. With an empty one the server assigns one. Default empty.
    pub client_id: String,
    /// Clean session (3.1.1) or clean start (5). In 5 only the first connection starts clean, so that a reconnect resumes the
    /// session if [`Self::session_expiry`] keeps it. Default `true`.
    pub clean_start: bool,
    /// Whether the agent continues a session that the server has for this client identifier and that this process did not
    /// begin ([`mqtt_session::Client::assume_session`]); it matters only without a clean start. With `false` the agent of
    /// MQTT 5, and in earlier versions one with a store, ends such a connection and starts clean (5 \[MQTT-3.2.2-4\]), which
    /// loses the messages that wait in the session. Default `true`.
    pub assume_session: bool,
    /// Keep-alive in seconds; 0 turns it off. Default 60.
    pub keep_alive: u16,
    /// User name. Default none.
    pub user_name: Option<String>,
    /// Password. Default none.
    pub password: Option<Vec<u8>>,
    /// Returns new credentials before each attempt. Default none.
    pub credentials: Option<CredentialsSource>,
    /// Enhanced authentication (5). Default none.
    pub authenticator: Option<MakeAuthenticator>,
    /// The will message. Default none.
    pub will: Option<OwnedWill>,
    /// How long the server keeps the session after a connection, in seconds; `u32::MAX` for ever (5). Default 0.
    pub session_expiry: u32,
    /// How many QoS 1 and 2 messages the server may send without an acknowledgement (5). Default 256.
    pub receive_maximum: u16,
    /// The highest topic alias that the server may use (5). Default 16.
    pub topic_alias_maximum: u16,
    /// Whether the client asks the server for the beginning of response topics (5). Default `false`.
    pub request_response_information: bool,
    /// Whether the server may add reason strings and user properties to its answers (5). Default `true`.
    pub request_problem_information: bool,
    /// User properties of CONNECT (5).
    pub user_properties: Vec<(String, String)>,
    /// The settings of the session. The agent itself sets `version`, `acknowledge` and `receive_beyond_maximum`.
    /// `packet_limit`, the largest packet that is received, is by default the maximum of MQTT, 256 MiB; a lower limit is
    /// announced to the server (5).
    pub config: Config,
    /// Subscriptions that the agent makes with each new session, from the first connection on. [`crate::Agent::next_message`]
    /// returns their messages for `None`. See [`Self::subscribe`].
    pub subscriptions: Vec<OwnedSubscription>,
    /// When messages at QoS 1 and 2 are acknowledged. Default [`AcknowledgeWhen::Taken`].
    pub acknowledge: AcknowledgeWhen,
    /// What happens to messages at QoS 1 and 2 that no subscription of this process claims. Default [`Unclaimed::Hold`].
    pub unclaimed: Unclaimed,
    /// The limit for the bytes of received QoS 1 and 2 messages that the program has not taken or not acknowledged. At the limit
    /// the client reads nothing, so acknowledgements for the program do not arrive either. [`Self::receive_maximum`] (5), or the
    /// window of the server, limits how many messages a server sends without an acknowledgement. Default 64 MiB.
    pub receive_limit: usize,
    /// How many messages at QoS 0 wait in each subscription before [`Self::qos0_overflow`] applies. At least 1, default
    /// 16,384.
    pub qos0_queue: usize,
    /// The limit for the bytes of these messages. A single larger message is accepted. Default 4 MiB.
    pub qos0_queue_bytes: usize,
    /// What happens to messages at QoS 0 beyond these limits. Default [`QoS0Overflow::DropOldest`].
    pub qos0_overflow: QoS0Overflow,
    /// How long to wait before each reconnect, and how often to try.
    pub back_off: BackOff,
    /// Errors that stop the agent. With the default it tries again after each error.
    pub stop_on: StopOn,
    /// The time limit for opening a transport. Default 10 s.
    pub dial_timeout: Duration,
    /// The store of the state that outlives the process. Default none. [`Self::store`] sets it. An adapter opens it.
    #[cfg(feature = "journal")]
    pub store: Option<StoreOptions>,
}

/// A store for the state of one client that outlives the process.
#[cfg(feature = "journal")]
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StoreOptions {
    /// The directory. It is created if it does not exist.
    pub dir: String,
    /// Whether a record is flushed to the device before it counts as stored. With `false` a record survives the process but not a
    /// loss of power, which may also damage the store. Default `true`.
    pub flush: bool,
    /// The limit for the bytes of records; the file is larger. By default the disk is the only limit.
    pub limit: Option<u64>,
}

/// Shows host, user and client identifier, and never shows the password.
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
pub struct OwnedSubscription(pub(crate) PlainSubscription);

/// When messages at QoS 1 and 2 are acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum AcknowledgeWhen {
    /// When the program is done with the message: at [`crate::Agent::taken`], which a stream calls when the program asks it for
    /// the next message. A killed process loses no message; the server sends the one in hand again.
    #[default]
    Taken,
    /// When the program calls [`crate::Agent::acknowledge`], in any order. A message that is not acknowledged comes again
    /// after a reconnect (QoS 1), or keeps its place in the window of the server.
    ByHand,
    /// On arrival, before the program sees the message. A killed process loses all waiting messages, up to
    /// [`Options::receive_limit`] bytes. The server does not limit how many messages wait. If the program takes none, the client
    /// soon reaches that limit and reads nothing, also no acknowledgements.
    Arrived,
}

/// What happens to QoS 1 and 2 messages that match no subscription of this process, such as those of a resumed session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Unclaimed {
    /// The agent stores them without an acknowledgement until the program subscribes or asks for them. Acknowledgements go out in
    /// the order of the messages (3.1.1 \[MQTT-4.6.0-2\], 5 \[MQTT-4.6.0-2\]), so later messages are not acknowledged before
    /// them. If the program never claims them, it gets no more QoS 1 and 2 messages once the window of the server is full.
    #[default]
    Hold,
    /// The agent acknowledges and drops them.
    Discard,
}

/// What happens when the queue of messages at QoS 0 of a subscription is full.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum QoS0Overflow {
    /// The oldest messages are dropped and counted.
    #[default]
    DropOldest,
    /// New messages are dropped and counted.
    DropNewest,
    /// The client reads nothing until the queue has room. All packets behind the message wait in the transport as well:
    /// acknowledgements for messages of the program, SUBACK, messages of other subscriptions. A program that awaits one of these
    /// before it takes the next message waits for ever.
    PauseReading,
}

/// Errors that stop the agent instead of making it try again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct StopOn {
    /// The server refuses the credentials ([`Error::is_authentication_failure`]). Default `false`.
    pub authentication_failure: bool,
    /// Another client takes over the session ([`Error::is_session_taken_over`]). Two clients with the same identifier that do
    /// not stop take the session from each other for ever. Default `false`.
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
    /// Returns options for a connection to `host`, with all other fields at their defaults.
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
            #[cfg(feature = "journal")]
            store: None,
        }
    }

    /// Stores the state that outlives the process in this directory: messages that are not acknowledged, including those that
    /// wait for a connection, received QoS 2 messages that are not released, and the subscriptions.
    ///
    /// Sets [`Self::clean_start`] and [`Self::assume_session`] to `false`, and an unset [`Self::session_expiry`] to `u32::MAX`,
    /// so that the server keeps the session over a restart. With an empty store the client ends a session that the server has for
    /// its client identifier, with the messages that wait in it: the records of that session do not exist, and a server may take
    /// the next QoS 2 message for the repetition of an earlier one.
    #[cfg(feature = "journal")]
    pub fn store(&mut self, dir: impl Into<String>) {
        (self.clean_start, self.assume_session) = (false, false);
        if self.session_expiry == 0 {
            self.session_expiry = u32::MAX;
        }
        self.store = Some(StoreOptions {
            dir: dir.into(),
            flush: true,
            limit: None,
        });
    }

    /// Adds a subscription that the agent makes with each new session.
    ///
    /// # Errors
    /// [`Error::Topic`] if `filter` is no valid topic filter.
    pub fn subscribe(&mut self, filter: &str, qos: mqtt_proto::QoS) -> Result<(), Error> {
        let filter = TopicFilter::new(filter)
            .map_err(|error| Error::Topic(format!("topic filter {filter:?}"), error))?;
        self.subscribe_with(&Subscription::new(filter, qos));
        Ok(())
    }

    /// Adds a subscription with the options of MQTT 5.
    pub fn subscribe_with(&mut self, subscription: &Subscription<'_>) {
        self.subscriptions
            .push(OwnedSubscription(PlainSubscription::new(subscription)));
    }

    /// Returns whether the session outlives a connection.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        if self.version.is_v5() {
            self.session_expiry > 0
        } else {
            !self.clean_start
        }
    }

    /// Calls `then` with the CONNECT of these options. `authentication` is the method and the data of an enhanced
    /// authentication.
    ///
    /// # Errors
    /// The topic of the will is no valid topic name.
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
            bridge: false,
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
