//! Keeps the retained messages of all shards the same. For each topic one shard is the *keeper*, by the hash of the topic. A retained
//! message goes from its publisher's shard to the keeper, and from there to all others. So the last message of the keeper is the last
//! one everywhere, even if clients of several shards publish to a topic at the same time. The publisher's shard keeps its message at
//! once as well.
//!
//! These messages are apart from those for subscribers, and go over links at QoS 2 whatever the QoS of their publisher, because
//! QoS 2 waits for records: no shard keeps a message that another shard forgets in a crash. A message that is sent twice does no harm. What
//! the queue of a link has no room for is sent later (`stale.rs`).

use std::sync::Arc;

use mqtt_session::proto::{QoS, Version};
use mqtt_session::{Instant, Outgoing};

use super::control::{read_text, write_text};
use super::{Links, Visited, shard_of, subscriber};
use crate::broker::Broker;
use crate::fanout::Target;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::publisher::Publisher;
use crate::source::Source;

/// The way in which a shard handles a message of another shard. The subscription identifier of the message has it as a number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// The clients with a matching subscription get it.
    Live,
    /// The clients with a matching subscription get it. The shard that sent it did not know the filters of this one, so the
    /// shared subscriptions of this shard alone get it as well.
    Unsure,
    /// The shard retains the message, with this QoS, and no client gets it.
    Keep(QoS),
    /// A member of this shared subscription gets it, and none of the shards that had it.
    Share(u32, Visited),
}

/// The identifiers of messages to be retained, by their QoS.
const KEEP: [u32; 3] = [1, 2, 3];

/// The identifier of the subscription to everything of a shard whose filters are not known.
pub(super) const UNSURE: u32 = 4;

impl Kind {
    pub(super) fn of(mut identifiers: impl Iterator<Item = u32>) -> Self {
        match identifiers.next() {
            None => Self::Live,
            Some(UNSURE) => Self::Unsure,
            Some(1) => Self::Keep(QoS::AtMostOnce),
            Some(2) => Self::Keep(QoS::AtLeastOnce),
            Some(3) => Self::Keep(QoS::ExactlyOnce),
            Some(share) => Self::Share(share, Visited::read(identifiers)),
        }
    }
}

/// Returns whether another shard retains a message with these identifiers.
pub(crate) fn is_for_keeping(identifiers: &[u32]) -> bool {
    matches!(Kind::of(identifiers.iter().copied()), Kind::Keep(_))
}

impl Links {
    /// Returns the shard that keeps the retained message of a topic.
    fn keeper(&self, topic: &str, key: u64) -> u8 {
        shard_of(topic, self.count(), key)
    }

    /// Returns the numbers and sessions of the other shards.
    fn sessions(&self) -> Vec<(u8, SessionKey)> {
        let all = (0_u8..).zip(&self.peers);
        all.filter_map(|(shard, peer)| Some((shard, peer.session()?)))
            .collect()
    }
}

impl<H: Hooks> Broker<H> {
    pub(super) fn is_keeper(&self, topic: &str) -> bool {
        let links = self.links.as_ref();
        links.is_some_and(|links| links.keeper(topic, self.config.hash_key) == links.own)
    }

    /// Sends a retained message of an own client to its keeper, or from the keeper to all other shards.
    pub(crate) fn keep_in_shards(
        &mut self,
        from: Option<SessionKey>,
        publisher: Option<&Publisher>,
        message: &Outgoing<'_>,
        now: Instant,
    ) {
        let (Some(links), Some(from)) = (&self.links, from) else {
            return;
        };
        let keeper = links.keeper(message.topic.as_str(), self.config.hash_key);
        let is_keeper = keeper == links.own;
        let shards = links.sessions().into_iter();
        let shards = shards.filter(|(shard, _)| is_keeper || *shard == keeper);
        let shards: Vec<_> = shards.map(|(_, key)| key).collect();
        if is_keeper || !self.is_link(from) {
            self.send_to_keep(&shards, publisher, message, now);
        }
    }

    /// Sends a message that other shards retain over their links.
    pub(super) fn send_to_keep(
        &mut self,
        links: &[SessionKey],
        publisher: Option<&Publisher>,
        message: &Outgoing<'_>,
        now: Instant,
    ) {
        let identifier = KEEP.get(usize::from(message.qos.get())).copied();
        let payload = with_publisher(publisher, message.payload);
        let to_keep = Outgoing {
            qos: QoS::ExactlyOnce,
            payload: &payload,
            ..*message
        };
        // The record of the message to the other shards is not the one that its publisher's identifier belongs to.
        let origin = self.forget_origin();
        self.begin_record();
        let mut source = Source::new(&to_keep);
        for key in links {
            if let Some(serial) = self.sessions.get(*key).map(|own| own.serial) {
                let target = Target::single(subscriber(*key, identifier), serial);
                self.deliver(&target, &mut source, target.identifier(), now);
            }
        }
        if self.has_journal() {
            self.end_record(&mut source, now);
        }
        self.restore_origin(origin);
    }

    /// Retains a message of another shard, unless its keeper is still to get a newer one from this shard.
    pub(super) fn keep_of_shard(&mut self, key: SessionKey, message: &Outgoing<'_>, now: Instant) {
        let topic = message.topic.as_str();
        if !self.is_keeper(topic) && self.is_noted(key, topic) {
            return;
        }
        if let Some((publisher, payload)) = publisher_of(message.payload) {
            let message = Outgoing {
                payload,
                ..*message
            };
            self.retain_by(Some(key), publisher.map(Arc::new), &message, now);
        }
    }

    /// Retains a message that this shard was sending to others when it crashed: the record of the retained message may be lost.
    pub(crate) fn keep_restored(
        &mut self,
        message: &crate::message::Message,
        identifier: Option<u32>,
        now: Instant,
    ) {
        let publish = message.publish();
        if let Kind::Keep(qos) = Kind::of(identifier.into_iter())
            && self.is_keeper(publish.topic.as_str())
            && let Some((publisher, payload)) = publisher_of(publish.payload)
        {
            let message = Outgoing {
                qos,
                payload,
                ..message.outgoing(&publish)
            };
            self.retain_by(None, publisher.map(Arc::new), &message, now);
        }
    }
}

/// Returns a payload with the publisher in front: its version (1 byte: 3, 4 or 5, or 0 if there is no publisher), the length of its
/// client identifier (2) and this identifier; whether it has a user name (1), and if so its length (2) and the user name.
fn with_publisher(publisher: Option<&Publisher>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len().saturating_add(64));
    match publisher {
        None => bytes.push(0),
        Some(publisher) => {
            bytes.push(publisher.version.level());
            write_text(&mut bytes, &publisher.client_id);
            bytes.push(u8::from(publisher.user_name.is_some()));
            if let Some(name) = &publisher.user_name {
                write_text(&mut bytes, name);
            }
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// Returns the publisher in front of a payload, and the payload.
fn publisher_of(bytes: &[u8]) -> Option<(Option<Publisher>, &[u8])> {
    let (version, mut rest) = bytes.split_first()?;
    let version = match version {
        0 => return Some((None, rest)),
        3 => Version::V31,
        4 => Version::V311,
        _ => Version::V5,
    };
    let client_id = read_text(&mut rest)?.into();
    let (has_name, mut rest) = rest.split_first()?;
    let user_name = match has_name {
        0 => None,
        _ => Some(read_text(&mut rest)?.into()),
    };
    let publisher = Publisher {
        client_id,
        user_name,
        version,
    };
    Some((Some(publisher), rest))
}
