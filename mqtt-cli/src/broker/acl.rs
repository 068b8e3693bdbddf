//! The ACL file: who may publish and subscribe to what. The syntax is Mosquitto's:
//!
//! ```text
//! topic read public/#          # those without a user name
//! user pump
//! topic write plant/pumps/+    # read, write, readwrite (if nothing is said) or deny
//! pattern readwrite home/%u/#  # everyone; %u is the user name, %c the client identifier
//! ```

mod tree;

use std::collections::HashMap;
use std::path::Path;

use mqtt_tokio::broker::ClientInfo;
use mqtt_tokio::proto::{TopicFilter, TopicName};

use self::tree::{Names, Tree, Wanted};
use super::users::lines;
use crate::failure::{Failure, fail};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    Read,
    Write,
    ReadWrite,
    Deny,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Who {
    Anonymous,
    User(String),
    Everyone,
}

#[derive(Debug, Default)]
struct Rules {
    allow: Tree,
    deny: Tree,
}

/// The rules of an ACL file. What no rule allows is denied; what one denies, no other allows.
#[derive(Debug, Default)]
pub(crate) struct Acl {
    anonymous: Rules,
    users: HashMap<String, Rules>,
    everyone: Rules,
}

impl Acl {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let text =
            std::fs::read_to_string(path).map_err(|error| fail(format!("{name}: {error}")))?;
        Self::parse(&text).map_err(|error| fail(format!("{name}: {error}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut acl = Self::default();
        let mut user = Who::Anonymous;
        for (number, line) in lines(text) {
            let wrong = |what: &str| format!("line {number}: {what}");
            let (word, rest) = line
                .split_once(char::is_whitespace)
                .map(|(word, rest)| (word, rest.trim()))
                .ok_or_else(|| wrong("must be user, topic or pattern, and what it is about"))?;
            let who = match word {
                "user" => {
                    user = Who::User(rest.to_owned());
                    continue;
                }
                "topic" => user.clone(),
                "pattern" => Who::Everyone,
                _ => return Err(wrong("must begin with user, topic or pattern")),
            };
            let (access, filter) = access(rest);
            let sample = filter.replace("%u", "u").replace("%c", "c");
            TopicFilter::new(&sample).map_err(|error| wrong(&error.to_string()))?;
            if sample.starts_with("$share/") {
                return Err(wrong("a rule speaks of topics, without $share"));
            }
            acl.add(who, access, filter);
        }
        Ok(acl)
    }

    fn add(&mut self, who: Who, access: Access, filter: &str) {
        let is_pattern = who == Who::Everyone;
        let rules = match who {
            Who::Anonymous => &mut self.anonymous,
            Who::User(user) => self.users.entry(user).or_default(),
            Who::Everyone => &mut self.everyone,
        };
        let (tree, read, write) = match access {
            Access::Read => (&mut rules.allow, true, false),
            Access::Write => (&mut rules.allow, false, true),
            Access::ReadWrite => (&mut rules.allow, true, true),
            Access::Deny => (&mut rules.deny, true, true),
        };
        tree.add(filter, is_pattern, read, write);
    }

    pub(crate) fn may_publish(&self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        let (names, topic) = (names(client), topic.as_str());
        let covers = |tree: &Tree| tree.covers(topic, names, Wanted::Write);
        !self.any(client, |rules| covers(&rules.deny))
            && self.any(client, |rules| covers(&rules.allow))
    }

    /// A subscription is allowed if one rule allows all that it could bring.
    pub(crate) fn may_subscribe(&self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        let names = names(client);
        let filter = std::str::from_utf8(filter.topic_levels()).unwrap_or_default();
        self.any(client, |rules| {
            rules.allow.covers(filter, names, Wanted::Read)
        }) && !self.any(client, |rules| {
            rules.deny.overlaps(filter, names, Wanted::Read)
        })
    }

    /// Whether it is so for the rules of the client, or for those of everyone.
    fn any(&self, client: &ClientInfo<'_>, is_so: impl Fn(&Rules) -> bool) -> bool {
        let own = match client.user_name {
            None => Some(&self.anonymous),
            Some(user) => self.users.get(user),
        };
        own.into_iter().chain([&self.everyone]).any(is_so)
    }
}

fn access(rest: &str) -> (Access, &str) {
    let known = |word| match word {
        "read" => Some(Access::Read),
        "write" => Some(Access::Write),
        "readwrite" => Some(Access::ReadWrite),
        "deny" => Some(Access::Deny),
        _ => None,
    };
    match rest.split_once(char::is_whitespace) {
        Some((word, filter)) => match known(word) {
            Some(access) => (access, filter.trim()),
            None => (Access::ReadWrite, rest),
        },
        None => (Access::ReadWrite, rest),
    }
}

/// The names for place holders. A name that could change what a pattern means is no name for it.
fn names<'a>(client: &ClientInfo<'a>) -> Names<'a> {
    let usable = |name: &&str| !name.is_empty() && !name.contains(['+', '#', '/']);
    Names {
        user: client.user_name.filter(usable),
        client: Some(client.client_id).filter(usable),
    }
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A rule, or a part of several, was looked at. Tests bound how many.
#[inline]
fn step() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_tokio::proto::Version;

