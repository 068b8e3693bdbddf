//! Stores the retained messages: the last one of each topic, in the order of the topics' levels. A search goes from one topic
//! that may match a filter to the next, so that it can stop at any topic and continue after the messages have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use mqtt_session::{Instant, Outgoing};

use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::message::Message;
use crate::publisher::Publisher;

/// A topic with a zero byte for each slash. No topic contains a zero (3.1.1 \[MQTT-1.5.3-2\], 5 \[MQTT-1.5.4-2\]), so the order
/// of the bytes is the order of the levels.
type Key = Arc<[u8]>;

/// The byte between two levels of a [`Key`].
const SLASH: u8 = 0;

/// The bytes of an entry in addition to its message and its topic; counted in the limit for bytes.
const ENTRY: usize = 120;

/// The retained messages.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Key, Kept>,
    /// The times at which messages expire, and their keys.
    expiring: BTreeSet<(Instant, Key)>,
    bytes: usize,
}

/// A message and who published it, unless the host did.
#[derive(Clone, Debug)]
struct Kept {
    message: Message,
    publisher: Option<Arc<Publisher>>,
}

/// The room for all retained messages together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetainedRoom {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl RetainedRoom {
    /// No limits: the messages were accepted earlier.
    pub(crate) const ANY: Self = Self {
        messages: usize::MAX,
        bytes: usize::MAX,
    };
}

/// Where a walk over the messages is that a filter matches.
#[derive(Debug)]
pub(crate) struct Walk {
    /// The filter as a [`Key`].
    filter: Box<[u8]>,
    /// The first key that was not visited.
    from: Vec<u8>,
}

/// The result of a step of a [`Walk`].
#[derive(Debug)]
pub(crate) enum Found {
    /// A message that the filter matches.
    Message(Message, Option<Arc<Publisher>>),
    /// Nothing yet: it took as many steps as it may.
    Later,
    /// There are no more messages.
    End,
}

/// The place of the next message that may match a filter, relative to a key.
enum NextMatch {
    Here,
    From(Vec<u8>),
    Nowhere,
}

