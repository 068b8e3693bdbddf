//! Who gets what: the tree of topic filters, level by level. Finding the subscribers of a topic costs by the levels of
//! the topic, not by the number of subscriptions.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::num::NonZeroU32;

use compact_str::CompactString;
use mqtt_session::proto::{QoS, Subscription, TopicFilter};
use smallvec::SmallVec;

use crate::broker::{number, usize_of};
use crate::work::step;

/// SipHash with a key of the host: deterministic, and nobody outside can make names collide.
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

/// A client's subscription, as routing sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Subscriber {
    pub(crate) session: u32,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<u32>,
}

impl Subscriber {
    pub(crate) fn new(
        session: u32,
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

/// Most filters have one subscriber, which then takes no memory of its own: a topic that was not heard of for a while is
/// found with fewer reads of memory that is not in the cache. Names of levels are kept likewise.
type Subscribers = SmallVec<[Subscriber; 1]>;

/// The members of a shared subscription: each message goes to one of them.
#[derive(Debug)]
pub(crate) struct Group {
    serial: u32,
    /// Where it is in the list of its node.
    at: usize,
    pub(crate) members: Subscribers,
    /// Whose turn it is.
    pub(crate) next: usize,
}

/// The shared subscriptions of a node: in a row for the messages, by name for those who come and go.
#[derive(Debug)]
struct Groups {
    list: Vec<u32>,
    named: HashMap<CompactString, u32, Keyed>,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// Most nodes have none.
    #[allow(clippy::box_collection, reason = "a pointer is a quarter of it")]
    children: Option<Box<HashMap<CompactString, u32, Keyed>>>,
    /// The child for `+`.
    any: Option<NonZeroU32>,
    /// The child for `#`; it has no children of its own.
    rest: Option<NonZeroU32>,
    subscribers: Subscribers,
    /// Most nodes have none.
    groups: Option<Box<Groups>>,
}

impl Node {
    const fn new(parent: u32) -> Self {
        Self {
            parent,
            children: None,
            any: None,
            rest: None,
            subscribers: Subscribers::new_const(),
            groups: None,
        }
    }

    fn groups(&self) -> &[u32] {
        self.groups.as_ref().map_or(&[], |groups| &groups.list)
    }

    fn child(&self, level: &str) -> Option<u32> {
        match level {
            "+" => self.any.map(NonZeroU32::get),
            "#" => self.rest.map(NonZeroU32::get),
            _ => self.children.as_ref()?.get(level).copied(),
        }
    }

    fn is_unused(&self) -> bool {
        self.children.is_none()
            && self.any.is_none()
            && self.rest.is_none()
            && self.subscribers.is_empty()
            && self.groups().is_empty()
    }
}

/// The subscriptions of all clients.
#[derive(Debug)]
pub(crate) struct Router {
    nodes: slab::Slab<Node>,
    groups: slab::Slab<Group>,
    key: Keyed,
    count: usize,
    shared: usize,
    serial: u32,
}

/// What a topic matches. Kept between uses, so that matching does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) groups: Vec<u32>,
    visit: Vec<u32>,
    visit_next: Vec<u32>,
}

const ROOT: u32 = 0;

impl Router {
    pub(crate) fn new(key: Keyed) -> Self {
        let mut nodes = slab::Slab::new();
        nodes.insert(Node::new(ROOT));
        Self {
            nodes,
            groups: slab::Slab::new(),
            key,
            count: 0,
            shared: 0,
            serial: 0,
        }
    }

    /// How many subscriptions there are, shared ones among them.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    pub(crate) const fn shared_count(&self) -> usize {
        self.shared
    }

    fn node(&self, node: u32) -> Option<&Node> {
        self.nodes.get(usize_of(node))
    }

    fn node_mut(&mut self, node: u32) -> Option<&mut Node> {
        self.nodes.get_mut(usize_of(node))
    }

    fn find(&self, filter: &str) -> Option<u32> {
        filter
            .split('/')
            .try_fold(ROOT, |node, level| self.node(node)?.child(level))
    }

