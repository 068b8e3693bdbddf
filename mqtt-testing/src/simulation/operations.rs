//! Performs the random operations of clients, and records the promises that follow from them.

use std::collections::HashSet;

use mqtt_agent::Accepted;
use mqtt_agent::session::{Outgoing, Refused};
use mqtt_proto::{
    Properties, Property, QoS, RetainHandling, Subscription, TopicFilter, TopicName, Version,
};

use super::class;
use super::expectations::{Published, SHARED, StreamRecord};
use super::program::{Filter, Stream};
use super::world::World;
use crate::laws::model::matches;

const TOPICS: usize = 40;
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// How many streams a program has at most.
const STREAMS: usize = 8;

impl World {
    /// Returns true once in `n` times, if the plan has this class.
    pub(super) fn chance(&mut self, class: u32, n: usize) -> bool {
        self.random.once_in(n) && self.plan.classes & class != 0
    }

    pub(super) fn operate(&mut self) {
        if self.shards.has_disks() && self.random.once_in(100) {
            self.crash();
        }
        self.notice_away();
        // Any client except the first one, which only receives.
        let n = 1 + self.random.below(self.nodes.len() - 1);
        let node = &self.nodes[n];
        if node.agent.is_stopped() {
            if !self.random.once_in(3) {
                self.restart(n, false, false);
            }
            return;
        }
        if node.wire.is_none() {
            if !self.random.once_in(3) {
                self.dial(n);
                return;
            }
        } else if self.chance(class::CLOSES, 40) {
            self.close(n);
            return;
        } else if self.chance(class::CUTS, 12) {
            let after = self.random.below(300);
            if let Some(wire) = &mut self.nodes[n].wire {
                wire.cut_after = Some(after);
            }
        }
        if self.chance(class::KILLS, 40) {
            if self.random.once_in(2) {
                self.aimed.at_client = true;
            } else {
                self.restart(n, true, false);
            }
            return;
        }
        self.step(n, false);
        if !self.random.once_in(3) && self.subscribe_again(n) {
            return;
        }
        match self.random.below(20) {
            0..4 => self.subscribe(n),
            4..6 => self.unsubscribe(n),
            6 => self.forget(n),
            _ => self.publish(n),
        }
        self.look(n);
        // The other clients move on as well.
        for _ in 0..4 {
            let n = self.random.below(self.nodes.len());
            self.step(n, false);
        }
    }

    pub(super) fn next_number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn publish(&mut self, n: usize) {
        let topic = if self.chance(class::SHARED, 6) {
            format!("{SHARED}{}", self.random.below(3))
        } else {
            format!("t/{}", self.random.below(TOPICS))
        };
        let shared = topic.starts_with(SHARED);
        let mut qos = QOS[self.random.below(3)];
        let retain = self.chance(class::RETAINED, 6) && !shared;
        let clears = retain && self.random.once_in(4);
        let expires = self.chance(class::EXPIRY, 12) && self.nodes[n].version == Version::V5;
        if shared {
            qos = qos.min(QoS::AtLeastOnce);
        }
        let number = self.next_number();
        let mut payload = number.to_string().into_bytes();
        payload.resize(payload.len() + self.random.below(200), b' ');
        if self.random.once_in(40) {
            payload.resize(payload.len() + self.random.below(5_000), b' ');
        }
        if clears {
            payload.clear();
        }
        let expiry = [
            Property::MessageExpiryInterval(3),
            Property::UserProperty("a", "b"),
        ];
        let message = Outgoing {
            retain,
            properties: if expires {
                Properties::from(&expiry)
            } else {
                Properties::EMPTY
            },
            ..Outgoing::new(TopicName::new(&topic).expect("valid"), qos, &payload)
        };
        let facts = Published {
            retain,
            clears,
            expires,
            ..Published::new(n, topic.clone(), qos)
        };
        self.publish_message(n, number, &message, facts);
    }

    /// Gives a message to the agent, and notes it; `None` if there is no room now.
    pub(super) fn publish_message(
        &mut self,
        n: usize,
        number: u32,
        message: &Outgoing<'_>,
        mut facts: Published,
    ) -> Option<Accepted> {
        let now = self.instant();
        let node = &mut self.nodes[n];
        let accepted = match node.agent.publish(message, now) {
            Ok(accepted) => accepted,
            Err(Refused::Full) => return None,
            Err(Refused::WrongPhase) if node.closing.is_some() => return None,
            Err(refused) => {
                self.fail(n, format!("publish {number}: {refused}"));
                return None;
            }
        };
        if let Accepted::Token(token) = accepted {
            self.note_accepted(n, token, number);
            let node = &mut self.nodes[n];
            node.asked.insert(token, number);
            let id = token.packet_id();
            if facts.qos == QoS::ExactlyOnce && id.is_some_and(|id| node.half_sent.contains(&id)) {
                node.doubtful.insert(number);
            }
        }
        facts.sent = self.tick_moment();
        self.trace(n, format_args!("publishes {number}: {facts:?}"));
        self.expectations.published.insert(number, facts);
        self.report.published += 1;
        self.activate(n);
        Some(accepted)
    }

