//! The promises that are weaker with several shards, and the check of wills.

use std::collections::{BTreeSet, HashSet};

use mqtt_proto::QoS;

use super::expectations::{Expectations, Heard, Life, Moment, Published, Subscribed};

impl Life {
    /// Notes that the next process may subscribe to what this one has given up: its records tell of a SUBSCRIBE without an
    /// answer, which takes longer with several shards or on an engine. While it gives up a filter, it also drops messages for
    /// other filters that match.
    pub(crate) fn may_subscribe_again(&mut self, at: Moment) {
        let gives_up = |old: &Subscribed| old.leaving.is_some() && old.gone.is_none();
        if self.subscribed.iter().any(gives_up) {
            for old in &mut self.subscribed {
                old.lost = true;
            }
        }
        let gone = self.subscribed.iter().filter(|old| old.gone.is_some());
        let mut gone: Vec<_> = gone
            .map(|old| (old.filter.clone(), old.qos, old.no_local))
            .collect();
        gone.sort();
        gone.dedup();
        for (filter, qos, no_local) in gone {
            self.ask(&filter, qos, no_local, at);
        }
    }
}

impl Life {
    /// Notes that the next process subscribes to these filters of its records, also if this one was told that such a subscription is
    /// over: the record of that may be lost.
    pub(crate) fn may_subscribe_to(&mut self, filters: &HashSet<String>, at: Moment) {
        let gone = |old: &&Subscribed| old.gone.is_some() && filters.contains(&old.filter);
        let gone = self.subscribed.iter().filter(gone);
        let gone: BTreeSet<_> = gone
            .map(|old| (old.filter.clone(), old.qos, old.no_local))
            .collect();
        for (filter, qos, no_local) in gone {
            let index = self.ask(&filter, qos, no_local, at);
            self.subscribed[index].from_records = true;
        }
    }
}

impl Expectations {
    /// Returns whether a client that came back from its records may have dropped a shared message, with the subscription.
    pub(super) fn may_be_dropped_by_a_restored(&self, topic: &str) -> bool {
        let mut all = self.lives.iter().flat_map(|life| &life.subscribed);
        all.any(|subscribed| subscribed.from_records && subscribed.matches(topic))
    }

    /// Returns whether a client gives up a subscription to the topic of this message. If its process ends before UNSUBSCRIBE has arrived,
    /// the next one continues that, and drops the messages that came meanwhile.
    pub(super) fn gave_up(&self, client: usize, number: u32) -> bool {
        let (life, published) = (self.lives.get(client), self.published.get(&number));
        let left = |life: &Life, topic: &str| {
            let mut all = life.subscribed.iter();
            all.any(|subscribed| subscribed.leaving.is_some() && subscribed.matches(topic))
        };
        life.is_some_and(|life| published.is_some_and(|own| left(life, &own.topic)))
    }

    /// Returns whether the broker knows the order of what two clients retain: those of one shard.
    pub(super) fn is_ordered(&self, other: &Published, publisher: usize) -> bool {
        let home = |n: usize| self.lives.get(n).map(|life| life.home);
        home(other.publisher) == home(publisher)
    }

    /// Returns whether a QoS 1 message may come again because it was sent from one shard to another again.
    pub(super) fn a_link_may_repeat(&self, heard: &Heard, published: &Published) -> bool {
        let since = published.sent..=heard.at;
        let mut broken = self.link_cuts.iter().chain(&self.crashes);
        self.shards > 1 && published.qos == QoS::AtLeastOnce && broken.any(|at| since.contains(at))
    }

    /// Returns whether a QoS 1 message of another shard may come as a new one after newer messages: its first copy came over the link
    /// before the client subscribed, or expired in its queue, and the link was lost before the acknowledgement, so that the same packet was
    /// sent again (3.1.1 and 5, 4.6: the order of copies is not that of messages).
    pub(super) fn a_link_may_bring_late(
        &self,
        life: &Life,
        heard: &Heard,
        published: &Published,
    ) -> bool {
        let sent = published.sent;
        let mut subscribed = life.subscribed.iter();
        let finds_new = published.expires
            || life.streams[heard.stream].created > sent
            || !subscribed.any(|old| old.matches(&heard.topic) && old.surely(sent, sent));
        let publisher = self.lives.get(published.publisher);
        let crosses = publisher.is_some_and(|publisher| publisher.home != life.home);
        crosses && finds_new && self.a_link_may_repeat(heard, published)
    }

    /// Checks wills. The first client is connected all the time and receives them.
    pub(super) fn will_wrong(&self) -> Option<String> {
        let watcher = self.lives.first()?;
        for (number, fact) in &self.wills {
            let times = watcher
                .heard
                .iter()
                .filter(|heard| heard.number == *number)
                .count();
            let may_repeat = !self.crashes.is_empty() || !self.link_cuts.is_empty();
            if times < fact.least || times > fact.most && !may_repeat {
                return Some(format!("will {number} is {fact:?}, heard {times} times"));
            }
        }
        None
    }
}
