//! Drives an agent in an async runtime: [`drive`] is the task behind a handle. A runtime provides its transports and its timer.

use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use mqtt_agent::{Error, Flow, NextDial, Options};

use crate::handle::Handle;
use crate::hub::{Driving, Hub, Output};
use crate::unreached::at_server;

/// A transport of an async runtime.
pub trait Transport: Unpin {
    /// Reads into the free room behind the content of the buffer. Returns how many bytes were read, 0 at the end of the
    /// stream.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut)
    -> Poll<io::Result<usize>>;

    /// Writes some of the bytes. Returns how many.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Writes some of the bytes of several slices, in their order. Returns how many. By default it takes the first slice only.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[], |slice| slice))
    }

    /// Sends the bytes that the transport has buffered.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Flushes, and ends the stream of written bytes.
    ///
    /// # Errors
    /// The transport fails.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A transport over TCP.
pub trait Tcp: Transport + Sized {
    /// Connects to an address such as `127.0.0.1:1883`, without delay for small packets (`TCP_NODELAY`).
    ///
    /// # Errors
    /// It cannot connect.
    fn dial(address: &str) -> impl Future<Output = io::Result<Self>> + Send;
}

/// The timer and the clock of an async runtime.
pub trait Timer: Unpin {
    /// Makes a timer that is ready after `span`.
    fn after(span: Duration) -> Self;

    /// Makes the timer ready after `span` from now.
    fn reset(&mut self, span: Duration);

    /// Returns ready at the time of the timer, and wakes the task then.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Returns the time since the timer was made.
    fn elapsed(&self) -> Duration;
}

/// Makes a client: its handle, and its driver, which the adapter spawns as a task.
pub fn client<T, D, F, W>(options: Options, dial: D) -> (Handle, impl Future<Output = ()>)
where
    T: Timer,
    D: FnMut() -> F,
    F: Future<Output = io::Result<W>>,
    W: Transport,
{
    let hub = Hub::new(options);
    let handle = Handle::new(&hub);
    // The guard belongs to the future from the start, so that a driver that never runs ends the client as well.
    (handle, drive::<T, _, _, _>(Driving::new(hub), dial))
}

/// Returns the handle of an adapter when its client has connected.
///
/// # Errors
/// The first attempt failed.
pub async fn connected<H: Deref<Target = Handle>>(handle: H) -> Result<H, Error> {
    handle.first_attempt().await?;
    Ok(handle)
}

/// Dials, reads, writes and sleeps for the agent until all handles are dropped. The adapter spawns this future as a task. The client
/// stops when the future is dropped.
pub async fn drive<T, D, F, W>(hub: Driving, mut dial: D)
where
    T: Timer,
    D: FnMut() -> F,
    F: Future<Output = io::Result<W>>,
    W: Transport,
{
    loop {
        wake_by(&hub).await;
        match hub.next_dial() {
            NextDial::Never => return,
            NextDial::At(until) => wait::<T>(hub.until(until)).await,
            NextDial::Now => {
                let mut given_up = pin!(closed_without_connection::<T>(&hub));
                let mut opened = pin!(open::<T, _, _, _>(&hub, &mut dial));
                let opened = poll_fn(|cx| match given_up.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(Error::Stopped)),
                    Poll::Pending => opened.as_mut().poll(cx),
                });
                let why = match opened.await {
                    Ok(transport) => serve::<T, _>(&hub, transport).await,
                    Err(error) => error,
                };
                hub.lost(why);
            }
        }
    }
}

/// Gets new credentials if the options have a source of credentials, and opens a transport.
async fn open<T, D, F, W>(hub: &Hub, dial: &mut D) -> Result<W, Error>
where
    T: Timer,
    D: FnMut() -> F,
    F: Future<Output = io::Result<W>>,
{
    let limit = hub.dial_timeout();
    if let Some(source) = hub.credentials() {
        let credentials = timeout::<T, _>(limit, source.ask()).await;
        hub.set_credentials(credentials.ok_or(Error::TimedOut("asking for credentials"))??);
    }
    match timeout::<T, _>(limit, dial()).await {
        Some(Ok(transport)) => Ok(transport),
        Some(Err(error)) => Err(cannot_connect(error)),
        None => {
            let why = "opening the connection took too long";
            let why = io::Error::new(io::ErrorKind::TimedOut, why);
            Err(cannot_connect(at_server(|| hub.server(), why)))
        }
    }
}

/// Makes the error for a transport that could not be opened.
#[must_use]
pub fn cannot_connect(error: io::Error) -> Error {
    Error::Transport("cannot connect", Arc::new(error))
}

/// Makes the error for a transport that failed.
#[must_use]
pub fn transport_failed(error: io::Error) -> Error {
    Error::Transport("the connection failed", Arc::new(error))
}

/// Returns the result of `future`, or `None` if it takes longer than `span`.
pub async fn timeout<T: Timer, F: Future>(span: Duration, future: F) -> Option<F::Output> {
    let (mut timer, mut future) = (T::after(span), pin!(future));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.poll(cx).map(|()| None),
    })
    .await
}

/// Makes changes of the hub wake this task from now on. It is called before the state is read, so that no change is missed.
async fn wake_by(hub: &Hub) {
    poll_fn(|cx| {
        hub.set_driver(cx.waker());
        Poll::Ready(())
    })
    .await;
}