    pub(super) fn filter(&mut self) -> Filter {
        // Topics of shared subscriptions have no other subscriptions, and at least QoS 1.
        let shares = self.plan.classes & class::SHARED != 0;
        let random = &mut self.random;
        let (filter, shared) = match random.below(32) {
            0 => ("t/#".to_owned(), false),
            1 => ("+/7".to_owned(), false),
            2 => ("t/+".to_owned(), false),
            3..8 if shares => (format!("$share/g/{SHARED}#"), true),
            8..10 if shares => (format!("$share/h/{SHARED}{}", random.below(3)), true),
            30..32 => (format!("b/{}", random.below(TOPICS)), false),
            _ => (format!("t/{}", random.below(TOPICS)), false),
        };
        let qos = if shared {
            QoS::AtLeastOnce
        } else {
            QOS[random.below(3)]
        };
        (filter, qos, !shared && random.once_in(5))
    }

    fn subscribe(&mut self, n: usize) {
        if self.nodes[n].streams.len() > STREAMS {
            return;
        }
        let count = 1 + self.random.below(3);
        let filters = (0..count).map(|_| self.filter()).collect();
        self.subscribe_to(n, filters);
    }

    /// Repeats the next subscription of an earlier process. Returns whether there is one.
    pub(super) fn subscribe_again(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        if node.closing.is_some() {
            node.to_subscribe.clear();
            return false;
        }
        let Some(filters) = node.to_subscribe.pop_front() else {
            return false;
        };
        self.subscribe_to(n, filters);
        true
    }

    pub(super) fn subscribe_to(&mut self, n: usize, mut filters: Vec<Filter>) {
        filters.sort();
        filters.dedup_by(|a, b| a.0 == b.0);
        if self.nodes[n].closing.is_some() {
            return;
        }
        let now = self.instant();
        let retain_handling = [
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::DoNotSend,
        ][if self.nodes[n].name.starts_with("late") {
            0
        } else {
            self.random.below(3)
        }];
        let v5 = self.nodes[n].version == Version::V5;
        for filter in &mut filters {
            filter.2 &= v5;
        }
        let list: Vec<Subscription<'_>> = filters
            .iter()
            .map(|(filter, qos, no_local)| {
                let mut subscription =
                    Subscription::new(TopicFilter::new(filter).expect("valid"), *qos);
                if v5 {
                    subscription.no_local = *no_local;
                    subscription.retain_handling = retain_handling;
                }
                subscription
            })
            .collect();
        let id = self.nodes[n]
            .agent
            .subscribe(&list, &Properties::EMPTY, now);
        self.trace(n, format_args!("subscribes as {id:?}: {filters:?}"));
        self.add_stream(n, Some(id), filters);
        self.activate(n);
    }

    /// Adds a stream of the program, and notes its subscriptions.
    pub(super) fn add_stream(
        &mut self,
        n: usize,
        id: Option<mqtt_agent::RouteId>,
        filters: Vec<Filter>,
    ) {
        let asked = self.tick_moment();
        let life = &mut self.expectations.lives[n];
        let fact = life.streams.len();
        life.streams.push(StreamRecord {
            // Waiting unclaimed messages move to a subscription that matches them.
            filters: filters
                .iter()
                .filter(|_| id.is_some())
                .map(|filter| filter.0.clone())
                .collect(),
            created: asked,
            closed: None,
            process: self.nodes[n].process,
            others_subscribe: self.nodes[n]
                .streams
                .first()
                .is_some_and(|others| !others.filters.is_empty()),
            killed: false,
            granted: None,
            leaving: None,
        });
        let mut stream = Stream::new(id, fact, filters);
        for (filter, qos, no_local) in &stream.filters {
            stream
                .records
                .push(life.ask(filter, *qos, *no_local, asked));
        }
        self.nodes[n].streams.push(stream);
    }

