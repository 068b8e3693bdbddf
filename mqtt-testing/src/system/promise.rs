//! What MQTT promises, told plainly: facts about who published, subscribed and received what and when, and the questions
//! asked of them at the end. Knows nothing of how a broker works.

use std::collections::{HashMap, HashSet};

use mqtt_proto::QoS;

use crate::model::matches;

/// A logical moment: it grows with everything that happens.
pub(crate) type Moment = u64;

/// A publish, by its number, which is its payload.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) publisher: usize,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// An empty payload, which clears what is retained.
    pub(crate) clears: bool,
    pub(crate) expires: bool,
    pub(crate) sent: Moment,
    /// When its acknowledgement came.
    pub(crate) acknowledged: Option<Moment>,
}

/// A will, by the number that is its payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WillFact {
    /// Its connection lives, or nobody can say.
    Perhaps,
    /// Its client said goodbye.
    Never,
    /// Its connection was lost for good.
    Must,
}

/// A subscription of one client, over one stretch of time.
#[derive(Clone, Debug)]
pub(crate) struct Subscribed {
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    /// SUBSCRIBE was sent.
    pub(crate) asked: Moment,
    /// SUBACK came.
    pub(crate) granted: Option<Moment>,
    /// UNSUBSCRIBE was sent, or another SUBSCRIBE for the same filter.
    pub(crate) leaving: Option<Moment>,
    /// UNSUBACK came, or the session ended.
    pub(crate) gone: Option<Moment>,
}

impl Subscribed {
    /// It was there for certain, all the time between the two.
    fn surely(&self, from: Moment, to: Moment) -> bool {
        self.granted.is_some_and(|granted| granted <= from)
            && self.leaving.is_none_or(|leaving| leaving > to)
    }

    /// It may have been there at some time between the two.
    fn perhaps(&self, from: Moment, to: Moment) -> bool {
        self.asked <= to && self.gone.is_none_or(|gone| gone >= from)
    }
}

/// A message as a client got it.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) number: u32,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) at: Moment,
}

/// A client's life as far as promises go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) name: String,
    /// Of the session that it has now.
    pub(crate) subscribed: Vec<Subscribed>,
    pub(crate) heard: Vec<Heard>,
    /// A connection was lost in its present session.
    pub(crate) cut: bool,
    /// A connection was ever lost, so what it published may have gone twice at QoS 1, or not at all at QoS 0.
    pub(crate) ever_cut: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Promises {
    pub(crate) published: HashMap<u32, Published>,
    pub(crate) wills: HashMap<u32, WillFact>,
    pub(crate) lives: Vec<Life>,
    /// What anyone ever got, in a session that may be over.
    pub(crate) ever_heard: HashSet<u32>,
    /// What is retained at the end: number by topic.
    pub(crate) retained: HashMap<String, u32>,
}

/// Topics under this are for shared subscriptions only.
pub(crate) const SHARED: &str = "s/";
/// Wills go here.
pub(crate) const WILLS: &str = "w/";

impl Promises {
    /// The first promise that was not kept.
    pub(crate) fn broken(&self) -> Option<String> {
        for life in &self.lives {
            if let Some(broken) = self.heard_wrong(life).or_else(|| self.not_heard(life)) {
                return Some(format!("{}: {broken}", life.name));
            }
        }
        self.shared_lost()
            .or_else(|| self.retained_wrong())
            .or_else(|| self.will_wrong())
    }

