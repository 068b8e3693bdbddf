//! A client or a server with one interface and owned events, so that one test runs with both.

use mqtt_proto::{
    Auth, ConnAck, Connect, Properties, Property, QoS, ReasonCode, SubAck, TopicName, UnsubAck,
    Version,
};
use mqtt_session::{
    Client, Config, Ended, Event, Heap, Instant, Outgoing, Receipt, Refused, Server, ServerEvent,
    Step, Token, Violation,
};

/// The role of a machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// An owned event.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is the event of the same name")]
pub enum OwnedEvent {
    Connected {
        resumed: bool,
        unasked_session: bool,
    },
    Refused(ReasonCode),
    Connect {
        client_id: String,
        clean_start: bool,
        will: Option<Vec<u8>>,
    },
    Message {
        topic: String,
        payload: String,
        qos: QoS,
        dup: bool,
        receipt: Option<Receipt>,
    },
    Acknowledged {
        token: Token,
        reason: ReasonCode,
    },
    Subscribe {
        packet_id: u16,
        filters: Vec<(String, QoS)>,
    },
    Subscribed {
        token: Token,
        codes: Vec<ReasonCode>,
        granted_more: bool,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    Unsubscribed {
        token: Token,
    },
    Ended {
        token: Token,
        how: Ended,
    },
    Auth {
        reason: ReasonCode,
        data: Vec<u8>,
    },
    Disconnected(ReasonCode),
    Ping,
    Pong,
    Closed(Violation),
}

/// A client or a server.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is its role")]
pub enum Endpoint {
    Client(Box<Client<'static>>),
    Server(Box<Server<'static>>),
}

/// The client identifier of all tests.
pub const CLIENT_ID: &str = "pump-7";

/// The parameters of a connection.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Version of CONNECT.
    pub version: Version,
    /// Clean start.
    pub clean_start: bool,
    /// Keep-alive in seconds.
    pub keep_alive: u16,
    /// Properties of CONNECT.
    pub connect: Vec<Property<'static>>,
    /// Properties of CONNACK.
    pub connack: Vec<Property<'static>>,
}

impl Opening {
    /// Parameters with a session that outlives its connections.
    #[must_use]
    pub fn persistent(version: Version) -> Self {
        let expiry = Property::SessionExpiryInterval(u32::MAX);
        let connect = if version == Version::V5 {
            vec![expiry]
        } else {
            vec![]
        };
        Self {
            version,
            clean_start: false,
            keep_alive: 60,
            connect,
            connack: vec![],
        }
    }

    /// Returns its CONNECT.
    #[must_use]
    pub fn connect(&self) -> Connect<'_> {
        Connect {
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            properties: Properties::from(&self.connect[..]),
            ..Connect::new(self.version, CLIENT_ID)
        }
    }

    /// Returns its CONNACK.
    #[must_use]
    pub fn connack(&self, session_present: bool) -> ConnAck<'_> {
        ConnAck {
            session_present,
            properties: Properties::from(&self.connack[..]),
            ..ConnAck::default()
        }
    }
}

impl Endpoint {
    /// Makes a machine without a connection.
    #[must_use]
    pub fn new(role: Role, config: Config) -> Self {
        match role {
            Role::Client => Self::Client(Box::new(Client::new(config, Heap))),
            Role::Server => Self::Server(Box::new(Server::new(config, Heap))),
        }
    }

