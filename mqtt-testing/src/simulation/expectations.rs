//! What MQTT expectations, told plainly: facts about who published, subscribed and received what and when, and the questions
//! asked of them at the end. Knows nothing of how a broker works.

use std::collections::{HashMap, HashSet};

use mqtt_proto::QoS;

use crate::laws::model::matches;

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

impl Published {
    /// What is neither retained nor expires.
    pub(crate) const fn new(publisher: usize, topic: String, qos: QoS) -> Self {
        Self {
            publisher,
            topic,
            qos,
            retain: false,
            clears: false,
            expires: false,
            sent: 0,
            acknowledged: None,
        }
    }
}

/// A will, by the number that is its payload: how often it goes out. A process has one, for all its connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct WillRecord {
    /// Connections that were lost for good.
    pub(crate) least: usize,
    /// Connections that did not end with a DISCONNECT.
    pub(crate) most: usize,
}

/// A subscription of one client, over one stretch of time.
#[derive(Clone, Debug)]
pub(crate) struct Subscribed {
    pub(crate) filter: String,
    /// The filter is a topic name.
    is_plain: bool,
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
    /// The session ended before, with all that waited in it.
    pub(crate) lost: bool,
}

impl Subscribed {
    fn matches(&self, topic: &str) -> bool {
        if self.is_plain {
            self.filter == topic
        } else {
            matches(&self.filter, topic)
        }
    }

    /// It was there for certain, all the time between the two.
    fn surely(&self, from: Moment, to: Moment) -> bool {
        !self.lost
            && self.granted.is_some_and(|granted| granted <= from)
            && self.leaving.is_none_or(|leaving| leaving > to)
    }

    /// It may have been there at some time between the two.
    fn perhaps(&self, from: Moment, to: Moment) -> bool {
        self.asked <= to && self.gone.is_none_or(|gone| gone >= from)
    }
}

/// A message as a program got it from one of its streams.
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
    /// Its topic filters; empty for what no subscription claims.
    pub(crate) filters: Vec<String>,
    pub(crate) created: Moment,
    /// When the program dropped it, or died.
    pub(crate) closed: Option<Moment>,
    /// Number of its process.
    pub(crate) process: u32,
    /// What no stream claims has a subscription of its own, so that a message may wait there for a stream that comes later.
    pub(crate) others_subscribe: bool,
    /// Its process died before it had taken all; what it had not must come again.
    pub(crate) killed: bool,
    /// When its subscription was granted in the present session.
    pub(crate) granted: Option<Moment>,
    /// When the program gave the subscription up.
    pub(crate) leaving: Option<Moment>,
}

/// A client's life as far as promises go. Its processes come and go; its session may outlive them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) name: String,
    /// Of the session that it has now, and those before whose messages may still wait in the process.
    pub(crate) subscribed: Vec<Subscribed>,
    pub(crate) streams: Vec<StreamRecord>,
    pub(crate) heard: Vec<Heard>,
    /// A connection was lost in its present session, or by its present process.
    pub(crate) cut: bool,
    /// When its present connection began.
    pub(crate) whole_since: Moment,
    /// A connection was ever lost, so what it published may have gone twice at QoS 1, or not at all at QoS 0.
    pub(crate) ever_cut: bool,
    /// Messages at QoS 0 may have given way in a full queue.
    pub(crate) drops: bool,
    /// When a message may come once more: it was taken (QoS 1), or its process died (QoS 1 and 2), before its
    /// acknowledgement reached the broker; or its stream was dropped.
    pub(crate) permits: HashMap<u32, Vec<Moment>>,
    /// What was acknowledged on receipt and came again, since the acknowledgement was lost.
    pub(crate) came_again: HashSet<u32>,
    /// What was acknowledged on receipt and died with its process.
    pub(crate) died: HashSet<u32>,
}

impl Life {
    /// The message may come again from now on.
    pub(crate) fn permit(&mut self, number: u32, at: Moment) {
        self.permits.entry(number).or_default().push(at);
    }

