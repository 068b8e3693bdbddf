//! Simulates clients with a disk: the process of an agent and its program is killed or closed at any instant, and the next one is
//! restored from a prefix of its records, which includes the stored ones and may end at any byte. Some programs store the count
//! of their results as a note with each acknowledgement, and lose the results that their last note does not count. Some disks are
//! lost; then the next process must end the session of the broker, because its records are gone.

use std::collections::{BTreeMap, HashMap, HashSet};

use mqtt_agent::session::records::{Entry, Outgoing, Records, Subscribed};
use mqtt_agent::session::{Refused, Token};
use mqtt_agent::{Agent, MessageId, Options, Outcome};
use mqtt_proto::{PacketId, QoS, ReasonCode};

use super::class;
use super::disk::Disk;
use super::expectations::Moment;
use super::world::World;

/// A published message at QoS 1 or 2.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    token: Token,
    number: u32,
    /// The length of the log with its record.
    end: usize,
}

/// The disk of a client, and what its program has done.
#[derive(Debug, Default)]
pub(super) struct Durable {
    disk: Disk,
    /// The length of the log at the start of the process.
    base: usize,
    /// Whether the program stores the count of its results with each acknowledgement.
    has_notes: bool,
    /// The messages that the program acknowledged with a note.
    results: Vec<u32>,
    /// The QoS 2 messages that the program has finished in this process, each with the length of the log with its record.
    finished: HashMap<u32, usize>,
    /// The published messages whose records may exist, by packet identifier.
    accepted: HashMap<PacketId, Accepted>,
}

/// The possible speeds of a client's disk.
const PACES: [usize; 3] = [1, 2, 8];

/// One in this many crashes loses the disk.
const LOSSES: usize = 8;

impl Durable {
    /// Returns the length of the log with all records that the agent has written.
    fn written(&self, agent: &Agent) -> usize {
        self.base + usize::try_from(agent.recorded().0).expect("small")
    }

    /// Returns the packet identifiers of the messages whose records are on the disk. Messages are left out that PUBREC
    /// answered in a session that has ended: nothing more happens to these.
    fn messages(&self) -> HashSet<PacketId> {
        let (mut session, mut messages) = (0, BTreeMap::new());
        for record in Records::new(self.disk.log()).map_while(Result::ok) {
            match Entry::read(&record) {
                Ok(Some(Entry::Session(known))) => session = known.serial,
                Ok(Some(Entry::Outgoing(order, Some(message)))) => {
                    messages.insert(order, message);
                }
                Ok(Some(Entry::Outgoing(order, None))) => {
                    messages.remove(&order);
                }
                _ => {}
            }
        }
        let id = |message| match message {
            Outgoing::Message { id, .. } => id,
            Outgoing::Released { serial, id } => (serial == session).then_some(id),
        };
        messages.into_values().filter_map(id).collect()
    }
}

impl Durable {
    /// Returns the filters of the subscriptions that the records have.
    fn filters(&self) -> HashSet<String> {
        let mut filters = HashSet::new();
        for record in Records::new(self.disk.log()).map_while(Result::ok) {
            if let Ok(Some(Subscribed { filter, state })) = Subscribed::read(&record) {
                match state {
                    Some(_) => filters.insert(filter.to_owned()),
                    None => filters.remove(filter),
                };
            }
        }
        filters
    }
}

impl World {
    /// Gives a new client a disk, or none.
    pub(super) fn new_disk(&mut self) -> Option<Box<Durable>> {
        if !self.chance(class::DISKS, 3) {
            return None;
        }
        let mut durable = Durable {
            has_notes: self.random.once_in(2),
            ..Durable::default()
        };
        durable.disk.restart(&PACES, &mut self.random);
        Some(Box::new(durable))
    }

    /// Returns whether the program of a client stores notes.
    pub(super) fn has_notes(&self, n: usize) -> bool {
        let durable = self.nodes[n].durable.as_ref();
        durable.is_some_and(|durable| durable.has_notes)
    }

    /// Makes the agent of a process. With a disk it continues from the records.
    pub(super) fn new_agent(&mut self, n: usize, options: Options) -> Agent {
        let Some(durable) = &mut self.nodes[n].durable else {
            return Agent::new(options);
        };
        let mut agent = Agent::with_journal(options);
        let mut broken = None;
        for record in Records::new(durable.disk.log()) {
            let record = record.expect("whole records");
            if let Err(error) = agent.restore(&record) {
                broken.get_or_insert_with(|| format!("a record is refused: {error}, {record:?}"));
            }
        }
        if let Err(error) = agent.restored() {
            broken.get_or_insert_with(|| format!("the records are refused: {error}"));
        }
        durable.base = durable.disk.log().len();
        if durable.has_notes {
            let note = agent.note().map_or(Ok([0; 4]), TryFrom::try_from);
            let kept = note.map_or(usize::MAX, |note| {
                usize::try_from(u32::from_be_bytes(note)).expect("small")
            });
            if kept > durable.results.len() {
                broken.get_or_insert_with(|| format!("a note of {kept} results"));
            }
            durable.results.truncate(kept);
            // The results that the note does not count are gone with the process: these messages have to come again.
            let results: HashSet<u32> = durable.results.iter().copied().collect();
            self.expectations.lives[n]
                .heard
                .retain(|heard| heard.qos == QoS::AtMostOnce || results.contains(&heard.number));
        }
        if let Some(broken) = broken {
            self.fail(n, broken);
        }
        agent
    }

