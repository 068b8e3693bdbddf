//! Models a client of MQTT 3.1.1 as a plain value that can be copied and compared. It does not crash, and it uses one packet
//! identifier for all its publishes.

use std::collections::{BTreeMap, BTreeSet};

/// An action of a client. A client has a list of them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Command {
    /// Subscribes to a topic with this maximum QoS.
    Subscribe(u8, u8),
    Unsubscribe(u8),
    Publish(Message),
    /// Waits until another client has done this many of its commands.
    After(usize, usize),
    /// Ends its connection, and reconnects when another client has done this many of its commands.
    Leave(usize, usize),
    /// Ends its connection, and asks for a clean session that ends with the next connection.
    BeginClean,
    /// Loses its connection and does not connect again. A crash has the same effect.
    Vanish,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: u8,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// The payload; 0 stands for an empty one.
    pub(crate) number: u8,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Link {
    Down,
    Connecting {
        clean: bool,
        /// The session present flag that CONNACK must have, if it is known.
        present: Option<bool>,
    },
    Up,
    /// The client does not connect again.
    Gone,
}

/// The state of the client's own message.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
enum Flow {
    #[default]
    Idle,
    Sent(Message),
    Released,
}

/// What happens to a client's session when its connection is lost.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Kind {
    /// The session stays.
    Lasting,
    /// The session ends, and the client begins its script again.
    Clean,
    /// The session ends, and the client gives up its message in flight.
    Forgetful,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Client {
    /// Its client identifier.
    name: u8,
    kind: Kind,
    will: Option<Message>,
    pub(crate) script: Vec<Command>,
    /// How many commands are done.
    pub(crate) done: usize,
    pub(crate) link: Link,
    /// Packets that the broker has not read.
    pub(crate) written: Vec<Vec<u8>>,
    flow: Flow,
    /// Whether a SUBSCRIBE or UNSUBSCRIBE of this connection is not answered.
    asks: bool,
    /// Identifiers of QoS 2 messages that are not released.
    taken: BTreeSet<u16>,
    /// How often its program received each payload: 0 to 2, where 2 stands for more as well. So worlds are equal that differ in the
    /// order of messages, or in repetitions of a message that came twice.
    pub(crate) heard: BTreeMap<u8, u8>,
    /// The session present flag that the next CONNACK must have, if it is known.
    present: Option<bool>,
    /// The messages that it gave up.
    pub(crate) given_up: Vec<u8>,
}

impl Client {
    pub(crate) fn new(name: u8, script: &[Command]) -> Self {
        Self {
            name,
            kind: Kind::Lasting,
            will: None,
            script: script.to_vec(),
            done: 0,
            link: Link::Down,
            written: Vec::new(),
            flow: Flow::Idle,
            asks: false,
            taken: BTreeSet::new(),
            heard: BTreeMap::new(),
            present: None,
            given_up: Vec::new(),
        }
    }

    pub(crate) fn clean(self) -> Self {
        let kind = Kind::Clean;
        Self { kind, ..self }
    }

    pub(crate) fn forgetful(self) -> Self {
        let kind = Kind::Forgetful;
        Self { kind, ..self }
    }

    pub(crate) fn with_will(self, will: Message) -> Self {
        let will = Some(will);
        Self { will, ..self }
    }

    pub(crate) fn command(&self) -> Option<Command> {
        self.script.get(self.done).copied()
    }

    /// Ends its connection; packets in transit are lost.
    pub(crate) fn disconnected(&mut self) {
        if self.link == Link::Up && self.command() == Some(Command::Vanish) {
            self.link = Link::Gone;
            self.done += 1;
        } else if self.link != Link::Gone {
            self.link = Link::Down;
        }
        self.written.clear();
        self.asks = false;
    }

