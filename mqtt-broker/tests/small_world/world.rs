//! Runs the shipping broker, a few clients and a disk in every order of events. The records of the broker may be stored at any
//! time, one after the other. A crash loses the broker's memory, all connections, and any number of the last records that are not
//! stored.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use mqtt_broker::records::{Kind, Record, Records};
use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Instant};

use crate::client::{Client, Command, Link};

const NOW: Instant = Instant::from_millis(1_000);

#[derive(Debug, Default)]
pub(crate) struct Open(u128);

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

/// An input of a broker. The same inputs make the same broker.
#[derive(Clone, Debug)]
enum Input {
    Opened(usize),
    Received(usize, Vec<u8>),
    Sent(usize, usize),
    Closed(usize),
    Stored(usize),
}

/// A broker, and the connection of each client.
struct Life {
    broker: Broker<Open>,
    connections: Vec<Option<ConnectionId>>,
}

impl Life {
    /// Restores a broker from a log.
    fn new(log: &[u8], clients: usize) -> Self {
        let mut config = Config::default();
        config.statistics_interval = 0;
        let mut broker = Broker::new(config, Open(0), NOW);
        broker.start_journal();
        for record in Records::new(log) {
            broker.restore(&record.unwrap()).unwrap();
        }
        broker.restored(NOW).unwrap();
        let connections = vec![None; clients];
        let mut life = Self {
            broker,
            connections,
        };
        life.work();
        life
    }

    fn work(&mut self) {
        for _ in 0..100 {
            if self.broker.deadline().is_none_or(|at| at > NOW) {
                return;
            }
            self.broker.tick(NOW);
        }
        panic!("the broker does not come to an end");
    }

    fn take(&mut self, input: &Input) {
        match input {
            Input::Opened(client) => {
                self.connections[*client] = Some(self.broker.open(NOW).unwrap());
            }
            Input::Received(client, bytes) => {
                let id = self.connections[*client].unwrap();
                assert_eq!(self.broker.receive(id, bytes, NOW).consumed, bytes.len());
                assert!(!self.broker.is_closing(id), "{bytes:x?} is refused");
            }
            Input::Sent(client, n) => self
                .broker
                .sent(self.connections[*client].unwrap(), *n, NOW),
            Input::Closed(client) => {
                self.broker
                    .closed(self.connections[*client].take().unwrap(), NOW);
            }
            Input::Stored(n) => self.broker.stored(*n),
        }
        self.work();
    }

    fn outgoing(&self, client: usize) -> &[u8] {
        self.connections[client].map_or(&[], |id| self.broker.outgoing(id))
    }
}

/// How often a client must have received a message at the end, unless its publisher gave it up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Times {
    Never,
    Once,
    OnceOrMore,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) clients: Vec<Client>,
    /// All records; the first `stored` bytes are stored.
    log: Vec<u8>,
    stored: usize,
    /// The length of the log when the broker began, and its inputs since.
    restored: usize,
    inputs: Vec<Input>,
    pub(crate) crashes: usize,
    /// The client, the message, and how often it must be received.
    pub(crate) laws: Vec<(usize, u8, Times)>,
    /// The events, to explain a failure.
    story: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client reads a packet of the broker, or does its next command, and the broker reads the client's packets.
    Go(usize),
    /// One record is stored.
    Store,
}