    /// Stores some of the records of a client, or all of them.
    pub(super) fn store_client(&mut self, n: usize, all: bool) {
        let node = &mut self.nodes[n];
        let Some(durable) = &mut node.durable else {
            return;
        };
        durable.disk.give(node.agent.journal());
        let stored = durable.disk.store(all, &mut self.random);
        node.agent.stored(stored);
        if stored > 0 {
            self.activate(n);
        }
    }

    /// Stores all records of all clients. Returns whether there were any.
    pub(super) fn store_clients(&mut self) -> bool {
        let mut any = false;
        for n in 0..self.nodes.len() {
            if self.has_records(n) {
                any = true;
                self.store_client(n, true);
            }
        }
        any
    }

    /// Returns whether records of a client wait for its disk.
    pub(super) fn has_records(&self, n: usize) -> bool {
        !self.nodes[n].agent.journal().is_empty()
    }

    /// Notes a published message of a client with a disk.
    pub(super) fn note_accepted(&mut self, n: usize, token: Token, number: u32) {
        let node = &mut self.nodes[n];
        if let (Some(durable), Some(id)) = (&mut node.durable, token.packet_id()) {
            let end = durable.written(&node.agent);
            let accepted = Accepted { token, number, end };
            durable.accepted.insert(id, accepted);
        }
    }

    /// Acknowledges a message by hand, with a note if the program stores notes.
    pub(super) fn acknowledge(
        &mut self,
        n: usize,
        id: MessageId,
        number: u32,
    ) -> Result<(), Refused> {
        let now = self.instant();
        let node = &mut self.nodes[n];
        let Some(durable) = node.durable.as_mut().filter(|known| known.has_notes) else {
            return self.finish(n, number, |agent| {
                agent.acknowledge(id, ReasonCode::Success, now)
            });
        };
        durable.results.push(number);
        let count = u32::try_from(durable.results.len()).expect("few");
        let done = self.finish(n, number, |agent| {
            agent.acknowledge_with(id, &count.to_be_bytes(), now)
        });
        if done.is_ok() {
            self.report.noted += 1;
        } else if let Some(durable) = &mut self.nodes[n].durable {
            durable.results.pop();
        }
        done
    }

    /// Calls the agent for a message that its program has finished. If the agent writes the acknowledgement of a QoS 2 message,
    /// the message must not come again once the record is stored.
    pub(super) fn finish<T>(
        &mut self,
        n: usize,
        number: u32,
        call: impl FnOnce(&mut Agent) -> T,
    ) -> T {
        let node = &mut self.nodes[n];
        let before = node.agent.recorded();
        let done = call(&mut node.agent);
        if let Some(durable) = &mut node.durable
            && node.exactly_once.contains(&number)
            && node.agent.recorded() != before
        {
            let end = durable.written(&node.agent);
            durable.finished.insert(number, end);
        }
        done
    }

    /// Permits that a message in doubt comes again: the next process of a client with a disk sends it in a new session, if a crash loses
    /// the record of its end.
    pub(super) fn permit_in_doubt(&mut self, n: usize, number: u32, outcome: Outcome) {
        if outcome == Outcome::InDoubt && self.nodes[n].durable.is_some() {
            self.expectations.doubted.insert(number);
        }
    }

    /// Ends the process of a client with a disk, and keeps what its records say; `all` those that are not stored are lost, or some.
    /// Returns `false` for a client without a disk.
    pub(super) fn crash_client(&mut self, n: usize, all: bool, moment: Moment) -> bool {
        let node = &mut self.nodes[n];
        let Some(mut durable) = node.durable.take() else {
            return false;
        };
        self.report.restored += 1;
        durable.disk.give(node.agent.journal());
        durable.disk.crash(all, &mut self.random);
        let is_lost = self.random.once_in(LOSSES);
        if is_lost {
            self.report.disks_lost += 1;
            durable.disk = Disk::default();
            for old in &mut self.expectations.lives[n].subscribed {
                old.lost = true;
            }
        }
        let (stored, kept) = (durable.disk.stored(), durable.disk.log().len());
        let life = &mut self.expectations.lives[n];
        for (number, _) in node.unsettled.drain() {
            let is_stored = durable
                .finished
                .get(&number)
                .is_some_and(|end| *end <= kept);
            // The same message may also come at QoS 1 through another subscription.
            let once = |heard: &super::expectations::Heard| {
                heard.number != number || heard.qos != QoS::AtLeastOnce
            };
            if !is_stored || !life.heard.iter().all(once) {
                life.permit(number, moment);
            }
        }
        durable.finished.clear();
        self.expectations.lives[n].may_subscribe_to(&durable.filters(), moment);
        let messages = durable.messages();
        let gone = node.asked.drain().find(|(token, _)| {
            let accepted = token.packet_id().and_then(|id| durable.accepted.get(&id));
            accepted.is_some_and(|accepted| {
                !is_lost
                    && accepted.token == *token
                    && accepted.end <= stored
                    && !messages.contains(&accepted.token.packet_id().expect("QoS 1 or 2"))
            })
        });
        durable.accepted.retain(|id, _| messages.contains(id));
        for accepted in durable.accepted.values_mut() {
            accepted.end = 0;
            node.asked.insert(accepted.token, accepted.number);
            self.report.continued += 1;
            // The record of its end may be lost: it ends again.
            if let Some(published) = self.expectations.published.get_mut(&accepted.number) {
                published.acknowledged = None;
            }
        }
        durable.disk.restart(&PACES, &mut self.random);
        node.durable = Some(durable);
        if let Some((token, number)) = gone {
            self.fail(n, format!("{number} was stored and is gone: {token:?}"));
        }
        true
    }
}