    fn find_or_make(&mut self, filter: &str) -> Option<u32> {
        let key = self.key;
        let mut at = ROOT;
        for level in filter.split('/') {
            if let Some(child) = self.node(at)?.child(level) {
                at = child;
                continue;
            }
            let made = number(self.nodes.insert(Node::new(at)));
            let node = self.node_mut(at)?;
            match level {
                // The root is nobody's child.
                "+" => node.any = NonZeroU32::new(made),
                "#" => node.rest = NonZeroU32::new(made),
                _ => {
                    let children = node
                        .children
                        .get_or_insert_with(|| Box::new(HashMap::with_hasher(key)));
                    children.insert(level.into(), made);
                }
            }
            at = made;
        }
        Some(at)
    }

    /// Adds a subscription, or replaces the one that the session has with this filter: the caller knows which it is.
    pub(crate) fn subscribe(
        &mut self,
        filter: &TopicFilter<'_>,
        subscriber: Subscriber,
        replaces: bool,
    ) {
        let Some(at) = self.find_or_make(levels(filter)) else {
            return;
        };
        let share = filter.share_name();
        let list = match share {
            None => self.node_mut(at).map(|node| &mut node.subscribers),
            Some(name) => {
                let group = self
                    .group(at, name)
                    .unwrap_or_else(|| self.make_group(at, name));
                self.groups
                    .get_mut(usize_of(group))
                    .map(|group| &mut group.members)
            }
        };
        let Some(list) = list else { return };
        if replaces {
            // 3.1.1 [MQTT-3.8.4-3], 5 [MQTT-3.8.4-3]
            let old = |old: &&mut Subscriber| old.session == subscriber.session;
            if let Some(old) = list.iter_mut().find(old) {
                *old = subscriber;
            }
            return;
        }
        list.push(subscriber);
        self.count = self.count.saturating_add(1);
        self.shared = self.shared.saturating_add(usize::from(share.is_some()));
    }

    fn group(&self, node: u32, name: &str) -> Option<u32> {
        step();
        let groups = self.node(node)?.groups.as_ref()?;
        groups.named.get(name).copied()
    }

    fn make_group(&mut self, node: u32, name: &str) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        let (key, serial) = (self.key, self.serial);
        let at = self.node(node).map_or(0, |node| node.groups().len());
        let group = number(self.groups.insert(Group {
            serial,
            at,
            members: Subscribers::new(),
            next: 0,
        }));
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

    /// Removes a subscription. `false` if there was none.
    pub(crate) fn unsubscribe(&mut self, filter: &TopicFilter<'_>, session: u32) -> bool {
        let Some(at) = self.find(levels(filter)) else {
            return false;
        };
        let removed = match filter.share_name() {
            None => self
                .node_mut(at)
                .is_some_and(|node| remove(&mut node.subscribers, session)),
            Some(name) => self
                .group(at, name)
                .is_some_and(|group| self.leave(at, group, name, session)),
        };
        if removed {
            self.count = self.count.saturating_sub(1);
            let shared = usize::from(filter.is_shared());
            self.shared = self.shared.saturating_sub(shared);
            self.prune(at, levels(filter));
        }
        removed
    }

    fn leave(&mut self, node: u32, group: u32, name: &str, session: u32) -> bool {
        let Some(state) = self.groups.get_mut(usize_of(group)) else {
            return false;
        };
        let removed = remove(&mut state.members, session);
        if state.members.is_empty() {
            let at = state.at;
            self.groups.remove(usize_of(group));
            self.forget_group(node, at, name);
        }
        removed
    }

