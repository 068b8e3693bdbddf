//! The state behind a handle: one client machine, the publishers that wait for room, tickets, subscriptions, and the
//! decision when to dial. A driver (a task or a pair of threads) moves bytes and asks what to do; it knows no protocol.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt_proto::{Disconnect, Message, Properties, QoS, ReasonCode, Subscription};
use mqtt_session::{
    Client, Closed, Ended, Event, Heap, Incoming, Instant, Next, Outgoing, Refused, Supervisor,
    Token,
};

use crate::error::Error;
use crate::futures::{Outcome, Received};
use crate::options::Options;
use crate::routes::{Route, Standing};

/// What the driver does next when there is no connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Dial, then [`Hub::opened`] or [`Hub::lost`].
    Dial,
    /// Wait this long, or until woken.
    Wait(Duration),
    /// Nothing more will come.
    Stop,
}

/// What the driver does next with its input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flow {
    /// Read more; at least this many bytes must be in the buffer.
    Read(usize),
    /// Do not read until woken: a subscription is full, or something must be written first.
    Paused,
}

/// A message that was accepted and not acknowledged when the handle was closed.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsent {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it was to be retained.
    pub retain: bool,
}

/// A ticket's end, or who waits for it.
#[derive(Debug)]
pub(crate) enum Wait {
    For(Option<Waker>),
    Over(Outcome),
}

#[derive(Debug)]
enum Stage {
    /// No transport.
    Down,
    /// A transport is there.
    Up,
    /// Never again.
    Stopped,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) client: Client<Heap>,
    pub(crate) options: Options,
    /// The client identifier in use; the server may have assigned it.
    client_id: String,
    supervisor: Supervisor,
    stage: Stage,
    /// CONNACK came once at least.
    pub(crate) was_connected: bool,
    pub(crate) tickets: HashMap<Token, Wait>,
    pub(crate) routes: Vec<Route>,
    keys: u64,
    /// What no subscription claims, if somebody listens to it.
    pub(crate) others: Option<VecDeque<Received>>,
    pub(crate) others_waker: Option<Waker>,
    /// Some queue is full.
    paused: bool,
    /// Bytes that must be in the input before it is worth a look.
    needed: usize,
    /// Publishers that wait for room.
    room: Vec<Waker>,
    /// Those who wait for the connection to change.
    watchers: Vec<Waker>,
    driver: Option<Waker>,
    /// Handles and subscriptions that are left.
    users: usize,
    /// Close by then.
    closing: Option<Instant>,
    /// Why the last connection, or attempt, ended.
    pub(crate) last_error: Option<Error>,
    /// What remained at the end.
    pub(crate) remained: Vec<Unsent>,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    start: std::time::Instant,
}

/// How long the last user's going leaves the driver to send what is pending.
const LINGER: Duration = Duration::from_secs(5);

/// The most that one write takes.
const WRITE_BATCH: usize = 256 << 10;

