//! Holds an agent behind a lock, and the wakers of all futures that wait for the agent. A driver (a task or a pair of threads)
//! moves bytes and asks the hub for the next action. Hub and driver contain no rule of MQTT.

use std::collections::HashMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use mqtt_agent::{
    Agent, AgentEvent, Credentials, CredentialsSource, Error, Flow, Message, NextDial, Options,
    RequestId, RouteId, Scheme,
};
use mqtt_proto::ReasonCode;
use mqtt_session::Instant;

use crate::clock;
use crate::driver::{cannot_connect, transport_failed};
use crate::events::EventLog;
#[cfg(feature = "store")]
use crate::storage::Storage;
use crate::tickets::Tickets;
use crate::unreached::{at_server, host_port, reset, unanswered};
#[cfg(feature = "store")]
use crate::waiters::Place;
use crate::waiters::{RoomPlace, Waiters};

/// Bytes for the driver to write: a copy of the outgoing bytes, so that the driver does not hold the lock during a write.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    written: usize,
    /// How many of the written bytes were reported to the agent.
    reported: usize,
}

impl Output {
    /// Returns the bytes that are not written yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Notes that the transport took the first `n` bytes of [`Self::rest`].
    pub fn wrote(&mut self, n: usize) {
        self.written = self.written.saturating_add(n).min(self.bytes.len());
    }
}

/// The answers of a stream, and the wakers of the futures that wait for it.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    pub(crate) waiters: Waiters,
    /// The server's answer to SUBSCRIBE.
    pub(crate) subscribed: Option<Result<Vec<ReasonCode>, Error>>,
    /// The server's answer to UNSUBSCRIBE.
    pub(crate) unsubscribed: Option<Vec<ReasonCode>>,
}

/// The response of a request, or the waker of the future that waits for it.
#[derive(Debug, Default)]
pub(crate) struct ResponseState {
    pub(crate) waker: Option<Waker>,
    pub(crate) response: Option<Result<Message, Error>>,
}

#[derive(Debug)]
pub(crate) struct HubState {
    pub(crate) agent: Agent,
    pub(crate) tickets: Tickets,
    pub(crate) streams: HashMap<Option<RouteId>, StreamState>,
    pub(crate) requests: HashMap<RequestId, ResponseState>,
    pub(crate) log: EventLog,
    /// Wakers of publishers that wait for room, or for bytes to reach the transport.
    room: Waiters,
    /// Wakers of futures that wait for a change of the connection.
    pub(crate) watchers: Waiters,
    driver: Option<Waker>,
    #[cfg(feature = "store")]
    driver_place: Place,
    /// The waker of a driver that is to be woken without the lock.
    woken_driver: Option<Waker>,
    /// The wakers of futures that are to be woken without the lock.
    woken: Vec<Waker>,
    /// How many handles and streams exist.
    users: usize,
    /// How many streams take the unclaimed messages.
    pub(crate) others: usize,
    #[cfg(feature = "store")]
    pub(crate) storage: Option<Storage>,
}

/// An agent behind a lock.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<HubState>,
    start: clock::Instant,
}

/// Stops the client when it is dropped, because its driver has ended: a function of the program panicked in it, or its task was
/// cancelled. The futures that wait for the client end then. After an orderly end the client is stopped already.
#[derive(Debug)]
#[must_use = "dropping it stops the client"]
pub struct Driving(Arc<Hub>);

impl Driving {
    /// Makes the guard of a driver.
    pub const fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

impl Deref for Driving {
    type Target = Hub;

    fn deref(&self) -> &Hub {
        &self.0
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        let why = if std::thread::panicking() {
            Error::Panicked
        } else {
            Error::Stopped
        };
        let now = self.0.now();
        self.0.with(|agent| agent.abandon(why, now));
    }
}

/// The state under the lock. Wakers are called after the unlock: an executor that has ended drops its task then, and with it
/// [`Driving`], which locks the hub, and the waker of another future may call a handle.
#[derive(Debug)]
pub(crate) struct Locked<'h> {
    // The fields are dropped in this order.
    state: MutexGuard<'h, HubState>,
    /// The futures are woken before the driver, so that its next write has the messages of publishers that waited.
    wakes_futures: WakeLater<Vec<Waker>>,
    wakes_driver: WakeLater<Option<Waker>>,
}