/// Waits for `span`, or until the task is woken. [`wake_by`] was called before the state was read.
async fn wait<T: Timer>(span: Duration) {
    let mut woken = false;
    let news = poll_fn(|_| {
        if std::mem::replace(&mut woken, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let _ = timeout::<T, _>(span, news).await;
}

/// Waits until the client is closed and needs no connection to finish.
async fn closed_without_connection<T: Timer>(hub: &Hub) {
    loop {
        wake_by(hub).await;
        if hub.is_given_up() {
            return;
        }
        wait::<T>(hub.gives_up_in().unwrap_or(Duration::MAX)).await;
    }
}

/// Serves one transport until it ends. Returns the reason.
async fn serve<T: Timer, W: Transport>(hub: &Hub, transport: W) -> Error {
    if let Err(error) = hub.opened() {
        return error;
    }
    let mut pump = Pump {
        hub,
        transport,
        input: BytesMut::new(),
        output: Output::default(),
        flow: Flow::Read(1),
        is_flushed: true,
        timer: T::after(Duration::ZERO),
    };
    let why = poll_fn(|cx| pump.poll(cx)).await;
    // The last bytes after a violation or DISCONNECT are still written, if the transport takes them in time.
    let said_goodbye = hub.is_finished();
    let Pump {
        transport,
        output,
        input,
        ..
    } = &mut pump;
    let goodbye = async {
        loop {
            hub.refill(output);
            if output.rest().is_empty() {
                poll_fn(|cx| transport.poll_close(cx)).await?;
                break;
            }
            let n = poll_fn(|cx| transport.poll_write(cx, output.rest())).await?;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero));
            }
            output.wrote(n);
        }
        // The system resets a TCP socket that is closed with unread input, and the peer may then lose bytes that it has not read:
        // the last acknowledgements.
        let mut n = usize::from(said_goodbye);
        while n > 0 {
            input.clear();
            input.reserve(READ);
            n = poll_fn(|cx| transport.poll_fill(cx, input)).await?;
        }
        io::Result::Ok(())
    };
    let _ = timeout::<T, _>(Duration::from_secs(1), goodbye).await;
    why
}

struct Pump<'a, W, T> {
    hub: &'a Hub,
    transport: W,
    input: BytesMut,
    output: Output,
    flow: Flow,
    /// Whether the transport buffers nothing.
    is_flushed: bool,
    timer: T,
}

/// The least room for one read, in bytes.
const READ: usize = 64 << 10;
/// How many bytes are read before other tasks of the thread run, such as those that take the messages.
const TURN: usize = READ;

impl<W: Transport, T: Timer> Pump<'_, W, T> {
    /// Writes, reads and ticks as far as possible. Returns ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match self.work(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.hub.set_driver(cx.waker());
        if !matches!(self.flow, Flow::Read(_)) {
            self.flow = self.hub.input(&mut self.input)?;
        }
        let mut turn = 0;
        loop {
            let wrote = self.write(cx)?;
            if self.output.rest().is_empty() && self.hub.is_finished() {
                return Err(Error::Stopped);
            }
            let read = self.read(cx)?;
            turn += read;
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            if !wrote && read == 0 {
                if let Some(span) = self.hub.tick()? {
                    self.timer.reset(span);
                    if self.timer.poll(cx).is_ready() {
                        continue;
                    }
                }
                // `tick` may have written a PINGREQ or a DISCONNECT.
                if !self.write(cx)? {
                    return Ok(());
                }
            }
        }
    }

    /// Writes the outgoing bytes. Returns whether the transport took any.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut wrote = false;
        if !self.is_flushed {
            self.flush(cx)?;
        }
        loop {
            self.hub.refill(&mut self.output);
            // Returns after one round of writes, so that publishers that wait for room add their messages, which then go out
            // together.
            if self.output.rest().is_empty() || wrote {
                return Ok(wrote);
            }
            while !self.output.rest().is_empty() {
                let rest = self.output.rest();
                match self
                    .transport
                    .poll_write(cx, rest)
                    .map_err(|error| self.hub.transport_failed(error))?
                {
                    Poll::Ready(0) => {
                        return Err(self.hub.transport_failed(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(n) => {
                        self.output.wrote(n);
                        wrote = true;
                    }
                    Poll::Pending => {
                        self.hub.refill(&mut self.output);
                        return Ok(wrote);
                    }
                }
            }
            self.flush(cx)?;
        }
    }

    /// Flushes: a transport with stages may buffer bytes until it can write again.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.is_flushed = self
            .transport
            .poll_flush(cx)
            .map_err(|error| self.hub.transport_failed(error))?
            .is_ready();
        Ok(())
    }

    /// Reads, and gives the input to the hub. Returns how many bytes were read.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<usize, Error> {
        match self.flow {
            Flow::Read(needed) => {
                let (len, missing) = (self.input.len(), needed.saturating_sub(self.input.len()));
                // The buffer for a large packet grows with the bytes that arrive, not with the length in the packet's header.
                self.input.reserve(missing.clamp(READ, len.max(READ)));
                match self
                    .transport
                    .poll_fill(cx, &mut self.input)
                    .map_err(|error| self.hub.transport_failed(error))?
                {
                    Poll::Ready(0) => Err(Error::EndOfStream),
                    Poll::Ready(n) => {
                        if self.input.len() >= needed {
                            self.flow = self.hub.input(&mut self.input)?;
                        }
                        Ok(n)
                    }
                    Poll::Pending => Ok(0),
                }
            }
            // The write above may have made room.
            Flow::Write => {
                self.flow = self.hub.input(&mut self.input)?;
                Ok(0)
            }
            Flow::Paused => Ok(0),
        }
    }
}
