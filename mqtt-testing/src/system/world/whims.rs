//! What clients take it into their heads to do, and what is promised to them for it.

use mqtt_proto::{
    Connect, Disconnect, Properties, Property, QoS, RetainHandling, Subscription, TopicFilter,
    TopicName, Version, Will,
};
use mqtt_session::{Instant, Outgoing};

use super::{Question, Wire, World};
use crate::system::promise::{Published, SHARED, Subscribed, WILLS, WillFact};

const TOPICS: usize = 40;
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

impl World {
    pub(super) fn operate(&mut self) {
        // Not the watcher.
        let n = 1 + self.random.below(self.nodes.len() - 1);
        if self.nodes[n].wire.is_none() {
            if !self.random.once_in(3) {
                self.connect(n);
                return;
            }
        } else if self.random.once_in(25) {
            self.say_goodbye(n);
            return;
        } else if self.random.once_in(12) {
            let after = self.random.below(300);
            if let Some(wire) = &mut self.nodes[n].wire {
                wire.cut_after = Some(after);
            }
        }
        match self.random.below(10) {
            0 | 1 => self.subscribe(n),
            2 => self.unsubscribe(n),
            _ => self.publish(n),
        }
    }

    pub(super) fn connect(&mut self, n: usize) {
        let now = self.instant();
        let Ok(id) = self.broker.open(now) else {
            return;
        };
        let will_number = (n > 0 && self.random.once_in(3)).then(|| self.next_number());
        let (delayed, retained) = (self.random.once_in(2), self.random.once_in(4));
        let forgets = n > 0 && self.random.once_in(15);
        let node = &mut self.nodes[n];
        let topic = format!("{WILLS}{}", node.name);
        let payload = will_number.map(|number| number.to_string());
        let delay = [Property::WillDelayInterval(2)];
        let expiry = [
            Property::SessionExpiryInterval(u32::MAX),
            Property::ReceiveMaximum(5),
            Property::TopicAliasMaximum(3),
        ];
        let v5 = node.version == Version::V5;
        let will = payload.as_ref().map(|payload| Will {
            qos: QoS::AtLeastOnce,
            retain: retained,
            properties: if v5 && delayed {
                Properties::from(&delay)
            } else {
                Properties::EMPTY
            },
            ..Will::new(TopicName::new(&topic).expect("valid"), payload.as_bytes())
        });
        let clean_start = !node.persistent || forgets || node.client.must_start_clean();
        let connect = Connect {
            clean_start,
            keep_alive: 60,
            will,
            properties: if v5 && node.persistent {
                Properties::from(&expiry)
            } else {
                Properties::EMPTY
            },
            ..Connect::new(node.version, &node.name)
        };
        node.client.connect(&connect, now).expect("it is possible");
        node.input.clear();
        node.will = will_number;
        node.wire = Some(Wire::new(id));
        if let Some(number) = will_number {
            self.promises.wills.insert(number, WillFact::Perhaps);
        }
        self.owners.insert(id, n);
        self.trace(
            n,
            format_args!("connects by {id:?}, clean start {clean_start}"),
        );
        self.activate(n);
    }

    pub(super) fn next_number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn say_goodbye(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.connected && node.client.disconnect(&Disconnect::default()).is_ok() {
            if let Some(wire) = &mut node.wire {
                (wire.leaving, wire.cut_after) = (true, None);
            }
            self.activate(n);
        }
    }

