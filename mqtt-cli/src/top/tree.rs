//! Stores the topics of a broker as a tree, with counts and the last message of each.

use std::collections::BTreeMap;

/// How many levels of a topic are levels of the tree. All further ones are one name, so that the depth of the tree, and the stack
/// to walk it, are bounded.
const LEVELS: usize = 24;
/// How many bytes of a payload are stored.
const STORED: usize = 4_096;

/// The last message of a topic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Last {
    /// The beginning of its payload.
    pub(super) payload: Vec<u8>,
    /// The length of the whole payload.
    pub(super) len: usize,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

/// A level of topics.
#[derive(Debug, Default)]
pub(super) struct Node {
    children: BTreeMap<String, Self>,
    is_closed: bool,
    /// How many messages this topic and those below it had.
    pub(super) messages: u64,
    since_tick: u64,
    /// How many messages this topic and those below it had in the last second.
    pub(super) rate: u64,
    /// `None` if only topics below it had messages.
    pub(super) last: Option<Last>,
}

/// All topics that had a message.
#[derive(Debug)]
pub(super) struct Tree {
    root: Node,
    nodes: usize,
    limit: usize,
    /// How many messages had topics for which there was no room.
    pub(super) left_out: u64,
}

/// A line of the tree.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The topic up to this level.
    pub(super) topic: String,
    pub(super) name: &'a str,
    pub(super) depth: usize,
    pub(super) node: &'a Node,
}

impl Tree {
    /// Makes a tree of at most `limit` levels in total.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            root: Node::default(),
            nodes: 0,
            limit,
            left_out: 0,
        }
    }

    /// Counts a message and stores it as the last one of its topic.
    pub(super) fn insert(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        self.root.count();
        let new = self.missing(topic);
        if self.nodes + new > self.limit {
            self.left_out += 1;
            return;
        }
        self.nodes += new;
        let mut node = &mut self.root;
        for level in levels(topic) {
            node = node
                .children
                .entry(level.to_owned())
                .or_insert_with(|| Node {
                    // The topics of the broker itself are closed.
                    is_closed: level.starts_with('$'),
                    ..Node::default()
                });
            node.count();
        }
        let stored = payload.get(..STORED).unwrap_or(payload);
        node.last = Some(Last {
            payload: stored.to_vec(),
            len: payload.len(),
            qos,
            retain,
        });
    }

    /// Returns how many levels of a topic are not in the tree.
    fn missing(&self, topic: &str) -> usize {
        let mut node = Some(&self.root);
        levels(topic)
            .filter(|level| {
                node = node.and_then(|node| node.children.get(*level));
                node.is_none()
            })
            .count()
    }

    /// Ends a second: its counts become the rates.
    pub(super) fn tick(&mut self) {
        self.root.tick();
    }

    pub(super) const fn root(&self) -> &Node {
        &self.root
    }

    /// Returns the node of a topic.
    pub(super) fn get(&self, topic: &str) -> Option<&Node> {
        levels(topic).try_fold(&self.root, |node, level| node.children.get(level))
    }

    /// Opens or closes a node.
    pub(super) fn open(&mut self, topic: &str, is_open: bool) {
        let node =
            levels(topic).try_fold(&mut self.root, |node, level| node.children.get_mut(level));
        if let Some(node) = node {
            node.is_closed = !is_open;
        }
    }

    /// Returns the lines of the tree, without those below closed nodes.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        self.root.rows("", 0, &mut rows);
        rows
    }
}

fn levels(topic: &str) -> impl Iterator<Item = &str> {
    topic.splitn(LEVELS, '/')
}

impl Node {
    const fn count(&mut self) {
        self.messages += 1;
        self.since_tick += 1;
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    pub(super) const fn is_open(&self) -> bool {
        !self.is_closed
    }

    fn tick(&mut self) {
        self.rate = std::mem::take(&mut self.since_tick);
        self.children.values_mut().for_each(Self::tick);
    }

    fn rows<'a>(&'a self, above: &str, depth: usize, rows: &mut Vec<Row<'a>>) {
        for (name, node) in &self.children {
            let topic = if depth == 0 {
                name.clone()
            } else {
                format!("{above}/{name}")
            };
            rows.push(Row {
                topic: topic.clone(),
                name,
                depth,
                node,
            });
            if node.is_open() {
                node.rows(&topic, depth + 1, rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(topics: &[&str]) -> Tree {
        let mut tree = Tree::new(100);
        for topic in topics {
            tree.insert(topic, b"x", 0, false);
        }
        tree
    }

    fn topics(tree: &Tree) -> Vec<String> {
        tree.rows().into_iter().map(|row| row.topic).collect()
    }

    #[test]
    fn levels_are_nodes_and_empty_ones_too() {
        let tree = tree(&["a/b", "a", "/a", "a/b/"]);
        assert_eq!(topics(&tree), ["", "/a", "a", "a/b", "a/b/"]);
        assert_eq!(tree.get("a").unwrap().messages, 3);
        assert_eq!(tree.root().messages, 4);
    }

    #[test]
    fn a_second_ends_with_its_rates() {
        let mut tree = tree(&["a/b", "a/b", "a/c"]);
        tree.tick();
        assert_eq!((tree.get("a").unwrap().rate, tree.root().rate), (3, 3));
        tree.insert("a/b", b"", 0, false);
        tree.tick();
        assert_eq!(
            (tree.get("a/b").unwrap().rate, tree.get("a/c").unwrap().rate),
            (1, 0)
        );
    }

    #[test]
    fn a_collapsed_topic_hides_its_subtopics() {
        let mut tree = tree(&["a/b/c", "$SYS/broker/uptime"]);
        assert_eq!(topics(&tree), ["$SYS", "a", "a/b", "a/b/c"]);
        tree.open("a/b", false);
        tree.open("$SYS", true);
        assert_eq!(
            topics(&tree),
            ["$SYS", "$SYS/broker", "$SYS/broker/uptime", "a", "a/b"]
        );
    }

    #[test]
    fn topics_and_stored_payloads_are_limited() {
        let mut tree = Tree::new(3);
        tree.insert("a/b", &[0; 10_000], 1, true);
        tree.insert("c/d", b"", 0, false);
        tree.insert("c", b"", 0, false);
        tree.insert("a/b/d/e", b"", 0, false);
        assert_eq!(topics(&tree), ["a", "a/b", "c"]);
        assert_eq!(tree.left_out, 2);
        let last = tree.get("a/b").unwrap().last.as_ref().unwrap();
        assert_eq!((last.payload.len(), last.len), (STORED, 10_000));
        let deep = "x/".repeat(30_000);
        let mut tree = Tree::new(100);
        tree.insert(&deep, b"", 0, false);
        assert_eq!(tree.rows().len(), LEVELS);
        assert_eq!(tree.rows().last().unwrap().topic, deep);
    }
}
