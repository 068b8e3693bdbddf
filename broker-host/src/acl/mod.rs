//! Reads the ACL file: its rules decide which clients may publish and subscribe to which topics. The syntax is Mosquitto's:
//!
//! ```text
//! # those without a user name
//! topic read public/#
//! user pump
//! # read, write, readwrite (if nothing is said) or deny
//! topic write plant/pumps/+
//! # everyone; %u is the user name, %c the client identifier
//! pattern readwrite home/%u/#
//! ```
//!
//! As in Mosquitto, every subscription is granted, whatever topics its filter matches. Messages of topics that the client may not read are
//! not delivered. `Guard` logs a subscription to a filter of which the client may read no topic.
//!
//! A name that is empty or has `/`, `+` or `#` stands for no placeholder of a rule that allows. To a client with such a name, a rule that
//! denies applies to all topics from the level of the placeholder on.
//!
//! A filter with a space is written in quotes, so that an additional word is an error and not a part of the filter.

#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashMap;
use std::path::Path;

use mqtt_broker::ClientInfo;
use mqtt_proto::{InvalidTopic, TopicFilter, TopicName};

use self::tree::{Names, Tree, Wanted};
use crate::Error;
use crate::lines::{lines, read};

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

#[derive(Clone, Debug, Default)]
struct Rules {
    allow: Tree,
    deny: Tree,
}

/// The error of a line of an ACL file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AclError {
    /// The line begins with an unknown word.
    #[error("must begin with user, topic or pattern, not with {0:?}")]
    UnknownKeyword(String),
    /// `user` without a name.
    #[error("the user name is missing")]
    MissingUser,
    /// `topic` or `pattern` without a topic filter.
    #[error("the topic filter is missing")]
    MissingTopic,
    /// The word before the topic filter is not an access.
    #[error("unknown access {0:?}: must be read, write, readwrite or deny")]
    UnknownAccess(String),
    /// A word follows the topic filter.
    #[error("superfluous word {0:?} (a filter with spaces is written in quotes)")]
    SuperfluousWord(String),
    /// The topic filter is not valid.
    #[error("wrong topic filter {filter:?}")]
    Filter {
        /// The filter as written in the file.
        filter: String,
        /// Why it is not valid.
        source: InvalidTopic,
    },
    /// The topic filter is that of a shared subscription.
    #[error("a rule speaks of topics, without $share")]
    SharedSubscription,
}

/// The rules of an ACL file. An access without a rule is denied. A rule that denies has precedence over all that allow.
///
/// ```
/// use mqtt_broker_host::Acl;
/// use mqtt_broker_host::broker::ClientInfo;
/// use mqtt_broker_host::proto::{TopicName, Version};
///
/// let acl = Acl::parse("user pump\ntopic write plant/pumps/+").unwrap();
/// let pump = ClientInfo { client_id: "7", user_name: Some("pump"), version: Version::V5 };
/// assert!(acl.may_publish(&pump, TopicName::new("plant/pumps/7").unwrap()));
/// assert!(!acl.may_publish(&pump, TopicName::new("plant/state").unwrap()));
///
/// let (line, why) = Acl::parse("topic dney secret/#").unwrap_err();
/// assert_eq!((line, why.to_string().as_str()), (1, r#"unknown access "dney": must be read, write, readwrite or deny"#));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Acl {
    anonymous: Rules,
    users: HashMap<String, Rules>,
    everyone: Rules,
}