    /// Something came that should not have, or not so, or not so often, or not then.
    fn heard_wrong(&self, life: &Life) -> Option<String> {
        let me = self
            .lives
            .iter()
            .position(|other| std::ptr::eq(other, life));
        let mut times: HashMap<(u32, QoS), u32> = HashMap::new();
        let mut last: HashMap<(usize, &str, QoS, QoS), u32> = HashMap::new();
        for heard in &life.heard {
            let Some(published) = self.published.get(&heard.number) else {
                // A will is checked by itself.
                if self.wills.contains_key(&heard.number) {
                    continue;
                }
                return Some(format!("heard what nobody said: {heard:?}"));
            };
            if published.topic != heard.topic {
                return Some(format!("heard {heard:?}, said was {published:?}"));
            }
            let shared = heard.topic.starts_with(SHARED);
            let fits = |subscribed: &&Subscribed| {
                matches(&subscribed.filter, &heard.topic)
                    && subscribed.perhaps(published.sent, heard.at)
                    && !(subscribed.no_local && Some(published.publisher) == me)
            };
            let most = life
                .subscribed
                .iter()
                .filter(fits)
                .map(|subscribed| subscribed.qos)
                .max();
            let Some(most) = most else {
                return Some(format!("heard without a subscription: {heard:?}"));
            };
            let surely = |subscribed: &&Subscribed| {
                matches(&subscribed.filter, &heard.topic)
                    && subscribed.surely(published.sent, heard.at)
                    && !(subscribed.no_local && Some(published.publisher) == me)
            };
            let least = life
                .subscribed
                .iter()
                .filter(surely)
                .map(|subscribed| subscribed.qos)
                .max();
            let least = least.map(|least| least.min(published.qos));
            let too_low = least.is_some_and(|least| heard.qos < least && !heard.retain);
            if heard.qos > published.qos.min(most) || too_low {
                return Some(format!(
                    "wrong QoS: {heard:?}, {published:?}, granted {most:?}"
                ));
            }
            if heard.dup && !life.cut {
                return Some(format!("DUP without a reconnect: {heard:?}"));
            }
            // A retained message may come again with each SUBSCRIBE.
            if published.retain {
                continue;
            }
            if heard.retain {
                return Some(format!("RETAIN that was not published: {heard:?}"));
            }
            let times = times.entry((heard.number, heard.qos)).or_default();
            *times += 1;
            let publisher_cut = self
                .lives
                .get(published.publisher)
                .is_some_and(|publisher| publisher.ever_cut);
            let may_repeat = match heard.qos {
                QoS::ExactlyOnce => false,
                QoS::AtLeastOnce => {
                    life.cut || (publisher_cut && published.qos == QoS::AtLeastOnce) || shared
                }
                QoS::AtMostOnce => (publisher_cut && published.qos == QoS::AtLeastOnce) || shared,
            };
            if *times > 1 && !may_repeat {
                return Some(format!("heard {times} times: {heard:?}, {published:?}"));
            }
            // What a publisher sends again may find a subscription, or one of a higher QoS, that was not there the first
            // time, or, at QoS 0, a client that was away; or it comes alone, since the first expired.
            let again = publisher_cut
                && (published.expires
                    || least.is_none_or(|least| least < heard.qos)
                    || (life.cut && heard.qos == QoS::AtMostOnce));
            if *times == 1 && !shared && !again {
                let order = (
                    published.publisher,
                    published.topic.as_str(),
                    published.qos,
                    heard.qos,
                );
                let before = last.insert(order, heard.number).unwrap_or(0);
                if before > heard.number {
                    return Some(format!("{before} before {heard:?}"));
                }
            }
        }
        None
    }

    /// Something was acknowledged to its publisher and never came.
    fn not_heard(&self, life: &Life) -> Option<String> {
        let me = self
            .lives
            .iter()
            .position(|other| std::ptr::eq(other, life));
        let heard: HashSet<u32> = life.heard.iter().map(|heard| heard.number).collect();
        for (number, published) in &self.published {
            if published.topic.starts_with(SHARED)
                || published.expires
                || published.clears
                || heard.contains(number)
            {
                continue;
            }
            let publisher_cut = self
                .lives
                .get(published.publisher)
                .is_some_and(|publisher| publisher.ever_cut);
            let until = match (published.qos, published.acknowledged) {
                // Nothing tells when a QoS 0 message arrives.
                (QoS::AtMostOnce, _) if !publisher_cut => Moment::MAX,
                (QoS::AtMostOnce, _) => continue,
                (_, Some(acknowledged)) => acknowledged,
                (_, None) => continue,
            };
            let missing = life.subscribed.iter().find(|subscribed| {
                matches(&subscribed.filter, &published.topic)
                    && subscribed.surely(published.sent, until)
                    && !(subscribed.no_local && Some(published.publisher) == me)
                    && (published.qos.min(subscribed.qos) > QoS::AtMostOnce || !life.cut)
            });
            if let Some(subscribed) = missing {
                return Some(format!(
                    "never heard {number}: {published:?}, {subscribed:?}"
                ));
            }
        }
        None
    }

