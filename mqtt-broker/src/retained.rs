//! Retained messages: the last of each topic, in a tree by level, so that a filter finds its own without looking at all.

use std::collections::BTreeMap;
use std::str::Split;

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
}

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

    /// Forgets what expired.
    pub(crate) fn purge(&mut self, now: Instant) {
        let (mut count, mut bytes) = (0_usize, 0_usize);
        purge(&mut self.root, now, &mut count, &mut bytes);
        self.count = self.count.saturating_sub(count);
        self.bytes = self.bytes.saturating_sub(bytes);
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