    /// A subscription is asked for; where it is in the list. One to the same filter that is not alike will be replaced.
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
        });
        self.subscribed.len() - 1
    }

    /// The latest time before that the program got the same message, as far as it should not get it again: from the same
    /// stream, or from one that was closed before this one was there.
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
    /// What anyone ever got, in a session that may be over.
    pub(crate) ever_heard: HashSet<u32>,
    /// What is retained at the end: number by topic.
    pub(crate) retained: HashMap<String, u32>,
}

/// What a program got before, by number and QoS; and which came last of a publisher, in each stream.
#[derive(Debug, Default)]
struct Seen<'a> {
    times: HashMap<(u32, QoS), Vec<&'a Heard>>,
    last: HashMap<(usize, usize, &'a str, QoS, QoS), u32>,
}

/// A message with its number, and until when it must have come.
type Due<'a> = (u32, &'a Published, Moment);

/// Topics under this are for shared subscriptions only.
pub(crate) const SHARED: &str = "s/";
/// Wills go here.
pub(crate) const WILLS: &str = "w/";

impl Expectations {
    /// The first promise that was not kept, and to whom, if it is known.
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

    /// Something came that should not have, or not so, or not so often, or not then.
    fn heard_wrong(&self, life: &Life) -> Option<String> {
        let mut seen = Seen::default();
        life.heard.iter().find_map(|heard| {
            let Some(published) = self.published.get(&heard.number) else {
                // A will is checked by itself.
                let is_will = self.wills.contains_key(&heard.number);
                return (!is_will).then(|| format!("heard what nobody said: {heard:?}"));
            };
            match self.one_wrong(life, heard, published, &mut seen) {
                Ok(()) => None,
                Err(wrong) => Some(format!("{wrong}: {heard:?}, {published:?}")),
            }
        })
    }

    /// One message that a program got, beside those it got before.
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
                || permits.is_some_and(|at| at.iter().any(|at| (before..=heard.at).contains(at)));
            return if may_repeat {
                Ok(())
            } else {
                Err(format!("heard again, as at {before}"))
            };
        }
        let again = publisher_cut && may_be_sent_again(life, heard, published, least);
        // What the server sends again after a reconnect goes to streams that are newer than its first copy as well.
        let newer_stream = heard.dup && life.streams[heard.stream].created > published.sent;
        if shared || again || newer_stream {
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

    /// The QoS is that of a subscription; which it must be at least.
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

    /// What must have come to every subscription that was there from its publish until a moment.
    fn due(&self) -> impl Iterator<Item = Due<'_>> {
        self.published
            .iter()
            .filter(|(_, published)| {
                !published.topic.starts_with(SHARED) && !published.expires && !published.clears
            })
            .filter_map(|(number, published)| {
                let publisher = self.lives.get(published.publisher);
                let until = match (published.qos, published.acknowledged) {
                    // Nothing tells when a QoS 0 message arrives.
                    (QoS::AtMostOnce, _) if publisher.is_some_and(|life| life.ever_cut) => {
                        return None;
                    }
                    (QoS::AtMostOnce, _) => Moment::MAX,
                    (_, acknowledged) => acknowledged?,
                };
                Some((*number, published, until))
            })
    }

    /// Something was acknowledged to its publisher and never came.
    fn not_heard(&self, life: &Life, due: &[Due<'_>]) -> Option<String> {
        let me = self
            .lives
            .iter()
            .position(|other| std::ptr::eq(other, life));
        let heard: HashSet<u32> = life.heard.iter().map(|heard| heard.number).collect();
        for (number, published, until) in due {
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

    /// A stream that the program still reads has all that its subscription brought, and what one of a process that died had not
    /// came later.
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
            // What came to another stream, at QoS 1 or 2, since this one is there.
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
                        && subscribed.matches(&published.topic)
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
            if times < fact.least || times > fact.most {
                return Some(format!("will {number} is {fact:?}, heard {times} times"));
            }
        }
        None
    }
}

/// Whether a message that its publisher sent again may come as a new one: it may find a subscription, or one of a higher QoS, that
/// was not there the first time, or, at QoS 0, a client that was away; or it comes alone, since the first expired.
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