    /// Returns the client.
    ///
    /// # Panics
    /// It is a server.
    pub fn client(&mut self) -> &mut Client<'static> {
        match self {
            Self::Client(client) => client,
            Self::Server(_) => panic!("a server"),
        }
    }

    /// Returns the server.
    ///
    /// # Panics
    /// It is a client.
    pub fn server(&mut self) -> &mut Server<'static> {
        match self {
            Self::Server(server) => server,
            Self::Client(_) => panic!("a client"),
        }
    }

    /// Ends the connection.
    pub fn disconnected(&mut self) {
        match self {
            Self::Client(client) => client.disconnected(),
            Self::Server(server) => {
                server.disconnected();
            }
        }
    }

    /// Returns the outgoing bytes.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        match self {
            Self::Client(client) => client.outgoing(),
            Self::Server(server) => server.outgoing(),
        }
    }

    /// Removes `n` outgoing bytes.
    pub fn sent(&mut self, n: usize) {
        match self {
            Self::Client(client) => client.sent(n),
            Self::Server(server) => server.sent(n),
        }
    }

    /// Takes one step.
    ///
    /// # Errors
    /// The connection is over.
    pub fn receive(&mut self, input: &[u8], now: Instant) -> Result<Step<OwnedEvent>, Violation> {
        Ok(match self {
            Self::Client(client) => {
                let step = client.receive(input, now)?;
                own(step, |event| client_event(client, event))
            }
            Self::Server(server) => {
                let step = server.receive(input, now)?;
                own(step, |event| server_event(server, event))
            }
        })
    }

    /// Takes one step of a client whose input buffer is full.
    ///
    /// # Errors
    /// The connection is over.
    pub fn receive_full(
        &mut self,
        input: &[u8],
        now: Instant,
    ) -> Result<Step<OwnedEvent>, Violation> {
        Ok(match self {
            Self::Client(client) => {
                let step = client.receive_full(input, now)?;
                own(step, |event| client_event(client, event))
            }
            Self::Server(_) => self.receive(input, now)?,
        })
    }

    /// Publishes.
    ///
    /// # Errors
    /// As for the machine.
    pub fn publish(
        &mut self,
        qos: QoS,
        topic: &str,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Token>, Refused> {
        let topic = TopicName::new(topic).expect("a topic name");
        let message = Outgoing::new(topic, qos, payload);
        match self {
            Self::Client(client) => client.publish(&message, now),
            Self::Server(server) => server.publish(&message),
        }
    }

    /// Acknowledges by hand.
    ///
    /// # Errors
    /// As for the machine.
    pub fn acknowledge(
        &mut self,
        receipt: Receipt,
        reason: ReasonCode,
        now: Instant,
    ) -> Result<(), Refused> {
        match self {
            Self::Client(client) => client.acknowledge(receipt, reason, now),
            Self::Server(server) => server.acknowledge(receipt, reason),
        }
    }

    /// Tells the machine the time.
    ///
    /// # Errors
    /// The connection is over.
    pub fn tick(&mut self, now: Instant) -> Result<(), Violation> {
        match self {
            Self::Client(client) => client.tick(now),
            Self::Server(server) => server.tick(now),
        }
    }

    /// Returns the time of the next tick.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Client(client) => client.deadline(),
            Self::Server(server) => server.deadline(),
        }
    }

    /// Returns how many messages and requests have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        match self {
            Self::Client(client) => client.pending(),
            Self::Server(server) => server.pending(),
        }
    }

    /// Returns whether it is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Client(client) => client.is_connected(),
            Self::Server(server) => server.is_connected(),
        }
    }
}

fn own<E>(step: Step<E>, to_owned: impl FnOnce(E) -> OwnedEvent) -> Step<OwnedEvent> {
    match step {
        Step::Needs(n) => Step::Needs(n),
        Step::Blocked => Step::Blocked,
        Step::Packet { consumed, event } => Step::Packet {
            consumed,
            event: event.map(to_owned),
        },
    }
}

fn message(incoming: &mqtt_session::Incoming<'_>, topic: TopicName<'_>) -> OwnedEvent {
    let publish = &incoming.publish;
    OwnedEvent::Message {
        topic: topic.as_str().to_owned(),
        payload: String::from_utf8_lossy(publish.payload).into_owned(),
        qos: publish.qos(),
        dup: publish.dup,
        receipt: incoming.receipt,
    }
}

