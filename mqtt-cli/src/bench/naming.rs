//! Replaces placeholders in topic, user name and client identifier.

use crate::failure::{Failure, fail};

/// Names of the clients, with placeholders.
#[derive(Debug)]
pub(super) struct Names {
    id: Option<String>,
    user: Option<String>,
    topic: String,
    process: u32,
}

/// The names of one client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Named {
    pub(super) number: u32,
    pub(super) id: String,
    pub(super) user: Option<String>,
}

/// The role of a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Publisher,
    Subscriber,
    /// Only connects.
    Idle,
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Publisher => "pub",
            Self::Subscriber => "sub",
            Self::Idle => "idle",
        }
    }
}

impl Names {
    pub(super) fn new(
        id: Option<&str>,
        user: Option<&str>,
        topic: Option<&str>,
    ) -> Result<Self, Failure> {
        let (in_id, in_user) = (id.unwrap_or_default(), user.unwrap_or_default());
        if id.is_some() && !has(in_id, 'i') && !(has(in_id, 'u') && has(in_user, 'i')) {
            return Err(fail("--id needs %i: two clients cannot have the same one"));
        }
        if has(in_id, 'c') || has(in_user, 'u') || (has(in_id, 'u') && has(in_user, 'c')) {
            return Err(fail("--id and --username refer to themselves"));
        }
        let process = std::process::id();
        let topic = match topic {
            None => format!("mqtt-bench/{process}/%i"),
            Some(topic) if is_template(topic) => topic.to_owned(),
            Some(topic) => format!("{topic}/%i"),
        };
        Ok(Self {
            id: id.map(str::to_owned),
            user: user.map(str::to_owned),
            topic,
            process,
        })
    }

    /// Returns the names of a client. `before` is the number of clients with other roles and lower numbers.
    pub(super) fn of(&self, role: Role, n: u32, before: u32) -> Named {
        let mut named = Named {
            number: before + n,
            id: String::new(),
            user: None,
        };
        match &self.id {
            // The identifier contains the user name.
            Some(id) if has(id, 'u') => {
                named.user = self.user.as_ref().map(|user| fill(user, &named));
                named.id = fill(id, &named);
            }
            Some(id) => {
                named.id = fill(id, &named);
                named.user = self.user.as_ref().map(|user| fill(user, &named));
            }
            None => {
                named.id = format!("bench-{}-{}-{n}", self.process, role.word());
                named.user = self.user.as_ref().map(|user| fill(user, &named));
            }
        }
        named
    }

    pub(super) fn topic(&self, publisher: &Named) -> String {
        fill(&self.topic, publisher)
    }

    /// Returns the filter that matches the topics of all publishers.
    pub(super) fn filter(&self) -> String {
        let nobody = Named {
            number: 0,
            id: String::new(),
            user: None,
        };
        let levels = self.topic.split('/').map(|level| {
            if is_template(level) {
                "+".to_owned()
            } else {
                fill(level, &nobody)
            }
        });
        levels.collect::<Vec<_>>().join("/")
    }
}

fn is_template(text: &str) -> bool {
    ['i', 'c', 'u'].iter().any(|letter| has(text, *letter))
}

/// Returns whether the text has this placeholder; `%%` is a percent sign.
fn has(text: &str, letter: char) -> bool {
    let text = text.replace("%%", "");
    text.contains(&format!("%{letter}"))
}

/// Replaces the placeholders, and leaves all other text unchanged.
fn fill(template: &str, named: &Named) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        filled += before;
        let mut characters = after.chars();
        match characters.next() {
            Some('i') => filled += &named.number.to_string(),
            Some('c') => filled += &named.id,
            Some('u') => filled += named.user.as_deref().unwrap_or_default(),
            Some('%') => filled.push('%'),
            Some(other) => filled.extend(['%', other]),
            None => filled.push('%'),
        }
        rest = characters.as_str();
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_placeholders() {
        let names = Names::new(Some("meter-%i"), Some("u-%c"), Some("site/%u/x-%i/50%%")).unwrap();
        let named = names.of(Role::Subscriber, 2, 10);
        assert_eq!(
            (named.id.as_str(), named.user.as_deref()),
            ("meter-12", Some("u-meter-12"))
        );
        assert_eq!(names.topic(&named), "site/u-meter-12/x-12/50%");
        assert_eq!(names.filter(), "site/+/+/50%");
    }

    #[test]
    fn a_user_name_can_be_part_of_the_identifier() {
        let names = Names::new(Some("%u!"), Some("user%i"), None).unwrap();
        let named = names.of(Role::Publisher, 3, 0);
        assert_eq!(
            (named.id.as_str(), named.user.as_deref()),
            ("user3!", Some("user3"))
        );
    }

    #[test]
    fn a_topic_without_placeholder_gets_the_number() {
        let names = Names::new(None, None, Some("load")).unwrap();
        assert_eq!(names.topic(&names.of(Role::Publisher, 7, 0)), "load/7");
        assert_eq!(names.filter(), "load/+");
    }

    #[test]
    fn impossible_name_patterns_are_refused() {
        assert!(Names::new(Some("all the same"), None, None).is_err());
        assert!(Names::new(Some("%%i"), None, None).is_err());
        assert!(Names::new(Some("%c-%i"), None, None).is_err());
        assert!(Names::new(Some("%u-%i"), Some("%c"), None).is_err());
    }
}