/// Wakes when it is dropped.
#[derive(Debug)]
struct WakeLater<W: Default + IntoIterator<Item = Waker>>(W);

impl<W: Default + IntoIterator<Item = Waker>> Drop for WakeLater<W> {
    fn drop(&mut self) {
        std::mem::take(&mut self.0)
            .into_iter()
            .for_each(Waker::wake);
    }
}

impl Deref for Locked<'_> {
    type Target = HubState;

    fn deref(&self) -> &HubState {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut HubState {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.wakes_futures = WakeLater(std::mem::take(&mut self.state.woken));
        self.wakes_driver = WakeLater(self.state.woken_driver.take());
    }
}

/// How long the driver sends pending messages after the last handle and stream were dropped.
pub const LINGER: Duration = Duration::from_secs(5);

/// How many bytes one write takes at most.
const WRITE_BATCH: usize = 256 << 10;

impl Hub {
    /// Makes a hub without a connection. Opens the store of the options in the calling thread, if they have one.
    #[must_use]
    pub fn new(options: Options) -> Arc<Self> {
        #[cfg(feature = "store")]
        let (agent, storage) = Storage::open(options);
        #[cfg(not(feature = "store"))]
        let agent = Agent::new(options);
        let mut state = HubState {
            agent,
            tickets: Tickets::default(),
            streams: HashMap::new(),
            requests: HashMap::new(),
            log: EventLog::default(),
            room: Waiters::default(),
            watchers: Waiters::default(),
            driver: None,
            #[cfg(feature = "store")]
            driver_place: Place::NONE,
            woken_driver: None,
            woken: Vec::new(),
            users: 0,
            others: 0,
            #[cfg(feature = "store")]
            storage,
        };
        // If the store cannot be opened, the client is already stopped.
        state.settle();
        Arc::new(Self {
            state: Mutex::new(state),
            start: clock::Instant::now(),
        })
    }

    /// Ignores a poisoned lock: if the waker of a caller panics, the state is still valid.
    pub(crate) fn lock(&self) -> Locked<'_> {
        let state = self.state.lock();
        Locked {
            state: state.unwrap_or_else(std::sync::PoisonError::into_inner),
            wakes_futures: WakeLater(Vec::new()),
            wakes_driver: WakeLater(None),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the time from now until `at`.
    #[must_use]
    pub fn until(&self, at: Instant) -> Duration {
        at.since(self.now())
    }

    /// Sets the waker of the driver. It is called when there are bytes to write, when reading resumes, or when the connection is
    /// to end.
    pub fn set_driver(&self, waker: &Waker) {
        let mut state = self.lock();
        let known = state.driver.as_ref();
        if !known.is_some_and(|known| known.will_wake(waker)) {
            state.driver = Some(waker.clone());
        }
        state.driver_waits_for_storage(waker);
    }

    /// Returns when the driver is to open a transport.
    #[must_use]
    pub fn next_dial(&self) -> NextDial {
        let now = self.now();
        self.with(|agent| agent.next_dial(now))
    }

    /// Returns the time limit for opening a transport.
    #[must_use]
    pub fn dial_timeout(&self) -> Duration {
        self.lock().agent.options().dial_timeout
    }

    /// Returns the name of the server, for an error.
    pub(crate) fn server(&self) -> String {
        let state = self.lock();
        let options = state.agent.options();
        match options.scheme {
            Scheme::Unix => options.path.clone(),
            _ => host_port(&options.host, options.port),
        }
    }

    /// Makes the error for a transport that failed. Before CONNACK the server cannot be reached, and the error names it: in TLS 1.3
    /// the server refuses a client certificate, or the lack of one, after the handshake has ended for the client.
    #[must_use]
    pub fn transport_failed(&self, error: io::Error) -> Error {
        let state = self.lock();
        if state.log.has_connection {
            return transport_failed(error);
        }
        let error = reset(error, state.agent.options().scheme);
        drop(state);
        cannot_connect(at_server(|| self.server(), error))
    }

    /// Names the server in the error of a connection that ended before CONNACK. Returns an error with a reason code unchanged, and one that
    /// names the server already.
    fn named(&self, why: Error) -> Error {
        let state = self.lock();
        if state.log.has_connection {
            return why;
        }
        let error = unanswered(&why, state.agent.options());
        drop(state);
        match error {
            Some(error) => self.transport_failed(error),
            None => why,
        }
    }

    /// Returns the source of the credentials for the next attempt.
    #[must_use]
    pub fn credentials(&self) -> Option<CredentialsSource> {
        self.lock().agent.options().credentials.clone()
    }

    /// Sets the credentials of the next attempt.
    pub fn set_credentials(&self, credentials: Credentials) {
        self.lock().agent.set_credentials(credentials);
    }

    /// Returns whether the driver is to stop opening a transport because the client is closed.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        let now = self.now();
        self.with(|agent| {
            let _ = agent.tick(now);
            agent.is_stopped()
        })
    }

