//! The threads behind a handle: one dials and reads, a second one writes and keeps time while a connection is there.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use mqtt_adapter_core::agent::NextDial;
use mqtt_adapter_core::bytes::{BufMut, BytesMut};
use mqtt_adapter_core::driver::{cannot_connect, transport_failed};
use mqtt_adapter_core::{Error, Flow, Hub, Output};

use crate::connection::is_timeout;
use crate::wait::{block_on_for, waker};

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

/// Dials, reads, writes and sleeps as the agent says, until all its handles are gone.
pub(crate) fn drive<T: Split>(hub: &Hub, mut dial: impl FnMut() -> io::Result<T>) {
    loop {
        match hub.next_dial() {
            NextDial::Never => return,
            NextDial::At(until) => {
                hub.set_driver(&waker());
                thread::park_timeout(hub.until(until));
            }
            NextDial::Now => {
                let opened = open(hub, &mut dial);
                let why = match opened.and_then(|transport| serve(hub, transport)) {
                    Ok(why) | Err(why) => why,
                };
                hub.lost(why);
            }
        }
    }
}

/// Asks for credentials, if they change, and opens a transport.
fn open<T>(hub: &Hub, dial: &mut impl FnMut() -> io::Result<T>) -> Result<T, Error> {
    if let Some(source) = hub.credentials() {
        let credentials = block_on_for(source.ask(), hub.dial_timeout());
        hub.set_credentials(credentials.ok_or(Error::TimedOut("asking for credentials"))??);
    }
    dial().map_err(cannot_connect)
}

/// Serves one transport until its end: this thread reads, a second one writes and keeps time. Each wakes the other when
/// it made work for it.
fn serve<T: Split>(hub: &Hub, mut transport: T) -> Result<Error, Error> {
    hub.opened()?;
    let mut writer = transport.writer().map_err(transport_failed)?;
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
            (None, Ok(())) => Error::Stopped,
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
    let mut space = vec![0; READ];
    let mut flow = Flow::Read(1);
    while !over.load(Ordering::Acquire) {
        if let Flow::Read(needed) = flow {
            match transport.read(&mut space) {
                Ok(0) if over.load(Ordering::Acquire) || hub.is_finished() => return Ok(()),
                Ok(0) => return Err(Error::EndOfStream),
                Ok(n) => input.put_slice(space.get(..n).unwrap_or_default()),
                Err(error) if is_timeout(&error) => continue,
                Err(_) if over.load(Ordering::Acquire) => return Ok(()),
                Err(error) => return Err(transport_failed(error)),
            }
            if input.len() < needed {
                continue;
            }
        } else {
            thread::park();
        }
        flow = hub.input(&mut input)?;
        // There may be something to say now, and another time to say it by.
        writer.unpark();
    }
    Ok(())
}

/// The most that one read takes.
const READ: usize = 64 << 10;

/// Writes and keeps time until the connection is over, and sleeps while there is nothing to do.
fn write(
    hub: &Hub,
    writer: &mut impl Write,
    is_over: &AtomicBool,
    reader: &Thread,
) -> Result<(), Error> {
    let waker = waker();
    let mut output = Output::default();
    let mut is_flushed = true;
    loop {
        hub.set_driver(&waker);
        // Pings are due here, and a close that was asked for meanwhile begins.
        let ticked = hub.tick();
        let over = is_over.load(Ordering::Acquire);
        hub.refill(&mut output);
        if !is_flushed {
            match writer.flush() {
                Ok(()) => is_flushed = true,
                Err(error) if is_timeout(&error) && (over || ticked.is_err()) => {
                    return ticked.map(|_| ());
                }
                Err(error) if is_timeout(&error) => {
                    ticked?;
                    continue;
                }
                Err(error) => return Err(transport_failed(error)),
            }
        }
        if output.rest().is_empty() {
            if hub.is_finished() || over {
                ticked?;
                wait_for_the_server(is_over);
                return Ok(());
            }
            thread::park_timeout(ticked?.unwrap_or(Duration::MAX));
            // What the reader paused for may be gone.
            reader.unpark();
            continue;
        }
        match writer.write(output.rest()) {
            Ok(0) => return Err(transport_failed(io::ErrorKind::WriteZero.into())),
            Ok(n) => output.wrote(n),
            // The last bytes of a connection that is over are not worth a longer wait.
            Err(error) if is_timeout(&error) && (over || ticked.is_err()) => {
                return ticked.map(|_| ());
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(transport_failed(error)),
        }
        is_flushed = !output.rest().is_empty();
    }
}

/// DISCONNECT is written. The server ends the connection when it has read it, and with it all acknowledgements: a client that
/// comes back under the same identifier before would get their messages again.
fn wait_for_the_server(is_over: &AtomicBool) {
    let until = Instant::now() + Duration::from_secs(1);
    while !is_over.load(Ordering::Acquire) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}
