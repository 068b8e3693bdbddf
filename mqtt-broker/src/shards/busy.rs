//! Slows down the publishers of other shards. When many messages that came over a link wait for receivers whose queues are too full, their
//! shard is told the topics, and withholds the acknowledgements of further messages to these topics. It is told once when no message waits
//! any more. The link itself goes on, so that messages to other topics do not wait.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;

use mqtt_session::Instant;

use super::control::{Entry, MESSAGE};
use crate::broker::{Broker, usize_of};
use crate::connection::ConnectionId;
use crate::hooks::Hooks;

/// How many topics another shard is told at most. The publishers of further ones do not wait.
const MOST: usize = 1 << 16;

/// The topics with receivers that are too full, on both sides of a link, as hashes that all shards compute alike.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// Those of the other shard's receivers.
    theirs: HashSet<u64>,
    /// Those that the other shard was told.
    told: HashSet<u64>,
    /// What it is still to be told.
    news: VecDeque<News>,
}

#[derive(Clone, Copy, Debug)]
enum News {
    Busy(u64),
    Idle,
}

impl Busy {
    /// Notes a topic with a receiver that is too full. Returns whether the other shard is to be told.
    fn begins(&mut self, topic: u64) -> bool {
        let is_new = self.told.len() < MOST && self.told.insert(topic);
        if is_new {
            self.news.push_back(News::Busy(topic));
        }
        is_new
    }

    /// Notes that no message of the other shard waits any more. Returns whether it is to be told.
    fn ends(&mut self) -> bool {
        let was_told = !self.told.is_empty();
        if was_told {
            self.told = HashSet::new();
            self.news.clear();
            self.news.push_back(News::Idle);
        }
        was_told
    }

    /// Writes the next news, and returns how many.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) -> usize {
        let mut written = 0_usize;
        for news in &self.news {
            if bytes.len() >= MESSAGE {
                break;
            }
            match news {
                News::Busy(topic) => Entry::Busy(*topic).write(bytes),
                News::Idle => Entry::Idle.write(bytes),
            }
            written = written.saturating_add(1);
        }
        written
    }

    pub(super) fn wrote(&mut self, news: usize) {
        self.news.drain(..news.min(self.news.len()));
    }

    /// Notes what the other shard told.
    pub(super) fn learn(&mut self, topic: u64) {
        if self.theirs.len() < MOST {
            self.theirs.insert(topic);
        }
    }

    pub(super) fn forget(&mut self) {
        self.theirs = HashSet::new();
    }
}

impl<H: Hooks> Broker<H> {
    /// Makes the publisher of a message for another shard wait if receivers there are too full.
    pub(crate) fn wait_for_busy_shard(&mut self, shard: u8, key: u32, topic: &[u8], now: Instant) {
        let peer = self.links.as_mut().and_then(|links| links.peer(shard));
        let Some(busy) = peer.map(|peer| &peer.busy).filter(|b| !b.theirs.is_empty()) else {
            return;
        };
        if busy.theirs.contains(&self.clients.hasher().hash_one(topic)) {
            self.note_busy_link(key, now);
        }
    }

    /// Returns whether a session is that of a link to a shard whose receivers are too full.
    pub(crate) fn is_link_of_busy_shard(&mut self, key: u32) -> bool {
        let session = self.sessions.get(usize_of(key));
        let shard = session.and_then(|session| session.link);
        let links = self.links.as_mut();
        let peer = shard.and_then(|shard| links?.peer(shard));
        peer.is_some_and(|peer| !peer.busy.theirs.is_empty())
    }

    /// Tells another shard that a topic of its publishers has receivers that are too full, if its link withholds many acknowledgements.
    pub(crate) fn tell_busy(&mut self, id: ConnectionId, topic: &[u8]) {
        if !self.withholds_much(id.index) {
            return;
        }
        let Some(shard) = self.link_of(id) else {
            return;
        };
        let topic = self.clients.hasher().hash_one(topic);
        if let Some(links) = &mut self.links
            && let Some(peer) = links.peer(shard)
        {
            links.has_news |= peer.busy.begins(topic);
        }
    }

    /// Tells another shard that its publishers wait for nobody any more, if the connection is its link.
    pub(crate) fn tell_idle(&mut self, id: ConnectionId) {
        if self.links.is_some()
            && let Some(shard) = self.link_of(id)
            && let Some(links) = &mut self.links
            && let Some(peer) = links.peer(shard)
        {
            links.has_news |= peer.busy.ends();
        }
    }
}
