//! Checks the rules of an ACL file, and compares decisions with those of a list of rules.

use mqtt_proto::Version;

use super::*;

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
        (None, "c", "r", "#", true),
        (None, "c", "a", "#", false),
        (None, "c", "r", "private/#", false),
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
        (Some("pump"), "c", "r", "plant/#", true),
        (Some("pump"), "c", "a", "plant/#", false),
        (Some("pump"), "c", "a", "plant/+/level", true),
        (Some("pump"), "c", "r", "plant/pumps/secret", false),
        (Some("pump"), "c", "r", "$share/g/plant/+/level", true),
        (Some("pump"), "c", "r", "home/pump/#", true),
        (Some("pump"), "c", "r", "home/boss/#", false),
        (Some("p/u"), "c", "r", "home/p/u/#", false),
        (Some("boss"), "c", "r", "home/pump/x", true),
        (Some("boss"), "c", "r", "plant/pumps/+", true),
        (Some("boss"), "c", "a", "plant/pumps/+", false),
        (Some("boss"), "c", "r", "plant/pumps/secret", false),
        (Some("boss"), "c", "r", "#", true),
        (Some("boss"), "c", "a", "#", false),
        (Some("boss"), "c", "r", "$SYS/#", false),
        (Some("boss"), "c", "w", "any/thing", true),
    ] {
        let client = client(user, id);
        let found = match access {
            "w" => acl.may_publish(&client, TopicName::new(topic).unwrap()),
            "a" => acl.may_read_all(&client, TopicFilter::new(topic).unwrap()),
            _ => acl.may_read_some(&client, TopicFilter::new(topic).unwrap()),
        };
        assert_eq!(found, allowed, "{user:?} {id} {access} {topic}");
    }
}

/// A rule that denies with a name also applies to a client whose name cannot stand in a topic: the client chooses its name, and must not
/// evade the rule by it.
#[test]
fn a_name_that_cannot_stand_in_a_topic_evades_no_rule() {
    let acl = Acl::parse(
        "pattern readwrite #\npattern deny hidden/%u/x\npattern deny own/%c\npattern readwrite $SYS/%u",
    )
    .unwrap();
    for (user, id, topic, allowed) in [
        (Some("alice"), "c", "hidden/alice/x", false),
        (Some("alice"), "c", "hidden/bob/x", true),
        (Some("ali/ce"), "c", "hidden/bob/x", false),
        (Some("+"), "c", "hidden/any/x", false),
        (Some("+"), "c", "hidden/any/y", false),
        (Some("+"), "c", "other/any", true),
        (Some("a/b"), "c", "hidden/a/b/x", false),
        (Some("#"), "c", "own/d", true),
        (Some("alice"), "a/b", "own/d", false),
        (Some("a/b"), "c", "$SYS/b", false),
        // Without a name, no rule has it.
        (None, "c", "hidden/any/x", true),
    ] {
        let client = client(user, id);
        let name = TopicName::new(topic).unwrap();
        let filter = TopicFilter::new(topic).unwrap();
        assert_eq!(acl.may_publish(&client, name), allowed, "{user:?} {topic}");
        assert_eq!(acl.may_read(&client, name), allowed, "{user:?} {topic}");
        assert_eq!(acl.may_read_all(&client, filter), allowed);
        assert_eq!(acl.may_read_some(&client, filter), allowed);
    }
    let all = TopicFilter::new("hidden/+/x").unwrap();
    assert!(!acl.may_read_all(&client(Some("+"), "c"), all));
    assert!(acl.may_read_all(&client(None, "c"), all));
}

#[test]
fn a_wrong_line_is_named() {
    for (text, number, what) in [
        ("topic", 1, AclError::MissingTopic),
        ("topic read", 1, AclError::MissingTopic),
        ("pattern   deny  ", 1, AclError::MissingTopic),
        ("user", 1, AclError::MissingUser),
        (
            "# no rule\n\nallow x",
            3,
            AclError::UnknownKeyword("allow".into()),
        ),
        (
            "user a\ntopic dney secret/#",
            2,
            AclError::UnknownAccess("dney".into()),
        ),
        (
            "topic read a/b c/d",
            1,
            AclError::SuperfluousWord("c/d".into()),
        ),
        (
            "topic read write a/b",
            1,
            AclError::SuperfluousWord("write".into()),
        ),
        ("topic read $share/g/a", 1, AclError::SharedSubscription),
    ] {
        assert_eq!(Acl::parse(text).unwrap_err(), (number, what), "{text}");
    }
    let (number, error) = Acl::parse("topic read a/#/b").unwrap_err();
    assert_eq!(number, 1);
    assert!(matches!(error, AclError::Filter { .. }), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_filter_with_spaces_stands_in_quotes() {
    let acl =
        Acl::parse("topic read \"$SYS/broker/retained messages/count\"\ntopic \"a b\"").unwrap();
    let client = client(None, "c");
    let filter = TopicFilter::new("$SYS/broker/retained messages/count").unwrap();
    assert!(acl.may_read_some(&client, filter));
    assert!(acl.may_publish(&client, TopicName::new("a b").unwrap()));
}

/// The steps of a decision depend on the levels of the topic, not on the number of rules.
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
        let (taken, allowed) = steps(|| acl.may_read_some(&client, filter));
        assert_eq!(allowed, read, "{topic}");
        assert!(taken <= 15, "{topic}: {taken} steps to subscribe");
        let (taken, allowed) = steps(|| acl.may_read(&client, name));
        assert_eq!(allowed, read, "{topic}");
        assert!(taken <= 15, "{topic}: {taken} steps to receive");
    }
    // A filter that shares levels with all rules is granted without a search, and each of its messages is checked.
    let filter = TopicFilter::new("devices/c/+/x/y").unwrap();
    let (taken, granted) = steps(|| acl.may_read_some(&client, filter));
    assert!(granted && taken < 3_000, "{taken} steps");
    assert!(!acl.may_read_all(&client, filter));
}

