//! Checks the router against a model, and counts its steps.

use mqtt_session::proto::Subscription;
use mqtt_testing::laws::model;

use super::*;
use crate::keys::SessionKey;
use crate::work::steps;

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

fn subscriber(session: usize, text: &str) -> Subscriber {
    let subscription = Subscription::new(filter(text), QoS::AtMostOnce);
    Subscriber::new(SessionKey::new(session), &subscription, None)
}

/// Returns filters that share levels, with and without wildcards and share names.
fn filters_with_common_levels() -> Vec<String> {
    let levels = ["a", "ab", "", "+", "#", "$x"];
    let mut filters = Vec::new();
    for first in levels {
        filters.push(first.to_owned());
        for second in levels {
            filters.push(format!("{first}/{second}"));
            filters.push(format!("{first}/{second}/a"));
            filters.push(format!("{first}/{second}/a/{second}/b"));
            filters.push(format!("a/{second}/a/{first}"));
            filters.push(format!("{second}/+/a/+/{first}"));
            filters.push(format!("$share/g/{first}/{second}"));
            filters.push(format!("$share/h/{first}/{second}"));
        }
    }
    filters.retain(|text| TopicFilter::new(text).is_ok());
    filters.sort();
    filters.dedup();
    filters
}

/// Checks that a topic finds the subscribers and the members of groups that the model finds in `there`, also the second time.
fn check_search(router: &mut Router, matches: &mut Matches, there: &[(String, usize)], name: &str) {
    router.matches(name, matches, usize::MAX);
    let sessions = matches.subscribers.iter().map(|own| own.session.index());
    let mut found: Vec<usize> = sessions.collect();
    let matching = |shared: bool| {
        there.iter().filter(move |(text, _)| {
            text.starts_with("$share") == shared && model::matches(text, name)
        })
    };
    let mut expected: Vec<usize> = matching(false).map(|(_, session)| *session).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{name}: {there:?}");
    let members: usize = matches
        .groups
        .iter()
        .map(|group| router.groups.get(*group).unwrap().members.len())
        .sum();
    assert_eq!(members, matching(true).count(), "{name}: {there:?}");
    // The same again, which is kept if it was not too much.
    let (subscribers, groups) = (matches.subscribers.clone(), matches.groups.clone());
    router.matches(name, matches, usize::MAX);
    assert_eq!(
        (&matches.subscribers, &matches.groups),
        (&subscribers, &groups)
    );
}

/// Random subscriptions are added and removed; each topic finds the subscribers of the model, and removed ones leave no nodes.
#[test]
fn a_topic_finds_what_the_model_says() {
    let filters = filters_with_common_levels();
    let names: Vec<&String> = filters
        .iter()
        .filter(|text| !text.contains(['+', '#']) && !text.starts_with("$share"))
        .collect();
    let mut seed = 3_u32;
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        to_usize(seed >> 8) % n
    };
    let mut router = Router::new(Keyed(7));
    let mut matches = Matches::default();
    let mut there: Vec<(String, usize)> = Vec::new();
    for round in 0..6_000 {
        // The router fills, then empties.
        let adds = random(10) < if round < 3_000 { 7 } else { 2 };
        let text = &filters[random(filters.len())];
        let session = random(4);
        let known = there.iter().position(|own| own == &(text.clone(), session));
        if adds {
            router.subscribe(&filter(text), subscriber(session, text), known.is_some());
            if known.is_none() {
                there.push((text.clone(), session));
            }
        } else {
            assert_eq!(
                router.unsubscribe(&filter(text), SessionKey::new(session)),
                known.is_some()
            );
            known.map(|at| there.swap_remove(at));
        }
        let name = names[random(names.len())];
        check_search(&mut router, &mut matches, &there, name);
        assert_eq!(router.count(), there.len());
        assert!(router.nodes.len() <= 1 + 3 * there.len(), "{there:?}");
    }
    for (text, session) in there {
        assert!(router.unsubscribe(&filter(&text), SessionKey::new(session)));
    }
    assert_eq!((router.nodes.len(), router.groups.len()), (1, 0));
    assert_eq!((router.count(), router.shared_count()), (0, 0));
}

/// The number of share names does not slow a subscription down: with two clients or many, no list is searched.
#[test]
fn many_share_names_are_not_searched() {
    const MANY: u32 = 2_000;
    let mut router = Router::new(Keyed(7));
    let texts: Vec<String> = (0..MANY).map(|n| format!("$share/g{n}/a")).collect();
    let (taken, ()) = steps(Work::Group, || {
        for text in &texts {
            router.subscribe(&filter(text), subscriber(0, text), false);
            router.subscribe(&filter(text), subscriber(1, text), false);
        }
    });
    assert!(taken <= 4 * texts.len(), "{taken} steps to subscribe");
    let mut matches = Matches::default();
    router.matches("a", &mut matches, usize::MAX);
    assert_eq!(matches.groups.len(), texts.len());
    let (taken, ()) = steps(Work::Group, || {
        for text in &texts {
            assert!(router.unsubscribe(&filter(text), SessionKey::new(0)));
            assert!(!router.unsubscribe(&filter(text), SessionKey::new(0)));
            assert!(router.unsubscribe(&filter(text), SessionKey::new(1)));
        }
    });
    assert!(taken <= 6 * texts.len(), "{taken} steps to unsubscribe");
    assert_eq!((router.nodes.len(), router.groups.len()), (1, 0));
}

