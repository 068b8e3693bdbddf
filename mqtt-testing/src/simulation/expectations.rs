//! Records facts about publishers, subscriptions and received messages, with their times, and checks at the end of a run whether
//! the promises of MQTT were kept. Does not model how a broker works.

use std::collections::{HashMap, HashSet};

use mqtt_proto::QoS;

pub(crate) use super::published::{Published, WillRecord};
use super::shards::Process;
use crate::laws::model::matches;

/// A logical time, which grows with every event.
pub(crate) type Moment = u64;

/// A subscription of one client during a period.
#[derive(Clone, Debug)]
pub(crate) struct Subscribed {
    pub(crate) filter: String,
    /// Whether the filter is a topic name.
    is_plain: bool,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    /// When SUBSCRIBE was sent.
    pub(crate) asked: Moment,
    /// When SUBACK arrived.
    pub(crate) granted: Option<Moment>,
    /// When UNSUBSCRIBE, or another SUBSCRIBE for the same filter, was sent.
    pub(crate) leaving: Option<Moment>,
    /// When UNSUBACK arrived, or the session ended.
    pub(crate) gone: Option<Moment>,
    /// Whether the session ended before, with all messages that waited in it.
    pub(crate) lost: bool,
    /// Whether the UNSUBSCRIBE of another stream may have been written while this stream still claimed the filter.
    pub(crate) may_stay: bool,
    /// Whether the records of a client had it although it was over. The next process gives it up, with the messages for it.
    pub(crate) from_records: bool,
}

impl Subscribed {
    pub(super) fn matches(&self, topic: &str) -> bool {
        if self.is_plain {
            self.filter == topic
        } else {
            matches(&self.filter, topic)
        }
    }

    /// Returns whether it existed for certain during the whole time between the two moments.
    pub(super) fn surely(&self, from: Moment, to: Moment) -> bool {
        !self.lost
            && self.granted.is_some_and(|granted| granted <= from)
            && self.leaving.is_none_or(|leaving| leaving > to)
    }

    /// Returns whether it may have existed at some time between the two moments.
    fn perhaps(&self, from: Moment, to: Moment) -> bool {
        self.asked <= to && self.gone.is_none_or(|gone| gone >= from)
    }
}

/// A message that a program received from a stream.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) number: u32,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) at: Moment,
    /// The stream, as an index into [`Life::streams`].
    pub(crate) stream: usize,
}

/// A stream of a program.
#[derive(Clone, Debug)]
pub(crate) struct StreamRecord {
    /// The topic filters of the stream; empty for the stream of unclaimed messages.
    pub(crate) filters: Vec<String>,
    pub(crate) created: Moment,
    /// When the program dropped it, or was killed.
    pub(crate) closed: Option<Moment>,
    /// The number of its process.
    pub(crate) process: u32,
    /// Whether the stream of unclaimed messages has a subscription, so that a message may wait there for a later stream.
    pub(crate) others_subscribe: bool,
    /// Whether its process was killed before it had taken all messages; the others must come again.
    pub(crate) killed: bool,
    /// When its subscription was granted in the present session.
    pub(crate) granted: Option<Moment>,
    /// When the program unsubscribed.
    pub(crate) leaving: Option<Moment>,
}