    /// Sends CONNECT (3.1.1, section 3.1).
    pub(crate) fn connect(&mut self) {
        let clean = self.kind != Kind::Lasting || self.command() == Some(Command::BeginClean);
        let mut flags = u8::from(clean) << 1;
        let mut rest = vec![0, 1, self.name];
        if let Some(will) = self.will {
            flags |= 4 | will.qos << 3;
            rest.extend([0, 1, will.topic, 0, 1, will.number]);
        }
        let head = [0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
        self.write(0x10, &[&head, &rest[..]].concat());
        let present = if clean { Some(false) } else { self.present };
        self.link = Link::Connecting { clean, present };
        if present == Some(false) {
            // The flag is unknown until the broker has read this CONNECT.
            self.present = None;
        }
    }

    /// Begins a command of the script.
    pub(crate) fn begin(&mut self, command: Command) {
        match command {
            Command::Subscribe(topic, qos) => self.ask(0x82, &[0, 9, 0, 1, topic, qos]),
            Command::Unsubscribe(topic) => self.ask(0xA2, &[0, 9, 0, 1, topic]),
            Command::Publish(message) => {
                self.flow = Flow::Sent(message);
                self.publish(message, false);
            }
            Command::After(..) | Command::Leave(..) | Command::BeginClean | Command::Vanish => {}
        }
    }

    fn ask(&mut self, first: u8, body: &[u8]) {
        self.asks = true;
        self.write(first, body);
    }

    /// Returns whether it waits for an answer to its command.
    pub(crate) fn is_waiting(&self) -> bool {
        self.asks || self.flow != Flow::Idle
    }

    fn write(&mut self, first: u8, body: &[u8]) {
        let len = u8::try_from(body.len()).expect("small");
        self.written.push([&[first, len], body].concat());
    }

    fn publish(&mut self, message: Message, dup: bool) {
        let first = 0x30 | u8::from(dup) << 3 | message.qos << 1 | u8::from(message.retain);
        let mut body = vec![0, 1, message.topic, 0, 1];
        if message.number != 0 {
            body.push(message.number);
        }
        self.write(first, &body);
    }

    /// Handles one packet of the broker.
    pub(crate) fn take(&mut self, packet: &[u8]) -> Result<(), String> {
        match *packet {
            [0x20, 2, present, 0] => self.connected(present == 1)?,
            // SUBACK and UNSUBACK.
            [0x90 | 0xB0, ..] => {
                self.asks = false;
                self.done += 1;
            }
            [first, _, 0, 1, _, ref rest @ ..] if first >> 4 == 3 => self.message(first, rest),
            [first, 2, high, low] => self.acknowledged(first, [high, low]),
            _ => return Err(format!("{packet:x?} is not expected")),
        }
        Ok(())
    }

    fn connected(&mut self, present: bool) -> Result<(), String> {
        let Link::Connecting {
            clean,
            present: expected,
        } = self.link
        else {
            return Err("a second CONNACK".to_owned());
        };
        if expected.is_some_and(|expected| expected != present) {
            return Err(format!("CONNACK says session present {present}"));
        }
        self.link = Link::Up;
        self.present = Some(!clean);
        if !present {
            self.taken.clear();
        }
        match self.kind {
            Kind::Lasting => {}
            Kind::Clean => self.done = 0,
            Kind::Forgetful => {
                if let Some(Command::Publish(message)) = self.command()
                    && self.flow != Flow::Idle
                {
                    self.given_up.push(message.number);
                    self.flow = Flow::Idle;
                    self.done += 1;
                }
            }
        }
        if matches!(
            self.command(),
            Some(Command::BeginClean | Command::Leave(..))
        ) {
            self.done += 1;
        }
        // 3.1.1 [MQTT-4.4.0-1]
        match self.flow {
            Flow::Idle => {}
            Flow::Sent(message) => self.publish(message, true),
            Flow::Released => self.write(0x62, &[0, 1]),
        }
        Ok(())
    }

    fn message(&mut self, first: u8, rest: &[u8]) {
        match (first >> 1 & 3, rest) {
            (0, payload) => self.hears(payload),
            (1, &[high, low, ref payload @ ..]) => {
                self.hears(payload);
                self.write(0x40, &[high, low]);
            }
            (_, &[high, low, ref payload @ ..]) => {
                if self.taken.insert(u16::from_be_bytes([high, low])) {
                    self.hears(payload);
                }
                self.write(0x50, &[high, low]);
            }
            _ => {}
        }
    }

    fn hears(&mut self, payload: &[u8]) {
        for number in payload {
            let times = self.heard.entry(*number).or_default();
            *times = 2.min(*times + 1);
        }
    }

    fn acknowledged(&mut self, first: u8, id: [u8; 2]) {
        match (first, self.flow) {
            (0x40, Flow::Sent(_)) | (0x70, Flow::Released) => {
                self.flow = Flow::Idle;
                self.done += 1;
            }
            (0x50, _) => {
                self.flow = Flow::Released;
                self.write(0x62, &id);
            }
            (0x62, _) => {
                self.taken.remove(&u16::from_be_bytes(id));
                self.write(0x70, &id);
            }
            _ => {}
        }
    }
}
