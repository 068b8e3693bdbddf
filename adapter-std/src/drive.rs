//! Runs the threads of a handle: one dials and reads; while a connection is up, a second one writes and watches deadlines.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use mqtt_adapter_core::agent::NextDial;
use mqtt_adapter_core::bytes::{BufMut, BytesMut};
use mqtt_adapter_core::driver::cannot_connect;
use mqtt_adapter_core::{Driving, Error, Flow, Hub, Output};

use crate::connection::is_timeout;
use crate::wait::{block_on_for, waker};

/// A transport that one thread can read while another one writes.
pub trait Split: Read + Send + Sized + 'static {
    /// The writing half.
    type Writer: Write + Send;

    /// Returns the writing half. A blocked write must end after about a second with `WouldBlock` or `TimedOut`, because the
    /// writing thread also watches the deadlines.
    /// # Errors
    /// The transport fails.
    fn writer(&self) -> io::Result<Self::Writer>;

    /// Reads once, and appends the bytes to `input`. Returns how many, 0 at the end of the stream. `space` is for the bytes of one
    /// read; a transport that has them in a buffer does not need it.
    ///
    /// # Errors
    /// The transport fails.
    fn fill(&mut self, input: &mut BytesMut, space: &mut [u8]) -> io::Result<usize> {
        read_onto(self, input, space)
    }

    /// Ends a waiting read. If the transport cannot do that, its reads must end by themselves from time to time, like its writes.
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

/// Reads once into `space`, and appends the bytes to `input`.
pub(crate) fn read_onto(
    transport: &mut impl Read,
    input: &mut BytesMut,
    space: &mut [u8],
) -> io::Result<usize> {
    let n = transport.read(space)?;
    input.put_slice(space.get(..n).unwrap_or_default());
    Ok(n)
}

/// Dials, reads, writes and sleeps for the agent until all handles are dropped.
pub(crate) fn drive<T: Split>(hub: &Driving, mut dial: impl FnMut() -> io::Result<T>) {
    loop {
        // The waker is set before the state is read, so that no change is missed.
        hub.set_driver(&waker());
        match hub.next_dial() {
            NextDial::Never => return,
            NextDial::At(until) => {
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

/// Gets new credentials if the options have a source of credentials, and opens a transport.
fn open<T>(hub: &Hub, dial: &mut impl FnMut() -> io::Result<T>) -> Result<T, Error> {
    if let Some(source) = hub.credentials() {
        let credentials = block_on_for(source.ask(), hub.dial_timeout());
        hub.set_credentials(credentials.ok_or(Error::TimedOut("asking for credentials"))??);
    }
    dial().map_err(cannot_connect)
}

/// Serves one transport until it ends: this thread reads, a second one writes and watches deadlines. Each thread wakes the other
/// one when there is work for it.
fn serve<T: Split>(hub: &Hub, mut transport: T) -> Result<Error, Error> {
    hub.opened()?;
    let writer = transport
        .writer()
        .map_err(|error| hub.transport_failed(error))?;
    let over = AtomicBool::new(false);
    let reader = thread::current();
    let (over, reader) = (&over, &reader);
    let (wrote, read) = thread::scope(|scope| {
        let writes = thread::Builder::new().spawn_scoped(scope, move || {
            let mut end = HangUp::<T>(writer, Over(over, reader));
            write(hub, &mut end.0, over, reader).err()
        });
        let writes = match writes {
            Ok(writes) => writes,
            // The connection ends, and a later one may have a thread.
            Err(error) => return (Ok(Some(hub.transport_failed(error))), Ok(())),
        };
        let end = Over(over, writes.thread());
        let read = read(hub, &mut transport, over, writes.thread());
        drop(end);
        (writes.join(), read)
    });
    match (wrote, read) {
        // A panic of the writing thread is one of this thread too, so that the client ends.
        (Err(panic), _) => resume_unwind(panic),
        (Ok(Some(why)), Ok(())) | (Ok(_), Err(why)) => Ok(why),
        (Ok(None), Ok(())) => Ok(Error::Stopped),
    }
}

/// Tells the other thread, when it is dropped, that the connection is over: also if the code of this thread panics.
struct Over<'a>(&'a AtomicBool, &'a Thread);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.unpark();
    }
}

/// Ends the wait of the reading thread for bytes that are not needed any more, when it is dropped.
struct HangUp<'a, T: Split>(T::Writer, Over<'a>);

impl<T: Split> Drop for HangUp<'_, T> {
    fn drop(&mut self) {
        // The reading thread must not take the end of the stream for one by the server.
        self.1.0.store(true, Ordering::Release);
        T::hang_up(&mut self.0);
    }
}

/// Reads until the connection has ended. Returns `Ok` if the other thread ended it.
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
            match transport.fill(&mut input, &mut space) {
                Ok(0) if over.load(Ordering::Acquire) || hub.is_finished() => return Ok(()),
                Ok(0) => return Err(Error::EndOfStream),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => continue,
                Err(_) if over.load(Ordering::Acquire) => return Ok(()),
                Err(error) => return Err(hub.transport_failed(error)),
            }
            if input.len() < needed {
                continue;
            }
        } else {
            thread::park();
        }
        let (has_read, before) = (matches!(flow, Flow::Read(_)), input.len());
        flow = hub.input(&mut input)?;
        // The machine may have outgoing bytes or a new deadline. The writing thread wakes this one each time, so the two would never sleep
        // if this one did the same while it waits.
        if has_read || input.len() < before {
            writer.unpark();
        }
    }
    Ok(())
}

/// How many bytes one read takes at most.
const READ: usize = 64 << 10;

/// Writes and watches deadlines until the connection has ended. Sleeps while there is nothing to do.
fn write(
    hub: &Hub,
    writer: &mut impl Write,
    is_over: &AtomicBool,
    reader: &Thread,
) -> Result<(), Error> {
    let waker = waker();
    let mut output = Output::default();
    let mut is_flushed = true;
    let mut ended = None;
    loop {
        hub.set_driver(&waker);
        // `tick` writes PINGREQ, and begins to close when the program has asked for it.
        let ticked = ended.take().map_or_else(|| hub.tick(), Err);
        let over = is_over.load(Ordering::Acquire);
        hub.refill(&mut output);
        // Reading may have waited for room, or for the report of what was written.
        reader.unpark();
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
                Err(error) => return Err(hub.transport_failed(error)),
            }
        }
        if output.rest().is_empty() {
            if hub.is_finished() || over {
                ticked?;
                wait_for_the_server(is_over);
                return Ok(());
            }
            thread::park_timeout(ticked?.unwrap_or(Duration::MAX));
            continue;
        }
        match writer.write(output.rest()) {
            Ok(0) => return Err(hub.transport_failed(io::ErrorKind::WriteZero.into())),
            Ok(n) => output.wrote(n),
            // A connection that has ended does not wait longer for its last bytes.
            Err(error) if is_timeout(&error) && (over || ticked.is_err()) => {
                return ticked.map(|_| ());
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(hub.transport_failed(error)),
        }
        is_flushed = !output.rest().is_empty();
        // The last bytes are written first. The next call of `tick` would not tell why the connection is over.
        ended = ticked.err();
    }
}

/// Waits after DISCONNECT until the server ends the connection, which means that it has read all acknowledgements. A client that
/// connects earlier with the same identifier would get their messages again.
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