    /// Returns after what time [`Self::is_given_up`] may change while a transport is being opened.
    #[must_use]
    pub fn gives_up_in(&self) -> Option<Duration> {
        let now = self.now();
        self.lock().agent.deadline().map(|at| at.since(now))
    }

    /// Starts a connection on an open transport: afterwards CONNECT is outgoing.
    ///
    /// # Errors
    /// The options do not make a valid CONNECT, or the client is closed.
    pub fn opened(&self) -> Result<(), Error> {
        let now = self.now();
        self.with(|agent| agent.opened(now))
    }

    /// Ends the connection, or the attempt to open one.
    pub fn lost(&self, why: Error) {
        let why = self.named(why);
        let now = self.now();
        let random = clock::random();
        let mut state = self.lock();
        state.agent.lost(why, now, random);
        state.settle();
        state.wake_publishers();
    }

    /// Tells the agent how many bytes were written. If all of `output` was written, copies the next outgoing bytes.
    pub fn refill(&self, output: &mut Output) {
        let mut state = self.lock();
        state.sync_storage();
        let wrote = output.written.saturating_sub(output.reported);
        if wrote > 0 {
            state.agent.sent(wrote);
            output.reported = output.written;
            state.settle();
            state.wake_publishers();
        }
        if output.rest().is_empty() {
            output.bytes.clear();
            (output.written, output.reported) = (0, 0);
            let outgoing = state.agent.outgoing();
            let batch = outgoing.get(..WRITE_BATCH).unwrap_or(outgoing);
            output.bytes.extend_from_slice(batch);
        }
    }

    /// Returns whether the driver is to close the transport because everything is written.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.lock().agent.is_finished()
    }

    /// Handles and removes the complete packets at the front of the input.
    ///
    /// # Errors
    /// The connection is over: write the outgoing bytes, then call [`Self::lost`] with this error.
    pub fn input(&self, input: &mut BytesMut) -> Result<Flow, Error> {
        let now = self.now();
        let mut state = self.lock();
        state.sync_storage();
        let flow = state.agent.receive(input, now);
        state.settle();
        state.wake_publishers();
        flow
    }

    /// Tells the agent the time. Returns after what time to call this again; `None` if that is not needed.
    ///
    /// # Errors
    /// The connection is over, as for [`Self::input`].
    pub fn tick(&self) -> Result<Option<Duration>, Error> {
        let now = self.now();
        self.with(|agent| {
            agent.tick(now)?;
            Ok(agent.deadline().map(|at| at.since(now)))
        })
    }

    /// Calls `work` with the agent, then handles the events of the agent, which wakes the futures that wait for them.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Agent) -> R) -> R {
        let mut state = self.lock();
        state.sync_storage();
        let result = work(&mut state.agent);
        state.settle();
        result
    }

    pub(crate) fn join(&self) {
        self.lock().users += 1;
    }

    pub(crate) fn leave(&self) {
        let now = self.now();
        let mut state = self.lock();
        state.users = state.users.saturating_sub(1);
        if state.users == 0 {
            state.close(now.after(LINGER), now);
        }
    }
}

impl HubState {
    pub(crate) fn close(&mut self, by: Instant, now: Instant) {
        self.agent.close(by, now);
        self.settle();
        self.wake_driver();
    }

    /// Prepares to store the answer to a SUBSCRIBE or UNSUBSCRIBE. Must be called under the same lock as the call of the agent,
    /// because the answer may arrive as soon as the lock is released.
    pub(crate) fn expect_answer(&mut self, id: RouteId) {
        self.streams.insert(Some(id), StreamState::default());
        self.settle();
        self.wake_driver();
    }