impl Retained {
    pub(crate) fn count(&self) -> usize {
        self.messages.len()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps `message` instead of what was there, or with `None` nothing (3.1.1 \[MQTT-3.3.1-5\] and \[MQTT-3.3.1-10\],
    /// 5 \[MQTT-3.3.1-5\] and \[MQTT-3.3.1-6\]). `false` if that would be more than `room` has.
    pub(crate) fn set(
        &mut self,
        topic: &str,
        message: Option<Message>,
        publisher: Option<Arc<Publisher>>,
        room: RetainedRoom,
    ) -> bool {
        let key = key(topic);
        let Some(message) = message else {
            self.remove(&key);
            return true;
        };
        let kept = Kept { message, publisher };
        let old = self.messages.get(&key[..]).map(|old| size(&key, old));
        let total = self
            .bytes
            .saturating_sub(old.unwrap_or(0))
            .saturating_add(size(&key, &kept));
        if total > room.bytes || (old.is_none() && self.messages.len() >= room.messages) {
            return false;
        }
        if old.is_some() {
            self.remove(&key);
        }
        let key = Key::from(key);
        if let Some(at) = kept.message.expires() {
            self.expiring.insert((at, Arc::clone(&key)));
        }
        self.bytes = total;
        self.messages.insert(key, kept);
        true
    }

    fn remove(&mut self, key: &[u8]) {
        let Some((key, kept)) = self.messages.remove_entry(key) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(size(&key, &kept));
        if let Some(at) = kept.message.expires() {
            self.expiring.remove(&(at, key));
        }
    }

    /// Returns the next message of a search, in the order of the topics' levels. Stops after it has visited `steps` topics.
    pub(crate) fn next(&self, walk: &mut Walk, steps: &mut usize, now: Instant) -> Found {
        loop {
            let rest: (Bound<&[u8]>, Bound<&[u8]>) =
                (Bound::Included(&walk.from), Bound::Unbounded);
            let Some((key, kept)) = self.messages.range::<[u8], _>(rest).next() else {
                return Found::End;
            };
            if *steps == 0 {
                return Found::Later;
            }
            *steps = steps.saturating_sub(1_usize.saturating_add(key.len() / BYTES_A_STEP));
            match next(key, &walk.filter) {
                NextMatch::Here => {
                    walk.from = behind(key, SLASH);
                    if !kept.message.has_expired(now) {
                        return Found::Message(kept.message.clone(), kept.publisher.clone());
                    }
                }
                NextMatch::From(from) => {
                    walk.from = from;
                }
                NextMatch::Nowhere => return Found::End,
            }
        }
    }

    /// Returns the message of a topic, and who published it.
    pub(crate) fn get(
        &self,
        topic: &str,
        now: Instant,
    ) -> Option<(Message, Option<Arc<Publisher>>)> {
        let kept = self.messages.get(&key(topic)[..])?;
        let is_due = !kept.message.has_expired(now);
        is_due.then(|| (kept.message.clone(), kept.publisher.clone()))
    }

    /// Returns the topic that follows another topic in the order of their levels.
    pub(crate) fn topic_after(&self, topic: &str) -> Option<String> {
        let topic = key(topic);
        let rest: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(&topic), Bound::Unbounded);
        let (key, _) = self.messages.range::<[u8], _>(rest).next()?;
        text(key)
    }

    /// Removes at most `most` expired messages, and passes their topics to `each`. Returns whether there may be more.
    pub(crate) fn purge(&mut self, most: usize, now: Instant, mut each: impl FnMut(&[u8])) -> bool {
        for _ in 0..most {
            let Some((at, _)) = self.expiring.first() else {
                return false;
            };
            if *at > now {
                return false;
            }
            if let Some((_, key)) = self.expiring.pop_first()
                && let Some(kept) = self.messages.remove(&key)
            {
                self.bytes = self.bytes.saturating_sub(size(&key, &kept));
                each(&key);
            }
        }
        true
    }
}

impl<H: Hooks> Broker<H> {
    /// Stores or removes a retained message. Returns `false` if there is no room for it.
    pub(crate) fn retain(
        &mut self,
        from: Option<SessionKey>,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> bool {
        let publisher = from.and_then(|key| self.retained_by(key));
        self.retain_by(from, publisher, message, now)
    }

    /// Stores or removes a retained message of this publisher; `from` may be the link over which the message came.
    pub(crate) fn retain_by(
        &mut self,
        from: Option<SessionKey>,
        publisher: Option<Arc<Publisher>>,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> bool {
        // 3.1.1 [MQTT-3.3.1-10] and [MQTT-3.3.1-11], 5 [MQTT-3.3.1-6] and [MQTT-3.3.1-7] 3.1.1 [MQTT-3.3.1-7]: a message replaces
        // the present one at QoS 0 as well.
        let kept = if message.payload.is_empty() {
            None
        } else {
            let Ok(mut kept) = Message::new(message, now) else {
                return false;
            };
            if let Some(seconds) = self.config.retained_expiry {
                kept.expire_by(now.after(core::time::Duration::from_secs(u64::from(seconds))));
            }
            let by = publisher.as_ref();
            let by = by.map(|by| self.clients.hasher().hash_one(&by.client_id));
            Some(kept.published_by(by))
        };
        if self.storage_is_refused() {
            return false;
        }
        let topic = message.topic.as_str();
        self.meter
            .spend(RETAIN.saturating_add(topic.len() / SET_BYTES));
        let room = self.config.retained_room();
        let set = |retained: &mut Retained| {
            let (kept, publisher) = (kept.clone(), publisher.clone());
            retained.set(topic, kept, publisher, room)
        };
        let mut done = set(&mut self.retained);
        if !done {
            // Expired messages may take the room.
            self.meter.spend(PURGED);
            self.purging |= self.purge_retained(PURGED, now);
            done = set(&mut self.retained);
        }
        if done {
            if self.links.is_some() {
                self.keep_in_shards(from, publisher.as_deref(), message, now);
            }
            // 3.1.1 [MQTT-3.3.1-5], 5 [MQTT-3.3.1-5]
            self.record_retained(topic, kept.as_ref(), publisher.as_deref(), from);
        }
        done
    }
}

/// The steps for storing or removing a retained message: a copy of it, and a search for its place in the order.
const RETAIN: usize = 16;
/// How many bytes of its topic count as one step.
const SET_BYTES: usize = 32;

/// How many expired retained messages are removed at once when there is no room.
const PURGED: usize = 64;

impl Walk {
    /// Returns the filter as text.
    pub(crate) fn filter(&self) -> Option<String> {
        text(&self.filter)
    }

    pub(crate) fn new(filter: &str) -> Self {
        let filter = key(filter);
        let mut from = Vec::new();
        join(&mut from, levels(&filter), true);
        Self {
            filter: filter.into(),
            from,
        }
    }
}

/// How many bytes of compared topics count as one step.
const BYTES_A_STEP: usize = 128;

/// Returns the topic or filter of a [`Key`].
pub(crate) fn text(key: &[u8]) -> Option<String> {
    let slash = |byte: &u8| if *byte == SLASH { b'/' } else { *byte };
    String::from_utf8(key.iter().map(slash).collect()).ok()
}

fn key(topic: &str) -> Vec<u8> {
    let zero = |byte| if byte == b'/' { SLASH } else { byte };
    topic.bytes().map(zero).collect()
}

fn size(key: &[u8], kept: &Kept) -> usize {
    let publisher = kept
        .publisher
        .as_ref()
        .map_or(0, |publisher| publisher.size());
    kept.message
        .size()
        .saturating_add(publisher)
        .saturating_add(key.len())
        .saturating_add(ENTRY)
}

fn levels(key: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    key.split(|byte| *byte == SLASH)
}

fn behind(key: &[u8], last: u8) -> Vec<u8> {
    let mut behind = Vec::with_capacity(key.len().saturating_add(1));
    behind.extend_from_slice(key);
    behind.push(last);
    behind
}

/// Adds the levels up to the first wildcard: no topic before them matches.
fn join<'a>(key: &mut Vec<u8>, levels: impl Iterator<Item = &'a [u8]>, mut is_first: bool) {
    for level in levels.take_while(|level| !matches!(*level, b"+" | b"#")) {
        if !std::mem::take(&mut is_first) {
            key.push(SLASH);
        }
        key.extend_from_slice(level);
    }
}

/// Returns where a level ends that follows the one that ends at `end`.
fn follow(end: Option<usize>, level: &[u8]) -> usize {
    let start = end.map_or(0, |end| end.saturating_add(1));
    start.saturating_add(level.len())
}

/// Compares a key with a filter level by level. Where they differ, the next match either has the same levels for the `+`
/// wildcards, or another level for the last `+`.
fn next(key: &[u8], filter: &[u8]) -> NextMatch {
    let is_hidden = key.first() == Some(&b'$');
    let mut own = levels(key);
    let mut asked = levels(filter);
    // The ends of the matching levels, and of the last one that `+` matches.
    let (mut end, mut plus) = (None::<usize>, None::<usize>);
    loop {
        let asks = asked.clone();
        match (own.next(), asked.next()) {
            // `a/#` matches `a` as well.
            (None, Some(b"#")) | (None, None) => return NextMatch::Here,
            // 3.1.1 [MQTT-4.7.2-1], 5 [MQTT-4.7.2-1]: a wildcard in front does not match names that begin with `$`.
            (Some(_), Some(b"+" | b"#")) if is_hidden && end.is_none() => {
                return NextMatch::From(vec![b'$'.wrapping_add(1)]);
            }
            (Some(_), Some(b"#")) => return NextMatch::Here,
            (Some(level), Some(b"+")) => {
                end = Some(follow(end, level));
                plus = end;
            }
            (Some(level), Some(wanted)) if level == wanted => {
                end = Some(follow(end, level));
            }
            (own, Some(wanted)) if own.is_none_or(|level| level < wanted) => {
                let matched = key.get(..end.unwrap_or(0)).unwrap_or_default();
                let mut from = matched.to_vec();
                join(&mut from, asks, end.is_none());
                if own.is_none() && from.len() == key.len() {
                    // A wildcard needs one more level.
                    from.push(SLASH);
                }
                return NextMatch::From(from);
            }
            _ => {
                // There are no more matches under the last `+`: continue after all topics with its present level.
                return match plus.and_then(|plus| key.get(..plus)) {
                    Some(known) => NextMatch::From(behind(known, SLASH.wrapping_add(1))),
                    None => NextMatch::Nowhere,
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mqtt_session::Outgoing;
    use mqtt_session::proto::{Properties, Property, QoS, TopicName};
    use mqtt_testing::laws::model;

    use super::*;

    const NOW: Instant = Instant::from_millis(0);

    fn message(topic: &str, payload: &str, expiry: Option<u32>) -> Message {
        let properties: Vec<_> = expiry
            .map(Property::MessageExpiryInterval)
            .into_iter()
            .collect();
        let topic = TopicName::new(topic).unwrap();
        let message = Outgoing {
            properties: Properties::from(&properties[..]),
            ..Outgoing::new(topic, QoS::AtMostOnce, payload.as_bytes())
        };
        Message::new(&message, NOW).unwrap()
    }

    fn set(retained: &mut Retained, topic: &str, message: Option<Message>) -> bool {
        retained.set(topic, message, None, room(usize::MAX, usize::MAX))
    }

    const fn room(messages: usize, bytes: usize) -> RetainedRoom {
        RetainedRoom { messages, bytes }
    }

    /// Returns the topics that a search finds, in its order and with at most `most` steps at a time, and the number of its steps.
    fn walk(retained: &Retained, filter: &str, now: Instant, most: usize) -> (Vec<String>, usize) {
        let mut walk = Walk::new(filter);
        let (mut topics, mut taken) = (Vec::new(), 0);
        loop {
            let mut steps = most;
            let found = retained.next(&mut walk, &mut steps, now);
            taken = most.saturating_sub(steps).saturating_add(taken);
            match found {
                Found::Message(message, _) => topics.push(message.publish().topic.to_string()),
                Found::Later => {}
                Found::End => return (topics, taken),
            }
        }
    }

    fn topics(retained: &Retained, filter: &str, now: Instant) -> Vec<String> {
        let (mut topics, _) = walk(retained, filter, now, usize::MAX);
        assert_eq!(walk(retained, filter, now, 1).0, topics, "step by step");
        topics.sort();
        topics
    }

    #[test]
    fn a_filter_finds_what_the_model_says() {
        let levels = ["a", "b", "", "$x"];
        let mut all: Vec<String> = levels.map(str::to_owned).to_vec();
        for first in levels {
            for second in levels {
                all.push(format!("{first}/{second}"));
                all.push(format!("{first}/{second}/a"));
            }
        }
        all.retain(|topic| !topic.is_empty());
        let mut retained = Retained::default();
        for topic in &all {
            assert!(set(&mut retained, topic, Some(message(topic, "x", None))));
        }
        assert_eq!(retained.count(), all.len());
        for filter in [
            "#", "+", "+/#", "a/#", "a/+", "+/a", "+/+/a", "a", "$x/#", "$x/+", "a/b/#", "/#", "/",
        ] {
            let mut expected: Vec<_> = all
                .iter()
                .filter(|topic| model::matches(filter, topic))
                .cloned()
                .collect();
            expected.sort();
            assert_eq!(topics(&retained, filter, NOW), expected, "{filter}");
        }
        for topic in &all {
            assert!(set(&mut retained, topic, None));
        }
        assert_eq!((retained.count(), retained.bytes()), (0, 0));
        assert!(retained.messages.is_empty() && retained.expiring.is_empty());
    }

    #[test]
    fn limits_hold_and_replacing_needs_no_room() {
        let mut retained = Retained::default();
        let kept = Kept {
            message: message("a", "x", None),
            publisher: None,
        };
        let size = size(b"a", &kept);
        assert!(retained.set("a", Some(message("a", "x", None)), None, room(1, size)));
        assert!(retained.set("a", Some(message("a", "y", None)), None, room(1, size)));
        assert!(!retained.set(
            "b",
            Some(message("b", "x", None)),
            None,
            room(1, usize::MAX)
        ));
        assert!(!retained.set("b", Some(message("b", "x", None)), None, room(9, size)));
        assert!(!retained.set("a", Some(message("a", "longer", None)), None, room(1, size)));
        assert_eq!((retained.count(), retained.bytes()), (1, size));
    }

    #[test]
    fn what_expired_is_not_found_and_is_forgotten() {
        let mut retained = Retained::default();
        set(&mut retained, "a/b", Some(message("a/b", "x", Some(5))));
        set(&mut retained, "a", Some(message("a", "x", None)));
        let later = NOW.after(Duration::from_secs(5));
        assert_eq!(topics(&retained, "#", NOW), ["a", "a/b"]);
        assert_eq!(topics(&retained, "#", later), ["a"]);
        assert_eq!(retained.count(), 2);
        assert!(!retained.purge(9, NOW, |_| ()));
        assert!(retained.purge(1, later, |_| ()), "there may be more");
        assert!(!retained.purge(1, later, |_| ()));
        assert_eq!(retained.count(), 1);
        // The replacing message has its own expiry.
        set(&mut retained, "a", Some(message("a", "x", Some(9))));
        set(&mut retained, "a", Some(message("a", "x", None)));
        assert!(retained.expiring.is_empty());
    }

    /// For many topics that share the filter's first levels, the search visits three topics for each.
    #[test]
    fn a_walk_that_finds_nothing_skips_what_cannot_match() {
        let mut retained = Retained::default();
        for n in 0..100 {
            for below in 0..50 {
                let topic = format!("plant/{n:02}/a/{below}");
                set(&mut retained, &topic, Some(message(&topic, "x", None)));
            }
        }
        for (filter, found, most) in [
            ("plant/+/b", 0, 200),
            ("plant/+/a", 0, 200),
            ("plant/07/a/7", 1, 2),
            ("plant/+/a/7", 100, 400),
            ("plant/7", 0, 1),
            ("+", 0, 2),
            ("q/#", 0, 1),
            ("+/+/a/+/x", 0, 10_200),
        ] {
            let (topics, steps) = walk(&retained, filter, NOW, 10_000);
            assert_eq!(topics.len(), found, "{filter}");
            assert!(steps <= most, "{filter}: {steps} steps");
        }
    }

    /// A search finds messages that are stored after its position, and not those stored before it.
    #[test]
    fn a_walk_goes_on_whatever_changed() {
        let mut retained = Retained::default();
        for topic in ["b", "c/1", "c/2", "d"] {
            set(&mut retained, topic, Some(message(topic, "x", None)));
        }
        let mut walk = Walk::new("#");
        let mut next = |retained: &Retained| match retained.next(&mut walk, &mut 9, NOW) {
            Found::Message(message, _) => message.publish().topic.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(next(&retained), "b");
        assert_eq!(next(&retained), "c/1");
        for topic in ["a", "c", "c/1/x", "c/15"] {
            set(&mut retained, topic, Some(message(topic, "x", None)));
        }
        for topic in ["c/1", "d"] {
            set(&mut retained, topic, None);
        }
        for topic in ["c/1/x", "c/15", "c/2", "End"] {
            assert_eq!(next(&retained), topic);
        }
    }
}
