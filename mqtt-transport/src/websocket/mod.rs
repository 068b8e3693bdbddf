//! WebSocket, as chapter 6 of both standards puts MQTT on it: handshake and frames by tungstenite.

mod client;
mod frames;
mod server;

pub use client::{WebSocketClient, WebSocketOptions};
pub use server::{Origins, WebSocketServer, WebSocketServerOptions};

/// The sub-protocol of MQTT 3.1.1 and 5.
pub const SUB_PROTOCOL: &str = "mqtt";

/// The path that clients ask for, by habit.
pub const PATH: &str = "/mqtt";

/// How much of the peer is stored at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// The headers of the handshake, in bytes. Default 8 KiB.
    pub head: usize,
    /// One frame, in bytes. It is stored until it is whole. Default 16 MiB.
    pub frame: usize,
    /// One message, in bytes, which is all of its frames. It is stored until it is whole. Default 16 MiB.
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
