//! Relays bytes in a separate process: the bytes of publishers are copied to subscribers without parsing them, which is the least
//! work that a broker could do.

use std::collections::HashMap;
use std::io::{Read, Write};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

struct Peer {
    stream: TcpStream,
    /// The first byte of the peer: `p` for a publisher, `s` for a subscriber, 0 before it has arrived.
    role: u8,
    /// The number of the peer among those of its role.
    number: usize,
    output: Vec<u8>,
}

struct Relay {
    poll: Poll,
    listener: TcpListener,
    peers: HashMap<usize, Peer>,
    /// How many peers there were of each role.
    roles: HashMap<u8, usize>,
    next: usize,
    buffer: Vec<u8>,
    /// Peers with bytes to write.
    touched: Vec<usize>,
}

/// Relays until the process is killed.
pub(crate) fn relay(address: &str) {
    let address = address.parse().expect("an address");
    let mut relay = Relay {
        poll: Poll::new().expect("epoll"),
        listener: TcpListener::bind(address).expect("a free port"),
        peers: HashMap::new(),
        roles: HashMap::new(),
        next: 1,
        buffer: vec![0; 64 << 10],
        touched: Vec::new(),
    };
    relay
        .poll
        .registry()
        .register(&mut relay.listener, Token(0), Interest::READABLE)
        .expect("epoll");
    let mut events = Events::with_capacity(1_024);
    loop {
        relay.poll.poll(&mut events, None).expect("epoll");
        events.iter().for_each(|event| relay.serve(event));
        relay.write();
    }
}

impl Relay {
    fn serve(&mut self, event: &Event) {
        let Token(key) = event.token();
        if key == 0 {
            return self.accept();
        }
        if event.is_writable() {
            self.touched.push(key);
        }
        while self.read(key) {}
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let _ = stream.set_nodelay(true);
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(self.next), both)
                .expect("epoll");
            let peer = Peer {
                stream,
                role: 0,
                number: 0,
                output: Vec::new(),
            };
            self.peers.insert(self.next, peer);
            self.next += 1;
        }
    }

    /// Reads once and copies the bytes. Returns `false` if no more bytes are there.
    fn read(&mut self, key: usize) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else {
            return false;
        };
        let n = match peer.stream.read(&mut self.buffer) {
            Ok(0) => {
                self.peers.remove(&key);
                return false;
            }
            Ok(n) => n,
            Err(_) => return false,
        };
        let mut bytes = &self.buffer[..n];
        if peer.role == 0 {
            peer.role = bytes[0];
            let number = self.roles.entry(peer.role).or_insert(0);
            peer.number = *number;
            *number += 1;
            let _ = peer.stream.write(&[1]);
            bytes = &bytes[1..];
        }
        if bytes.is_empty() || peer.role != b'p' {
            return true;
        }
        let (from, publishers) = (peer.number, self.roles[&b'p']);
        let subscribers = self.roles.get(&b's').copied().unwrap_or(0);
        let pairs = publishers == subscribers;
        for (key, other) in &mut self.peers {
            if other.role == b's' && (!pairs || other.number == from) {
                other.output.extend_from_slice(bytes);
                self.touched.push(*key);
            }
        }
        true
    }

    fn write(&mut self) {
        for key in self.touched.drain(..) {
            let Some(peer) = self.peers.get_mut(&key) else {
                continue;
            };
            if !peer.output.is_empty()
                && let Ok(n) = peer.stream.write(&peer.output)
            {
                peer.output.drain(..n);
            }
        }
    }
}