    /// Takes a group out of its node. The last of the list takes its place there.
    fn forget_group(&mut self, node: u32, at: usize, name: &str) {
        step();
        let Some(node) = self.nodes.get_mut(usize_of(node)) else {
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
        if let Some(moved) = moved.and_then(|moved| self.groups.get_mut(usize_of(moved))) {
            moved.at = at;
        }
        if groups.list.is_empty() {
            node.groups = None;
        }
    }

    /// Takes away the nodes that nothing needs any more, from the last level up.
    fn prune(&mut self, mut at: u32, filter: &str) {
        for level in filter.rsplit('/') {
            let Some(node) = self.node(at) else { return };
            if !node.is_unused() || at == ROOT {
                return;
            }
            let parent = node.parent;
            self.nodes.remove(usize_of(at));
            let Some(above) = self.node_mut(parent) else {
                return;
            };
            match level {
                "+" => above.any = None,
                "#" => above.rest = None,
                _ => {
                    if let Some(children) = &mut above.children {
                        children.remove(level);
                        if children.is_empty() {
                            above.children = None;
                        }
                    }
                }
            }
            at = parent;
        }
    }

    /// Finds the subscribers of a topic; `matches` is cleared first.
    pub(crate) fn matches(&self, topic: &str, matches: &mut Matches) {
        let Matches {
            subscribers,
            groups,
            visit,
            visit_next,
        } = matches;
        subscribers.clear();
        groups.clear();
        visit.clear();
        visit.push(ROOT);
        // 3.1.1 [MQTT-4.7.2-1], 5 [MQTT-4.7.2-1]: a wildcard in front does not match names that begin with `$`.
        let mut wildcards = !topic.starts_with('$');
        let mut take = |node: Option<&Node>| {
            if let Some(node) = node {
                subscribers.extend_from_slice(&node.subscribers);
                groups.extend_from_slice(node.groups());
            }
        };
        for level in topic.split('/') {
            visit_next.clear();
            for at in visit.iter() {
                let Some(node) = self.node(*at) else {
                    continue;
                };
                if wildcards {
                    // `#` takes this level and all below.
                    take(node.rest.and_then(|rest| self.node(rest.get())));
                    visit_next.extend(node.any.map(NonZeroU32::get));
                }
                visit_next.extend(
                    node.children
                        .as_ref()
                        .and_then(|children| children.get(level).copied()),
                );
            }
            std::mem::swap(visit, visit_next);
            if visit.is_empty() {
                return;
            }
            wildcards = true;
        }
        for at in visit.iter() {
            let node = self.node(*at);
            take(node);
            // `a/#` matches `a` as well.
            take(node.and_then(|node| node.rest.and_then(|rest| self.node(rest.get()))));
        }
    }

    /// A shared subscription that was found by [`Self::matches`].
    pub(crate) fn group_mut(&mut self, group: u32) -> Option<&mut Group> {
        self.groups.get_mut(usize_of(group))
    }

    /// A shared subscription that was found before, if it is still the same.
    pub(crate) fn shared_mut(&mut self, share: Share) -> Option<&mut Group> {
        self.group_mut(share.group)
            .filter(|group| group.serial == share.serial)
    }
}

/// Names a shared subscription for as long as it has members.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Share {
    group: u32,
    serial: u32,
}

impl Share {
    pub(crate) const fn group(self) -> u32 {
        self.group
    }
}

impl Group {
    pub(crate) const fn share(&self, group: u32) -> Share {
        Share {
            group,
            serial: self.serial,
        }
    }
}

/// The filter without `$share/name/`. Validated text stays valid behind a slash.
fn levels<'a>(filter: &TopicFilter<'a>) -> &'a str {
    std::str::from_utf8(filter.topic_levels()).unwrap_or_default()
}

