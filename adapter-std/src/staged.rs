//! Runs the stages of a socket for two threads. One thread reads and one writes, and either may have to send bytes of the stages.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use mqtt_adapter_core::bytes::{Buf, BytesMut};
use mqtt_adapter_core::transport::Stack;

use crate::dial::Socket;

/// The reading half.
pub(crate) struct Staged {
    socket: Socket,
    shared: Arc<Shared>,
    /// A buffer for bytes that were read from the socket. They are given to the stages at once.
    wire: Vec<u8>,
    /// The plain bytes that the stages have returned.
    plain: BytesMut,
    is_ended: bool,
}

/// The writing half.
pub(crate) struct StagedWriter(Arc<Shared>);

/// The stages and the writing half of the socket. The lock of the stages is never held during a call of the socket, so that the
/// reading thread does not wait for the writing one.
struct Shared {
    stack: Mutex<Stack>,
    writing: Mutex<Writing>,
}

struct Writing {
    socket: Socket,
    /// Bytes of the stages that go to the socket before their other outgoing bytes.
    piece: Vec<u8>,
    /// How many bytes of the piece are written.
    written: usize,
}

/// How many bytes one read takes at most, and about how many one write takes.
const PIECE: usize = 64 << 10;

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Staged").field(&self.socket).finish()
    }
}

impl fmt::Debug for StagedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StagedWriter")
    }
}

impl Staged {
    /// Performs the handshakes of the stages.
    pub(crate) fn open(socket: Socket, stack: Stack, until: Instant) -> io::Result<Self> {
        let writing = Writing {
            socket: socket.try_clone()?,
            piece: Vec::new(),
            written: 0,
        };
        let mut staged = Self {
            socket,
            shared: Arc::new(Shared {
                stack: Mutex::new(stack),
                writing: Mutex::new(writing),
            }),
            wire: vec![0; PIECE],
            plain: BytesMut::new(),
            is_ended: false,
        };
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                let message = "the handshake took too long";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            staged.socket.set_write_timeout(Some(rest))?;
            staged.socket.set_read_timeout(Some(rest))?;
            let sent = staged.shared.send(true);
            sent.map_err(|error| staged.explain(error))?;
            if staged.shared.stack().is_open() {
                break;
            }
            match staged.input() {
                Err(error) if crate::connection::is_timeout(&error) => {}
                result => result.map_err(|error| staged.explain(error))?,
            }
        }
        staged.socket.set_read_timeout(None)?;
        staged
            .socket
            .set_write_timeout(Some(Duration::from_secs(1)))?;
        Ok(staged)
    }

    /// Explains an error during the handshake: a server of another protocol may reset the connection, and the stages know the
    /// likely cause.
    fn explain(&self, error: io::Error) -> io::Error {
        match (error.kind(), self.shared.stack().end_of_file()) {
            (io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, Err(told)) => told.into(),
            _ => error,
        }
    }

    pub(crate) fn writer(&self) -> StagedWriter {
        StagedWriter(Arc::clone(&self.shared))
    }

    /// Reads once, and passes the bytes to the stages.
    fn input(&mut self) -> io::Result<()> {
        let n = self.socket.read(&mut self.wire)?;
        let result = {
            let mut stack = self.shared.stack();
            let result = if n == 0 {
                stack.end_of_file()
            } else {
                let wire = self.wire.get(..n).unwrap_or_default();
                stack.input(wire, &mut self.plain)
            };
            self.is_ended = n == 0 || stack.is_ended() || result.is_err();
            result
        };
        // The stages may have outgoing answers, or an alert with the reason of the end.
        let sent = self.shared.send(false);
        result?;
        match sent {
            Err(error) if !crate::connection::is_timeout(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Staged {
    /// Reads as [`Read::read`] does, and appends the plain bytes to `input`.
    pub(crate) fn fill(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        let before = input.len();
        input.extend_from_slice(&self.plain.split());
        while input.len() == before && !self.is_ended {
            // The stages append to it.
            std::mem::swap(&mut self.plain, input);
            let result = self.input();
            std::mem::swap(&mut self.plain, input);
            if input.len() == before {
                result?;
            }
        }
        Ok(input.len() - before)
    }
}

impl Read for Staged {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        // The bytes of a ping or of an incomplete record yield no plain bytes, but the stream has not ended.
        while self.plain.is_empty() {
            if self.is_ended {
                return Ok(0);
            }
            let result = self.input();
            if self.plain.is_empty() {
                result?;
            }
        }
        let n = self.plain.len().min(space.len());
        self.plain
            .copy_to_slice(space.get_mut(..n).unwrap_or_default());
        Ok(n)
    }
}

impl Shared {
    fn stack(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the outgoing bytes of the stages. Without `wait`, returns at once if another thread is writing them.
    fn send(&self, wait: bool) -> io::Result<()> {
        loop {
            let mut writing = if wait {
                self.writing()
            } else {
                match self.writing.try_lock() {
                    Ok(writing) => writing,
                    Err(TryLockError::Poisoned(error)) => error.into_inner(),
                    Err(TryLockError::WouldBlock) => return Ok(()),
                }
            };
            writing.send()?;
            while self.take_piece(&mut writing.piece) {
                writing.send()?;
            }
            drop(writing);
            // The other thread may have added bytes before it released the lock.
            if self.stack().outgoing().is_empty() {
                return Ok(());
            }
        }
    }

    fn take_piece(&self, piece: &mut Vec<u8>) -> bool {
        let mut stack = self.stack();
        let outgoing = stack.outgoing();
        let n = outgoing.len().min(PIECE);
        piece.extend_from_slice(outgoing.get(..n).unwrap_or_default());
        stack.sent(n);
        n > 0
    }

    /// Gives plain bytes to the stages, whose records go into the piece without a copy. Takes none while others wait to be sent.
    fn output(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut writing = self.writing();
        let mut stack = self.stack();
        if writing.piece.len() >= PIECE || !stack.outgoing().is_empty() {
            return Ok(0);
        }
        stack.output_to(bytes, &mut writing.piece)
    }
}

impl Writing {
    /// Writes the piece.
    fn send(&mut self) -> io::Result<()> {
        while let Some(rest @ [_, ..]) = self.piece.get(self.written..) {
            match self.socket.write(rest)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.written += n,
            }
        }
        self.piece.clear();
        self.written = 0;
        Ok(())
    }
}

impl StagedWriter {
    pub(crate) fn hang_up(&mut self) {
        self.0.stack().close();
        let _ = self.0.send(true);
        self.0.writing().socket.shutdown();
    }
}

impl Write for StagedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.0.output(bytes)?;
        if taken > 0 {
            return Ok(taken);
        }
        self.0.send(true)?;
        match self.0.output(bytes)? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::BrokenPipe.into()),
            taken => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.send(true)
    }
}