    /// Unsubscribes a stream, or a filter of an earlier process.
    fn unsubscribe(&mut self, n: usize) {
        if !self.chance(class::UNSUBSCRIBES, 1) || self.nodes[n].closing.is_some() {
            return;
        }
        let now = self.instant();
        let at = self.random.below(self.nodes[n].streams.len());
        let node = &mut self.nodes[n];
        let stream = &mut node.streams[at];
        let filters: Vec<String> = match stream.id {
            Some(id) if !stream.leaving => {
                stream.leaving = true;
                node.agent.unsubscribe(id, now);
                stream
                    .filters
                    .iter()
                    .map(|filter| filter.0.clone())
                    .collect()
            }
            None => match self.old_filter(n) {
                Some(filter) => {
                    let list = [TopicFilter::new(&filter).expect("valid")];
                    let node = &mut self.nodes[n];
                    let id = node.agent.unsubscribe_filters(&list, now);
                    node.giving_up.insert(id, (filter.clone(), self.moment));
                    vec![filter]
                }
                None => return,
            },
            Some(_) => return,
        };
        self.trace(n, format_args!("unsubscribes from {filters:?}"));
        let moment = self.tick_moment();
        let node = &self.nodes[n];
        let life = &mut self.expectations.lives[n];
        for stream in &node.streams {
            if stream.leaving {
                life.streams[stream.fact].leaving.get_or_insert(moment);
            }
        }
        for filter in &filters {
            // Another stream may have the same filter.
            let wanted = node.streams.iter().any(|other| {
                !other.leaving && other.filters.iter().any(|known| known.0 == *filter)
            });
            if wanted {
                continue;
            }
            for old in &mut life.subscribed {
                if old.filter == *filter {
                    old.leaving.get_or_insert(moment);
                    // Without a connection, neither SUBSCRIBE nor UNSUBSCRIBE is sent: a subscription of an earlier process stays.
                    old.may_stay |= node.connections == 0;
                }
            }
        }
        self.activate(n);
    }

    /// Returns a filter of the session that no stream of this process has.
    fn old_filter(&self, n: usize) -> Option<String> {
        let node = &self.nodes[n];
        let known = |filter: &String| {
            let of_stream = node
                .streams
                .iter()
                .any(|stream| stream.filters.iter().any(|f| f.0 == *filter));
            of_stream || node.to_subscribe.iter().flatten().any(|f| f.0 == *filter)
        };
        self.expectations.lives[n]
            .subscribed
            .iter()
            .filter(|old| old.leaving.is_none())
            .map(|old| old.filter.clone())
            .find(|filter| !known(filter))
    }

    /// Drops a stream without unsubscribing. The subscription may be made again.
    fn forget(&mut self, n: usize) {
        // Without a kept session the messages are dropped with the stream.
        let node = &self.nodes[n];
        let may = node.persistent && node.closing.is_none();
        if !may || !self.chance(class::FORGETS, 1) {
            return;
        }
        let at = self.random.below(self.nodes[n].streams.len());
        let Some(id) = self.nodes[n].streams[at].id else {
            return;
        };
        if self.nodes[n].streams[at].leaving {
            return;
        }
        let now = self.instant();
        let moment = self.tick_moment();
        self.trace(n, format_args!("drops the stream of {id:?}"));
        let node = &mut self.nodes[n];
        let stream = node.streams.remove(at);
        node.agent.forget(id, now);
        let life = &mut self.expectations.lives[n];
        life.streams[stream.fact].closed = Some(moment);
        // The message in hand, and messages that only other streams had, may go to another stream.
        let had: HashSet<u32> = life
            .heard
            .iter()
            .filter(|heard| heard.stream == stream.fact)
            .map(|heard| heard.number)
            .collect();
        for number in node.heard.difference(&had) {
            let topic = self.expectations.published.get(number).map(|p| &p.topic);
            let claims = |filter: &Filter| topic.is_some_and(|topic| matches(&filter.0, topic));
            if stream.filters.iter().any(claims) {
                life.permit(*number, moment);
            }
        }
        if let Some(number) = stream.in_hand() {
            life.permit(number, moment);
        }
        // Messages may have DUP without a reconnect, and waiting messages at QoS 0 are gone.
        (life.cut, life.whole_since) = (true, moment);
        // An UNSUBSCRIBE that waits also ends its filters, unless its bytes were written before.
        let given_up: Vec<&String> = node
            .streams
            .iter()
            .filter(|other| other.leaving)
            .flat_map(|other| other.filters.iter().map(|filter| &filter.0))
            .chain(node.giving_up.values().map(|(filter, _)| filter))
            .collect();
        for old in &mut life.subscribed {
            if stream.filters.iter().any(|f| f.0 == old.filter) && given_up.contains(&&old.filter) {
                old.leaving.get_or_insert(moment);
                old.may_stay = true;
            }
        }
        if self.random.once_in(2) {
            self.nodes[n].to_subscribe.push_back(stream.filters);
        }
    }
}