    /// Passes the events of the agent to the futures and streams that wait for them.
    pub(crate) fn settle(&mut self) {
        self.give_records();
        let undelivered = self.tickets.undelivered;
        while let Some(event) = self.agent.next_event() {
            match event {
                AgentEvent::Published(token, outcome) => {
                    self.woken.extend(self.tickets.end(token, outcome));
                }
                AgentEvent::Messages(from) => self.wake_stream(from),
                AgentEvent::Subscribed(id, codes) => self.answered(id, Ok(codes)),
                AgentEvent::SubscribeFailed(id, error) => self.answered(id, Err(error)),
                AgentEvent::Unsubscribed(id, codes) => {
                    if let Some(waiting) = self.streams.get_mut(&Some(id)) {
                        waiting.unsubscribed = Some(codes);
                    }
                    self.wake_stream(Some(id));
                }
                AgentEvent::Response(id, response) => {
                    if let Some(requested) = self.requests.get_mut(&id) {
                        requested.response = Some(response);
                        self.woken.extend(requested.waker.take());
                    }
                }
                AgentEvent::Connection(event) => {
                    let failures = self.agent.failures();
                    self.log.push(event, failures);
                    self.woken.extend(self.watchers.take());
                    if self.agent.is_stopped() {
                        self.stopped();
                    }
                }
                _ => {}
            }
        }
        let undelivered = self.tickets.undelivered.saturating_sub(undelivered);
        if undelivered > 0 {
            tracing::warn!("not delivered: {undelivered} messages without a ticket");
        }
    }

    fn answered(&mut self, id: RouteId, answer: Result<Vec<ReasonCode>, Error>) {
        if let Some(waiting) = self.streams.get_mut(&Some(id)) {
            waiting.subscribed.get_or_insert(answer);
        }
        self.wake_stream(Some(id));
    }

    fn wake_stream(&mut self, from: Option<RouteId>) {
        if let Some(waiting) = self.streams.get_mut(&from) {
            self.woken.extend(waiting.waiters.take());
        }
    }

    /// Ends all waiting futures and streams because the client has stopped.
    fn stopped(&mut self) {
        self.tickets.close(&mut self.woken);
        for waiting in self.streams.values_mut() {
            self.woken.extend(waiting.waiters.take());
        }
        self.wake_publishers();
        self.wake_driver();
    }

    pub(crate) fn wait_for_room(&mut self, place: &mut RoomPlace, waker: &Waker) {
        self.room.wait(&mut place.room, waker);
        #[cfg(feature = "store")]
        if let Some(storage) = &self.storage {
            storage.wait(&mut place.storage, waker);
        }
    }

    /// Removes the wakers of a future that is dropped.
    pub(crate) fn leave_room(&mut self, place: &RoomPlace) -> [Option<Waker>; 2] {
        #[cfg(feature = "store")]
        let storage = self.storage.as_ref();
        #[cfg(feature = "store")]
        let stored = storage.and_then(|storage| storage.leave(&place.storage));
        #[cfg(not(feature = "store"))]
        let stored = None;
        [self.room.leave(&place.room), stored]
    }

    /// Gives new records to the thread of the store.
    fn give_records(&mut self) {
        #[cfg(feature = "store")]
        if let Some(storage) = &mut self.storage {
            storage.give(&self.agent);
        }
    }

    /// Tells the agent which records are stored.
    pub(crate) fn sync_storage(&mut self) {
        #[cfg(feature = "store")]
        if let Some(storage) = &mut self.storage
            && storage.report_progress(&mut self.agent)
        {
            self.wake_publishers();
            self.settle();
        }
    }

    /// Wakes the driver when more records are stored.
    #[cfg_attr(
        not(feature = "store"),
        allow(clippy::unused_self, reason = "there is no store")
    )]
    fn driver_waits_for_storage(&mut self, waker: &Waker) {
        #[cfg(feature = "store")]
        if let Some(storage) = &self.storage {
            storage.wait(&mut self.driver_place, waker);
        }
        let _ = waker;
    }

    fn wake_publishers(&mut self) {
        self.woken.extend(self.room.take());
    }

    /// Wakes the driver after the unlock, and removes its waker. The driver sets it again when it polls.
    pub(crate) fn wake_driver(&mut self) {
        self.give_records();
        self.woken_driver = self.driver.take().or_else(|| self.woken_driver.take());
    }
}
