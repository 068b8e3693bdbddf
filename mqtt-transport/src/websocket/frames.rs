//! The frames after the handshake, for both sides.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error as Fault};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};

use super::incoming::{CONTROL_FRAME, Found, Incoming};
use crate::error::{Error, ErrorKind};
use crate::queue::Queue;

/// The frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    incoming: Incoming,
    /// Answers control frames, and writes.
    context: WebSocketContext,
    is_ended: bool,
    failed: Option<Error>,
}

/// The bytes that tungstenite reads and writes.
struct Memory<'a> {
    wire: &'a [u8],
    queue: &'a mut Queue,
}

impl Read for Memory<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.wire.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.wire.read(space)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.queue.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Frames {
    pub(super) fn new(role: Role) -> Self {
        let config = WebSocketConfig::default()
            // It reads control frames only, and has a buffer of this size for each connection.
            .read_buffer_size(CONTROL_FRAME)
            // Each frame goes to the queue at once.
            .write_buffer_size(0);
        Self {
            incoming: Incoming::new(role),
            context: WebSocketContext::new(role, Some(config)),
            is_ended: false,
            failed: None,
        }
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    pub(super) fn input(
        &mut self,
        wire: &[u8],
        plain: &mut BytesMut,
        queue: &mut Queue,
    ) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.read(wire, plain, queue);
        self.failed = result.as_ref().err().cloned();
        result
    }

    /// Packets are taken from the bytes of all frames, wherever a frame begins or ends.
    /// 3.1.1 [MQTT-6.0.0-2], 5 [MQTT-6.0.0-2]: a frame may hold several packets or a part of one.
    fn read(
        &mut self,
        mut wire: &[u8],
        plain: &mut BytesMut,
        queue: &mut Queue,
    ) -> Result<(), Error> {
        while !self.is_ended {
            match self.incoming.take(&mut wire, plain) {
                Ok(Found::Nothing) => break,
                Ok(Found::Control(frame)) => self.control(&frame, queue)?,
                // 3.1.1 [MQTT-6.0.0-1], 5 [MQTT-6.0.0-1]: whoever gets another kind of data frame closes the connection.
                Ok(Found::Text) => {
                    self.say_close(queue, CloseCode::Unsupported, "MQTT sends binary frames");
                    return Err(Error::new(
                        ErrorKind::TextFrame,
                        "the peer sent a text frame; MQTT sends binary frames only",
                    ));
                }
                Err(fault) => return Err(self.refuse(queue, fault)),
            }
        }
        Ok(())
    }

    /// Passes a whole control frame to tungstenite, which answers it.
    fn control(&mut self, frame: &[u8], queue: &mut Queue) -> Result<(), Error> {
        let mut memory = Memory { wire: frame, queue };
        match self.context.read(&mut memory) {
            Ok(Message::Close(_)) | Err(Fault::ConnectionClosed | Fault::AlreadyClosed) => {
                self.is_ended = true;
                // Sends the answer to a close frame.
                let _ = self.context.flush(&mut memory);
            }
            Ok(_) => {
                // Sends the answer to a ping.
                let _ = self.context.flush(&mut memory);
            }
            Err(fault) => return Err(self.refuse(memory.queue, fault)),
        }
        queue.check()
    }

    fn refuse(&mut self, queue: &mut Queue, fault: Fault) -> Error {
        let (code, kind, message) = match &fault {
            Fault::Capacity(CapacityError::MessageTooLong { size, max_size }) => (
                CloseCode::Size,
                ErrorKind::TooLarge,
                format!("a WebSocket frame of {size} bytes is larger than the limit of {max_size}"),
            ),
            Fault::Protocol(error) => (
                CloseCode::Protocol,
                ErrorKind::WebSocket,
                format!("the peer broke a rule of WebSocket: {error}"),
            ),
            other => (
                CloseCode::Protocol,
                ErrorKind::WebSocket,
                format!("WebSocket: {other}"),
            ),
        };
        self.say_close(queue, code, "");
        Error::new(kind, message).because(fault)
    }

    fn say_close(&mut self, queue: &mut Queue, code: CloseCode, reason: &'static str) {
        let reason = reason.into();
        let mut memory = Memory { wire: &[], queue };
        // Writing to memory does not fail. After a close frame no other one is sent.
        let _ = self
            .context
            .close(&mut memory, Some(CloseFrame { code, reason }));
    }

    /// 3.1.1 [MQTT-6.0.0-1], 5 [MQTT-6.0.0-1]: packets go in binary frames.
    pub(super) fn output(&mut self, plain: &[u8], queue: &mut Queue) -> usize {
        let n = plain.len().min(queue.room());
        if n == 0 || self.failed.is_some() || !self.context.can_write() {
            return 0;
        }
        let bytes = Bytes::copy_from_slice(plain.get(..n).unwrap_or_default());
        let mut memory = Memory { wire: &[], queue };
        match self.context.write(&mut memory, Message::Binary(bytes)) {
            Ok(()) => n,
            Err(_) => 0,
        }
    }

    pub(super) fn close(&mut self, queue: &mut Queue) {
        self.say_close(queue, CloseCode::Normal, "");
    }
}
