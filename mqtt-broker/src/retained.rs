//! Retained messages: the last of each topic, in a tree by level, so that a filter finds its own without looking at all.

use std::collections::BTreeMap;
use std::str::Split;
use std::time::Duration;

use mqtt_session::Instant;

use crate::message::Message;

#[derive(Debug, Default)]
struct Node {
    message: Option<Message>,
    children: BTreeMap<Box<str>, Self>,
}

impl Node {
    fn is_unused(&self) -> bool {
        self.message.is_none() && self.children.is_empty()
    }
}

/// The retained messages.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    root: Node,
    count: usize,
    bytes: usize,
    /// When all were looked at for the last time.
    purged: Option<Instant>,
}

/// All are looked at no more often than this, however often there is no room.
const PURGE_EVERY: Duration = Duration::from_secs(1);

impl Retained {
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps `message` instead of what was there, or with `None` nothing (3.1.1 \[MQTT-3.3.1-5\] and \[MQTT-3.3.1-10\],
    /// 5 \[MQTT-3.3.1-5\] and \[MQTT-3.3.1-6\]). `false` if that would be one more than `limit`, or larger in all than
    /// `bytes`.
    pub(crate) fn set(
        &mut self,
        topic: &str,
        message: Option<Message>,
        limit: usize,
        bytes: usize,
    ) -> bool {
        let Some(message) = message else {
            let removed = remove(&mut self.root, topic);
            self.forget(removed.as_ref());
            return true;
        };
        let old = self.get(topic).map_or(0, Message::size);
        let total = self
            .bytes
            .saturating_sub(old)
            .saturating_add(message.size());
        if total > bytes || (old == 0 && self.count >= limit) {
            return false;
        }
        let mut node = &mut self.root;
        for level in topic.split('/') {
            // Looked up twice, so that a level that is there costs no allocation.
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Node::default());
            }
            let Some(child) = node.children.get_mut(level) else {
                return false;
            };
            node = child;
        }
        self.bytes = total;
        self.count = self.count.saturating_add(usize::from(old == 0));
        node.message = Some(message);
        true
    }

    fn get(&self, topic: &str) -> Option<&Message> {
        let mut levels = topic.split('/');
        levels
            .try_fold(&self.root, |node, level| node.children.get(level))?
            .message
            .as_ref()
    }

    fn forget(&mut self, message: Option<&Message>) {
        if let Some(message) = message {
            self.count = self.count.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(message.size());
        }
    }

    /// The messages whose topics the filter matches, in the order of their topics' levels.
    pub(crate) fn matches(&self, filter: &str, now: Instant) -> Vec<Message> {
        let mut found = Vec::new();
        collect(&self.root, filter.split('/'), true, &mut found);
        found.retain(|message| !message.has_expired(now));
        found
    }

    /// Forgets what expired. `false` if that was done a moment ago.
    pub(crate) fn purge(&mut self, now: Instant) -> bool {
        if self.purged.is_some_and(|at| now < at.after(PURGE_EVERY)) {
            return false;
        }
        self.purged = Some(now);
        let (mut count, mut bytes) = (0_usize, 0_usize);
        purge(&mut self.root, now, &mut count, &mut bytes);
        self.count = self.count.saturating_sub(count);
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

/// As deep as the filter: [`crate::Config::topic_levels`] bounds it.
fn collect(node: &Node, levels: Split<'_, char>, first: bool, found: &mut Vec<Message>) {
    let mut rest = levels;
    match rest.next() {
        None => found.extend(node.message.clone()),
        Some("#") => all(node, first, found),
        Some("+") => {
            for (level, child) in &node.children {
                if !is_hidden(level, first) {
                    collect(child, rest.clone(), false, found);
                }
            }
        }
        Some(level) => {
            if let Some(child) = node.children.get(level) {
                collect(child, rest, false, found);
            }
        }
    }
}

/// `#`: this level and all below.
fn all(node: &Node, first: bool, found: &mut Vec<Message>) {
    found.extend(node.message.clone());
    for (level, child) in &node.children {
        if !is_hidden(level, first) {
            all(child, false, found);
        }
    }
}

/// 3.1.1 [MQTT-4.7.2-1], 5 [MQTT-4.7.2-1]: a wildcard in front does not match names that begin with `$`.
fn is_hidden(level: &str, first: bool) -> bool {
    first && level.starts_with('$')
}

/// Takes the message out, and the nodes that nothing needs any more.
fn remove(node: &mut Node, topic: &str) -> Option<Message> {
    let (level, rest) = match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    };
    let child = node.children.get_mut(level)?;
    let removed = match rest {
        Some(rest) => remove(child, rest),
        None => child.message.take(),
    };
    if child.is_unused() {
        node.children.remove(level);
    }
    removed
}

fn purge(node: &mut Node, now: Instant, count: &mut usize, bytes: &mut usize) {
    node.children.retain(|_, child| {
        purge(child, now, count, bytes);
        let expired = child.message.take_if(|message| message.has_expired(now));
        if let Some(message) = expired {
            *count = count.saturating_add(1);
            *bytes = bytes.saturating_add(message.size());
        }
        !child.is_unused()
    });
}

#[cfg(test)]
mod tests {
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
        retained.set(topic, message, usize::MAX, usize::MAX)
    }

    fn topics(retained: &Retained, filter: &str, now: Instant) -> Vec<String> {
        let found = retained.matches(filter, now);
        let mut topics: Vec<_> = found
            .iter()
            .map(|message| message.publish().topic.to_string())
            .collect();
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
        assert!(retained.root.is_unused(), "nothing is left of the tree");
    }

    #[test]
    fn limits_hold_and_replacing_needs_no_room() {
        let mut retained = Retained::default();
        let size = message("a", "x", None).size();
        assert!(retained.set("a", Some(message("a", "x", None)), 1, size));
        assert!(retained.set("a", Some(message("a", "y", None)), 1, size));
        assert!(!retained.set("b", Some(message("b", "x", None)), 1, usize::MAX));
        assert!(!retained.set("b", Some(message("b", "x", None)), 9, size));
        assert!(!retained.set("a", Some(message("a", "longer", None)), 1, size));
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
        assert!(retained.purge(later));
        assert_eq!(retained.count(), 1);
        // Who has no room cannot make the broker look at all of them again and again.
        assert!(!retained.purge(later));
        assert!(retained.purge(later.after(PURGE_EVERY)));
    }
}