    fn publish(&mut self, n: usize) {
        let number = self.number + 1;
        let random = &mut self.random;
        let topic = if random.once_in(6) {
            format!("{SHARED}{}", random.below(3))
        } else {
            format!("t/{}", random.below(TOPICS))
        };
        let shared = topic.starts_with(SHARED);
        let mut qos = QOS[random.below(3)];
        let retain = !shared && random.once_in(6);
        let clears = retain && random.once_in(4);
        let node = &mut self.nodes[n];
        let expires = node.version == Version::V5 && random.once_in(12);
        if shared {
            qos = qos.min(QoS::AtLeastOnce);
        }
        let mut payload = number.to_string().into_bytes();
        payload.resize(payload.len() + random.below(200), b' ');
        if random.once_in(40) {
            payload.resize(payload.len() + random.below(5_000), b' ');
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
        let now = Instant::from_millis(self.now);
        let Ok(token) = node.client.publish(&message, now) else {
            return;
        };
        self.number = number;
        if let Some(token) = token {
            node.asked.insert(token, Question::Publish(number));
        }
        let sent = self.tick_moment();
        self.promises.published.insert(
            number,
            Published {
                publisher: n,
                topic,
                qos,
                retain,
                clears,
                expires,
                sent,
                acknowledged: None,
            },
        );
        self.trace(
            n,
            format_args!("publishes {number}: {:?}", self.promises.published[&number]),
        );
        self.report.published += 1;
        self.activate(n);
    }

    fn subscribe(&mut self, n: usize) {
        let random = &mut self.random;
        let count = 1 + random.below(3);
        let filters = (0..count)
            .map(|_| {
                // What is shared stays apart from what is not, and is heard at least once.
                let (filter, shared) = match random.below(30) {
                    0 => ("t/#".to_owned(), false),
                    1 => ("+/7".to_owned(), false),
                    2 => ("t/+".to_owned(), false),
                    3..8 => (format!("$share/g/{SHARED}#"), true),
                    8..10 => (format!("$share/h/{SHARED}{}", random.below(3)), true),
                    _ => (format!("t/{}", random.below(TOPICS)), false),
                };
                let qos = if shared {
                    QoS::AtLeastOnce
                } else {
                    QOS[random.below(3)]
                };
                (filter, qos, !shared && random.once_in(5))
            })
            .collect();
        self.subscribe_to(n, filters);
    }

    pub(super) fn subscribe_to(&mut self, n: usize, mut filters: Vec<(String, QoS, bool)>) {
        filters.sort();
        filters.dedup_by(|a, b| a.0 == b.0);
        let now = self.instant();
        let retain_handling = [
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::DoNotSend,
        ][self.random.below(3)];
        let node = &mut self.nodes[n];
        if !node.connected {
            return;
        }
        let v5 = node.version == Version::V5;
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
        let Ok(token) = node.client.subscribe(&list, Properties::EMPTY, now) else {
            return;
        };
        let asked = self.tick_moment();
        let life = &mut self.promises.lives[n];
        let mut numbers = Vec::new();
        for (filter, qos, no_local) in filters {
            for old in life
                .subscribed
                .iter_mut()
                .filter(|old| old.filter == filter && old.leaving.is_none())
            {
                old.leaving = Some(asked);
            }
            numbers.push(life.subscribed.len());
            life.subscribed.push(Subscribed {
                filter,
                qos,
                no_local: v5 && no_local,
                asked,
                granted: None,
                leaving: None,
                gone: None,
            });
        }
        self.nodes[n]
            .asked
            .insert(token, Question::Subscribe(numbers));
        self.activate(n);
    }

    fn unsubscribe(&mut self, n: usize) {
        let now = self.instant();
        let life = &mut self.promises.lives[n];
        if life.subscribed.is_empty() || !self.nodes[n].connected {
            return;
        }
        let at = self.random.below(life.subscribed.len());
        let filter = life.subscribed[at].filter.clone();
        let list = [TopicFilter::new(&filter).expect("valid")];
        let asked = self.nodes[n]
            .client
            .unsubscribe(&list, Properties::EMPTY, now);
        let Ok(token) = asked else { return };
        let moment = self.tick_moment();
        let mut numbers = Vec::new();
        for (at, old) in self.promises.lives[n].subscribed.iter_mut().enumerate() {
            if old.filter == filter {
                old.leaving.get_or_insert(moment);
                numbers.push(at);
            }
        }
        self.nodes[n]
            .asked
            .insert(token, Question::Unsubscribe(numbers));
        self.activate(n);
    }
}