    /// What one member surely was there for, some member got.
    fn shared_lost(&self) -> Option<String> {
        for (number, published) in &self.published {
            let (Some(acknowledged), true) = (
                published.acknowledged,
                published.topic.starts_with(SHARED) && !published.expires,
            ) else {
                continue;
            };
            // A member that stayed to the end.
            let member = self.lives.iter().find(|life| {
                life.subscribed.iter().any(|subscribed| {
                    subscribed.filter.starts_with("$share/")
                        && matches(&subscribed.filter, &published.topic)
                        && subscribed.qos > QoS::AtMostOnce
                        && subscribed.surely(published.sent, Moment::MAX)
                })
            });
            let heard = self.ever_heard.contains(number);
            // Members with QoS 0 may have lost it.
            let weak = self.lives.iter().any(|life| {
                life.subscribed.iter().any(|subscribed| {
                    subscribed.filter.starts_with("$share/")
                        && subscribed.qos == QoS::AtMostOnce
                        && subscribed.perhaps(published.sent, acknowledged)
                })
            });
            if let (Some(member), false, false) = (member, heard, weak) {
                return Some(format!(
                    "shared, never heard: {number} {published:?}; {} was a member",
                    member.name
                ));
            }
        }
        None
    }

    /// What is retained was the last, as far as anyone can tell.
    fn retained_wrong(&self) -> Option<String> {
        let retained = |published: &&Published| published.retain && !published.expires;
        let after = |last: Moment, topic: &str, clears: bool| {
            self.published
                .values()
                .filter(retained)
                .find(|other| {
                    other.topic == topic
                        && other.clears == clears
                        && other.acknowledged.is_some()
                        && other.sent > last
                })
                .cloned()
        };
        for (topic, number) in &self.retained {
            if topic.starts_with(WILLS) {
                continue;
            }
            let Some(published) = self.published.get(number) else {
                return Some(format!("{topic} retains {number}, which nobody said"));
            };
            if published.topic != *topic || !published.retain {
                return Some(format!("{topic} retains {published:?}"));
            }
            let Some(acknowledged) = published.acknowledged else {
                continue;
            };
            for clears in [true, false] {
                if let Some(later) = after(acknowledged, topic, clears) {
                    return Some(format!("retained {published:?}, but later came {later:?}"));
                }
            }
        }
        for published in self.published.values().filter(retained) {
            let (false, Some(_)) = (published.clears, published.acknowledged) else {
                continue;
            };
            let cleared = self.published.values().any(|other| {
                other.topic == published.topic
                    && other.retain
                    && (other.clears || other.expires)
                    && other.acknowledged.is_none_or(|at| at > published.sent)
            });
            if !cleared && !self.retained.contains_key(&published.topic) {
                return Some(format!("nothing retained, but there was {published:?}"));
            }
        }
        None
    }

    /// The first client is there all the time and hears the wills.
    fn will_wrong(&self) -> Option<String> {
        let watcher = self.lives.first()?;
        for (number, fact) in &self.wills {
            let times = watcher
                .heard
                .iter()
                .filter(|heard| heard.number == *number)
                .count();
            match (fact, times) {
                (WillFact::Perhaps, 0 | 1) | (WillFact::Never, 0) | (WillFact::Must, 1) => {}
                _ => return Some(format!("will {number} is {fact:?}, heard {times} times")),
            }
        }
        None
    }
}
