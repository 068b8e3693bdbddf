//! Slows down the publishers of other shards. When a message that came over a link waits in the queue of a receiver that is too full, the
//! shard of its publisher is told the topic, and withholds the acknowledgements of further messages to this topic until it is told that no
//! receiver is too full any more. The messages of a link are acknowledged at once: a link acknowledges in order, so that one message that
//! waits would stop all others.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::control::{Entry, MESSAGE};
use super::hash::stable_hash;
use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::pressure::WaitsFor;

/// The limits of the topics that a shard reports to others: how many of one receiver, how many different ones of all receivers to one
/// shard, and how many to all shards, where a topic counts once for each receiver (about 32 MB). The publishers of further topics do not
/// wait. If the queue of the receiver reaches four times its limits, the receiver counts as slow, and its queue drops messages.
const MOST_OF_RECEIVER: usize = 1 << 14;
const MOST: usize = 1 << 18;
const MOST_OF_ALL: usize = 1 << 20;

/// The topics with receivers that are too full, on both sides of a link, as hashes that all shards compute alike.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// The topics of receivers in the other shard, and the own publishers that wait for each.
    theirs: HashMap<u64, BTreeSet<ConnectionId>>,
    /// The topics of own receivers that are reported to the other shard, and how many receivers each has.
    own: HashMap<u64, u32>,
    /// The reports that are not sent to the other shard yet.
    reports: VecDeque<Report>,
}

#[derive(Clone, Copy, Debug)]
enum Report {
    Busy(u64),
    Idle(u64),
}

impl Busy {
    /// Counts a receiver of a topic that is too full. Returns `false` if there are too many topics.
    fn count_receiver(&mut self, topic: u64) -> bool {
        let has_room = self.own.len() < MOST;
        match self.own.entry(topic) {
            Place::Occupied(mut place) => *place.get_mut() = place.get().saturating_add(1),
            Place::Vacant(place) if has_room => {
                place.insert(1);
                self.reports.push_back(Report::Busy(topic));
            }
            Place::Vacant(_) => return false,
        }
        true
    }

    /// Counts a receiver of a topic as one that is no longer too full.
    fn free_receiver(&mut self, topic: u64) {
        if let Place::Occupied(mut place) = self.own.entry(topic) {
            *place.get_mut() = place.get().saturating_sub(1);
            if *place.get() == 0 {
                place.remove();
                self.reports.push_back(Report::Idle(topic));
            }
        }
    }

    /// Tells everything again, because the link is open again.
    pub(super) fn tell_all(&mut self) {
        self.reports = self.own.keys().map(|topic| Report::Busy(*topic)).collect();
    }

    /// Writes the next reports, and returns how many.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) -> usize {
        let mut written = 0_usize;
        for report in &self.reports {
            if bytes.len() >= MESSAGE {
                break;
            }
            match report {
                Report::Busy(topic) => Entry::Busy(*topic).write(bytes),
                Report::Idle(topic) => Entry::Idle(*topic).write(bytes),
            }
            written = written.saturating_add(1);
        }
        written
    }

    pub(super) fn wrote(&mut self, reports: usize) {
        self.reports.drain(..reports.min(self.reports.len()));
    }

    /// Notes that the other shard told a topic.
    pub(super) fn learn(&mut self, topic: u64) {
        if self.theirs.len() < MOST {
            self.theirs.entry(topic).or_default();
        }
    }
}

impl<H: Hooks> Broker<H> {
    /// Returns the hash of a topic by which shards tell each other.
    pub(crate) fn hash_of_topic(&self, topic: &[u8]) -> u64 {
        stable_hash(topic, self.config.hash_key)
    }

    /// Returns what the publisher of a message for another shard has to wait for, if receivers there are too full.
    pub(crate) fn busy_topic_of(&mut self, shard: u8, topic: &[u8]) -> Option<WaitsFor> {
        let links = self.links.as_mut()?;
        let busy = &links.peer(shard)?.busy;
        if busy.theirs.is_empty() {
            return None;
        }
        let topic = stable_hash(topic, self.config.hash_key);
        let is_busy = busy.theirs.contains_key(&topic);
        is_busy.then_some(WaitsFor::Topic(shard, topic))
    }

    /// Returns the publishers that wait for a topic of another shard; `None` if its receivers are not too full any more.
    pub(crate) fn publishers_of_topic(
        &mut self,
        shard: u8,
        topic: u64,
    ) -> Option<&mut BTreeSet<ConnectionId>> {
        let peer = self.links.as_mut()?.peer(shard)?;
        peer.busy.theirs.get_mut(&topic)
    }

    /// Notes that another shard has no receiver of a topic any more that is too full.
    pub(super) fn topic_is_idle(&mut self, shard: u8, topic: u64) {
        let peer = self.links.as_mut().and_then(|links| links.peer(shard));
        let waited = peer.and_then(|peer| peer.busy.theirs.remove(&topic));
        self.release_publishers(waited.unwrap_or_default());
    }

    /// Lets the publishers go on that wait for receivers of another shard, because its link has ended.
    pub(crate) fn forget_busy_topics(&mut self, shard: u8) {
        let peer = self.links.as_mut().and_then(|links| links.peer(shard));
        let theirs = peer.map(|peer| std::mem::take(&mut peer.busy.theirs));
        let waited = theirs.unwrap_or_default().into_values().flatten().collect();
        self.release_publishers(waited);
    }

    /// Tells another shard that a topic of its publishers has a receiver that is too full.
    pub(crate) fn tell_busy(&mut self, key: SessionKey, shard: u8, topic: u64) {
        let session = self.sessions.get_mut(key);
        let pressure = session.and_then(|session| session.pressure.as_mut());
        let Some(told) = pressure.map(|pressure| &mut pressure.told) else {
            return;
        };
        let Some(links) = &mut self.links else { return };
        if told.len() >= MOST_OF_RECEIVER || links.told >= MOST_OF_ALL {
            return;
        }
        if !told.contains(&(shard, topic))
            && let Some(peer) = links.peer(shard)
            && peer.busy.count_receiver(topic)
        {
            told.insert((shard, topic));
            links.told = links.told.saturating_add(1);
            links.has_news = true;
        }
    }

    /// Tells the other shards that a receiver is not too full any more.
    pub(crate) fn tell_idle(&mut self, told: BTreeSet<(u8, u64)>) {
        let Some(links) = self.links.as_mut().filter(|_| !told.is_empty()) else {
            return;
        };
        self.meter.spend(told.len() / 4);
        links.told = links.told.saturating_sub(told.len());
        links.has_news = true;
        for (shard, topic) in told {
            if let Some(peer) = links.peer(shard) {
                peer.busy.free_receiver(topic);
            }
        }
    }
}
