//! The cloneable handle: a task of its own dials, reads, writes and sleeps as the hub says.

use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adapter_core::bytes::BytesMut;
use adapter_core::{Connected, Error, Flow, Hub, Options, Step};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

/// A client that many tasks share: it reconnects, resumes its session, subscribes again what the server forgot, and sends
/// again what was not acknowledged. Everything it can do is in [`Connected`].
///
/// When the last handle and subscription are gone, it sends what is pending for up to five seconds and disconnects;
/// [`Connected::close`] says when that is done.
#[derive(Clone, Debug)]
pub struct Handle(Connected);

impl Deref for Handle {
    type Target = Connected;

    fn deref(&self) -> &Connected {
        &self.0
    }
}

impl Handle {
    /// Connects by TCP, and ends when the server accepted. Later losses are repaired by themselves.
    ///
    /// # Errors
    /// The first attempt fails.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let handle = Self::start(options);
        handle.connected().await?;
        Ok(handle)
    }

    /// Begins to connect by TCP and never gives up, also where the first attempt fails. Must be called within a runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (host, port) = (options.host.clone(), options.port);
        Self::start_with(options, move || {
            let address = (host.clone(), port);
            async move {
                let transport = TcpStream::connect(address).await?;
                transport.set_nodelay(true)?;
                Ok(transport)
            }
        })
    }

    /// The same over any transport: `dial` opens a fresh one for each attempt. TLS, WebSocket, a Unix socket or a serial
    /// port go in here.
    pub fn start_with<D, F, T>(options: Options, dial: D) -> Self
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let hub = Hub::new(options);
        let handle = Self(Connected::new(&hub));
        tokio::spawn(drive(hub, dial));
        handle
    }
}

async fn drive<D, F, T>(hub: Arc<Hub>, mut dial: D)
where
    D: FnMut() -> F,
    F: Future<Output = io::Result<T>>,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match hub.next() {
            Step::Stop => return,
            Step::Wait(span) => {
                wait(&hub, span).await;
            }
            Step::Dial => {
                let (_, _, limit) = hub.address();
                let (mut closed, mut dialled) = (pin!(closed(&hub)), pin!(timeout(limit, dial())));
                let dialled = poll_fn(|cx| match closed.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => dialled.as_mut().poll(cx).map(Some),
                });
                let why = match dialled.await {
                    None => Error::HandleClosed,
                    Some(Ok(Ok(transport))) => serve(&hub, transport).await,
                    Some(Ok(Err(error))) => error.into(),
                    Some(Err(_)) => Error::timed_out("dialling"),
                };
                hub.lost(why);
            }
        }
    }
}

/// Ends after `span`, or when the hub has something new.
async fn wait(hub: &Hub, span: Duration) {
    let mut woken = false;
    let news = poll_fn(|cx| {
        hub.set_driver(cx.waker());
        if std::mem::replace(&mut woken, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let _ = timeout(span, news).await;
}

/// Ends when the client is to be closed and need not be connected for it any more.
async fn closed(hub: &Hub) {
    loop {
        match hub.closes_in() {
            Some(Duration::ZERO) => return,
            Some(left) => wait(hub, left).await,
            None => wait(hub, Duration::MAX).await,
        }
    }
}

/// Serves one transport until its end, and says why it ended.
async fn serve<T: AsyncRead + AsyncWrite + Unpin>(hub: &Hub, transport: T) -> Error {
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
        sleep: Box::pin(sleep(Duration::ZERO)),
    };
    let why = poll_fn(|cx| pump.poll(cx)).await;
    // What a violation or DISCONNECT left behind still goes out, if the transport takes it soon.
    hub.take(&mut pump.output);
    let rest = pump.output.get(pump.written..).unwrap_or_default();
    let goodbye = async {
        pump.transport.write_all(rest).await?;
        pump.transport.shutdown().await
    };
    let _ = timeout(Duration::from_secs(1), goodbye).await;
    why
}

struct Pump<'a, T> {
    hub: &'a Hub,
    transport: T,
    input: BytesMut,
    output: Vec<u8>,
    written: usize,
    paused: bool,
    sleep: Pin<Box<Sleep>>,
}

/// The most that one read takes.
const READ: usize = 64 << 10;

impl<T: AsyncRead + AsyncWrite + Unpin> Pump<'_, T> {
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
                    self.sleep
                        .as_mut()
                        .reset(tokio::time::Instant::now() + span);
                    if self.sleep.as_mut().poll(cx).is_ready() {
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
            match Pin::new(&mut self.transport).poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(n) => {
                    self.written += n;
                    wrote = true;
                    if self.written == self.output.len() {
                        self.output.clear();
                        self.written = 0;
                        let _ = Pin::new(&mut self.transport).poll_flush(cx)?;
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
        let mut read = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(
            &mut self.transport,
            &mut self.input
        ));
        match read.as_mut().poll(cx)? {
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
