//! Stores rules by the levels of their filters. A decision visits the rules that share levels with the topic, not all rules.

use std::collections::HashMap;

use super::step;

/// The names for the placeholders of a pattern; `None` if the client does not have the name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) client: Option<&'a str>,
    /// Whether any text may be the name of the user.
    pub(super) any_user: bool,
    /// Whether any text may be the name of the client.
    pub(super) any_client: bool,
}

/// A part of a level of a pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(Box<str>),
    User,
    Client,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: HashMap<Box<str>, usize>,
    /// The levels with placeholders.
    patterns: Vec<(Vec<Part>, usize)>,
    /// The child for `+`.
    any: Option<usize>,
    /// The child for `#`, which has no children.
    rest: Option<usize>,
    /// Whether a rule for reading ends here.
    read: bool,
    /// Whether a rule for writing ends here.
    write: bool,
}

/// The access in question.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Read,
    Write,
}

/// The rules of one user, or of all clients, which either allow or deny.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

const ROOT: usize = 0;
/// How many nodes are visited for one filter with wildcards.
const LONGEST_WALK: usize = 1_000;

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl Tree {
    /// Adds a rule. In a pattern, `%u` and `%c` are placeholders.
    pub(super) fn add(&mut self, filter: &str, is_pattern: bool, read: bool, write: bool) {
        let mut at = ROOT;
        for level in filter.split('/') {
            let parts = parts(level);
            let made = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return;
            };
            at = if is_pattern && parts.iter().any(|part| !matches!(part, Part::Text(_))) {
                let known = node.patterns.iter().find(|(own, _)| *own == parts);
                match known {
                    Some((_, known)) => *known,
                    None => {
                        node.patterns.push((parts, made));
                        made
                    }
                }
            } else {
                match level {
                    "+" => *node.any.get_or_insert(made),
                    "#" => *node.rest.get_or_insert(made),
                    _ => *node.children.entry(level.into()).or_insert(made),
                }
            };
            if at == made {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.read |= read;
            node.write |= write;
        }
    }

    fn grants(&self, at: usize, wanted: Wanted) -> bool {
        self.nodes.get(at).is_some_and(|node| match wanted {
            Wanted::Read => node.read,
            Wanted::Write => node.write,
        })
    }

    /// Returns whether a rule matches every topic that `filter` matches. A topic is a filter without wildcards.
    pub(super) fn covers(&self, filter: &str, names: Names<'_>, wanted: Wanted) -> bool {
        // 3.1.1 [MQTT-4.7.2-1], 5 [MQTT-4.7.2-1]: a wildcard in front does not match names that begin with `$`.
        let is_hidden = filter.starts_with('$');
        let mut visit = vec![(ROOT, Some(filter))];
        while let Some((at, levels)) = visit.pop() {
            step();
            let Some(node) = self.nodes.get(at) else {
                continue;
            };
            let wildcards = at != ROOT || !is_hidden;
            if wildcards && node.rest.is_some_and(|rest| self.grants(rest, wanted)) {
                return true;
            }
            let Some(levels) = levels else {
                if self.grants(at, wanted) {
                    return true;
                }
                continue;
            };
            let (level, rest) = first(levels);
            // `#` also matches the topic that ends here.
            if level != "#" && node.has_any(names) {
                return true;
            }
            if wildcards && level != "#" {
                visit.extend(node.any.map(|any| (any, rest)));
            }
            if !matches!(level, "+" | "#") {
                let same = node.with_level(level, names);
                visit.extend(same.map(|child| (child, rest)));
            }
        }
        false
    }

    /// Returns whether some topic matches a rule and `filter`. Returns `true` if the search takes too long.
    pub(super) fn overlaps(&self, filter: &str, names: Names<'_>, wanted: Wanted) -> bool {
        // As in `covers`, for the wildcards of either.
        let is_hidden = filter.starts_with('$');
        let mut visit = vec![(ROOT, Some(filter))];
        let mut visited = 0;
        while let Some((at, levels)) = visit.pop() {
            step();
            visited += 1;
            if visited > LONGEST_WALK {
                return true;
            }
            let Some(node) = self.nodes.get(at) else {
                continue;
            };
            let wildcards = at != ROOT || !is_hidden;
            if wildcards && node.rest.is_some_and(|rest| self.grants(rest, wanted)) {
                return true;
            }
            let (level, rest) = levels.map_or(("", None), first);
            // `#` matches the remaining levels of every rule.
            let rest = if level == "#" { levels } else { rest };
            if (levels.is_none() || level == "#") && self.grants(at, wanted) {
                return true;
            }
            if levels.is_none() {
                continue;
            }
            if node.has_any(names) {
                return true;
            }
            if wildcards {
                visit.extend(node.any.map(|any| (any, rest)));
            }
            if matches!(level, "+" | "#") {
                let all = node.every(names, at != ROOT);
                visit.extend(all.map(|child| (child, rest)));
            } else {
                let same = node.with_level(level, names);
                visit.extend(same.map(|child| (child, rest)));
            }
        }
        false
    }
}

