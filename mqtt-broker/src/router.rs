//! Finds the subscribers of a topic in a tree of topic filters. Levels at which no filter branches off are one node, so there are
//! at most three nodes for a filter with any number of levels. The time to find the subscribers of a topic depends on the number
//! of nodes that share levels with it, not on the number of subscriptions.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::num::NonZeroU32;

use compact_str::CompactString;
use mqtt_session::proto::num::{to_u32, to_usize};
use mqtt_session::proto::{QoS, Subscription, TopicFilter};

use crate::keys::{GroupKey, OfGroups, SessionKey, Table};
use crate::work::{Work, step};

mod members;
mod recent;
mod search;

use members::Members;
use recent::Recent;

pub(crate) use search::Matches;

/// SipHash with a secret of the host: it is deterministic, and clients cannot choose names that collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed(pub(crate) u64);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// A client's subscription in the router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Subscriber {
    pub(crate) session: SessionKey,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<u32>,
}

impl Subscriber {
    pub(crate) fn new(
        session: SessionKey,
        subscription: &Subscription<'_>,
        identifier: Option<u32>,
    ) -> Self {
        Self {
            session,
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            identifier,
        }
    }
}

/// The members of a shared subscription: each message goes to one of them.
#[derive(Debug)]
pub(crate) struct Group {
    serial: u32,
    /// The index of the group in the list of its node.
    at: usize,
    pub(crate) members: Members,
    /// The index of the member that is next.
    pub(crate) next: usize,
    /// How many messages that member got in its turn.
    turns: u32,
}

/// The shared subscriptions of a node: a list for routing messages, and an index by name for changes.
#[derive(Debug)]
struct Groups {
    list: Vec<GroupKey>,
    named: HashMap<CompactString, GroupKey, Keyed>,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// The levels after the one by which the parent finds this node, each preceded by its slash. They never contain `#`.
    tail: CompactString,
    /// `None` for most nodes.
    #[allow(clippy::box_collection, reason = "a pointer is a quarter of it")]
    children: Option<Box<HashMap<CompactString, u32, Keyed>>>,
    /// The child for `+`.
    any: Option<NonZeroU32>,
    /// The child for `#`, which has no children.
    rest: Option<NonZeroU32>,
    subscribers: Members,
    /// `None` for most nodes.
    groups: Option<Box<Groups>>,
}

impl Node {
    const fn new(parent: u32, tail: CompactString) -> Self {
        Self {
            parent,
            tail,
            children: None,
            any: None,
            rest: None,
            subscribers: Members::new(),
            groups: None,
        }
    }

    fn groups(&self) -> &[GroupKey] {
        self.groups.as_ref().map_or(&[], |groups| &groups.list)
    }

    fn child(&self, level: &str) -> Option<u32> {
        match level {
            "+" => self.any.map(NonZeroU32::get),
            "#" => self.rest.map(NonZeroU32::get),
            _ => self.children.as_ref()?.get(level).copied(),
        }
    }

    fn set_child(&mut self, level: &str, child: u32, key: Keyed) {
        match level {
            // The root is not a child, so its index 0 does not occur here.
            "+" => self.any = NonZeroU32::new(child),
            "#" => self.rest = NonZeroU32::new(child),
            _ => {
                let children = self
                    .children
                    .get_or_insert_with(|| Box::new(HashMap::with_hasher(key)));
                // Looked up first, so that an existing level needs no allocation.
                match children.get_mut(level) {
                    Some(old) => *old = child,
                    None => {
                        children.insert(level.into(), child);
                    }
                }
            }
        }
    }

    fn remove_child(&mut self, level: &str) {
        match level {
            "+" => self.any = None,
            "#" => self.rest = None,
            _ => {
                if let Some(children) = &mut self.children {
                    children.remove(level);
                    if children.is_empty() {
                        self.children = None;
                    }
                }
            }
        }
    }

    /// Returns whether no filter ends at this node, with or without a following `#`.
    fn is_between(&self) -> bool {
        self.rest.is_none() && self.subscribers.is_empty() && self.groups().is_empty()
    }

    fn is_unused(&self) -> bool {
        self.children.is_none() && self.any.is_none() && self.is_between()
    }

