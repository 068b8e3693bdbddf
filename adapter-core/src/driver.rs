//! What all async runtimes have in common: [`drive`] is the task behind a handle, [`Connection`] the bare connection. A
//! runtime lends its transports and its timer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mqtt_proto::{Connect, Disconnect};
use mqtt_session::{Client, Config, Event, Heap, Instant};

use crate::{Error, Flow, Hub, Step};

/// A transport of an async runtime.
pub trait Transport: Unpin {
    /// Reads behind what is in the buffer, into room that is there; how many bytes, 0 at the end.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut)
    -> Poll<io::Result<usize>>;

    /// Writes some of the bytes; how many.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Sends what it holds back.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Flushes; nothing more is written.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A transport over TCP.
pub trait Tcp: Transport + Sized {
    /// Connects to an address such as `127.0.0.1:1883`; small packets do not wait for others.
    ///
    /// # Errors
    /// It cannot connect.
    fn dial(address: &str) -> impl Future<Output = io::Result<Self>> + Send;
}

/// A timer of an async runtime, and its clock.
pub trait Timer: Unpin {
    /// One that is ready after `span`.
    fn after(span: Duration) -> Self;

    /// Ready after `span` from now.
    fn reset(&mut self, span: Duration);

    /// Whether its time has come; wakes when it does.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// How long ago it was made.
    fn elapsed(&self) -> Duration;
}

/// Dials, reads, writes and sleeps as the hub says, until all its handles are gone. Spawn it.
pub async fn drive<T, D, F, W>(hub: Arc<Hub>, mut dial: D)
where
    T: Timer,
    D: FnMut() -> F,
    F: Future<Output = io::Result<W>>,
    W: Transport,
{
    loop {
        match hub.next() {
            Step::Stop => return,
            Step::Wait(span) => wait::<T>(&hub, span).await,
            Step::Dial => {
                let (_, _, limit) = hub.address();
                let mut closed = pin!(closed::<T>(&hub));
                let mut dialled = pin!(timeout::<T, _>(limit, dial()));
                let dialled = poll_fn(|cx| match closed.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => dialled.as_mut().poll(cx).map(Some),
                });
                let why = match dialled.await {
                    None => Error::HandleClosed,
                    Some(Some(Ok(transport))) => serve::<T, _>(&hub, transport).await,
                    Some(Some(Err(error))) => error.into(),
                    Some(None) => Error::timed_out("dialling"),
                };
                hub.lost(why);
            }
        }
    }
}

/// What `future` gives, unless it takes longer than `span`.
pub async fn timeout<T: Timer, F: Future>(span: Duration, future: F) -> Option<F::Output> {
    let (mut timer, mut future) = (T::after(span), pin!(future));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.poll(cx).map(|()| None),
    })
    .await
}

/// Ends after `span`, or when the hub has something new.
async fn wait<T: Timer>(hub: &Hub, span: Duration) {
    let mut woken = false;
    let news = poll_fn(|cx| {
        hub.set_driver(cx.waker());
        if std::mem::replace(&mut woken, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let _ = timeout::<T, _>(span, news).await;
}

/// Ends when the client is to be closed and need not be connected for it any more.
async fn closed<T: Timer>(hub: &Hub) {
    loop {
        match hub.closes_in() {
            Some(Duration::ZERO) => return,
            Some(left) => wait::<T>(hub, left).await,
            None => wait::<T>(hub, Duration::MAX).await,
        }
    }
}

/// Serves one transport until its end, and says why it ended.
async fn serve<T: Timer, W: Transport>(hub: &Hub, transport: W) -> Error {
    if let Err(error) = hub.opened() {
        return error;
    }
    let mut pump = Pump {
        hub,
        transport,
        input: BytesMut::new(),
        output: Vec::new(),
        written: 0,
        paused: false,
        timer: T::after(Duration::ZERO),
    };
    let why = poll_fn(|cx| pump.poll(cx)).await;
    // What a violation or DISCONNECT left behind still goes out, if the transport takes it soon.
    hub.take(&mut pump.output);
    let rest = pump.output.get(pump.written..).unwrap_or_default();
    let transport = &mut pump.transport;
    let goodbye = async {
        write_all(transport, rest).await?;
        poll_fn(|cx| transport.poll_close(cx)).await
    };
    let _ = timeout::<T, _>(Duration::from_secs(1), goodbye).await;
    why
}

async fn write_all(transport: &mut impl Transport, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| transport.poll_write(cx, bytes)).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(n..).unwrap_or_default();
    }
    Ok(())
}

struct Pump<'a, W, T> {
    hub: &'a Hub,
    transport: W,
    input: BytesMut,
    output: Vec<u8>,
    written: usize,
    paused: bool,
    timer: T,
}

