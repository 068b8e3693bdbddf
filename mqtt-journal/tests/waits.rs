//! Checks which packet must wait for which record, by trying every order of events in a small model. A sender and a receiver have
//! one packet identifier, three messages, at most three crashes and two lost connections. A crash keeps the stored records and
//! any number of the written ones; the model reads them back from bytes. The program of the receiver keeps its whole state in
//! notes.
//!
//! With all waits of `docs/JOURNAL.md`, each message that the sender was told is `stored` reaches the program of the receiver,
//! and at QoS 2 exactly once. Without any one of the waits, there is an order of events that breaks this.

use std::collections::{BTreeSet, HashSet};

use mqtt_journal::proto::{PacketId, Version};
use mqtt_journal::{Entry, Note, Outgoing, Received, Records};

const LOST: &str = "a message is lost";
const TWICE: &str = "a message came twice";

const ID: PacketId = PacketId::FIRST;
const MESSAGES: u8 = 3;

/// Which packets wait for their records.
#[derive(Clone, Copy, Debug)]
struct Waits {
    publish: bool,
    pubrec: bool,
    pubrel: bool,
    pubcomp: bool,
    puback: bool,
}

const ALL: Waits = Waits {
    publish: true,
    pubrec: true,
    pubrel: true,
    pubcomp: true,
    puback: true,
};

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Packet {
    Publish(u8),
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

/// The records of one side: stored records, and records that are written but not stored.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Journal {
    stored: Vec<u8>,
    written: Vec<Vec<u8>>,
}

impl Journal {
    /// Writes a record and returns how many records are not stored.
    fn write(&mut self, entry: &Entry<'_>) -> usize {
        let mut bytes = vec![0; entry.encoded_len().unwrap()];
        entry.write(&mut bytes).unwrap();
        self.written.push(bytes);
        self.written.len()
    }

    /// Stores the first written record. All records have the same key, so only the last stored one counts.
    fn store(&mut self) {
        self.stored = self.written.remove(0);
    }

    /// Returns the journal after a crash that keeps `kept` of the written records.
    fn crash(&self, kept: usize) -> Self {
        let stored = match kept.checked_sub(1) {
            None => self.stored.clone(),
            Some(last) => self.written[last].clone(),
        };
        let written = Vec::new();
        Self { stored, written }
    }

    fn entry(&self) -> Option<Entry<'_>> {
        let record = Records::new(&self.stored).next()?.unwrap();
        Entry::read(&record).unwrap()
    }
}

/// Outgoing packets in their order, each with the number of records that must be stored first.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Held(Vec<(Packet, usize)>);

impl Held {
    fn push(&mut self, packet: Packet, waits: bool, records: usize) {
        self.0.push((packet, if waits { records } else { 0 }));
    }

    fn stored(&mut self) {
        for (_, records) in &mut self.0 {
            *records = records.saturating_sub(1);
        }
    }