    /// Returns the only child and its level, if the node exists only for this child.
    fn only_child(&self) -> Option<(CompactString, u32)> {
        if !self.is_between() {
            return None;
        }
        match (&self.children, self.any) {
            (None, Some(any)) => Some((CompactString::const_new("+"), any.get())),
            (Some(children), None) if children.len() == 1 => {
                let (level, child) = children.iter().next()?;
                Some((level.clone(), *child))
            }
            _ => None,
        }
    }
}

/// The subscriptions of all clients.
#[derive(Debug)]
pub(crate) struct Router {
    nodes: slab::Slab<Node>,
    groups: Table<OfGroups, Group>,
    key: Keyed,
    count: usize,
    shared: usize,
    serial: u32,
    /// The search that is done in portions, and its topic.
    search: Matches,
    search_topic: String,
    recent: Recent,
}

const ROOT: u32 = 0;

impl Router {
    pub(crate) fn new(key: Keyed) -> Self {
        let mut nodes = slab::Slab::new();
        nodes.insert(Node::new(ROOT, CompactString::const_new("")));
        Self {
            nodes,
            groups: Table::new(),
            key,
            count: 0,
            shared: 0,
            serial: 0,
            search: Matches::default(),
            search_topic: String::new(),
            recent: Recent::new(key),
        }
    }

