//! Finds the subscribers of a topic: at once, or in portions while filters change.

use super::{Node, ROOT, Router, Share, Subscriber, first};
use crate::keys::GroupKey;
use crate::work::{Work, step};

/// The subscribers and groups that match a topic. The memory is kept between uses, so that a search does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) groups: Vec<GroupKey>,
    /// The nodes that are still to be visited, each with the offset in the topic of the first level after those that it stands
    /// for.
    visit: Vec<(u32, usize)>,
    steps: usize,
}

impl Matches {
    fn begin(&mut self) {
        self.subscribers.clear();
        self.groups.clear();
        self.visit.clear();
        self.visit.push((ROOT, 0));
        self.steps = 0;
    }

    /// Returns the steps of the search.
    pub(crate) const fn steps(&self) -> usize {
        self.steps
    }
}

impl Router {
    /// Finds the subscribers of a topic after clearing `matches`. Returns `false` if that takes more than `most` steps.
    pub(crate) fn matches(&mut self, topic: &str, matches: &mut Matches, most: usize) -> bool {
        matches.begin();
        if let Some(subscribers) = self.recent.find(topic) {
            matches.subscribers.extend_from_slice(subscribers);
            matches.steps = 1;
            return true;
        }
        let finished = self.walk(topic, matches, most);
        if finished && matches.groups.is_empty() {
            self.recent.keep(topic, &matches.subscribers);
        }
        finished
    }

    /// Begins a search that is done in portions. There is one such search at a time.
    pub(crate) fn begin_search(&mut self, topic: &str) {
        self.search.begin();
        self.search_topic.clear();
        self.search_topic.push_str(topic);
    }

    /// Continues the search for `most` steps. Returns whether it has ended. [`Self::found`] returns the subscribers that this
    /// call found; found shared subscriptions are added to `groups`.
    pub(crate) fn search(&mut self, most: usize, groups: &mut Vec<Share>) -> bool {
        let mut search = std::mem::take(&mut self.search);
        search.subscribers.clear();
        search.groups.clear();
        search.steps = 0;
        let finished = self.walk(&self.search_topic, &mut search, most);
        for group in &search.groups {
            groups.extend(self.groups.get(*group).map(|own| own.share(*group)));
        }
        self.search = search;
        finished
    }

    /// Returns the subscribers that the last call of [`Self::search`] found.
    pub(crate) const fn found(&self) -> &Matches {
        &self.search
    }

    /// Adapts the search to the removal of a node: `child`, with `level` as its first level, takes the node's place.
    pub(super) fn search_without(&mut self, node: u32, child: Option<(&str, u32)>) {
        if self.search.visit.is_empty() {
            return;
        }
        let mut search = std::mem::take(&mut self.search);
        search.visit.retain_mut(|(at, start)| {
            if *at != node {
                return true;
            }
            let topic = &self.search_topic;
            let levels = topic.get(*start..);
            let (Some(levels), Some((own, child))) = (levels, child) else {
                return false;
            };
            let level = first(levels).0;
            if own != "+" && own != level {
                return false;
            }
            let end = start.saturating_add(level.len()).saturating_add(1);
            let tail = self.node(child).map_or("", |node| &node.tail);
            match follow(tail, topic, end) {
                Some(end) => (*at, *start) = (child, end),
                None => return false,
            }
            true
        });
        self.search = search;
    }

    /// Visits nodes until none is left or `most` steps are taken. Returns whether none is left.
    fn walk(&self, topic: &str, matches: &mut Matches, most: usize) -> bool {
        let Matches {
            subscribers,
            groups,
            visit,
            steps,
        } = matches;
        // 3.1.1 [MQTT-4.7.2-1], 5 [MQTT-4.7.2-1]: a wildcard in front does not match names that begin with `$`.
        let is_hidden = topic.starts_with('$');
        // Adds the subscribers of a node, and counts the steps.
        let mut take = |node: Option<&Node>| {
            if let Some(node) = node {
                subscribers.extend_from_slice(node.subscribers.as_slice());
                groups.extend_from_slice(node.groups());
                node.subscribers.len().saturating_add(node.groups().len()) / 4
            } else {
                0
            }
        };
        while *steps < most {
            let Some((at, start)) = visit.pop() else {
                return true;
            };
            step(Work::Walk);
            *steps = steps.saturating_add(1);
            let Some(node) = self.node(at) else {
                continue;
            };
            // `#` takes this level and all below; `a/#` matches `a` as well.
            let rest = || node.rest.and_then(|rest| self.node(rest.get()));
            let Some(levels) = topic.get(start..) else {
                *steps = steps.saturating_add(take(Some(node)).saturating_add(take(rest())));
                continue;
            };
            let level = first(levels).0;
            let end = start.saturating_add(level.len()).saturating_add(1);
            // Compares a child with the topic, and returns the steps.
            let mut go = |child: u32| {
                let tail = self.node(child).map_or("", |node| &node.tail);
                visit.extend(follow(tail, topic, end).map(|end| (child, end)));
                1_usize.saturating_add(tail.len() / BYTES_A_STEP)
            };
            if !(is_hidden && at == ROOT) {
                *steps = steps.saturating_add(take(rest()));
                if let Some(any) = node.any {
                    *steps = steps.saturating_add(go(any.get()));
                }
            }
            let child = node.children.as_ref().and_then(|own| own.get(level));
            if let Some(child) = child {
                *steps = steps.saturating_add(go(*child));
            }
        }
        visit.is_empty()
    }
}

/// How many bytes of a tail with wildcards count as one step of comparison.
const BYTES_A_STEP: usize = 16;

/// Returns the offset in the topic of the levels after the tail, if the levels from `start` on match the tail; an offset after
/// the end of the topic if there are none.
fn follow(tail: &str, topic: &str, start: usize) -> Option<usize> {
    // Most tails have no wildcards and are compared as bytes.
    let rest = topic.get(start.saturating_sub(1)..).unwrap_or_default();
    if let Some(rest) = rest.strip_prefix(tail)
        && (rest.is_empty() || rest.starts_with('/'))
    {
        return Some(start.saturating_add(tail.len()));
    }
    if !tail.contains('+') {
        return None;
    }
    let mut start = start;
    for own in tail.split('/').skip(1) {
        let level = first(topic.get(start..)?).0;
        if own != "+" && own != level {
            return None;
        }
        start = start.saturating_add(level.len()).saturating_add(1);
    }
    Some(start)
}
