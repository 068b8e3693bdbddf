//! Checks that a panic in a function of the program ends the client: nothing waits for ever.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use mqtt_std::proto::QoS;
use mqtt_std::{Error, Handle, Options, Outcome, Split};
use mqtt_testing::peers::{CONNACK_3_1_1, RawServer};

/// Much longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(60);

/// A transport whose `n`th read or write panics.
struct Fragile {
    socket: TcpStream,
    reads: usize,
    writes: usize,
}

fn count(left: &mut usize) {
    *left = left.checked_sub(1).expect("the transport breaks");
}

impl Read for Fragile {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        count(&mut self.reads);
        self.socket.read(space)
    }
}

impl Write for Fragile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        count(&mut self.writes);
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Split for Fragile {
    type Writer = Self;

    fn writer(&self) -> io::Result<Self> {
        let (reads, writes) = (self.reads, self.writes);
        let socket = Split::writer(&self.socket)?;
        Ok(Self {
            socket,
            reads,
            writes,
        })
    }

    fn hang_up(writer: &mut Self) {
        TcpStream::hang_up(&mut writer.socket);
    }
}

/// Checks that a client whose transports are opened like this ends.
fn ends(mut dial: impl FnMut() -> io::Result<Fragile> + Send + 'static) {
    // The client takes no message after its end, so it dials after the message.
    let (published, is_published) = channel::<()>();
    let handle = Handle::start_with(Options::new("127.0.0.1", 1883), move || {
        let _ = is_published.recv();
        dial()
    });
    let mut ticket = handle.publish("a", QoS::AtLeastOnce, false, "x").unwrap();
    drop(published);
    assert_eq!(ticket.wait_for(LONG), Some(Outcome::Closed));
    assert!(matches!(
        handle.timeout(LONG).wait_connected(),
        Err(Error::Panicked)
    ));
}

#[test]
fn a_panic_of_the_function_that_dials_ends_the_client() {
    ends(|| panic!("the program panics"));
}

#[test]
fn a_panic_of_the_transport_ends_the_client() {
    let server = RawServer::start(|mut stream, _| {
        // CONNECT is the first write, and the message the second one.
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(&CONNACK_3_1_1);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for (reads, writes) in [(0, 9), (1, 9), (9, 0), (9, 1)] {
        let port = server.port;
        ends(move || {
            let socket = TcpStream::connect(("127.0.0.1", port))?;
            Ok(Fragile {
                socket,
                reads,
                writes,
            })
        });
    }
}