    /// Returns how many subscriptions there are, including shared ones.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    pub(crate) const fn shared_count(&self) -> usize {
        self.shared
    }

    fn node(&self, node: u32) -> Option<&Node> {
        self.nodes.get(to_usize(node))
    }

    fn node_mut(&mut self, node: u32) -> Option<&mut Node> {
        self.nodes.get_mut(to_usize(node))
    }

    fn find(&self, filter: &str) -> Option<u32> {
        let (mut at, mut rest) = (ROOT, Some(filter));
        while let Some(levels) = rest {
            at = self.node(at)?.child(first(levels).0)?;
            rest = behind(&self.node(at)?.tail, levels)?;
        }
        Some(at)
    }

    fn find_or_make(&mut self, filter: &str) -> Option<u32> {
        let (mut at, mut rest) = (ROOT, Some(filter));
        while let Some(levels) = rest {
            let level = first(levels).0;
            at = match self.node(at)?.child(level) {
                Some(child) => self.split(at, child, levels)?,
                None => {
                    let mut tail = levels.get(level.len()..)?;
                    if level != "#" {
                        tail = tail.strip_suffix("/#").unwrap_or(tail);
                    }
                    let made = to_u32(self.nodes.insert(Node::new(at, tail.into())));
                    let key = self.key;
                    self.node_mut(at)?.set_child(level, made, key);
                    made
                }
            };
            rest = behind(&self.node(at)?.tail, levels)?;
        }
        Some(at)
    }

    /// Returns the child if `levels` begin with its levels, or a new node for the levels with which both begin.
    fn split(&mut self, parent: u32, child: u32, levels: &str) -> Option<u32> {
        let level = first(levels).0;
        let tail = &self.node(child)?.tail;
        let same = common(tail, levels.get(level.len()..)?);
        let Some(other) = tail.get(same..).filter(|other| !other.is_empty()) else {
            return Some(child);
        };
        let other = CompactString::from(other);
        let both = CompactString::from(tail.get(..same)?);
        let key = self.key;
        let made = to_u32(self.nodes.insert(Node::new(parent, both)));
        self.node_mut(parent)?.set_child(level, made, key);
        let level = first(other.get(1..)?).0;
        self.node_mut(made)?.set_child(level, child, key);
        let node = self.node_mut(child)?;
        node.parent = made;
        node.tail = other.get(level.len().wrapping_add(1)..)?.into();
        Some(made)
    }

    /// Adds a subscription, or replaces the one that the session has with this filter: the caller knows which of the two it is.
    pub(crate) fn subscribe(
        &mut self,
        filter: &TopicFilter<'_>,
        subscriber: Subscriber,
        replaces: bool,
    ) {
        self.recent.changed();
        let Some(at) = self.find_or_make(levels(filter)) else {
            return;
        };
        let key = self.key;
        let share = filter.share_name();
        let list = match share {
            None => self.node_mut(at).map(|node| &mut node.subscribers),
            Some(name) => {
                let group = self
                    .group(at, name)
                    .unwrap_or_else(|| self.make_group(at, name));
                self.groups.get_mut(group).map(|group| &mut group.members)
            }
        };
        let Some(list) = list else { return };
        if replaces {
            // 3.1.1 [MQTT-3.8.4-3], 5 [MQTT-3.8.4-3]
            list.replace(subscriber);
            return;
        }
        list.add(subscriber, key);
        self.count = self.count.saturating_add(1);
        self.shared = self.shared.saturating_add(usize::from(share.is_some()));
    }

    /// Returns the shared subscription of a filter, if there is one.
    pub(crate) fn share(&self, filter: &TopicFilter<'_>) -> Option<Share> {
        let node = self.find(levels(filter))?;
        let group = self.group(node, filter.share_name()?)?;
        let state = self.groups.get(group)?;
        Some(state.share(group))
    }

    /// Returns the shared subscription of a filter, also if it has no members: others may be known later. [`Self::end_empty_share`]
    /// removes it.
    pub(crate) fn hold_share(&mut self, filter: &TopicFilter<'_>) -> Option<Share> {
        let name = filter.share_name()?;
        let node = self.find_or_make(levels(filter))?;
        let held = self.group(node, name);
        let group = held.unwrap_or_else(|| self.make_group(node, name));
        Some(self.groups.get(group)?.share(group))
    }

    /// Removes the shared subscription of a filter, if it has no members.
    pub(crate) fn end_empty_share(&mut self, filter: &TopicFilter<'_>) {
        if let (Some(node), Some(name)) = (self.find(levels(filter)), filter.share_name())
            && let Some(group) = self.group(node, name)
        {
            self.end_empty_group(node, group, name);
            let _ = self.prune(node, levels(filter));
        }
    }

    fn group(&self, node: u32, name: &str) -> Option<GroupKey> {
        step(Work::Group);
        let groups = self.node(node)?.groups.as_ref()?;
        groups.named.get(name).copied()
    }

    fn make_group(&mut self, node: u32, name: &str) -> GroupKey {
        self.serial = self.serial.wrapping_add(1);
        let (key, serial) = (self.key, self.serial);
        let at = self.node(node).map_or(0, |node| node.groups().len());
        let group = self.groups.insert(Group {
            serial,
            at,
            members: Members::new(),
            next: 0,
            turns: 0,
        });
        if let Some(node) = self.node_mut(node) {
            let groups = node.groups.get_or_insert_with(|| {
                Box::new(Groups {
                    list: Vec::new(),
                    named: HashMap::with_hasher(key),
                })
            });
            groups.list.push(group);
            groups.named.insert(name.into(), group);
        }
        group
    }

    /// Removes a subscription. Returns `false` if there was none.
    pub(crate) fn unsubscribe(&mut self, filter: &TopicFilter<'_>, session: SessionKey) -> bool {
        self.recent.changed();
        let Some(at) = self.find(levels(filter)) else {
            return false;
        };
        let removed = match filter.share_name() {
            None => self
                .node_mut(at)
                .is_some_and(|node| node.subscribers.remove(session)),
            Some(name) => self
                .group(at, name)
                .is_some_and(|group| self.leave(at, group, name, session)),
        };
        if removed {
            self.count = self.count.saturating_sub(1);
            let shared = usize::from(filter.is_shared());
            self.shared = self.shared.saturating_sub(shared);
            let _ = self.prune(at, levels(filter));
        }
        removed
    }

    fn leave(&mut self, node: u32, group: GroupKey, name: &str, session: SessionKey) -> bool {
        let Some(state) = self.groups.get_mut(group) else {
            return false;
        };
        let removed = state.members.remove(session);
        self.end_empty_group(node, group, name);
        removed
    }

    fn end_empty_group(&mut self, node: u32, group: GroupKey, name: &str) {
        let state = self.groups.get(group);
        if let Some(state) = state.filter(|state| state.members.is_empty()) {
            let at = state.at;
            self.groups.remove(group);
            self.forget_group(node, at, name);
        }
    }

    /// Removes a group from its node. The last group of the list takes its place.
    fn forget_group(&mut self, node: u32, at: usize, name: &str) {
        step(Work::Group);
        let Some(node) = self.nodes.get_mut(to_usize(node)) else {
            return;
        };
        let Some(groups) = &mut node.groups else {
            return;
        };
        groups.named.remove(name);
        if at < groups.list.len() {
            groups.list.swap_remove(at);
        }
        let moved = groups.list.get(at).copied();
        if let Some(moved) = moved.and_then(|moved| self.groups.get_mut(moved)) {
            moved.at = at;
        }
        if groups.list.is_empty() {
            node.groups = None;
        }
    }

    /// Removes nodes that are not needed any more, from the last level upwards. Joins a node that has one child and nothing else
    /// with that child.
    fn prune(&mut self, mut at: u32, filter: &str) -> Option<()> {
        let mut filter = filter;
        while at != ROOT {
            let node = self.node(at)?;
            let (parent, len) = (node.parent, node.tail.len());
            let known_by = filter.get(..filter.len().checked_sub(len)?)?;
            let (above, level) = known_by.rsplit_once('/').unwrap_or(("", known_by));
            if node.is_unused() {
                self.search_without(at, None);
                self.nodes.remove(to_usize(at));
                self.node_mut(parent)?.remove_child(level);
            } else {
                let (own, child) = node.only_child()?;
                self.search_without(at, Some((&own, child)));
                let key = self.key;
                let mut tail = self.nodes.remove(to_usize(at)).tail;
                let node = self.node_mut(child)?;
                tail.push('/');
                tail.push_str(&own);
                tail.push_str(&node.tail);
                node.tail = tail;
                node.parent = parent;
                self.node_mut(parent)?.set_child(level, child, key);
                return Some(());
            }
            (at, filter) = (parent, above);
        }
        Some(())
    }

    /// Returns a shared subscription that [`Self::matches`] found.
    pub(crate) fn group_mut(&mut self, group: GroupKey) -> Option<&mut Group> {
        self.groups.get_mut(group)
    }

    /// Returns a shared subscription that was found earlier, if it is still the same one.
    pub(crate) fn shared_mut(&mut self, share: Share) -> Option<&mut Group> {
        self.group_mut(share.group)
            .filter(|group| group.serial == share.serial)
    }
}

