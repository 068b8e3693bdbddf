//! The cloneable handle: a thread of its own dials and reads, a second one writes while a connection is there.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use adapter_core::bytes::{BufMut, BytesMut};
use adapter_core::proto::{Properties, ReasonCode, Subscription as Filter};
use adapter_core::{
    Connected, Error, Flow, Hub, Options, Outcome, Outgoing, Received, Step, Subscription, Unsent,
};

use crate::connection::{dial, is_timeout};
use crate::wait::{block_on, block_on_for, waker};

/// A transport that two threads can use at once.
pub trait Split: Read + Send + Sized + 'static {
    /// The half that writes.
    type Writer: Write + Send;

    /// A second way to the same transport. A write that cannot go on must give up after a second or so, with `WouldBlock` or
    /// `TimedOut`: this side keeps the time.
    ///
    /// # Errors
    /// As the transport.
    fn writer(&self) -> io::Result<Self::Writer>;

    /// Lets a read that waits end at once. Where that cannot be, it must give up by itself now and then, as a write does.
    fn hang_up(writer: &mut Self::Writer);
}

impl Split for TcpStream {
    type Writer = Self;

    fn writer(&self) -> io::Result<Self> {
        let writer = self.try_clone()?;
        writer.set_write_timeout(Some(Duration::from_secs(1)))?;
        Ok(writer)
    }

    fn hang_up(writer: &mut Self) {
        let _ = writer.shutdown(Shutdown::Both);
    }
}

/// A client that many threads share: it reconnects, resumes its session, subscribes again what the server forgot, and
/// sends again what was not acknowledged.
///
/// When the last handle and subscription are gone, it sends what is pending for up to five seconds and disconnects;
/// [`Self::close`] waits for that.
#[derive(Clone, Debug)]
pub struct Handle(Connected);

impl Handle {
    /// Connects by TCP, and comes back when the server accepted. Later losses are repaired by themselves.
    ///
    /// # Errors
    /// The first attempt fails.
    pub fn connect(options: Options) -> Result<Self, Error> {
        let handle = Self::start(options);
        handle.wait_connected()?;
        Ok(handle)
    }