/// The most that one read of a handle takes.
const READ: usize = 64 << 10;
/// The most that one read of a bare connection takes.
const READ_BARE: usize = 16 << 10;

impl<W: Transport, T: Timer> Pump<'_, W, T> {
    /// Does all that can be done now; ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match self.work(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.hub.set_driver(cx.waker());
        if self.paused {
            self.look()?;
        }
        loop {
            let wrote = self.write(cx)?;
            if self.hub.is_finished() && self.output.is_empty() {
                return Err(Error::HandleClosed);
            }
            let read = !self.paused && self.read(cx)?;
            if !wrote && !read {
                if let Some(span) = self.hub.tick()? {
                    self.timer.reset(span);
                    if self.timer.poll(cx).is_ready() {
                        continue;
                    }
                }
                // The tick may have made a ping or a DISCONNECT.
                if !self.write(cx)? {
                    return Ok(());
                }
            }
        }
    }

    /// Whether something was written.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut wrote = false;
        loop {
            if self.output.is_empty() {
                self.hub.take(&mut self.output);
                if self.output.is_empty() {
                    return Ok(wrote);
                }
            }
            let rest = self.output.get(self.written..).unwrap_or_default();
            match self.transport.poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(n) => {
                    self.written += n;
                    wrote = true;
                    if self.written == self.output.len() {
                        self.output.clear();
                        self.written = 0;
                        let _ = self.transport.poll_flush(cx)?;
                        // A message that waited for room is better awaited than written alone.
                        return Ok(wrote);
                    }
                }
                Poll::Pending => return Ok(wrote),
            }
        }
    }

    /// Whether something was read.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        self.input.reserve(READ);
        match self.transport.poll_fill(cx, &mut self.input)? {
            Poll::Ready(0) => Err(Error::end_of_file()),
            Poll::Ready(_) => {
                self.look()?;
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    fn look(&mut self) -> Result<(), Error> {
        self.paused = self.hub.input(&mut self.input)? == Flow::Paused;
        Ok(())
    }
}

/// A client on one transport. When the transport is gone, [`Self::into_client`] gives the session back for the next.
///
/// All methods are cancel-safe: what was read or written is accounted for before anything is awaited again.
#[derive(Debug)]
pub struct Connection<W, T> {
    transport: W,
    client: Client<Heap>,
    input: BytesMut,
    /// Bytes at the front of `input` that the last event borrowed.
    consumed: usize,
    /// The machine wants something written before it takes more.
    blocked: bool,
    timer: T,
}

impl<W: Tcp, T: Timer> Connection<W, T> {
    /// Connects by TCP and sends CONNECT. The first event is [`Event::Connected`] or [`Event::Refused`].
    ///
    /// # Errors
    /// The transport cannot be opened, or CONNECT cannot be written.
    pub async fn dial(address: &str, connect: &Connect<'_>, config: Config) -> Result<Self, Error> {
        let transport = W::dial(address).await?;
        Self::new(transport, Client::new(config, Heap), connect)
    }
}

impl<W: Transport, T: Timer> Connection<W, T> {
    /// Begins a connection on a fresh transport, with a new client or one that has a session. Must be called within a
    /// runtime, if its timer needs one.
    ///
    /// # Errors
    /// CONNECT cannot be written.
    pub fn new(
        transport: impl Into<W>,
        mut client: Client<Heap>,
        connect: &Connect<'_>,
    ) -> Result<Self, Error> {
        let transport = transport.into();
        let timer = T::after(Duration::ZERO);
        client.connect(connect, Instant::from_millis(0))?;
        Ok(Self {
            transport,
            client,
            input: BytesMut::new(),
            consumed: 0,
            blocked: false,
            timer,
        })
    }

    /// The machine: publish, subscribe, acknowledge. What it has to say goes out with the next [`Self::next`] or
    /// [`Self::flush`].
    pub const fn client(&mut self) -> &mut Client<Heap> {
        &mut self.client
    }

    /// The machine's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.timer.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The next step of the machine: its event, if it has one, and the machine to answer it with while the event is held.
    ///
    /// # Errors
    /// The connection is over; [`Self::disconnect`] still says why to the server.
    pub async fn next(&mut self) -> Result<(Option<Event<'_>>, &mut Client<Heap>), Error> {
        self.input.advance(std::mem::take(&mut self.consumed));
        poll_fn(|cx| self.poll_ready(cx)).await?;
        let now = self.now();
        match self.client.receive(&self.input, now)? {
            mqtt_session::Step::Packet { consumed, event } => {
                self.consumed = consumed;
                Ok((event, &mut self.client))
            }
            mqtt_session::Step::Needs(_) => Ok((None, &mut self.client)),
            mqtt_session::Step::Blocked => {
                self.blocked = true;
                Ok((None, &mut self.client))
            }
        }
    }

    /// Writes all that is outgoing.
    ///
    /// # Errors
    /// The transport fails.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| {
            while !self.client.outgoing().is_empty() {
                ready!(self.poll_write(cx))?;
            }
            self.transport.poll_flush(cx).map_err(Error::from)
        })
        .await
    }

    /// Says DISCONNECT, writes all that is outgoing and closes the transport. The session stays in the client.
    ///
    /// # Errors
    /// The transport fails.
    pub async fn disconnect(mut self) -> Result<Client<Heap>, Error> {
        let _ = self.client.disconnect(&Disconnect::default());
        self.flush().await?;
        poll_fn(|cx| self.transport.poll_close(cx)).await?;
        Ok(self.into_client())
    }

    /// Gives the transport up and the session back, for the next connection.
    #[must_use]
    pub fn into_client(mut self) -> Client<Heap> {
        self.client.disconnected();
        self.client
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let written = ready!(self.transport.poll_write(cx, self.client.outgoing()))?;
        if written == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
        }
        self.client.sent(written);
        self.blocked = false;
        Poll::Ready(Ok(()))
    }

    /// Writes, reads and keeps time until the machine has something to look at.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            while !self.client.outgoing().is_empty() {
                match self.poll_write(cx) {
                    Poll::Ready(done) => done?,
                    Poll::Pending => break,
                }
            }
            if !self.blocked && self.client.needs(&self.input).is_none() {
                return Poll::Ready(Ok(()));
            }
            let now = self.now();
            self.client.tick(now)?;
            if !self.client.outgoing().is_empty() && !self.blocked {
                // The tick made a ping; if the transport does not take it, the read below waits all the same.
                if self.poll_write(cx)?.is_ready() {
                    continue;
                }
            }
            if !self.blocked && self.poll_read(cx)?.is_ready() {
                continue;
            }
            if let Some(deadline) = self.client.deadline() {
                self.timer.reset(deadline.since(self.now()));
                if self.timer.poll(cx).is_ready() {
                    continue;
                }
            }
            return Poll::Pending;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.input.reserve(READ_BARE);
        if ready!(self.transport.poll_fill(cx, &mut self.input))? == 0 {
            return Poll::Ready(Err(Error::end_of_file()));
        }
        // The machine learns when all there was is looked at, for its judgement of silence.
        if self.client.needs(&self.input).is_some() {
            let now = self.now();
            let _ = self.client.receive(&self.input, now)?;
        }
        Poll::Ready(Ok(()))
    }
}