    fn due(&mut self) -> Option<Packet> {
        let due = self.0.first().is_some_and(|(_, records)| *records == 0);
        due.then(|| self.0.remove(0).0)
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
enum Flow {
    #[default]
    Idle,
    Message(u8),
    Released(u8),
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Sender {
    journal: Journal,
    held: Held,
    flow: Flow,
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Receiver {
    journal: Journal,
    held: Held,
    /// Whether the identifier belongs to a message that has arrived before.
    taken: bool,
    /// The state of the program: the messages that it has counted.
    program: Vec<u8>,
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct World {
    sender: Sender,
    receiver: Receiver,
    to_receiver: Vec<Packet>,
    to_sender: Vec<Packet>,
    published: u8,
    /// The messages that were reported as stored to the program of the sender.
    told: Vec<u8>,
    crashes_left: u8,
    cuts_left: u8,
}

impl Sender {
    fn write(&mut self, message: u8, state: Option<Outgoing<'_>>) -> usize {
        self.journal
            .write(&Entry::Outgoing(u64::from(message), state))
    }

    fn publish(&mut self, message: u8, waits: Waits, qos2: bool) {
        let packet = [message];
        let kept = Outgoing::Message {
            serial: 1,
            id: Some(ID),
            version: Version::V5,
            packet: &packet,
        };
        let records = self.write(message, Some(kept));
        self.flow = Flow::Message(message);
        let waits = qos2 && waits.publish;
        self.held.push(Packet::Publish(message), waits, records);
    }

    fn receive(&mut self, packet: Packet, waits: Waits) {
        match (packet, self.flow) {
            (Packet::PubRec, Flow::Message(message)) => {
                let released = Outgoing::Released { serial: 1, id: ID };
                let records = self.write(message, Some(released));
                self.flow = Flow::Released(message);
                self.held.push(Packet::PubRel, waits.pubrel, records);
            }
            (Packet::PubRec, _) => {
                let records = self.journal.written.len();
                self.held.push(Packet::PubRel, waits.pubrel, records);
            }
            (Packet::PubAck, Flow::Message(message))
            | (Packet::PubComp, Flow::Released(message)) => {
                self.write(message, None);
                self.flow = Flow::Idle;
            }
            _ => {}
        }
    }

    /// Begins a new connection: unfinished packets are sent again.
    fn connect(&mut self, waits: Waits, qos2: bool) {
        self.held = Held::default();
        let records = self.journal.written.len();
        match self.flow {
            Flow::Idle => {}
            Flow::Message(message) => {
                let waits = qos2 && waits.publish;
                self.held.push(Packet::Publish(message), waits, records);
            }
            Flow::Released(_) => self.held.push(Packet::PubRel, waits.pubrel, records),
        }
    }

    fn crash(&mut self, kept: usize) {
        self.journal = self.journal.crash(kept);
        self.flow = match self.journal.entry() {
            Some(Entry::Outgoing(_, Some(Outgoing::Message { packet, .. }))) => {
                Flow::Message(packet[0])
            }
            Some(Entry::Outgoing(message, Some(Outgoing::Released { .. }))) => {
                Flow::Released(u8::try_from(message).unwrap())
            }
            _ => Flow::Idle,
        };
    }
}

impl Receiver {
    /// Writes one record with the state of the identifier and of the program.
    fn write(&mut self) -> usize {
        let note = Note {
            order: u64::try_from(self.program.len()).unwrap(),
            bytes: &self.program,
        };
        let received = Received {
            serial: 1,
            released: !self.taken,
            note: Some(note),
        };
        self.journal.write(&Entry::Received(ID, Some(received)))
    }

    fn receive(&mut self, packet: Packet, waits: Waits, qos2: bool) {
        match packet {
            Packet::Publish(message) if !qos2 => {
                self.program.push(message);
                let records = self.write();
                self.held.push(Packet::PubAck, waits.puback, records);
            }
            Packet::Publish(message) => {
                if !self.taken {
                    self.taken = true;
                    self.program.push(message);
                    self.write();
                }
                let records = self.journal.written.len();
                self.held.push(Packet::PubRec, waits.pubrec, records);
            }
            Packet::PubRel => {
                if self.taken {
                    self.taken = false;
                    self.write();
                }
                let records = self.journal.written.len();
                self.held.push(Packet::PubComp, waits.pubcomp, records);
            }
            _ => {}
        }
    }

    fn crash(&mut self, kept: usize) {
        self.journal = self.journal.crash(kept);
        (self.taken, self.program) = match self.journal.entry() {
            Some(Entry::Received(_, Some(received))) => {
                let program = received.note.unwrap().bytes.to_vec();
                (!received.released, program)
            }
            _ => (false, Vec::new()),
        };
    }
}

impl World {
    /// Returns the worlds after each possible next event.
    fn next(&self, waits: Waits, qos2: bool) -> Vec<Self> {
        let mut worlds = Vec::new();
        let mut add = |event: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            event(&mut world);
            if world != *self {
                worlds.push(world);
            }
        };
        if self.sender.flow == Flow::Idle && self.published < MESSAGES {
            add(&|world| {
                world.published += 1;
                world.sender.publish(world.published, waits, qos2);
            });
        }
        add(&|world| world.to_receiver.extend(world.sender.held.due()));
        add(&|world| world.to_sender.extend(world.receiver.held.due()));
        if !self.to_receiver.is_empty() {
            add(&|world| {
                let packet = world.to_receiver.remove(0);
                world.receiver.receive(packet, waits, qos2);
            });
        }
        if !self.to_sender.is_empty() {
            add(&|world| {
                let packet = world.to_sender.remove(0);
                world.sender.receive(packet, waits);
            });
        }
        if !self.sender.journal.written.is_empty() {
            add(&Self::sender_stores);
        }
        if !self.receiver.journal.written.is_empty() {
            add(&|world| {
                world.receiver.journal.store();
                world.receiver.held.stored();
            });
        }
        if self.cuts_left > 0 {
            add(&|world| {
                world.cuts_left -= 1;
                world.connect(waits, qos2);
            });
        }
        worlds.append(&mut self.crashed(waits, qos2));
        worlds
    }

    /// Returns the worlds after each possible crash.
    fn crashed(&self, waits: Waits, qos2: bool) -> Vec<Self> {
        let mut worlds = Vec::new();
        if self.crashes_left == 0 {
            return worlds;
        }
        let crash = |worlds: &mut Vec<Self>, event: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            world.crashes_left -= 1;
            event(&mut world);
            world.connect(waits, qos2);
            worlds.push(world);
        };
        for kept in 0..=self.sender.journal.written.len() {
            crash(&mut worlds, &|world| world.sender.crash(kept));
        }
        for kept in 0..=self.receiver.journal.written.len() {
            crash(&mut worlds, &|world| world.receiver.crash(kept));
        }
        worlds
    }

    fn sender_stores(&mut self) {
        self.sender.journal.store();
        self.sender.held.stored();
        if let Some(Entry::Outgoing(_, Some(Outgoing::Message { packet, .. }))) =
            self.sender.journal.entry()
            && !self.told.contains(&packet[0])
        {
            self.told.push(packet[0]);
        }
    }

    fn connect(&mut self, waits: Waits, qos2: bool) {
        self.to_receiver.clear();
        self.to_sender.clear();
        self.receiver.held = Held::default();
        self.sender.connect(waits, qos2);
    }

    /// Returns the promise that is broken, if there is one.
    fn wrong(&self, qos2: bool) -> Option<&'static str> {
        let count = |message: &u8| {
            self.receiver
                .program
                .iter()
                .filter(|m| *m == message)
                .count()
        };
        if qos2 && (1..=MESSAGES).any(|message| count(&message) > 1) {
            return Some(TWICE);
        }
        let over = self.published == MESSAGES
            && self.sender.flow == Flow::Idle
            && self.to_receiver.is_empty()
            && self.sender.held.0.is_empty();
        if over && self.told.iter().any(|message| count(message) == 0) {
            return Some(LOST);
        }
        None
    }
}

/// Tries every order of events. Returns the promises that were broken, and the number of worlds.
fn search(
    waits: Waits,
    qos2: bool,
    crashes_left: u8,
    cuts_left: u8,
) -> (BTreeSet<&'static str>, usize) {
    let first = World {
        crashes_left,
        cuts_left,
        ..World::default()
    };
    let mut open = vec![first.clone()];
    let mut seen = HashSet::from([first]);
    let mut wrongs = BTreeSet::new();
    while let Some(world) = open.pop() {
        if let Some(wrong) = world.wrong(qos2) {
            wrongs.insert(wrong);
            continue;
        }
        for next in world.next(waits, qos2) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    (wrongs, seen.len())
}

/// 3.1.1 [MQTT-4.3.3-1] and [MQTT-4.3.3-2], 5 [MQTT-4.3.3-9] and [MQTT-4.3.3-13]: messages arrive exactly once despite crashes.
#[test]
fn with_all_waits_qos_2_is_exactly_once() {
    let (wrong, worlds) = search(ALL, true, 3, 2);
    assert_eq!(wrong, BTreeSet::new());
    assert!(worlds > 4_000, "{worlds}");
}

/// 3.1.1 [MQTT-4.3.2-1] and [MQTT-4.3.2-2], 5 [MQTT-4.3.2-1] and [MQTT-4.3.2-4]: messages arrive at least once despite crashes.
#[test]
fn with_its_wait_qos_1_is_at_least_once() {
    let (wrong, worlds) = search(ALL, false, 3, 2);
    assert_eq!(wrong, BTreeSet::new());
    assert!(worlds > 1_000, "{worlds}");
}

#[test]
fn no_wait_can_be_left_out() {
    let without = |waits, qos2| search(waits, qos2, 1, 0).0.into_iter().collect::<Vec<_>>();
    let publish = without(
        Waits {
            publish: false,
            ..ALL
        },
        true,
    );
    let pubrec = without(
        Waits {
            pubrec: false,
            ..ALL
        },
        true,
    );
    let pubrel = without(
        Waits {
            pubrel: false,
            ..ALL
        },
        true,
    );
    let pubcomp = without(
        Waits {
            pubcomp: false,
            ..ALL
        },
        true,
    );
    let puback = without(
        Waits {
            puback: false,
            ..ALL
        },
        false,
    );
    assert_eq!(publish, [LOST]);
    assert_eq!(pubrec, [LOST]);
    assert_eq!(pubrel, [TWICE]);
    assert_eq!(pubcomp, [LOST]);
    assert_eq!(puback, [LOST]);
}

/// The end of a flow and a PUBLISH at QoS 1 need not wait: the tests above pass without these waits.
#[test]
fn qos_1_needs_one_wait_only() {
    let waits = Waits {
        publish: false,
        pubrec: false,
        pubrel: false,
        pubcomp: false,
        puback: true,
    };
    assert_eq!(search(waits, false, 2, 1).0, BTreeSet::new());
}
