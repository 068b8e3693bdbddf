//! Implements a server that sends without a pause: its client must ping although it never waits for input.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running server for one client.
#[derive(Debug)]
pub struct FloodServer {
    /// The port of the server.
    pub port: u16,
    server: JoinHandle<bool>,
}

impl FloodServer {
    /// Starts a server that answers CONNECT of 3.1.1, then publishes until PINGREQ arrives, at most for a minute.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut reader = stream.try_clone().expect("a second handle");
            let mut buffer = [0; 1024];
            let _ = reader.read(&mut buffer);
            let (pinged, over) = (AtomicBool::new(false), AtomicBool::new(false));
            let _ = stream.write_all(&[0x20, 2, 0, 0]);
            let news = b"\x30\x09\0\x03a/bnews".repeat(6_000);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while let Ok(n @ 1..) = reader.read(&mut buffer) {
                        if buffer[..n].windows(2).any(|bytes| bytes == [0xC0, 0]) {
                            pinged.store(true, Ordering::Release);
                            break;
                        }
                    }
                    over.store(true, Ordering::Release);
                });
                let until = Instant::now() + Duration::from_secs(60);
                while !over.load(Ordering::Acquire) && Instant::now() < until {
                    if stream.write_all(&news).is_err() {
                        break;
                    }
                }
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
            pinged.into_inner()
        });
        Self { port, server }
    }

    /// Returns whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.server.is_finished()
    }

    /// Returns whether PINGREQ arrived.
    ///
    /// # Panics
    /// The server panicked.
    #[must_use]
    pub fn was_pinged(self) -> bool {
        self.server.join().expect("it does not panic")
    }
}