/// The facts about one client. It has several processes in turn; its session may outlive them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) name: String,
    /// The shard of the client.
    pub(crate) home: usize,
    /// The subscriptions of its present session, and of earlier ones whose messages may still wait in the process.
    pub(crate) subscribed: Vec<Subscribed>,
    pub(crate) streams: Vec<StreamRecord>,
    pub(crate) heard: Vec<Heard>,
    /// Whether a connection of its present session or process was lost.
    pub(crate) cut: bool,
    /// When its present connection began.
    pub(crate) whole_since: Moment,
    /// Whether any connection was lost: its messages at QoS 1 may have been sent twice, those at QoS 0 not at all.
    pub(crate) ever_cut: bool,
    /// Whether messages at QoS 0 may have been dropped from a full queue.
    pub(crate) drops: bool,
    /// Whether the broker reported that publishers do not wait for it, so that messages for it may have been dropped.
    pub(crate) given_up: bool,
    /// Times at which a message was permitted to come once more: it was taken (QoS 1), or its process was killed (QoS 1 and 2),
    /// before the acknowledgement reached the broker; or its stream was dropped.
    pub(crate) permits: HashMap<u32, Vec<Moment>>,
    /// Messages that were acknowledged on arrival and came again because the acknowledgement was lost.
    pub(crate) came_again: HashSet<u32>,
    /// Messages that were acknowledged on arrival and lost with their process.
    pub(crate) died: HashSet<u32>,
    /// When the broker began a new session for it.
    pub(crate) new_sessions: Vec<Moment>,
    /// When a process without a disk ended.
    pub(crate) forgets: Vec<Moment>,
}

impl Life {
    /// Notes that the message may come again from now on.
    pub(crate) fn permit(&mut self, number: u32, at: Moment) {
        self.permits.entry(number).or_default().push(at);
    }

    /// Notes a SUBSCRIBE. Returns its index. It replaces an earlier subscription to the same filter with other options.
    pub(crate) fn ask(&mut self, filter: &str, qos: QoS, no_local: bool, at: Moment) -> usize {
        let changed = |old: &&mut Subscribed| {
            old.filter == filter
                && old.leaving.is_none()
                && (old.qos, old.no_local) != (qos, no_local)
        };
        for old in self.subscribed.iter_mut().filter(changed) {
            old.leaving = Some(at);
        }
        self.subscribed.push(Subscribed {
            filter: filter.to_owned(),
            is_plain: !filter.contains(['+', '#', '$']),
            qos,
            no_local,
            asked: at,
            granted: None,
            leaving: None,
            gone: None,
            lost: false,
            may_stay: false,
            from_records: false,
        });
        self.subscribed.len() - 1
    }

    /// Returns when the program last received the same message from the same stream, or from one that was closed before this
    /// one was made; it must not come again then.
    fn before(&self, earlier: &[&Heard], heard: &Heard) -> Option<Moment> {
        let stream = self.streams.get(heard.stream)?;
        let counts = |before: &&&Heard| {
            let earlier = |other: &StreamRecord| {
                let waits = other.process == stream.process && stream.others_subscribe;
                !waits && other.closed.is_some_and(|closed| closed <= stream.created)
            };
            before.stream == heard.stream || self.streams.get(before.stream).is_some_and(earlier)
        };
        earlier.iter().filter(counts).map(|before| before.at).max()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Expectations {
    pub(crate) published: HashMap<u32, Published>,
    pub(crate) wills: HashMap<u32, WillRecord>,
    pub(crate) lives: Vec<Life>,
    /// All messages that any program ever received, including those of ended sessions.
    pub(crate) ever_heard: HashSet<u32>,
    /// The retained messages at the end: number by topic.
    pub(crate) retained: HashMap<String, u32>,
    /// When the broker crashed. The record of a published or removed will may have been lost then.
    pub(crate) crashes: Vec<Moment>,
    pub(crate) is_on_engine: bool,
    /// From when to when a process went on while another one had its shard: what it told without a record is lost, as in a crash.
    pub(crate) left_behind: Vec<(Process, Moment, Moment)>,
    pub(crate) doubted: HashSet<u32>,
    /// The number of shards.
    pub(crate) shards: usize,
    /// When links between shards were cut. Messages at QoS 0 may have been lost then, and others may have been repeated.
    pub(crate) link_cuts: Vec<Moment>,
    /// Whether queues are short, so that messages are dropped that are not acknowledged or are for clients that were not
    /// connected.
    pub(crate) short_queues: bool,
}

/// The messages that a program received before, by number and QoS, and the last one of each publisher in each stream.
#[derive(Debug, Default)]
struct Seen<'a> {
    times: HashMap<(u32, QoS), Vec<&'a Heard>>,
    last: HashMap<(usize, usize, &'a str, QoS, QoS), u32>,
}

/// A message with its number, and the time by which it must have arrived.
type Due<'a> = (u32, &'a Published, Moment);

/// The prefix of topics that are used for shared subscriptions only.
pub(crate) const SHARED: &str = "s/";
/// The prefix of the topics of wills.
pub(crate) const WILLS: &str = "w/";

impl Expectations {
    /// Returns the first broken promise, and its client if it is known.
    pub(crate) fn first_violation(&self) -> Option<(Option<usize>, String)> {
        let due: Vec<_> = self.due().collect();
        for (n, life) in self.lives.iter().enumerate() {
            let broken = self
                .heard_wrong(life)
                .or_else(|| self.not_heard(life, &due))
                .or_else(|| self.not_in_stream(life));
            if let Some(broken) = broken {
                return Some((Some(n), format!("{}: {broken}", life.name)));
            }
        }
        self.shared_lost()
            .or_else(|| self.retained_wrong())
            .map(|broken| (None, broken))
            .or_else(|| self.will_wrong().map(|broken| (Some(0), broken)))
    }