impl Node {
    /// Returns the children for this level, without those for wildcards.
    fn with_level(&self, level: &str, names: Names<'_>) -> impl Iterator<Item = usize> {
        let patterns = self.patterns.iter();
        let same = patterns
            .inspect(|_| step())
            .filter(move |(parts, _)| is_level(parts, level, names));
        let child = self.children.get(level).copied();
        child.into_iter().chain(same.map(|(_, child)| *child))
    }

    /// Returns whether a pattern continues here with a name that may be any text. The name may have several levels, so that all topics of
    /// the levels behind may be meant.
    fn has_any(&self, names: Names<'_>) -> bool {
        let is_any = |part: &Part| match part {
            Part::Text(_) => false,
            Part::User => names.any_user,
            Part::Client => names.any_client,
        };
        (names.any_user || names.any_client)
            && self
                .patterns
                .iter()
                .any(|(parts, _)| parts.iter().any(is_any))
    }

    /// Returns all children for levels, without those for wildcards; those that begin with `$` only if `hidden`.
    fn every(&self, names: Names<'_>, hidden: bool) -> impl Iterator<Item = usize> {
        let possible = move |part: &Part| match part {
            Part::Text(_) => true,
            Part::User => names.user.is_some(),
            Part::Client => names.client.is_some(),
        };
        let patterns = self.patterns.iter();
        let patterns = patterns.filter(move |(parts, _)| parts.iter().all(possible));
        let children = self.children.iter();
        let shown = children.filter(move |(level, _)| hidden || !level.starts_with('$'));
        let children = shown.map(|(_, child)| *child);
        children.chain(patterns.map(|(_, child)| *child))
    }
}

/// Returns the first level, and the other levels if there are any.
fn first(levels: &str) -> (&str, Option<&str>) {
    match levels.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (levels, None),
    }
}

fn parts(mut level: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some((at, holder)) = level.match_indices('%').find_map(|(at, _)| {
        match level.as_bytes().get(at.wrapping_add(1))? {
            b'u' => Some((at, Part::User)),
            b'c' => Some((at, Part::Client)),
            _ => None,
        }
    }) {
        let (text, rest) = level.split_at(at);
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        parts.push(holder);
        level = &rest["%u".len()..];
    }
    if !level.is_empty() {
        parts.push(Part::Text(level.into()));
    }
    parts
}

/// Returns whether the level consists of these parts with the client's names.
fn is_level(parts: &[Part], level: &str, names: Names<'_>) -> bool {
    let mut rest = Some(level);
    for part in parts {
        let text = match part {
            Part::Text(text) => Some(&**text),
            Part::User => names.user,
            Part::Client => names.client,
        };
        rest = rest.and_then(|rest| rest.strip_prefix(text?));
    }
    rest == Some("")
}