fn remove(list: &mut Subscribers, session: u32) -> bool {
    match list.iter().position(|old| old.session == session) {
        Some(at) => {
            list.remove(at);
            if list.is_empty() {
                *list = Subscribers::new();
            }
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use mqtt_session::proto::Subscription;
    use mqtt_testing::model;

    use super::*;
    use crate::work::steps;

    fn filter(text: &str) -> TopicFilter<'_> {
        TopicFilter::new(text).unwrap()
    }

    fn subscriber(session: u32, text: &str) -> Subscriber {
        let subscription = Subscription::new(filter(text), QoS::AtMostOnce);
        Subscriber::new(session, &subscription, None)
    }

    /// Random subscriptions come and go; each topic finds those that the model says, and nothing stays of those that went.
    #[test]
    fn a_topic_finds_what_the_model_says() {
        let levels = ["a", "b", "", "+", "#", "$x"];
        let mut filters = Vec::new();
        for first in levels {
            filters.push(first.to_owned());
            for second in levels {
                filters.push(format!("{first}/{second}"));
                filters.push(format!("{first}/{second}/a"));
                filters.push(format!("$share/g/{first}/{second}"));
                filters.push(format!("$share/h/{first}/{second}"));
            }
        }
        filters.retain(|text| TopicFilter::new(text).is_ok());
        let names: Vec<&String> = filters
            .iter()
            .filter(|text| !text.contains(['+', '#']) && !text.starts_with("$share"))
            .collect();
        let mut seed = 3_u32;
        let mut random = |n: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            usize_of(seed >> 8) % n
        };
        let mut router = Router::new(Keyed(7));
        let mut matches = Matches::default();
        let mut there: Vec<(String, u32)> = Vec::new();
        for round in 0..6_000 {
            // It fills, and empties.
            let adds = random(10) < if round < 3_000 { 7 } else { 2 };
            let text = &filters[random(filters.len())];
            let session = number(random(4));
            let known = there.iter().position(|own| own == &(text.clone(), session));
            if adds {
                router.subscribe(&filter(text), subscriber(session, text), known.is_some());
                if known.is_none() {
                    there.push((text.clone(), session));
                }
            } else {
                assert_eq!(router.unsubscribe(&filter(text), session), known.is_some());
                known.map(|at| there.swap_remove(at));
            }
            let name = names[random(names.len())];
            router.matches(name, &mut matches);
            let mut found: Vec<u32> = matches.subscribers.iter().map(|own| own.session).collect();
            let matching = |shared: bool| {
                there.iter().filter(move |(text, _)| {
                    text.starts_with("$share") == shared && model::matches(text, name)
                })
            };
            let mut expected: Vec<u32> = matching(false).map(|(_, session)| *session).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{name}: {there:?}");
            let members: usize = matches
                .groups
                .iter()
                .map(|group| router.groups[usize_of(*group)].members.len())
                .sum();
            assert_eq!(members, matching(true).count(), "{name}: {there:?}");
            assert_eq!(router.count(), there.len());
        }
        for (text, session) in there {
            assert!(router.unsubscribe(&filter(&text), session));
        }
        assert_eq!((router.nodes.len(), router.groups.len()), (1, 0));
        assert_eq!((router.count(), router.shared_count()), (0, 0));
    }

    /// Share names cost no more than filters do: neither the second of two clients nor the last of many searches a list.
    #[test]
    fn many_share_names_are_not_searched() {
        const MANY: u32 = 2_000;
        let mut router = Router::new(Keyed(7));
        let texts: Vec<String> = (0..MANY).map(|n| format!("$share/g{n}/a")).collect();
        let (taken, ()) = steps(|| {
            for text in &texts {
                router.subscribe(&filter(text), subscriber(0, text), false);
                router.subscribe(&filter(text), subscriber(1, text), false);
            }
        });
        assert!(taken <= 4 * texts.len(), "{taken} steps to subscribe");
        let mut matches = Matches::default();
        router.matches("a", &mut matches);
        assert_eq!(matches.groups.len(), texts.len());
        let (taken, ()) = steps(|| {
            for text in &texts {
                assert!(router.unsubscribe(&filter(text), 0));
                assert!(!router.unsubscribe(&filter(text), 0));
                assert!(router.unsubscribe(&filter(text), 1));
            }
        });
        assert!(taken <= 6 * texts.len(), "{taken} steps to unsubscribe");
        assert_eq!((router.nodes.len(), router.groups.len()), (1, 0));
    }
}