    /// Begins to connect by TCP and never gives up, also where the first attempt fails.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (address, timeout) = ((options.host.clone(), options.port), options.dial_timeout);
        Self::start_with(options, move || dial(&address, timeout))
    }

    /// The same over any transport: `dial` opens a fresh one for each attempt.
    pub fn start_with<T: Split>(
        options: Options,
        dial: impl FnMut() -> io::Result<T> + Send + 'static,
    ) -> Self {
        let hub = Hub::new(options);
        let handle = Self(Connected::new(&hub));
        thread::spawn(move || drive(&hub, dial));
        handle
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// An attempt fails before there ever was one, or the client is closed.
    pub fn wait_connected(&self) -> Result<(), Error> {
        block_on(self.0.connected())
    }

    /// Publishes now, or says why not.
    ///
    /// # Errors
    /// [`crate::session::Refused::Full`] while there is no room.
    pub fn try_publish(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        self.0.try_publish(message).map(Ticket)
    }

    /// Publishes, waiting for room if need be.
    ///
    /// # Errors
    /// All but [`crate::session::Refused::Full`].
    pub fn publish(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        block_on(self.0.publish(message)).map(Ticket)
    }

    /// Subscribes and waits for the server's answer.
    ///
    /// # Errors
    /// The client is closed before.
    pub fn subscribe(&self, filter: &Filter<'_>) -> Result<(ReasonCode, Messages), Error> {
        block_on(self.0.subscribe(filter))
            .map(|(code, subscription)| (code, Messages(subscription)))
    }

    /// Subscribes to several filters by one SUBSCRIBE, with its properties (5), and waits for the server's codes.
    ///
    /// # Errors
    /// The client is closed before.
    pub fn subscribe_all(
        &self,
        filters: &[Filter<'_>],
        properties: Properties<'_>,
    ) -> Result<(Vec<ReasonCode>, Messages), Error> {
        block_on(self.0.subscribe_all(filters, properties))
            .map(|(codes, subscription)| (codes, Messages(subscription)))
    }

    /// Acknowledges a message by hand; see [`Connected::acknowledge`].
    ///
    /// # Errors
    /// As there.
    pub fn acknowledge(&self, message: &Received, reason: ReasonCode) -> Result<(), Error> {
        self.0.acknowledge(message, reason)
    }

    /// The messages that no subscription claims.
    #[must_use]
    pub fn other_messages(&self) -> Messages {
        Messages(self.0.other_messages())
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    /// How many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.pending()
    }

    /// Closes: sends what is pending, for at most `deadline`, disconnects, and gives back what was not acknowledged.
    #[must_use]
    pub fn close(&self, deadline: Duration) -> Vec<Unsent> {
        block_on(self.0.close(deadline))
    }
}

/// A published message.
#[derive(Debug)]
pub struct Ticket(adapter_core::Ticket);

impl Ticket {
    /// Waits for its end.
    #[must_use]
    pub fn wait(self) -> Outcome {
        block_on(self.0)
    }
}

/// The messages of a subscription: an iterator that ends when the client stopped. If they are not taken, reading from the
/// server pauses.
#[derive(Debug)]
pub struct Messages(Subscription);

impl Messages {
    /// The next message, if one comes within `patience`.
    pub fn next_within(&mut self, patience: Duration) -> Option<Received> {
        block_on_for(self.0.next(), patience).flatten()
    }

    /// Unsubscribes and waits for the server's answer.
    ///
    /// # Errors
    /// The client is closed before.
    pub fn unsubscribe(&self) -> Result<Vec<ReasonCode>, Error> {
        block_on(self.0.unsubscribe())
    }
}

impl Iterator for Messages {
    type Item = Received;

    fn next(&mut self) -> Option<Received> {
        block_on(self.0.next())
    }
}

fn drive<T: Split>(hub: &Hub, mut dial: impl FnMut() -> io::Result<T>) {
    loop {
        match hub.next() {
            Step::Stop => return,
            Step::Wait(span) => {
                hub.set_driver(&waker());
                thread::park_timeout(span);
            }
            Step::Dial => {
                let why = match dial()
                    .map_err(Error::from)
                    .and_then(|transport| serve(hub, transport))
                {
                    Ok(why) | Err(why) => why,
                };
                hub.lost(why);
            }
        }
    }
}

/// Serves one transport until its end: this thread reads, a second one writes and keeps time. Each wakes the other when
/// it made work for it.
fn serve<T: Split>(hub: &Hub, mut transport: T) -> Result<Error, Error> {
    hub.opened()?;
    let mut writer = transport.writer()?;
    let over = AtomicBool::new(false);
    let reader = thread::current();
    Ok(thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let end = write(hub, &mut writer, &over, &reader);
            over.store(true, Ordering::Release);
            // The reader waits for bytes that need not come any more.
            T::hang_up(&mut writer);
            reader.unpark();
            end.err()
        });
        let read = read(hub, &mut transport, &over, writes.thread());
        over.store(true, Ordering::Release);
        writes.thread().unpark();
        match (writes.join().ok().flatten(), read) {
            (Some(why), Ok(())) | (_, Err(why)) => why,
            (None, Ok(())) => Error::HandleClosed,
        }
    }))
}

/// Reads until the connection is over. Ends well when the other thread ended it.
fn read<T: Split>(
    hub: &Hub,
    transport: &mut T,
    over: &AtomicBool,
    writer: &Thread,
) -> Result<(), Error> {
    let mut input = BytesMut::new();
    let mut space = vec![0; 64 << 10];
    let mut paused = false;
    while !over.load(Ordering::Acquire) {
        if paused {
            thread::park();
        } else {
            match transport.read(&mut space) {
                Ok(0) if over.load(Ordering::Acquire) => return Ok(()),
                Ok(0) => return Err(Error::end_of_file()),
                Ok(n) => input.put_slice(&space[..n]),
                Err(error) if is_timeout(&error) => continue,
                Err(_) if over.load(Ordering::Acquire) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        paused = hub.input(&mut input)? == Flow::Paused;
        // There may be something to say now, and another time to say it by.
        writer.unpark();
    }
    Ok(())
}

/// Writes and keeps time until the connection is over, and sleeps while there is nothing to do.
fn write(
    hub: &Hub,
    writer: &mut impl Write,
    over: &AtomicBool,
    reader: &Thread,
) -> Result<(), Error> {
    let waker = waker();
    let (mut output, mut written) = (Vec::new(), 0);
    loop {
        hub.set_driver(&waker);
        // Pings are due here, and a close that was asked for meanwhile begins.
        let span = hub.tick()?;
        if output.is_empty() {
            hub.take(&mut output);
        }
        if let Some(rest @ [_, ..]) = output.get(written..) {
            match writer.write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(n) => written += n,
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
            if written == output.len() {
                writer.flush()?;
                output.clear();
                written = 0;
            }
        } else if hub.is_finished() || over.load(Ordering::Acquire) {
            return Ok(());
        } else {
            thread::park_timeout(span.unwrap_or(Duration::MAX));
            // What the reader paused for may be gone.
            reader.unpark();
        }
    }
}
