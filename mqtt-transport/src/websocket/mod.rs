//! WebSocket as the transport of MQTT, chapter 6 of both standards. tungstenite does the handshake and the frames.

mod client;
mod frames;
mod server;

pub use client::{WebSocketClient, WebSocketOptions};
pub use server::{Origins, WebSocketServer, WebSocketServerOptions};

/// The sub-protocol of MQTT 3.1.1 and 5.
pub const SUB_PROTOCOL: &str = "mqtt";

/// The path that most brokers and clients use.
pub const PATH: &str = "/mqtt";

/// The limits for what is stored of the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the headers of the handshake. Default 8 KiB.
    pub head: usize,
    /// Bytes of one frame, which is stored until it is whole. Default 16 MiB.
    pub frame: usize,
    /// Bytes of one message, which is all of its frames and is stored until it is whole. Default 16 MiB.
    pub message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 8 << 10,
            frame: 16 << 20,
            message: 16 << 20,
        }
    }
}
