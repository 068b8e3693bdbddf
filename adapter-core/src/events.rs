//! Stores the latest events of the connection for readers, and logs them with `tracing`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use mqtt_agent::{ConnectionEvent, Error};

use crate::hub::Hub;
use crate::waiters::Watch;

/// How many events are stored for later readers.
const KEPT: usize = 64;

/// The latest events.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    events: VecDeque<ConnectionEvent>,
    /// The number of the first stored event.
    first: u64,
    /// The result of the first attempt.
    pub(crate) first_attempt: Option<Result<(), Error>>,
    /// Why the last connection was lost, or the client stopped.
    pub(crate) last_error: Option<Error>,
    /// How many connections and attempts were lost.
    pub(crate) losses: u64,
    /// Whether the latest event about a connection is that it was made. A connection that is being ended still counts, because
    /// the reason is known only at its end.
    pub(crate) has_connection: bool,
    /// The last reason that was logged at WARN. The next attempts that fail for the same reason do not log it again.
    last_warning: Option<String>,
    /// Whether "connected" was logged at INFO since then. So a server that ends each connection for the same reason is logged
    /// once.
    connected_was_logged: bool,
}

impl EventLog {
    /// Stores and logs an event. `failures` says how many attempts in a row failed.
    pub(crate) fn push(&mut self, event: ConnectionEvent, failures: u32) {
        match &event {
            ConnectionEvent::Connected(connected) => {
                self.first_attempt.get_or_insert(Ok(()));
                self.has_connection = true;
                let (session_present, client_id) =
                    (connected.session_present, &connected.client_id);
                if !std::mem::replace(&mut self.connected_was_logged, true) {
                    tracing::info!(session_present, %client_id, "connected");
                } else {
                    tracing::debug!(session_present, %client_id, "connected");
                }
            }
            ConnectionEvent::Lost(why) => {
                self.first_attempt.get_or_insert_with(|| Err(why.clone()));
                self.last_error = Some(why.clone());
                self.losses += 1;
                self.has_connection = false;
                let text = in_full(why);
                if matches!(why, Error::Stopped) {
                    tracing::debug!("not connected: {text}");
                } else if failures <= 1 || self.last_warning.as_ref() != Some(&text) {
                    tracing::warn!("not connected: {text}; trying again");
                    self.connected_was_logged = false;
                } else {
                    tracing::debug!("not connected: {text}; trying again");
                }
                self.last_warning = Some(text);
            }
            ConnectionEvent::Stopped(why) => {
                self.has_connection = false;
                self.first_attempt.get_or_insert_with(|| Err(why.clone()));
                match why {
                    Error::Stopped => tracing::info!("closed"),
                    why => tracing::error!("given up: {}", in_full(why)),
                }
                if !matches!(why, Error::Stopped) || self.last_error.is_none() {
                    self.last_error = Some(why.clone());
                }
            }
            ConnectionEvent::ReceiveMaximumExceeded => tracing::warn!(
                "the server sends more messages at once than the receive maximum allows; they are accepted"
            ),
            ConnectionEvent::Unclaimed => {
                tracing::warn!(
                    "messages wait that no subscription of this process claims, and acknowledgements wait behind them"
                );
            }
            _ => tracing::debug!(?event),
        }
        if self.events.len() >= KEPT {
            self.events.pop_front();
            self.first += 1;
        }
        self.events.push_back(event);
    }

    fn get(&self, number: &mut u64) -> Option<ConnectionEvent> {
        *number = (*number).max(self.first);
        let index = usize::try_from(*number - self.first).ok()?;
        let event = self.events.get(index)?.clone();
        *number += 1;
        Some(event)
    }
}

/// Returns the error and its sources in one line.
pub(crate) fn in_full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// The events of the connection, as a [`Stream`] that ends when the client stops. It begins with up to 64 earlier events. A
/// reader that is more than 64 events late misses the oldest ones.
#[derive(Debug)]
pub struct ConnectionEvents {
    watch: Watch,
    next: u64,
}

impl ConnectionEvents {
    pub(crate) fn new(hub: &Arc<Hub>) -> Self {
        Self {
            watch: Watch::new(hub),
            next: 0,
        }
    }

    /// Polls for the next event; `None` when the client has stopped.
    pub fn poll_event(&mut self, cx: &Context<'_>) -> Poll<Option<ConnectionEvent>> {
        let next = &mut self.next;
        self.watch.poll(cx, |state| match state.log.get(next) {
            None if state.agent.is_stopped() => Some(None),
            event => event.map(Some),
        })
    }

    /// Returns the next event; `None` when the client has stopped. Cancel-safe.
    #[allow(
        clippy::should_implement_trait,
        reason = "the name that streams have for it"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<ConnectionEvent>> + use<'_> {
        std::future::poll_fn(|cx| self.poll_event(cx))
    }
}

impl Stream for ConnectionEvents {
    type Item = ConnectionEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ConnectionEvent>> {
        self.poll_event(cx)
    }
}