    /// Checks that a client received no wrong message, no message too often, and none at a wrong time.
    fn heard_wrong(&self, life: &Life) -> Option<String> {
        let mut seen = Seen::default();
        life.heard.iter().find_map(|heard| {
            let Some(published) = self.published.get(&heard.number) else {
                // Wills are checked separately.
                let is_will = self.wills.contains_key(&heard.number);
                return (!is_will).then(|| format!("heard what nobody said: {heard:?}"));
            };
            match self.one_wrong(life, heard, published, &mut seen) {
                Ok(()) => None,
                Err(wrong) => Some(format!("{wrong}: {heard:?}, {published:?}")),
            }
        })
    }

    /// Checks one received message against those before it.
    fn one_wrong<'a>(
        &self,
        life: &Life,
        heard: &'a Heard,
        published: &'a Published,
        seen: &mut Seen<'a>,
    ) -> Result<(), String> {
        if published.topic != heard.topic {
            return Err("another topic".to_owned());
        }
        let least = self.qos_wrong(life, heard, published)?;
        if heard.dup && !life.cut {
            return Err("DUP without a reconnect".to_owned());
        }
        // A retained message may come again with each SUBSCRIBE.
        if published.retain {
            return Ok(());
        }
        if heard.retain {
            return Err("RETAIN that was not published".to_owned());
        }
        let earlier = seen.times.entry((heard.number, heard.qos)).or_default();
        let before = life.before(earlier, heard);
        earlier.push(heard);
        let shared = heard.topic.starts_with(SHARED);
        let publisher_cut = self
            .lives
            .get(published.publisher)
            .is_some_and(|publisher| publisher.ever_cut);
        if let Some(before) = before {
            let permits = life.permits.get(&heard.number);
            let may_repeat = shared
                || life.came_again.contains(&heard.number)
                || (publisher_cut && published.qos == QoS::AtLeastOnce)
                || self.a_crash_may_repeat(life, heard, published)
                || permits.is_some_and(|at| at.iter().any(|at| (before..=heard.at).contains(at)));
            return if may_repeat {
                Ok(())
            } else {
                Err(format!("heard again, as at {before}"))
            };
        }
        let again = publisher_cut && may_be_sent_again(life, heard, published, least);
        // A message that is sent again after a reconnect goes also to streams that were made after its first copy arrived.
        let newer_stream = heard.dup && life.streams[heard.stream].created > published.sent;
        if shared || again || newer_stream || self.a_link_may_bring_late(life, heard, published) {
            return Ok(());
        }
        let order = (
            heard.stream,
            published.publisher,
            published.topic.as_str(),
            published.qos,
            heard.qos,
        );
        match seen.last.insert(order, heard.number) {
            Some(before) if before > heard.number => Err(format!("{before} came before")),
            _ => Ok(()),
        }
    }

