//! Knows which messages a client may receive. The hooks are not asked about the messages of a session that may receive all that
//! its subscriptions match. For other sessions their answers are kept for a while, because the same topics recur.

use std::hash::BuildHasher;

use mqtt_session::proto::{TopicFilter, TopicName};

use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::router::Keyed;
use crate::session::Session;

/// How many subscriptions of a session are checked to find out whether it may receive all their messages. For a session with more
/// subscriptions, the hooks are asked about each message.
const FILTERS: usize = 32;
/// How many answers are kept for a session.
const ANSWERS: usize = 32;
/// The hooks are asked each time about longer topics.
const LONGEST: usize = 128;

/// The rights of a session to receive messages.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// The version of the rights, as [`Broker::rights_changed`] counts them; 0 for none.
    version: u32,
    /// Whether the hooks are asked about messages.
    asks: bool,
    /// The answers by a hash of the topic.
    answers: Option<Box<[Option<TopicRight>; ANSWERS]>>,
}

/// A topic, and whether the session may receive its messages.
type TopicRight = (Box<str>, bool);

impl Rights {
    /// Notes that the client has connected; `is_empty` if its session has neither subscriptions nor messages.
    pub(crate) fn connected(&mut self, version: u32, is_empty: bool) {
        if is_empty || self.asks {
            *self = Self::default();
        }
        if is_empty {
            self.version = version;
        }
    }

    /// Notes that the client has disconnected.
    pub(crate) fn disconnected(&mut self) {
        self.answers = None;
    }

    /// Returns whether the session may receive all messages, as far as is known.
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
    /// Notes that the answers of the hooks have changed: [`Hooks::may_receive`] is asked again, also about queued messages.
    pub const fn rights_changed(&mut self) {
        self.rights = next(self.rights);
    }

    pub(crate) fn current_rights(&self) -> Current {
        Current {
            version: self.rights,
            key: *self.clients.hasher(),
        }
    }

    /// Asks the hooks about a new filter of a session.
    pub(crate) fn learn_rights(&mut self, key: SessionKey, filter: TopicFilter<'_>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.rights.are_full(self.rights) {
            session.rights.asks = !self.hooks.may_receive_all(&session.info(), filter);
        }
    }
}

/// The version of the rights, and the hasher for answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    pub(crate) version: u32,
    pub(crate) key: Keyed,
}

/// Returns whether a session whose rights are not full may receive a message of this topic.
#[cold]
pub(crate) fn may_receive<H: Hooks>(
    session: &mut Session,
    Current { version, key }: Current,
    hooks: &mut H,
    topic: TopicName<'_>,
) -> bool {
    if session.rights.version != version {
        // The other shard asks about its clients.
        let asks = session.link.is_none() && needs_to_ask(session, hooks);
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
        // A session without a connection queues messages: its answers would be stored for a long time and seldom used.
        return hooks.may_receive(&session.info(), topic);
    }
    let mut rights = std::mem::take(&mut session.rights);
    let info = session.info();
    let answer = rights.answer(topic, key, |topic| hooks.may_receive(&info, topic));
    session.rights = rights;
    answer
}

/// Returns whether the session may not receive the first message of its queue, which is decoded for it.
#[cold]
pub(crate) fn first_is_forbidden<H: Hooks>(
    session: &mut Session,
    current: Current,
    hooks: &mut H,
) -> bool {
    let first = session.queue.front().map(|item| item.message.clone());
    first.is_some_and(|message| !may_receive(session, current, hooks, message.publish().topic))
}

/// Returns whether the hooks must be asked about queued messages, because a subscription or a right may have ended since.
fn needs_to_ask<H: Hooks>(session: &Session, hooks: &mut H) -> bool {
    let info = session.info();
    !session.queue.is_empty()
        || session.filters.len() > FILTERS
        || !session.filters.keys().all(|filter| {
            TopicFilter::new(filter).is_ok_and(|filter| hooks.may_receive_all(&info, filter))
        })
}

/// Returns the next version; 0 is not a version.
pub(crate) const fn next(version: u32) -> u32 {
    match version.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}