impl World {
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        Self {
            clients,
            log: Vec::new(),
            stored: 0,
            restored: 0,
            inputs: Vec::new(),
            crashes: 0,
            laws: Vec::new(),
            story: Vec::new(),
        }
    }

    /// Makes the broker of this world again from its inputs.
    fn life(&self) -> Life {
        let mut life = Life::new(&self.log[..self.restored], self.clients.len());
        for input in &self.inputs {
            life.take(input);
        }
        life
    }

    fn input(&mut self, life: &mut Life, input: Input) {
        life.take(&input);
        self.inputs.push(input);
        self.give(life);
    }

    /// Appends the records of the broker to the log.
    fn give(&mut self, life: &Life) {
        let known = self.log.len() - self.stored;
        self.log.extend_from_slice(&life.broker.journal()[known..]);
    }

    /// Returns the ends of the records that are not stored.
    fn ends(&self) -> Vec<usize> {
        let mut records = Records::new(&self.log[self.stored..]);
        let mut ends = vec![self.stored];
        while let Some(record) = records.next() {
            record.unwrap();
            ends.push(self.stored + records.consumed());
        }
        ends
    }

    fn has_done(&self, (client, commands): (usize, usize)) -> bool {
        self.clients[client].done >= commands
    }

    fn acts(&self, n: usize) -> bool {
        let client = &self.clients[n];
        let command = client.command();
        match client.link {
            Link::Gone | Link::Connecting { .. } => false,
            Link::Down => match command {
                Some(Command::Leave(other, commands)) => self.has_done((other, commands)),
                _ => true,
            },
            Link::Up => match command {
                None => false,
                Some(Command::After(other, commands)) => self.has_done((other, commands)),
                Some(_) => !client.is_waiting(),
            },
        }
    }

    fn events(&self, life: &Life) -> Vec<Event> {
        let goes = |n: &usize| !life.outgoing(*n).is_empty() || self.acts(*n);
        let mut events: Vec<_> = (0..self.clients.len())
            .filter(goes)
            .map(Event::Go)
            .collect();
        if self.log.len() > self.stored {
            events.push(Event::Store);
        }
        events
    }

    fn happen(&mut self, life: &mut Life, event: Event) -> Result<(), String> {
        self.story.push(format!("{event:?}"));
        match event {
            Event::Go(n) if life.outgoing(n).is_empty() => self.act(life, n),
            Event::Go(n) => {
                let packet = first_packet(life.outgoing(n)).to_vec();
                self.input(life, Input::Sent(n, packet.len()));
                self.client_takes(n, &packet)?;
            }
            Event::Store => {
                let n = self.log.len() - self.stored;
                self.stored += n;
                self.input(life, Input::Stored(n));
            }
        }
        if let Event::Go(n) = event {
            for packet in std::mem::take(&mut self.clients[n].written) {
                self.story.push(format!("  broker reads {packet:x?}"));
                self.input(life, Input::Received(n, packet));
            }
        }
        Ok(())
    }

    fn client_takes(&mut self, n: usize, packet: &[u8]) -> Result<(), String> {
        self.story.push(format!("  {n} reads {packet:x?}"));
        self.clients[n].take(packet)
    }

    fn act(&mut self, life: &mut Life, n: usize) {
        let client = &mut self.clients[n];
        if client.link == Link::Down {
            client.connect();
            return self.input(life, Input::Opened(n));
        }
        match client.command() {
            None => {}
            Some(Command::After(..)) => client.done += 1,
            Some(Command::Leave(..) | Command::BeginClean | Command::Vanish) => {
                client.disconnected();
                self.input(life, Input::Closed(n));
            }
            Some(command) => client.begin(command),
        }
    }

    /// Returns all worlds after a crash: with any number of the records that are not stored, and with any number of the packets
    /// that each client took last without an answer that the broker has read.
    fn crashed(&self, life: &Life) -> Result<Vec<Self>, String> {
        let mut worlds = vec![self.clone()];
        for n in 0..self.clients.len() {
            let mut outgoing = life.outgoing(n);
            let mut last = worlds.clone();
            while !outgoing.is_empty() {
                let packet = first_packet(outgoing);
                outgoing = &outgoing[packet.len()..];
                for world in &mut last {
                    let taken = world.client_takes(n, packet);
                    taken.map_err(|what| world.tell(&what))?;
                }
                worlds.extend(last.iter().cloned());
            }
        }
        let mut crashed = Vec::new();
        for len in self.ends() {
            crashed.extend(worlds.iter().map(|world| world.crash(len)));
        }
        Ok(crashed)
    }

    fn crash(&self, len: usize) -> Self {
        let mut world = self.clone();
        world.story.push(format!(
            "a crash leaves {} of {} bytes, {} were stored",
            len,
            self.log.len(),
            self.stored
        ));
        world.crashes -= 1;
        world.log = as_entries(&self.log[..len]);
        world.stored = world.log.len();
        world.restored = world.log.len();
        world.inputs.clear();
        world.clients.iter_mut().for_each(Client::disconnected);
        world
    }

    /// Runs all possible events in one order without a crash.
    pub(crate) fn settle(&mut self) {
        let mut life = self.life();
        self.give(&life);
        for _ in 0..1_000 {
            let Some(event) = self.events(&life).first().copied() else {
                return;
            };
            self.happen(&mut life, event).unwrap();
        }
        panic!("it does not come to an end");
    }

    /// Checks the world when no event is possible any more.
    fn check(&self) -> Result<(), String> {
        for client in &self.clients {
            if client.command().is_some() {
                return Err(format!("{client:?} does not go on"));
            }
        }
        let given_up: Vec<_> = self.clients.iter().flat_map(|c| &c.given_up).collect();
        for (n, number, times) in &self.laws {
            let heard = &self.clients[*n].heard;
            let count = heard.get(number).copied().unwrap_or(0);
            let is_kept = match times {
                Times::Never => count == 0,
                Times::Once => count == 1 || count == 0 && given_up.contains(&number),
                Times::OnceOrMore => count > 0,
            };
            if !is_kept {
                return Err(format!("{number} is to be heard {times:?}: {heard:?}"));
            }
        }
        Ok(())
    }

    /// Returns a hash of all state that the future of the world depends on. After a crash there is no broker yet.
    fn key(&self, life: Option<&Life>) -> u64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let clients = 0..self.clients.len();
        let outgoing = life.map(|life| clients.map(|n| life.outgoing(n)).collect::<Vec<_>>());
        let (stored, rest) = self.log.split_at(self.stored);
        let log = renumbered(&as_entries(stored), rest);
        hasher.hash_one((&self.clients, log, self.crashes, outgoing))
    }

    /// Tries every order of events with this many crashes. Returns the number of different worlds, or the first broken promise.
    pub(crate) fn search(mut self, crashes: usize) -> Result<usize, String> {
        self.crashes = crashes;
        self.story.clear();
        let (mut seen, mut seen_crashed) = (HashSet::new(), HashSet::new());
        let mut open = vec![(self, None)];
        while let Some((mut world, life)) = open.pop() {
            let mut life = life.unwrap_or_else(|| world.life());
            world.give(&life);
            if !seen.insert(world.key(Some(&life))) {
                continue;
            }
            if world.crashes > 0 {
                let crashed = world.crashed(&life)?.into_iter();
                let new = crashed.filter(|world| seen_crashed.insert(world.key(None)));
                open.extend(new.map(|world| (world, None)));
            }
            let events = world.events(&life);
            let Some((last, others)) = events.split_last() else {
                world.check().map_err(|what| world.tell(&what))?;
                continue;
            };
            for event in others {
                let mut next = world.clone();
                let mut other = next.life();
                let happened = next.happen(&mut other, *event);
                happened.map_err(|what| next.tell(&what))?;
                if !seen.contains(&next.key(Some(&other))) {
                    open.push((next, None));
                }
            }
            let happened = world.happen(&mut life, *last);
            happened.map_err(|what| world.tell(&what))?;
            open.push((world, Some(life)));
        }
        Ok(seen.len())
    }

    fn tell(&self, what: &str) -> String {
        format!("{what}\n{}", self.story.join("\n"))
    }
}