    /// Checks that the QoS is that of a matching subscription, and at least that of a certain one.
    fn qos_wrong(
        &self,
        life: &Life,
        heard: &Heard,
        published: &Published,
    ) -> Result<Option<QoS>, String> {
        let me = self
            .lives
            .iter()
            .position(|other| std::ptr::eq(other, life));
        let is_for = |subscribed: &&Subscribed| {
            subscribed.matches(&heard.topic)
                && !(subscribed.no_local && Some(published.publisher) == me)
        };
        let perhaps = life
            .subscribed
            .iter()
            .filter(|subscribed| subscribed.perhaps(published.sent, heard.at))
            .filter(is_for);
        let Some(most) = perhaps.map(|subscribed| subscribed.qos).max() else {
            return Err("heard without a subscription".to_owned());
        };
        let surely = life
            .subscribed
            .iter()
            .filter(|subscribed| subscribed.surely(published.sent, heard.at))
            .filter(is_for);
        let least = surely
            .map(|subscribed| subscribed.qos.min(published.qos))
            .max();
        let too_low = least.is_some_and(|least| heard.qos < least && !heard.retain);
        if heard.qos > published.qos.min(most) || too_low {
            return Err(format!("wrong QoS, granted {most:?}, at least {least:?}"));
        }
        Ok(least)
    }