/// Names a shared subscription for as long as it exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Share {
    group: GroupKey,
    serial: u32,
}

impl Share {
    pub(crate) const fn group(self) -> GroupKey {
        self.group
    }
}

impl Group {
    /// Notes that a member gets a message. It has as many messages in its turn as it has members: a shard may have several.
    pub(crate) const fn turn_ends(&mut self, member: usize, members: u32) {
        let before = if member == self.next { self.turns } else { 0 };
        self.turns = before.saturating_add(1);
        self.next = member;
        if self.turns >= members {
            self.next = member.wrapping_add(1);
            self.turns = 0;
        }
    }

    pub(crate) const fn share(&self, group: GroupKey) -> Share {
        Share {
            group,
            serial: self.serial,
        }
    }
}

/// Returns the filter without `$share/name/`. The text after a slash of a valid text is valid.
fn levels<'a>(filter: &TopicFilter<'a>) -> &'a str {
    std::str::from_utf8(filter.topic_levels()).unwrap_or_default()
}

/// Returns the first level, and the levels after it if there are any.
fn first(levels: &str) -> (&str, Option<&str>) {
    // Levels are short: comparing their bytes is faster than a search that is made for long texts.
    let end = levels.bytes().position(|byte| byte == b'/');
    match end.and_then(|end| levels.split_at_checked(end)) {
        Some((level, rest)) => (level, rest.get(1..)),
        None => (levels, None),
    }
}

/// Returns the part of `levels` after the first level and the tail; `None` if they do not begin with these.
#[allow(clippy::option_option, reason = "nothing may be behind them")]
fn behind<'a>(tail: &str, levels: &'a str) -> Option<Option<&'a str>> {
    let level = first(levels).0;
    let rest = levels.get(level.len()..)?.strip_prefix(tail)?;
    match rest.strip_prefix('/') {
        None if rest.is_empty() => Some(None),
        rest => rest.map(Some),
    }
}

/// Returns how many bytes of complete levels both begin with; each level is preceded by its slash.
fn common(one: &str, other: &str) -> usize {
    one.split('/')
        .zip(other.split('/'))
        .skip(1)
        .take_while(|(one, other)| one == other)
        .map(|(level, _)| level.len().saturating_add(1))
        .sum()
}

#[cfg(test)]
mod tests;