/// Returns the nodes and steps of a search with filters and a topic of 64 levels that differ in the last level: the filters have
/// all combinations of `a` and `+` in the first nine levels, then `between` in each.
fn walk(between: &str) -> (usize, usize) {
    let mut router = Router::new(Keyed(7));
    for n in 0..512 {
        let mut levels: Vec<String> = (0..9)
            .map(|at| if n >> at & 1 == 0 { "a" } else { "+" }.to_owned())
            .collect();
        levels.extend(vec![between.to_owned(); 54]);
        levels.push(format!("end{n}"));
        let text = levels.join("/");
        router.subscribe(&filter(&text), subscriber(0, &text), false);
    }
    let topic = format!("{}{}end", "a/".repeat(9), "s/".repeat(54));
    let mut matches = Matches::default();
    let (taken, _) = steps(Work::Walk, || {
        router.matches(&topic, &mut matches, usize::MAX)
    });
    assert!(matches.subscribers.is_empty());
    (taken, router.nodes.len())
}

/// The steps of a search are bounded by the number of filters, not by the number of their levels.
#[test]
fn a_walk_that_finds_nothing_is_bounded_by_the_filters() {
    for between in ["s", "+"] {
        let (taken, nodes) = walk(between);
        assert!(taken <= 2 * 512, "{taken} steps, {nodes} nodes");
        assert!(nodes <= 2 * 512, "{nodes} nodes");
    }
}

/// Filters that branch off at each level are added and removed: afterwards the levels are one node again.
#[test]
fn levels_without_branches_become_one_node_again() {
    let mut router = Router::new(Keyed(7));
    let levels: Vec<String> = (0..64).map(|n| n.to_string()).collect();
    let whole = levels.join("/");
    router.subscribe(&filter(&whole), subscriber(0, &whole), false);
    for rounds in 0..2 {
        let mut branches: Vec<String> = (0..64)
            .map(|n| format!("{}/x/#", levels[..=n].join("/")))
            .collect();
        branches.extend((0..63).map(|n| levels[..=n].join("/")));
        for text in &branches {
            router.subscribe(&filter(text), subscriber(1, text), false);
        }
        if rounds == 1 {
            branches.reverse();
        }
        for text in &branches {
            assert!(
                router.unsubscribe(&filter(text), SessionKey::new(1)),
                "{text}"
            );
        }
        assert_eq!(router.nodes.len(), 2);
    }
    let mut matches = Matches::default();
    let (taken, _) = steps(Work::Walk, || {
        router.matches(&whole, &mut matches, usize::MAX)
    });
    assert_eq!((taken, matches.subscribers.len()), (2, 1));
}

/// The levels of a node are compared as levels, not as text.
#[test]
fn a_level_is_not_the_beginning_of_another() {
    for (text, topic) in [("x/a/#", "x/ab"), ("x/a/+", "x/ab"), ("x/a", "x/a/b")] {
        let mut router = Router::new(Keyed(7));
        router.subscribe(&filter(text), subscriber(0, text), false);
        let mut matches = Matches::default();
        router.matches(topic, &mut matches, usize::MAX);
        assert!(matches.subscribers.is_empty(), "{text} {topic}");
    }
}

/// A message to a topic that had one needs no search, until a subscription changes.
#[test]
fn the_subscribers_of_a_recent_topic_are_kept() {
    let mut router = Router::new(Keyed(7));
    let mut matches = Matches::default();
    let mut search = |router: &mut Router| {
        let (taken, _) = steps(Work::Walk, || {
            router.matches("plant/7", &mut matches, usize::MAX)
        });
        (taken > 0, matches.subscribers.len())
    };
    router.subscribe(&filter("plant/+"), subscriber(0, "plant/+"), false);
    assert_eq!(search(&mut router), (true, 1));
    assert_eq!(search(&mut router), (false, 1));
    router.subscribe(&filter("other"), subscriber(0, "other"), false);
    assert_eq!(search(&mut router), (true, 1), "a change");
    for session in 1..5 {
        router.subscribe(&filter("#"), subscriber(session, "#"), false);
    }
    assert_eq!(search(&mut router), (true, 5));
    assert_eq!(search(&mut router), (true, 5), "too many to be kept");
    assert!(router.unsubscribe(&filter("#"), SessionKey::new(4)));
    assert_eq!(search(&mut router), (true, 4));
    assert_eq!(search(&mut router), (false, 4));
}