    fn steps<R>(work: impl FnOnce() -> R) -> (usize, R) {
        let before = STEPS.get();
        let result = work();
        (STEPS.get() - before, result)
    }

    const RULES: &str = "
        # those without a name
        topic read public/#
        user pump
        topic write plant/pumps/+
        topic plant/state
        topic read plant/+/level
        topic deny plant/pumps/secret
        user boss
        topic #
        topic deny plant/pumps/secret
        pattern home/%u/#
        pattern write id/%c
    ";

    fn client<'a>(user_name: Option<&'a str>, client_id: &'a str) -> ClientInfo<'a> {
        ClientInfo {
            client_id,
            user_name,
            version: Version::V311,
        }
    }

    #[test]
    fn rules_say_who_may_what() {
        let acl = Acl::parse(RULES).unwrap();
        for (user, id, access, topic, allowed) in [
            (None, "c", "w", "public/a", false),
            (None, "c", "r", "public/a", true),
            (None, "c", "r", "public/#", true),
            (None, "c", "r", "#", false),
            (None, "c", "w", "id/c", true),
            (None, "c", "w", "id/d", false),
            (None, "+", "w", "id/x", false),
            (None, "c", "r", "home/c/x", false),
            (Some("pump"), "c", "w", "plant/pumps/7", true),
            (Some("pump"), "c", "w", "plant/pumps/secret", false),
            (Some("pump"), "c", "r", "plant/pumps/7", false),
            (Some("pump"), "c", "r", "plant/state", true),
            (Some("pump"), "c", "w", "plant/state", true),
            (Some("pump"), "c", "r", "plant/+/level", true),
            (Some("pump"), "c", "r", "plant/tank/level", true),
            (Some("pump"), "c", "r", "plant/#", false),
            (Some("pump"), "c", "r", "$share/g/plant/+/level", true),
            (Some("pump"), "c", "r", "home/pump/#", true),
            (Some("pump"), "c", "r", "home/boss/#", false),
            (Some("p/u"), "c", "r", "home/p/u/#", false),
            (Some("boss"), "c", "r", "home/pump/x", true),
            (Some("boss"), "c", "r", "plant/pumps/+", false),
            (Some("boss"), "c", "r", "#", false),
            (Some("boss"), "c", "r", "$SYS/#", false),
            (Some("boss"), "c", "w", "any/thing", true),
        ] {
            let client = client(user, id);
            let found = match access {
                "w" => acl.may_publish(&client, TopicName::new(topic).unwrap()),
                _ => acl.may_subscribe(&client, TopicFilter::new(topic).unwrap()),
            };
            assert_eq!(found, allowed, "{user:?} {id} {access} {topic}");
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, what) in [
            ("topic", "line 1: must be user"),
            ("\nallow x", "line 2: must begin"),
            ("topic read a/#/b", "line 1: "),
            ("topic read $share/g/a", "line 1: a rule speaks of topics"),
        ] {
            let error = Acl::parse(text).unwrap_err();
            assert!(error.starts_with(what), "{error}");
        }
    }

    /// What a decision costs depends on the levels of the topic, not on how many rules there are.
    #[test]
    fn many_rules_are_not_searched() {
        use std::fmt::Write as _;
        let mut text = String::new();
        for n in 0..10_000 {
            let _ = writeln!(text, "pattern readwrite devices/%c/d{n}/+");
            let _ = writeln!(
                text,
                "pattern deny secret/d{n}/#\nuser u{n}\ntopic read own/d{n}"
            );
        }
        let acl = Acl::parse(&text).unwrap();
        let client = client(Some("u77"), "c");
        for (topic, write, read) in [
            ("devices/c/d9999/x", true, true),
            ("devices/other/d9999/x", false, false),
            ("devices/c/none/x", false, false),
            ("secret/d5/x", false, false),
            ("own/d77", false, true),
            ("own/d78", false, false),
        ] {
            let name = TopicName::new(topic).unwrap();
            let (taken, allowed) = steps(|| acl.may_publish(&client, name));
            assert_eq!(allowed, write, "{topic}");
            assert!(taken <= 15, "{topic}: {taken} steps");
            let filter = TopicFilter::new(topic).unwrap();
            let (taken, allowed) = steps(|| acl.may_subscribe(&client, filter));
            assert_eq!(allowed, read, "{topic}");
            assert!(taken <= 15, "{topic}: {taken} steps to subscribe");
        }
    }

