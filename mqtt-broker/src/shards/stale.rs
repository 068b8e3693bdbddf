//! Repairs the retained messages of another shard. If the queue of a link has no room for a message that is to be retained, the other shard
//! keeps an older one. This shard then notes the topic. When the queue is empty, it sends the message that it retains at that time, or that
//! it retains none. The keeper of the topic is one of the two shards (`retained.rs`), and sends the valid message to all shards.
//!
//! If clients of several shards publish to a topic while its keeper is away, the keeper decides by the order in which it gets the messages.
//!
//! If there are too many topics to note, this shard sends all messages again of whose topics it is the keeper. The other shard may then
//! retain a message that was removed meanwhile, and a keeper may miss a message. Both last until the next message to the topic.

use std::collections::BTreeSet;
use std::sync::Arc;

use mqtt_session::proto::{Properties, QoS, TopicName};
use mqtt_session::{Instant, Outgoing};

use super::Links;
use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::message::{Message, forwarded};

/// How many bytes the noted topics of one shard may take.
const MOST: usize = 8 << 20;

/// The bytes of a topic in addition to its text.
const TOPIC: usize = 64;

/// The steps for finding and sending a message, in addition to its delivery.
const STEPS: usize = 16;

/// The topics of which another shard may retain an older message.
#[derive(Debug, Default)]
pub(super) struct Stale {
    topics: BTreeSet<Arc<str>>,
    bytes: usize,
    /// The last topic that was looked at, if all that this shard keeps are sent again.
    all_after: Option<Arc<str>>,
}

/// A topic to be looked at.
enum StaleTopic {
    Noted(Arc<str>),
    OfAll(Arc<str>),
}

impl Stale {
    fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.all_after.is_none()
    }

    fn note(&mut self, topic: &str) {
        let size = topic.len().saturating_add(TOPIC);
        let bytes = self.bytes.saturating_add(size);
        if self.topics.contains(topic) {
            return;
        }
        if bytes > MOST {
            self.note_all();
            return;
        }
        self.bytes = bytes;
        self.topics.insert(topic.into());
    }

    /// Notes that all messages that this shard keeps are sent again.
    fn note_all(&mut self) {
        self.all_after = Some("".into());
    }

    fn pop(&mut self) -> Option<Arc<str>> {
        let topic = self.topics.pop_first()?;
        let size = topic.len().saturating_add(TOPIC);
        self.bytes = self.bytes.saturating_sub(size);
        Some(topic)
    }
}

impl Links {
    /// Returns whether a shard may retain older messages.
    pub(crate) fn is_stale(&self, shard: u8) -> bool {
        let peer = self.peers.get(usize::from(shard));
        peer.is_some_and(|peer| !peer.stale.is_empty())
    }
}

impl<H: Hooks> Broker<H> {
    /// Notes that another shard does not get a message that it is to retain.
    pub(crate) fn note_stale(&mut self, shard: u8, message: &Message) {
        let peer = self.links.as_mut().and_then(|links| links.peer(shard));
        if let Some(peer) = peer {
            peer.stale.note(message.publish().topic.as_str());
        }
    }

    /// Returns whether the shard of a link is still to get what this shard retains of a topic.
    pub(super) fn is_noted(&self, key: SessionKey, topic: &str) -> bool {
        let shard = self.sessions.get(key).and_then(|own| own.link);
        let links = self.links.as_ref();
        let peer = links
            .zip(shard)
            .and_then(|(links, shard)| links.peers.get(usize::from(shard)));
        peer.is_some_and(|peer| peer.stale.topics.contains(topic))
    }

    /// Notes the same of all messages if an earlier process left a queue that is more than half full: it may have been full.
    pub(crate) fn note_restored_queues(&mut self) {
        let Self {
            links: Some(links),
            sessions,
            config,
            queued,
            ..
        } = self
        else {
            return;
        };
        for peer in &mut links.peers {
            let session = peer.session().and_then(|key| sessions.get(key));
            let fullness = session.map(|own| own.queue.fullness(config, usize::MAX, queued));
            if fullness.is_some_and(|fullness| fullness.is_high()) {
                peer.stale.note_all();
            }
        }
    }

    /// Sends the next retained messages that another shard has missed, while its queue is empty.
    pub(crate) fn repair_retained(&mut self, key: SessionKey, now: Instant) {
        while let Some(shard) = self.stale_link(key) {
            if !self.meter.has_share() {
                return self.work_for(key);
            }
            match self.next_stale(shard) {
                None => return,
                Some(StaleTopic::Noted(topic)) => self.send_as_retained(key, &topic, now),
                Some(StaleTopic::OfAll(topic)) if self.is_keeper(&topic) => {
                    self.send_as_retained(key, &topic, now);
                }
                Some(StaleTopic::OfAll(_)) => {}
            }
            self.meter.spend(STEPS);
        }
    }

    /// Returns the shard of a link with an empty queue that has something to be repaired.
    fn stale_link(&self, key: SessionKey) -> Option<u8> {
        let session = self.sessions.get(key)?;
        let shard = session.link?;
        let has_room = session.connection.is_some() && session.queue.is_empty();
        (has_room && self.links.as_ref()?.is_stale(shard)).then_some(shard)
    }

    fn next_stale(&mut self, shard: u8) -> Option<StaleTopic> {
        let stale = &mut self.links.as_mut()?.peer(shard)?.stale;
        if let Some(topic) = stale.pop() {
            return Some(StaleTopic::Noted(topic));
        }
        let after = stale.all_after.take()?;
        let topic: Arc<str> = self.retained.topic_after(&after)?.into();
        stale.all_after = Some(Arc::clone(&topic));
        Some(StaleTopic::OfAll(topic))
    }

    /// Sends what this shard retains of a topic to another shard.
    fn send_as_retained(&mut self, key: SessionKey, topic: &str, now: Instant) {
        let Some((message, publisher)) = self.retained.get(topic, now) else {
            let Ok(topic) = TopicName::new(topic) else {
                return;
            };
            let nothing = Outgoing {
                retain: true,
                ..Outgoing::new(topic, QoS::AtMostOnce, &[])
            };
            return self.send_to_keep(&[key], None, &nothing, now);
        };
        let publish = message.publish();
        let left = message.remaining(now);
        let properties = forwarded(&publish.properties, left, std::iter::empty());
        let outgoing = Outgoing {
            properties: Properties::from(&properties[..]),
            ..message.outgoing(&publish)
        };
        self.send_to_keep(&[key], publisher.as_deref(), &outgoing, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_of_topics_all_messages_are_sent_again() {
        let mut stale = Stale::default();
        let topic = |n: usize| format!("{n}/{}", "x".repeat(60_000));
        for n in (0..139).chain(0..139) {
            stale.note(&topic(n));
        }
        assert!(stale.bytes <= MOST && stale.all_after.is_none());
        stale.note(&topic(139));
        assert_eq!(stale.all_after.as_deref(), Some(""));
        // What was noted is sent first.
        assert_eq!(std::iter::from_fn(|| stale.pop()).count(), 139);
        assert!(!stale.is_empty() && stale.bytes == 0);
    }
}