    /// Returns the messages that every subscription that existed from the publish to a certain time must have received.
    fn due(&self) -> impl Iterator<Item = Due<'_>> {
        self.published
            .iter()
            .filter(|(_, published)| {
                !published.topic.starts_with(SHARED) && !published.expires && !published.clears
            })
            .filter_map(|(number, published)| {
                let publisher = self.lives.get(published.publisher);
                // A message on its way to another shard finds the subscriptions that exist when it arrives there.
                let acknowledged = match published.acknowledged {
                    Some(_) if self.shards > 1 => Some(Moment::MAX),
                    acknowledged => acknowledged,
                };
                let until = match (published.qos, acknowledged) {
                    (QoS::AtMostOnce, _) if !self.link_cuts.is_empty() => return None,
                    // The time at which a QoS 0 message arrived at the broker is not known.
                    (QoS::AtMostOnce, _) if publisher.is_some_and(|life| life.ever_cut) => {
                        return None;
                    }
                    (QoS::AtMostOnce, _) => Moment::MAX,
                    (_, acknowledged) => acknowledged?,
                };
                Some((*number, published, until))
            })
    }

    /// Checks that no acknowledged message is missing.
    fn not_heard(&self, life: &Life, due: &[Due<'_>]) -> Option<String> {
        let me = self
            .lives
            .iter()
            .position(|other| std::ptr::eq(other, life));
        if self.short_queues && (life.given_up || life.ever_cut) {
            return None;
        }
        let heard: HashSet<u32> = life.heard.iter().map(|heard| heard.number).collect();
        for (number, published, until) in due {
            if self.short_queues && published.qos == QoS::AtMostOnce {
                continue;
            }
            if heard.contains(number) || life.died.contains(number) {
                continue;
            }
            let (published, until) = (*published, *until);
            let missing = life.subscribed.iter().find(|subscribed| {
                subscribed.surely(published.sent, until)
                    && subscribed.matches(&published.topic)
                    && !(subscribed.no_local && Some(published.publisher) == me)
                    && (published.qos.min(subscribed.qos) > QoS::AtMostOnce
                        || (published.sent >= life.whole_since && !life.drops))
            });
            if let Some(subscribed) = missing {
                return Some(format!(
                    "never heard {number}: {published:?}, {subscribed:?}"
                ));
            }
        }
        None
    }

    /// Checks that a stream that the program still reads has all messages of its subscription, and that messages that a
    /// killed process had not taken came again.
    fn not_in_stream(&self, life: &Life) -> Option<String> {
        let me = self
            .lives
            .iter()
            .position(|other| std::ptr::eq(other, life));
        let heard: HashSet<(usize, u32)> = life
            .heard
            .iter()
            .map(|heard| (heard.stream, heard.number))
            .collect();
        for (at, stream) in life.streams.iter().enumerate() {
            let (None, Some(granted)) = (stream.leaving, stream.granted) else {
                continue;
            };
            if stream.closed.is_some() && !stream.killed {
                continue;
            }
            let later = |number: u32| {
                stream.closed.is_some_and(|closed| {
                    let mut heard = life.heard.iter();
                    heard.any(|heard| heard.number == number && heard.at > closed)
                })
            };
            // QoS 1 or 2 messages that another stream received while this stream existed.
            let missing = life.heard.iter().find(|other| {
                other.qos > QoS::AtMostOnce
                    && self.published.get(&other.number).is_some_and(|published| {
                        published.sent > granted && Some(published.publisher) != me
                    })
                    && stream
                        .filters
                        .iter()
                        .any(|filter| matches(filter, &other.topic))
                    && !heard.contains(&(at, other.number))
                    && !later(other.number)
            });
            if let Some(missing) = missing {
                return Some(format!("{stream:?} did not get {missing:?}"));
            }
        }
        None
    }

    /// Checks that a message for a certain member of a group was received by some member.
    fn shared_lost(&self) -> Option<String> {
        for (number, published) in &self.published {
            let (Some(acknowledged), true) = (
                published.acknowledged,
                published.topic.starts_with(SHARED) && !published.expires,
            ) else {
                continue;
            };
            // A client that was not connected or too slow may have been chosen for it.
            let lossy = |life: &Life| life.given_up || life.ever_cut;
            if self.short_queues && self.lives.iter().any(lossy) {
                return None;
            }
            if self.may_be_dropped_by_a_restored(&published.topic) {
                continue;
            }
            // A member that stayed to the end.
            let member = self.lives.iter().find(|life| {
                life.subscribed.iter().any(|subscribed| {
                    subscribed.filter.starts_with("$share/")
                        && subscribed.matches(&published.topic)
                        && subscribed.qos > QoS::AtMostOnce
                        && subscribed.surely(published.sent, Moment::MAX)
                })
            });
            let heard = self.ever_heard.contains(number);
            // Members with QoS 0 may have lost it. A process that continues to give up a subscription drops its messages; it may be
            // chosen for longer if its UNSUBSCRIBE has to reach another shard.
            let weak = self.lives.iter().any(|life| {
                life.subscribed.iter().any(|subscribed| {
                    subscribed.filter.starts_with("$share/")
                        && subscribed.perhaps(published.sent, acknowledged)
                        && (subscribed.qos == QoS::AtMostOnce
                            || self.shards > 1 && subscribed.leaving.is_some())
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

    /// Checks that the last message of each topic is retained, as far as the order is known.
    fn retained_wrong(&self) -> Option<String> {
        let retained = |published: &&Published| published.retain && !published.expires;
        let after = |last: Moment, topic: &str, clears: bool, publisher: usize| {
            self.published
                .values()
                .filter(retained)
                .find(|other| {
                    other.topic == topic
                        && other.clears == clears
                        && other.acknowledged.is_some()
                        && other.sent > last
                        && self.is_ordered(other, publisher)
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
                if let Some(later) = after(acknowledged, topic, clears, published.publisher) {
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
                    && (other.acknowledged.is_none_or(|at| at > published.sent)
                        || !self.is_ordered(other, published.publisher))
            });
            if !cleared && !self.retained.contains_key(&published.topic) {
                return Some(format!("nothing retained, but there was {published:?}"));
            }
        }
        None
    }
}

/// Returns whether a message that its publisher sent again may come as a new one: to a subscription that was added meanwhile or
/// got a higher QoS, at QoS 0 to a client that was not connected, or when the first copy expired.
fn may_be_sent_again(
    life: &Life,
    heard: &Heard,
    published: &Published,
    least: Option<QoS>,
) -> bool {
    published.expires
        || life.streams[heard.stream].created > published.sent
        || least.is_none_or(|least| least < heard.qos)
        || (life.cut && heard.qos == QoS::AtMostOnce)
}