impl Acl {
    /// Reads a file. Warns by `tracing` if every user of this machine can read or write the file.
    ///
    /// # Errors
    /// [`Error::File`], and [`Error::Acl`] for the first invalid line.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&read(path)?).map_err(|(line, source)| Error::Acl {
            path: path.into(),
            line,
            source,
        })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The number of the first invalid line, counted from 1, and its error.
    pub fn parse(text: &str) -> Result<Self, (usize, AclError)> {
        let mut acl = Self::default();
        let mut user = Who::Anonymous;
        for (number, line) in lines(text) {
            acl.take(line, &mut user).map_err(|error| (number, error))?;
        }
        Ok(acl)
    }

    /// Adds the rule of one line; `user` is the user of the last line `user`.
    fn take(&mut self, line: &str, user: &mut Who) -> Result<(), AclError> {
        let (word, rest) = split(line);
        let who = match word {
            "user" if rest.is_empty() => return Err(AclError::MissingUser),
            "user" => {
                *user = Who::User(rest.to_owned());
                return Ok(());
            }
            "topic" => user.clone(),
            "pattern" => Who::Everyone,
            _ => return Err(AclError::UnknownKeyword(word.to_owned())),
        };
        let (access, filter) = access(rest)?;
        let sample = filter.replace("%u", "u").replace("%c", "c");
        TopicFilter::new(&sample).map_err(|source| AclError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
        if sample.starts_with("$share/") {
            return Err(AclError::SharedSubscription);
        }
        self.add(who, access, filter);
        Ok(())
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

    /// Returns whether a client may publish to a topic.
    #[must_use]
    pub fn may_publish(&self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        self.may(client, topic, Wanted::Write)
    }

    /// Returns whether a client may read some of the topics that the filter matches: a rule allows one of them, and no rule denies all
    /// of them.
    #[must_use]
    pub fn may_read_some(&self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        self.allows(client, filter, Tree::overlaps, Tree::covers)
    }

    /// Returns whether a client may read every topic that the filter matches: one rule allows all of them, and no rule denies one
    /// of them.
    #[must_use]
    pub fn may_read_all(&self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        self.allows(client, filter, Tree::covers, Tree::overlaps)
    }

    /// Returns whether a client may read messages of a topic.
    #[must_use]
    pub fn may_read(&self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        self.may(client, topic, Wanted::Read)
    }

    /// Returns whether a client may read a filter: `allowing` tells whether a tree allows it, and `denying` whether it denies it.
    fn allows(
        &self,
        client: &ClientInfo<'_>,
        filter: TopicFilter<'_>,
        allowing: fn(&Tree, &str, Names<'_>, Wanted) -> bool,
        denying: fn(&Tree, &str, Names<'_>, Wanted) -> bool,
    ) -> bool {
        let filter = levels(&filter);
        let (names, denied) = (names(client), denied_names(client));
        let is_allowed = |rules: &Rules| allowing(&rules.allow, filter, names, Wanted::Read);
        let is_denied = |rules: &Rules| denying(&rules.deny, filter, denied, Wanted::Read);
        self.any(client, is_allowed) && !self.any(client, is_denied)
    }

    fn may(&self, client: &ClientInfo<'_>, topic: TopicName<'_>, wanted: Wanted) -> bool {
        let topic = topic.as_str();
        let (names, denied) = (names(client), denied_names(client));
        !self.any(client, |rules| rules.deny.covers(topic, denied, wanted))
            && self.any(client, |rules| rules.allow.covers(topic, names, wanted))
    }

    /// Returns whether `is_so` holds for the rules of the client or for those of all clients.
    fn any(&self, client: &ClientInfo<'_>, is_so: impl Fn(&Rules) -> bool) -> bool {
        let own = match client.user_name {
            None => Some(&self.anonymous),
            Some(user) => self.users.get(user),
        };
        own.into_iter().chain([&self.everyone]).any(is_so)
    }
}

/// Returns the levels of a filter, without `$share` and the share name.
fn levels<'a>(filter: &TopicFilter<'a>) -> &'a str {
    std::str::from_utf8(filter.topic_levels()).unwrap_or_default()
}

/// Splits off the first word.
fn split(line: &str) -> (&str, &str) {
    match line.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (line, ""),
    }
}

fn access_word(word: &str) -> Option<Access> {
    match word {
        "read" => Some(Access::Read),
        "write" => Some(Access::Write),
        "readwrite" => Some(Access::ReadWrite),
        "deny" => Some(Access::Deny),
        _ => None,
    }
}

/// Splits the text after `topic` or `pattern` into the access and the filter.
fn access(rest: &str) -> Result<(Access, &str), AclError> {
    if let Some(filter) = quoted(rest) {
        return Ok((Access::ReadWrite, filter));
    }
    let (word, filter) = split(rest);
    match (access_word(word), filter) {
        (_, "") if word.is_empty() => Err(AclError::MissingTopic),
        (Some(_), "") => Err(AclError::MissingTopic),
        (None, "") => Ok((Access::ReadWrite, word)),
        (None, _) => Err(AclError::UnknownAccess(word.to_owned())),
        (Some(access), _) => match (quoted(filter), split(filter)) {
            (Some(filter), _) | (None, (filter, "")) => Ok((access, filter)),
            (None, (first, _)) if access_word(first).is_some() => {
                Err(AclError::SuperfluousWord(first.to_owned()))
            }
            (None, (_, rest)) => Err(AclError::SuperfluousWord(split(rest).0.to_owned())),
        },
    }
}

/// Returns the text between quotes, if the text begins and ends with quotes.
fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// Returns the names for the placeholders. A name that could change the meaning of a pattern is left out.
fn names<'a>(client: &ClientInfo<'a>) -> Names<'a> {
    Names {
        user: client.user_name.filter(|name| is_usable(name)),
        client: Some(client.client_id).filter(|name| is_usable(name)),
        any_user: false,
        any_client: false,
    }
}

/// Returns the names for the placeholders of rules that deny: a client evades none of them by a name that is left out.
fn denied_names<'a>(client: &ClientInfo<'a>) -> Names<'a> {
    Names {
        any_user: client.user_name.is_some_and(|name| !is_usable(name)),
        any_client: !is_usable(client.client_id),
        ..names(client)
    }
}

fn is_usable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '/'])
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts one visited rule or part of a rule. Tests limit the count.
#[inline]
fn step() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}