impl Hub {
    /// A hub without a connection.
    #[must_use]
    pub fn new(options: Options) -> Arc<Self> {
        let mut config = options.config;
        config.version = options.version;
        let mut client = Client::new(config, Heap);
        if options.assume_session {
            client.assume_session(&options.client_id);
        }
        let state = State {
            client,
            client_id: options.client_id.clone(),
            supervisor: Supervisor::new(options.back_off),
            options,
            stage: Stage::Down,
            was_connected: false,
            tickets: HashMap::new(),
            routes: Vec::new(),
            keys: 0,
            others: None,
            others_waker: None,
            paused: false,
            needed: 0,
            room: Vec::new(),
            watchers: Vec::new(),
            driver: None,
            users: 0,
            closing: None,
            last_error: None,
            remained: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            start: std::time::Instant::now(),
        })
    }

    /// A panic in a caller's waker must not take the others down: the state is sound after any call.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Who is to be woken when there is something to write, to read again, or to end.
    pub fn set_driver(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state
            .driver
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            state.driver = Some(waker.clone());
        }
    }

    /// What to do without a connection.
    #[must_use]
    pub fn next(&self) -> Step {
        let now = self.now();
        let mut state = self.lock();
        if state.is_done(now) {
            state.stop();
            return Step::Stop;
        }
        match state.supervisor.next(now) {
            Next::Dial => Step::Dial,
            Next::Wait(until) => {
                let until = state.closing.map_or(until, |by| by.min(until));
                Step::Wait(until.since(now).max(Duration::from_millis(1)))
            }
            Next::GiveUp => {
                state.stop();
                Step::Stop
            }
        }
    }

    /// The host and port to dial, and how long that may take.
    #[must_use]
    pub fn address(&self) -> (String, u16, Duration) {
        let state = self.lock();
        (
            state.options.host.clone(),
            state.options.port,
            state.options.dial_timeout,
        )
    }

    /// How long an attempt to dial may still go on, if the client is being closed: zero if it has nothing to send.
    #[must_use]
    pub fn closes_in(&self) -> Option<Duration> {
        let now = self.now();
        let state = self.lock();
        let by = state.closing?;
        Some(if state.is_done(now) {
            Duration::ZERO
        } else {
            by.since(now)
        })
    }

    /// A transport is open: CONNECT goes out.
    ///
    /// # Errors
    /// CONNECT cannot be written as the options say.
    pub fn opened(&self) -> Result<(), Error> {
        let now = self.now();
        let mut state = self.lock();
        let State {
            options,
            client,
            client_id,
            was_connected,
            ..
        } = &mut *state;
        let again = *was_connected && options.version.is_v5();
        let clean_start = client.must_start_clean() || (options.clean_start && !again);
        options.with_connect(clean_start, client_id, |connect| {
            client.connect(connect, now)
        })??;
        (state.stage, state.needed) = (Stage::Up, 0);
        Ok(())
    }

    /// The transport, or the attempt to open one, is gone.
    pub fn lost(&self, why: Error) {
        let now = self.now();
        let random = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(0);
        let mut state = self.lock();
        tracing::debug!(%why, "the connection is gone");
        state.client.disconnected();
        state.tell_ended(now);
        for route in &mut state.routes {
            match route.standing {
                Standing::Asked(_) => route.standing = Standing::Wanted,
                Standing::Leaving(_) => route.standing = Standing::Unwanted,
                _ => {}
            }
        }
        state.supervisor.lost(now, random);
        state.stage = Stage::Down;
        state.last_error = Some(why);
        state.wake_watchers();
        state.wake_publishers();
    }

    /// Moves what is outgoing to the end of `out`, which the driver then owns and writes.
    pub fn take(&self, out: &mut Vec<u8>) {
        let mut state = self.lock();
        while out.len() < WRITE_BATCH && !state.client.outgoing().is_empty() {
            let outgoing = state.client.outgoing();
            out.extend_from_slice(outgoing);
            let n = outgoing.len();
            state.client.sent(n);
        }
        state.wake_publishers();
    }

    /// Whether the connection is to be closed as soon as what is outgoing was written.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let state = self.lock();
        state.client.is_closing() && state.client.outgoing().is_empty()
    }

    /// Looks at the input; whole packets are used up, messages go to their subscriptions.
    ///
    /// # Errors
    /// The connection is over: write what is outgoing, then [`Self::lost`] with this error.
    pub fn input(&self, buffer: &mut BytesMut) -> Result<Flow, Error> {
        let now = self.now();
        let mut state = self.lock();
        if buffer.len() < state.needed && !state.client.has_ended() {
            return Ok(Flow::Read(state.needed));
        }
        let chunk = buffer.split().freeze();
        let mut at = 0;
        let flow = loop {
            if state.paused {
                break Ok(Flow::Paused);
            }
            match state
                .client
                .receive(chunk.get(at..).unwrap_or_default(), now)
            {
                Ok(mqtt_session::Step::Needs(needed)) => {
                    state.needed = needed;
                    break Ok(Flow::Read(needed));
                }
                Ok(mqtt_session::Step::Blocked) => break Ok(Flow::Paused),
                Ok(mqtt_session::Step::Packet { consumed, event }) => {
                    at += consumed;
                    if let Some(event) = event
                        && let Err(error) = state.on_event(event, &chunk, now)
                    {
                        break Err(error);
                    }
                }
                Err(closed) => break Err(closed.into()),
            }
        };
        if !matches!(flow, Ok(Flow::Read(_))) {
            state.needed = 0;
        }
        buffer.extend_from_slice(chunk.get(at..).unwrap_or_default());
        state.ask(now);
        state.wake_publishers();
        flow
    }

    /// Time passes: how long until this is to be called again, if at all.
    ///
    /// # Errors
    /// The connection is over, as for [`Self::input`].
    pub fn tick(&self) -> Result<Option<Duration>, Error> {
        let now = self.now();
        let mut state = self.lock();
        state.client.tick(now)?;
        state.ask(now);
        if state.is_done(now) && !state.client.is_closing() {
            if !state.client.is_connected() {
                return Err(Error::HandleClosed);
            }
            let _ = state.client.disconnect(&Disconnect::default());
        }
        let by = if state.client.is_closing() {
            None
        } else {
            state.closing
        };
        let deadline = match (state.client.deadline(), by) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok(deadline.map(|at| at.since(now)))
    }

    pub(crate) fn join(&self) {
        self.lock().users += 1;
    }

    pub(crate) fn leave(&self) {
        let now = self.now();
        let mut state = self.lock();
        state.users = state.users.saturating_sub(1);
        if state.users == 0 {
            state.close(now.after(LINGER));
        }
    }
}