/// The rules in the order of the file.
struct Model(Vec<(&'static str, Access, String)>);

impl Model {
    fn concerns(&self, client: &ClientInfo<'_>, about: impl Fn(&str) -> bool) -> Vec<Access> {
        let rules = self.0.iter().filter(|(who, access, filter)| match *who {
            "everyone" => match filled(filter, client) {
                Some(filter) => about(&filter),
                None => {
                    *access == Access::Deny
                        && behind_names(filter, client).iter().any(|rule| about(rule))
                }
            },
            user => client.user_name.unwrap_or("nobody") == user && about(filter),
        });
        rules.map(|(_, access, _)| *access).collect()
    }

    fn allows(
        &self,
        client: &ClientInfo<'_>,
        wanted: Access,
        [allows, denies]: [fn(&str, &str) -> bool; 2],
        filter: &str,
    ) -> bool {
        let found = self.concerns(client, |rule| allows(rule, filter));
        let denied = self.concerns(client, |rule| denies(rule, filter));
        !denied.contains(&Access::Deny)
            && (found.contains(&wanted) || found.contains(&Access::ReadWrite))
    }
}

/// Returns the pattern with the client's names. A name that could change the meaning of the pattern is left out.
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

/// Returns rules for all topics from the level of the first placeholder on whose name is left out; none for a client without a user name.
fn behind_names(pattern: &str, client: &ClientInfo<'_>) -> Vec<String> {
    let is_left_out = |level: &&str| {
        let names = [("%u", client.user_name), ("%c", Some(client.client_id))];
        let mut held = names.iter().filter(|(place, _)| level.contains(place));
        held.any(|(_, name)| {
            name.is_some_and(|name| {
                filled(
                    "%c",
                    &ClientInfo {
                        client_id: name,
                        ..*client
                    },
                )
                .is_none()
            })
        })
    };
    let levels: Vec<&str> = pattern.split('/').collect();
    match levels.iter().position(is_left_out) {
        None => Vec::new(),
        // A name may also begin with `$`.
        Some(0) => ["+/#", "$x/#"].map(str::to_owned).into(),
        Some(at) => {
            let before = filled(&levels[..at].join("/"), client);
            before
                .map(|before| format!("{before}/+/#"))
                .into_iter()
                .collect()
        }
    }
}

/// Returns whether `rule` matches every topic that `filter` matches.
fn covers(rule: &str, filter: &str) -> bool {
    // A wildcard at the beginning does not match topics with `$`.
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

/// Returns whether some topic matches both.
fn overlap(rule: &str, filter: &str) -> bool {
    let hides = |one: &str, other: &str| one.starts_with('$') && other.starts_with(['+', '#']);
    if hides(rule, filter) || hides(filter, rule) {
        return false;
    }
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

/// Compares the decisions of random files with those of the model.
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
        let compared = Compared {
            acl: Acl::parse(&text).unwrap(),
            model,
            text,
        };
        for client in [
            client(Some("ub"), "b"),
            client(None, "a"),
            client(Some("a/b"), "+"),
        ] {
            for filter in &filters {
                let read = compared.read(&client, filter);
                granted += usize::from(read);
                refused += usize::from(!read);
            }
        }
    }
    assert!(granted > 1_000 && refused > 1_000, "{granted} {refused}");
}

/// The rules of a file, the model of them, and the file.
struct Compared {
    acl: Acl,
    model: Model,
    text: String,
}

impl Compared {
    /// Compares each decision about a filter. Returns whether a client may subscribe to it.
    fn read(&self, client: &ClientInfo<'_>, filter: &str) -> bool {
        let Self { acl, model, text } = self;
        let wanted = TopicFilter::new(filter).unwrap();
        let read = acl.may_read_some(client, wanted);
        let expected = model.allows(client, Access::Read, [overlap, covers], filter);
        assert_eq!(read, expected, "{filter} {client:?}\n{text}");
        let all = acl.may_read_all(client, wanted);
        let expected = model.allows(client, Access::Read, [covers, overlap], filter);
        assert_eq!(all, expected, "all of {filter} {client:?}\n{text}");
        if let Ok(topic) = TopicName::new(filter) {
            for (wanted, found) in [
                (Access::Write, acl.may_publish(client, topic)),
                (Access::Read, acl.may_read(client, topic)),
            ] {
                let expected = model.allows(client, wanted, [covers, covers], filter);
                assert_eq!(found, expected, "{wanted:?} {topic} {client:?}\n{text}");
            }
        }
        read
    }
}