    /// The rules as they are read, one after the other.
    struct Model(Vec<(&'static str, Access, String)>);

    impl Model {
        fn concerns(&self, client: &ClientInfo<'_>, about: impl Fn(&str) -> bool) -> Vec<Access> {
            let rules = self.0.iter().filter(|(who, _, filter)| match *who {
                "everyone" => filled(filter, client).is_some_and(|filter| about(&filter)),
                user => client.user_name.unwrap_or("nobody") == user && about(filter),
            });
            rules.map(|(_, access, _)| *access).collect()
        }

        fn allows(
            &self,
            client: &ClientInfo<'_>,
            wanted: Access,
            about: fn(&str, &str) -> bool,
            filter: &str,
        ) -> bool {
            let found = self.concerns(client, |rule| covers(rule, filter));
            let denied = self.concerns(client, |rule| about(rule, filter));
            !denied.contains(&Access::Deny)
                && (found.contains(&wanted) || found.contains(&Access::ReadWrite))
        }
    }

    /// The pattern with the client's names in it. A name that could change what the pattern means is no name for it.
    fn filled(pattern: &str, client: &ClientInfo<'_>) -> Option<String> {
        let mut filter = pattern.to_owned();
        for (place, name) in [("%u", client.user_name), ("%c", Some(client.client_id))] {
            if pattern.contains(place) {
                let name =
                    name.filter(|name| !name.is_empty() && !name.contains(['+', '#', '/']))?;
                filter = filter.replace(place, name);
            }
        }
        Some(filter)
    }

    /// Whether every topic that `filter` matches is matched by `rule`.
    fn covers(rule: &str, filter: &str) -> bool {
        // A wildcard in front does not speak of `$` topics.
        if filter.starts_with('$') && !rule.starts_with('$') {
            return false;
        }
        let (mut rule, mut filter) = (rule.split('/'), filter.split('/'));
        loop {
            match (rule.next(), filter.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some("#")) | (Some(_), None) | (None, Some(_)) => return false,
                (Some("+"), Some(_)) => {}
                (Some(own), Some(other)) if own == other => {}
                _ => return false,
            }
        }
    }

    /// Whether some topic is matched by both.
    fn overlap(rule: &str, filter: &str) -> bool {
        let (mut rule, mut filter) = (rule.split('/'), filter.split('/'));
        loop {
            match (rule.next(), filter.next()) {
                (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
                (Some(own), Some(other)) if own == other => {}
                _ => return false,
            }
        }
    }

    /// Random files, and all that can be asked about them.
    #[test]
    fn decisions_are_those_of_the_rules_one_after_the_other() {
        let mut seed = 3_usize;
        let mut random = |n: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & 0xFFFF_FFFF;
            (seed >> 8) % n
        };
        let rule_levels = ["a", "b", "", "+", "#", "$x", "%u", "%c", "a%u", "%c%u"];
        let levels = ["a", "b", "", "+", "#", "$x", "ub", "b"];
        let mut filters: Vec<String> = levels.map(str::to_owned).to_vec();
        for _ in 0..2 {
            let longer: Vec<String> = filters
                .iter()
                .flat_map(|text| levels.map(|level| format!("{text}/{level}")))
                .collect();
            filters.extend(longer);
        }
        filters.retain(|text| TopicFilter::new(text).is_ok());
        let (mut granted, mut refused) = (0, 0);
        for _ in 0..100 {
            let (mut text, mut model) = (String::new(), Model(Vec::new()));
            for _ in 0..=random(6) {
                let count = random(3);
                let parts = (0..=count).map(|_| rule_levels[random(rule_levels.len())]);
                let filter = parts.collect::<Vec<_>>().join("/");
                if TopicFilter::new(&filter).is_err() {
                    continue;
                }
                let (who, line) = [("ub", "topic"), ("everyone", "pattern")][random(2)];
                let (word, access) = [
                    ("read", Access::Read),
                    ("write", Access::Write),
                    ("readwrite", Access::ReadWrite),
                    ("deny", Access::Deny),
                ][random(4)];
                text += &format!("user ub\n{line} {word} {filter}\n");
                model.0.push((who, access, filter));
            }
            let acl = Acl::parse(&text).unwrap();
            for client in [
                client(Some("ub"), "b"),
                client(None, "a"),
                client(Some("a/b"), "+"),
            ] {
                for filter in &filters {
                    let read = acl.may_subscribe(&client, TopicFilter::new(filter).unwrap());
                    let expected = model.allows(&client, Access::Read, overlap, filter);
                    assert_eq!(read, expected, "{filter} {client:?}\n{text}");
                    granted += usize::from(read);
                    refused += usize::from(!read);
                    if let Ok(topic) = TopicName::new(filter) {
                        let write = acl.may_publish(&client, topic);
                        let expected = model.allows(&client, Access::Write, covers, filter);
                        assert_eq!(write, expected, "{topic} {client:?}\n{text}");
                    }
                }
            }
        }
        assert!(granted > 1_000 && refused > 1_000, "{granted} {refused}");
    }
}