impl State {
    fn is_done(&self, now: Instant) -> bool {
        self.closing
            .is_some_and(|by| self.client.pending() == 0 || now >= by)
    }

    pub(crate) const fn is_stopped(&self) -> bool {
        matches!(self.stage, Stage::Stopped)
    }

    pub(crate) fn close(&mut self, by: Instant) {
        self.closing = Some(self.closing.map_or(by, |known| known.min(by)));
        self.wake_driver();
    }

    pub(crate) const fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Everyone who waits is told that nothing more will come.
    fn stop(&mut self) {
        if self.is_stopped() {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.remained = self
            .client
            .unacknowledged_all()
            .map(|(_, publish)| Unsent {
                topic: text(publish.topic.as_bytes()),
                payload: publish.payload.to_vec(),
                qos: publish.qos(),
                retain: publish.retain,
            })
            .collect();
        self.stage = Stage::Stopped;
        let tokens: Vec<_> = self.tickets.keys().copied().collect();
        tokens
            .into_iter()
            .for_each(|token| self.end_ticket(token, Outcome::Closed));
        let why = self.last_error.clone().unwrap_or(Error::HandleClosed);
        self.routes
            .iter_mut()
            .for_each(|route| route.set(Standing::Over(Err(why.clone()))));
        self.wake_others();
        self.wake_watchers();
        self.wake_publishers();
    }

    pub(crate) fn publish(
        &mut self,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> Result<Option<Token>, Refused> {
        let token = self.client.publish(message, now)?;
        self.wake_driver();
        Ok(token)
    }

    fn on_event(&mut self, event: Event<'_>, chunk: &Bytes, now: Instant) -> Result<(), Error> {
        match event {
            Event::Message(incoming) => self.deliver(&incoming, chunk, now),
            Event::Acknowledged { token, reason, .. } => {
                self.end_ticket(token, Outcome::Acknowledged(reason))
            }
            Event::Connected {
                connack,
                resumed,
                unasked_session,
            } => {
                if unasked_session {
                    tracing::warn!(
                        "the server says session present after a clean connect; going on without"
                    );
                }
                if let Some(assigned) = connack.properties.assigned_client_identifier() {
                    assigned.clone_into(&mut self.client_id);
                }
                tracing::debug!(resumed, "connected");
                self.supervisor.connected(now);
                (self.was_connected, self.last_error) = (true, None);
                if !resumed {
                    for route in &mut self.routes {
                        match route.standing {
                            Standing::Granted(_) => route.standing = Standing::Wanted,
                            Standing::Unwanted => route.set(Standing::Over(Ok(Vec::new()))),
                            _ => {}
                        }
                    }
                }
                self.wake_watchers();
            }
            Event::Subscribed {
                token,
                suback,
                granted_more,
            } => {
                if granted_more {
                    tracing::warn!("the server granted more than was asked for");
                }
                let codes: Vec<_> = suback.codes.iter().collect();
                let refused = codes.iter().all(|code| code.is_error());
                self.answered(
                    Standing::Asked(token),
                    if refused {
                        Standing::Over(Ok(codes))
                    } else {
                        Standing::Granted(codes)
                    },
                );
            }
            Event::Unsubscribed { token, unsuback } => {
                let codes = unsuback.codes.iter().collect();
                self.answered(Standing::Leaving(token), Standing::Over(Ok(codes)));
            }
            Event::Ended { token, how } => self.ended(token, how),
            Event::Refused(connack) => return Err(Closed::Refused(connack.reason).into()),
            Event::Disconnected(disconnect) => return Err(Closed::ByPeer(disconnect.reason).into()),
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, was: Standing, now: Standing) {
        if let Some(route) = self.routes.iter_mut().find(|route| route.standing == was) {
            route.set(now);
        }
    }

    fn deliver(&mut self, incoming: &Incoming<'_>, chunk: &Bytes, now: Instant) {
        let Incoming { publish, receipt } = incoming;
        let topic = self.client.topic(publish);
        let limit = self.options.subscription_queue;
        let mut received = None;
        for route in self.routes.iter_mut().filter(|route| route.matches(topic)) {
            let received = received.get_or_insert_with(|| {
                Received::new(Message::share(publish, topic, chunk), *receipt)
            });
            route.queue.push_back(received.clone());
            self.paused |= route.queue.len() >= limit;
            route.wake();
        }
        if received.is_some() {
            return;
        }
        if let Some(queue) = &mut self.others {
            queue.push_back(Received::new(
                Message::share(publish, topic, chunk),
                *receipt,
            ));
            self.paused |= queue.len() >= limit;
            self.wake_others();
            return;
        }
        tracing::warn!(%topic, "nobody listens to this message");
        if let Some(receipt) = *receipt {
            let _ = self.client.acknowledge(receipt, ReasonCode::Success, now);
        }
    }

    fn ended(&mut self, token: Token, how: Ended) {
        let outcome = match how {
            Ended::Dropped => Outcome::Dropped,
            Ended::TooLarge => Outcome::TooLarge,
            Ended::Sent => Outcome::Acknowledged(ReasonCode::Success),
            Ended::InDoubt | Ended::Lost => Outcome::InDoubt,
        };
        self.end_ticket(token, outcome);
    }

    /// Ends that no packet told, after the connection is gone.
    fn tell_ended(&mut self, now: Instant) {
        while let Ok(mqtt_session::Step::Packet {
            event: Some(Event::Ended { token, how }),
            ..
        }) = self.client.receive(&[], now)
        {
            self.ended(token, how);
        }
    }

    fn end_ticket(&mut self, token: Token, outcome: Outcome) {
        if let Some(wait) = self.tickets.get_mut(&token)
            && let Wait::For(Some(waker)) = std::mem::replace(wait, Wait::Over(outcome))
        {
            waker.wake();
        }
    }

    /// A new subscription to be asked for, or an old one to be given up, now or when there is a connection.
    pub(crate) fn add_route(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: &Properties<'_>,
        standing: Standing,
        now: Instant,
    ) -> u64 {
        self.keys += 1;
        self.routes
            .push(Route::new(self.keys, subscriptions, properties, standing));
        self.ask(now);
        self.wake_driver();
        self.keys
    }

    /// Sends the SUBSCRIBE and UNSUBSCRIBE that wait, as far as there is room.
    pub(crate) fn ask(&mut self, now: Instant) {
        if !self.client.is_connected() {
            return;
        }
        for route in &mut self.routes {
            let asked = match route.standing {
                Standing::Wanted => {
                    let properties = route.properties();
                    self.client
                        .subscribe(
                            &route.subscriptions(),
                            Properties::from(&properties[..]),
                            now,
                        )
                        .map(Standing::Asked)
                }
                Standing::Unwanted => self
                    .client
                    .unsubscribe(&route.filters(), Properties::EMPTY, now)
                    .map(Standing::Leaving),
                _ => continue,
            };
            match asked {
                Ok(standing) => route.standing = standing,
                Err(Refused::Full | Refused::Offline) => return,
                Err(refused) => route.set(Standing::Over(Err(refused.into()))),
            }
        }
    }

    pub(crate) fn route(&mut self, key: u64) -> Option<&mut Route> {
        self.routes.iter_mut().find(|route| route.key == key)
    }

    /// A subscription is given up without telling the server.
    pub(crate) fn forget_route(&mut self, key: u64) {
        self.routes.retain(|route| route.key != key);
        self.taken();
    }

    /// Messages were taken: reading may go on once all queues are half empty.
    pub(crate) fn taken(&mut self) {
        if !self.paused {
            return;
        }
        let half = self.options.subscription_queue / 2;
        let others = self.others.as_ref().map_or(0, VecDeque::len);
        if others <= half && self.routes.iter().all(|route| route.queue.len() <= half) {
            self.paused = false;
            self.wake_driver();
        }
    }

    pub(crate) fn wait_for_room(&mut self, waker: &Waker) {
        remember(&mut self.room, waker);
    }

    pub(crate) fn watch(&mut self, waker: &Waker) {
        remember(&mut self.watchers, waker);
    }

    fn wake_publishers(&mut self) {
        self.room.drain(..).for_each(Waker::wake);
    }

    fn wake_watchers(&mut self) {
        self.watchers.drain(..).for_each(Waker::wake);
    }

    fn wake_others(&mut self) {
        if let Some(waker) = self.others_waker.take() {
            waker.wake();
        }
    }

    /// Wakes the driver once; it registers again when it looks.
    pub(crate) fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

fn remember(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}