/// Returns the records that a store gives back after it has stored these.
fn as_entries(log: &[u8]) -> Vec<u8> {
    let mut entries: BTreeMap<(Kind, &[u8]), Option<&[u8]>> = BTreeMap::new();
    let records = Records::new(log).map(Result::unwrap);
    entries.extend(records.map(|record| ((record.kind, record.key), record.value)));
    let mut bytes = Vec::new();
    for ((kind, key), value) in entries {
        if value.is_some() {
            write(&Record { kind, key, value }, &mut bytes);
        }
    }
    bytes
}

/// Returns what a log says, with the numbers of messages replaced by their order: a later message has a higher number, and nothing else
/// depends on it.
fn renumbered(stored: &[u8], rest: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let records = || Records::new(stored).chain(Records::new(rest));
    let numbers = records().filter_map(|record| number_of_message(&record.unwrap()));
    let numbers = BTreeSet::from_iter(numbers);
    let order = |number: u64| {
        u64::try_from(numbers.range(..number).count())
            .unwrap()
            .to_be_bytes()
    };
    let rewrite = |log: &[u8]| {
        let mut bytes = Vec::new();
        for record in Records::new(log).map(Result::unwrap) {
            let (mut key, mut value) = (record.key.to_vec(), record.value.map(<[u8]>::to_vec));
            if let Some(number) = number_of_message(&record) {
                match (record.kind, &mut value) {
                    (RECEIVED, Some(value)) => value.copy_from_slice(&order(number)),
                    _ => key[..8].copy_from_slice(&order(number)),
                }
            }
            let (key, value) = (&key[..], value.as_deref());
            write(
                &Record {
                    key,
                    value,
                    ..record
                },
                &mut bytes,
            );
        }
        bytes
    };
    (rewrite(stored), rewrite(rest))
}

/// The kind of records of messages from clients at QoS 2, whose values name messages.
const RECEIVED: Kind = Kind::new(19);

/// Returns the number of the message that a record names, if it names one.
fn number_of_message(record: &Record<'_>) -> Option<u64> {
    let bytes = match record.kind.byte() {
        19 => record.value?,
        21..=23 => record.key.get(..8)?,
        _ => return None,
    };
    let number = u64::from_be_bytes(bytes.try_into().unwrap());
    (number > 0).then_some(number)
}

fn write(record: &Record<'_>, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + record.encoded_len().unwrap(), 0);
    record.write(&mut bytes[start..]).unwrap();
}

fn first_packet(bytes: &[u8]) -> &[u8] {
    &bytes[..2 + usize::from(bytes[1])]
}
