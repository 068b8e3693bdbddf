//! WebSocket as the transport of MQTT, chapter 6 of both standards. tungstenite does the handshake and the frames.

/// Writes the methods of [`Stage`](crate::Stage) that are the same on both sides, for a struct with `state` and `queue`. While
/// the handshake lasts, the state is neither `Open` nor `Failed`.
macro_rules! stage_of_frames {
    () => {
        fn input(&mut self, mut wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
            if let Err(error) = self.shake_hands(&mut wire) {
                self.state = State::Failed(error.clone());
                return Err(error);
            }
            match &mut self.state {
                State::Open(frames) => frames.input(wire, plain, &mut self.queue),
                State::Failed(error) => Err(error.clone()),
                _ => Ok(()),
            }
        }

        fn output(&mut self, plain: &[u8]) -> usize {
            match &mut self.state {
                State::Open(frames) => frames.output(plain, &mut self.queue),
                _ => 0,
            }
        }

        fn outgoing(&self) -> &[u8] {
            self.queue.as_slice()
        }

        fn sent(&mut self, n: usize) {
            self.queue.sent(n);
        }

        fn close(&mut self) {
            if let State::Open(frames) = &mut self.state {
                frames.close(&mut self.queue);
            }
        }

        fn is_open(&self) -> bool {
            matches!(self.state, State::Open(_))
        }

        fn is_ended(&self) -> bool {
            matches!(&self.state, State::Open(frames) if frames.is_ended())
        }
    };
}

mod client;
mod frames;
mod incoming;
mod server;

pub use client::{WebSocketClient, WebSocketOptions};
pub use server::{Origins, WebSocketServer, WebSocketServerOptions, is_this_machine};

/// The sub-protocol of MQTT 3.1.1 and 5.
pub const SUB_PROTOCOL: &str = "mqtt";

/// The path that most brokers and clients use.
pub const PATH: &str = "/mqtt";

/// The limits for what is stored of the peer. Payload is passed on as it arrives, and is limited by what reads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the headers of the handshake. Default 8 KiB.
    pub head: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 8 << 10 }
    }
}
