//! Runs a TCP proxy that cuts each connection after a random number of bytes, at any place in a packet.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

/// A running proxy; it stops accepting when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// The port of the proxy on 127.0.0.1.
    pub port: u16,
    cuts: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    unharmed: Arc<AtomicBool>,
}

impl Proxy {
    /// Forwards to `target` on 127.0.0.1. Each connection is cut after `least` to `most` bytes, counted in both directions.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn start(target: u16, least: u32, most: u32, seed: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let proxy = Self {
            port,
            cuts: Arc::default(),
            stop: Arc::default(),
            unharmed: Arc::default(),
        };
        let stop = Arc::clone(&proxy.stop);
        let (cuts, unharmed) = (Arc::clone(&proxy.cuts), Arc::clone(&proxy.unharmed));
        std::thread::spawn(move || {
            let mut random = seed;
            while let Ok((near, _)) = listener.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let life = least + (random >> 8) % (most - least).max(1);
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else {
                    continue;
                };
                let life = Life {
                    left: Arc::new(AtomicI64::new(i64::from(life))),
                    cuts: Arc::clone(&cuts),
                    unharmed: Arc::clone(&unharmed),
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                        continue;
                    };
                    let life = life.clone();
                    std::thread::spawn(move || forward(from, to, &life));
                }
            }
        });
        proxy
    }

    /// Returns how many connections it has cut.
    #[must_use]
    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Stops cutting connections.
    pub fn stop_cutting(&self) {
        self.unharmed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// How long a connection lives, for its two directions.
#[derive(Clone)]
struct Life {
    /// How many bytes it still forwards.
    left: Arc<AtomicI64>,
    /// Counts the connections that were cut.
    cuts: Arc<AtomicU32>,
    /// Whether no connection is cut any more.
    unharmed: Arc<AtomicBool>,
}

fn forward(mut from: TcpStream, mut to: TcpStream, life: &Life) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        let before = if life.unharmed.load(Ordering::Relaxed) {
            i64::MAX
        } else {
            life.left.fetch_sub(n, Ordering::Relaxed)
        };
        let pass = usize::try_from(before.clamp(0, n)).unwrap_or(0);
        if to.write_all(&buffer[..pass]).is_err() {
            break;
        }
        if before <= n {
            life.cuts.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
