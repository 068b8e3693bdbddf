//! Which messages a client may receive. The hooks are not asked about the messages of a session that may receive all that its
//! subscriptions match. Their answers for other sessions are kept for a while, since the same topics come again.

use std::hash::BuildHasher;

use mqtt_session::proto::{TopicFilter, TopicName};

use crate::broker::{Broker, usize_of};
use crate::hooks::Hooks;
use crate::level::Total;
use crate::queue::Queued;
use crate::router::Keyed;
use crate::session::Session;

/// Subscriptions of a session that are looked at to learn whether it may receive all of their messages. A session with more of
/// them is asked about each message.
const FILTERS: usize = 32;
/// Answers that are kept for a session.
const ANSWERS: usize = 32;
/// Longer topics are asked about each time.
const LONGEST: usize = 128;

/// What a session may receive.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// Which rights this is about: [`Broker::rights_changed`] counts them. 0 is none.
    version: u32,
    /// Messages are asked about.
    asks: bool,
    /// By a hash of the topic.
    answers: Option<Box<[Option<Answer>; ANSWERS]>>,
}

/// A topic, and whether its messages may be received.
type Answer = (Box<str>, bool);

impl Rights {
    /// The client is connected; `is_empty` if its session has neither subscriptions nor messages.
    pub(crate) fn connected(&mut self, version: u32, is_empty: bool) {
        if is_empty || self.asks {
            *self = Self::default();
        }
        if is_empty {
            self.version = version;
        }
    }

    /// The client is gone.
    pub(crate) fn disconnected(&mut self) {
        self.answers = None;
    }

    /// Whether every message may be received, as far as is known.
    pub(crate) const fn are_full(&self, version: u32) -> bool {
        self.version == version && !self.asks
    }

    fn answer(
        &mut self,
        topic: TopicName<'_>,
        key: Keyed,
        ask: impl FnOnce(TopicName<'_>) -> bool,
    ) -> bool {
        let text = topic.as_str();
        let hash = usize::try_from(key.hash_one(text) & 0xFFFF).unwrap_or(0);
        let answers = self.answers.get_or_insert_default();
        let place = answers.get_mut(hash % ANSWERS);
        match place {
            Some(Some((known, answer))) if **known == *text => *answer,
            Some(place) if text.len() <= LONGEST => {
                let answer = ask(topic);
                *place = Some((text.into(), answer));
                answer
            }
            _ => ask(topic),
        }
    }
}

impl<H: Hooks> Broker<H> {
    /// The hooks answer otherwise from now on than before: [`Hooks::may_receive`] is asked again, also about messages that are
    /// queued.
    pub const fn rights_changed(&mut self) {
        self.rights = next(self.rights);
    }

    pub(crate) fn current_rights(&self) -> Current {
        Current {
            version: self.rights,
            key: *self.clients.hasher(),
        }
    }

    /// A session subscribes to a filter that it had not before.
    pub(crate) fn learn_rights(&mut self, key: u32, filter: TopicFilter<'_>) {
        let Some(session) = self.sessions.get_mut(usize_of(key)) else {
            return;
        };
        if session.rights.are_full(self.rights) {
            session.rights.asks = !self.hooks.may_receive_all(&session.info(), filter);
        }
    }
}

/// Which rights hold, and what answers are found by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    pub(crate) version: u32,
    pub(crate) key: Keyed,
}

/// Whether a session whose rights are not full may receive a message of this topic.
#[cold]
pub(crate) fn may_receive<H: Hooks>(
    session: &mut Session,
    Current { version, key }: Current,
    hooks: &mut H,
    topic: TopicName<'_>,
) -> bool {
    if session.rights.version != version {
        let asks = needs_to_ask(session, hooks);
        session.rights = Rights {
            version,
            asks,
            answers: None,
        };
        if !asks {
            return true;
        }
    }
    if session.connection.is_none() {
        // Its messages wait; answers would be kept for long and for few.
        return hooks.may_receive(&session.info(), topic);
    }
    let mut rights = std::mem::take(&mut session.rights);
    let info = session.info();
    let answer = rights.answer(topic, key, |topic| hooks.may_receive(&info, topic));
    session.rights = rights;
    answer
}

/// Removes the first message of the queue if it is one that the session may not receive. Not while it cannot be sent
/// anyway, since it has to be decoded.
#[cold]
pub(crate) fn drops_first<H: Hooks>(
    session: &mut Session,
    current: Current,
    hooks: &mut H,
    queued: &mut Total,
) -> Option<Queued> {
    let first = session
        .queue
        .front()
        .filter(|_| !session.queue.is_stalled());
    let message = first.map(|item| item.message.clone())?;
    let drops = !may_receive(session, current, hooks, message.publish().topic);
    if drops {
        session.queue.pop(queued)
    } else {
        None
    }
}

/// What is queued may be of a subscription that is gone, or of rights that are.
fn needs_to_ask<H: Hooks>(session: &Session, hooks: &mut H) -> bool {
    let info = session.info();
    !session.queue.is_empty()
        || session.filters.len() > FILTERS
        || !session.filters.keys().all(|filter| {
            TopicFilter::new(filter).is_ok_and(|filter| hooks.may_receive_all(&info, filter))
        })
}

/// 0 is no version.
pub(crate) const fn next(version: u32) -> u32 {
    match version.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}
