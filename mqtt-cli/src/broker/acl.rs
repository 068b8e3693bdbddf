//! The ACL file: who may publish and subscribe to what. The syntax is Mosquitto's:
//!
//! ```text
//! topic read public/#          # those without a user name
//! user pump
//! topic write plant/pumps/+    # read, write, readwrite (if nothing is said) or deny
//! pattern readwrite home/%u/#  # everyone; %u is the user name, %c the client identifier
//! ```

use std::path::Path;

use adapter_tokio::broker::ClientInfo;
use adapter_tokio::proto::{TopicFilter, TopicName};

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

#[derive(Debug)]
struct Entry {
    who: Who,
    access: Access,
    /// With `%u` and `%c` if it is for everyone.
    filter: String,
}

/// The rules of an ACL file. What no rule allows is denied; what one denies, no other allows.
#[derive(Debug)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let text =
            std::fs::read_to_string(path).map_err(|error| fail(format!("{name}: {error}")))?;
        Self::parse(&text).map_err(|error| fail(format!("{name}: {error}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut entries = Vec::new();
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
            entries.push(Entry {
                who,
                access,
                filter: filter.to_owned(),
            });
        }
        Ok(Self(entries))
    }

    pub(crate) fn may_publish(&self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        self.allows(client, Access::Write, |filter| {
            TopicFilter::new(filter).is_ok_and(|filter| filter.matches(topic))
        })
    }

    /// A subscription is allowed if one rule allows all that it could bring.
    pub(crate) fn may_subscribe(&self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        let levels = std::str::from_utf8(filter.topic_levels()).unwrap_or_default();
        self.allows(client, Access::Read, |rule| covers(rule, levels))
            && !self.denies(client, |rule| overlap(rule, levels))
    }

    fn allows(
        &self,
        client: &ClientInfo<'_>,
        access: Access,
        about: impl Fn(&str) -> bool,
    ) -> bool {
        !self.denies(client, &about)
            && self
                .concerning(client, &about)
                .any(|entry| entry.access == access || entry.access == Access::ReadWrite)
    }

    fn denies(&self, client: &ClientInfo<'_>, about: impl Fn(&str) -> bool) -> bool {
        self.concerning(client, about)
            .any(|entry| entry.access == Access::Deny)
    }

    fn concerning(
        &self,
        client: &ClientInfo<'_>,
        about: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| match &entry.who {
            Who::Anonymous => client.user_name.is_none() && about(&entry.filter),
            Who::User(user) => client.user_name == Some(user) && about(&entry.filter),
            Who::Everyone => filled(&entry.filter, client).is_some_and(|filter| about(&filter)),
        })
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

/// The pattern with the client's names in it. A name that could change what the pattern means is no name for it.
fn filled(pattern: &str, client: &ClientInfo<'_>) -> Option<String> {
    let mut filter = pattern.to_owned();
    for (place, name) in [("%u", client.user_name), ("%c", Some(client.client_id))] {
        if pattern.contains(place) {
            let name = name.filter(|name| !name.is_empty() && !name.contains(['+', '#', '/']))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use adapter_tokio::proto::Version;

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
        ] {
            let error = Acl::parse(text).unwrap_err();
            assert!(error.starts_with(what), "{error}");
        }
    }
}