fn client_event(client: &Client<'static>, event: Event<'_>) -> OwnedEvent {
    match event {
        Event::Connected {
            resumed,
            unasked_session,
            ..
        } => OwnedEvent::Connected {
            resumed,
            unasked_session,
        },
        Event::Refused(connack) => OwnedEvent::Refused(connack.reason),
        Event::Message(incoming) => message(&incoming, client.topic(&incoming.publish)),
        Event::Acknowledged { token, reason, .. } => OwnedEvent::Acknowledged { token, reason },
        Event::Subscribed {
            token,
            suback,
            granted_more,
        } => OwnedEvent::Subscribed {
            token,
            codes: suback.codes.iter().collect(),
            granted_more,
        },
        Event::Unsubscribed { token, .. } => OwnedEvent::Unsubscribed { token },
        Event::Ended { token, how } => OwnedEvent::Ended { token, how },
        Event::Auth(auth) => authentication(&auth),
        Event::Disconnected(disconnect) => OwnedEvent::Disconnected(disconnect.reason),
        _ => OwnedEvent::Pong,
    }
}

fn authentication(auth: &Auth<'_>) -> OwnedEvent {
    let data = auth.properties.authentication_data();
    OwnedEvent::Auth {
        reason: auth.reason,
        data: data.unwrap_or_default().to_vec(),
    }
}

fn server_event(server: &Server<'static>, event: ServerEvent<'_>) -> OwnedEvent {
    match event {
        ServerEvent::Connect(connect) => OwnedEvent::Connect {
            client_id: connect.client_id.to_owned(),
            clean_start: connect.clean_start,
            will: connect.will.map(|will| will.payload.to_vec()),
        },
        ServerEvent::Message(incoming) => message(&incoming, server.topic(&incoming.publish)),
        ServerEvent::Acknowledged { token, reason, .. } => {
            OwnedEvent::Acknowledged { token, reason }
        }
        ServerEvent::Subscribe(subscribe) => OwnedEvent::Subscribe {
            packet_id: subscribe.packet_id.get(),
            filters: subscribe
                .filters
                .iter()
                .map(|s| (s.filter.as_str().to_owned(), s.qos))
                .collect(),
        },
        ServerEvent::Unsubscribe(request) => OwnedEvent::Unsubscribe {
            packet_id: request.packet_id.get(),
            filters: request
                .filters
                .iter()
                .map(|filter| filter.as_str().to_owned())
                .collect(),
        },
        ServerEvent::Ended { token, how } => OwnedEvent::Ended { token, how },
        ServerEvent::Auth(auth) => authentication(&auth),
        ServerEvent::Disconnected(disconnect) => OwnedEvent::Disconnected(disconnect.reason),
        _ => OwnedEvent::Ping,
    }
}

/// Answers an event of a server as a simple broker does: accepts, and grants what was asked for.
///
/// # Panics
/// The server refuses the answer.
pub fn answer(server: &mut Server<'static>, event: &OwnedEvent, opening: &Opening, now: Instant) {
    match event {
        OwnedEvent::Connect {
            client_id,
            clean_start,
            ..
        } => {
            let present = !clean_start && server.has_session_of(client_id);
            server
                .accept(&opening.connack(present), now)
                .expect("CONNECT awaits a decision");
        }
        OwnedEvent::Subscribe { packet_id, filters } => {
            let codes: Vec<_> = filters
                .iter()
                .map(|(_, qos)| ReasonCode::granted(*qos))
                .collect();
            let id = mqtt_proto::PacketId::new(*packet_id).expect("not zero");
            server
                .subscribed(&SubAck::new(id, &codes[..]))
                .expect("room for SUBACK");
        }
        OwnedEvent::Unsubscribe { packet_id, filters } => {
            let codes = vec![
                ReasonCode::Success;
                if opening.version == Version::V5 {
                    filters.len()
                } else {
                    0
                }
            ];
            let id = mqtt_proto::PacketId::new(*packet_id).expect("not zero");
            server
                .unsubscribed(&UnsubAck::new(id, &codes[..]))
                .expect("room for UNSUBACK");
        }
        _ => {}
    }
}
