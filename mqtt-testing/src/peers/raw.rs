//! Implements a server on 127.0.0.1 that writes any bytes.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A running server; it stops accepting when this is dropped.
#[derive(Debug)]
pub struct RawServer {
    /// The port of the server.
    pub port: u16,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

/// A CONNACK that accepts, of 3.1.1.
pub const CONNACK_3_1_1: [u8; 4] = [0x20, 2, 0, 0];
/// A CONNACK that accepts, of 5.
pub const CONNACK_5: [u8; 5] = [0x20, 3, 0, 0, 0];

impl RawServer {
    /// Starts a server. It passes each connection, with its number from 0, to `serve` in a separate thread.
    ///
    /// # Panics
    /// There is no free port.
    pub fn start(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        Self::start_until(move |stream, number, _| serve(stream, number))
    }

    /// Starts a server. `serve` also gets a flag, which is set when the server is dropped.
    pub(super) fn start_until(
        serve: impl Fn(TcpStream, usize, &AtomicBool) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let raw = Self {
            port: listener.local_addr().expect("its address").port(),
            connections: Arc::default(),
            stop: Arc::default(),
        };
        let (connections, stop) = (Arc::clone(&raw.connections), Arc::clone(&raw.stop));
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let number = connections.fetch_add(1, Ordering::Relaxed);
                let (serve, stop) = (Arc::clone(&serve), Arc::clone(&stop));
                std::thread::spawn(move || serve(stream, number, &stop));
            }
        });
        raw
    }

    /// Returns how many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
