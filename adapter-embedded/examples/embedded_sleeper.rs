//! A device that sleeps most of the time: it wakes up, sends one reading at QoS 1, waits for PUBACK, and sleeps until its
//! next reading, the deadline of keep-alive, or a byte from the server. The session stays in RAM.
//!
//! `cargo run -p sansio-mqtt-embedded --example embedded_sleeper -- 127.0.0.1:1883 10`

use std::cell::Cell;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant as Now};

use embedded_io::{ErrorType, Read, ReadReady, Write};
use mqtt_embedded::blocking::Connection;
use mqtt_embedded::proto::{Connect, QoS, TopicName, Version};
use mqtt_embedded::session::{Config, Event, Instant, Outgoing};
use mqtt_embedded::{Buffers, Clock};

const TOPIC: TopicName<'static> = TopicName::from_static("examples/sleeper");
/// The time between two readings.
const INTERVAL: Duration = Duration::from_millis(50);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:1883".into());
    let readings: u32 = arguments.next().map_or(Ok(10), |n| n.parse())?;
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let (start, asleep) = (Now::now(), Cell::new(Duration::ZERO));
    let clock = SleepingClock {
        socket: &socket,
        start,
        asleep: &asleep,
    };

    let mut buffers = Buffers::<128, 192, 128, 1>::new();
    let (mut client, input) = buffers.client(Config::default());
    let mut connect = Connect::new(Version::V311, "sleeper");
    connect.clean_start = false;
    let mut connection = Connection::new(Socket(&socket), &mut client, input, clock, &connect)?;
    while !matches!(connection.next()?.0, Some(Event::Connected { .. })) {}

    for n in 0..readings {
        let payload = format!("{n}");
        let reading = Outgoing::new(TOPIC, QoS::AtLeastOnce, payload.as_bytes());
        let now = connection.now();
        connection.client().publish(&reading, now)?;
        while !matches!(connection.next()?.0, Some(Event::Acknowledged { .. })) {}
        // Sleeps until the next reading, except for bytes of the server and pings that are due.
        let next = connection.now().after(INTERVAL);
        while connection.now() < next {
            let left = next.since(connection.now());
            if let (Some(event), _) = connection.next_within(left)? {
                println!("woken by {event:?}");
            }
        }
    }
    connection.disconnect()?;
    let part = asleep.get().as_secs_f64() / start.elapsed().as_secs_f64();
    println!(
        "{readings} readings acknowledged, asleep {:.0} % of the time",
        part * 100.0
    );
    Ok(())
}

/// Sleeps until a byte arrives or the time is over, like the low-power mode of a device.
struct SleepingClock<'a> {
    socket: &'a TcpStream,
    start: Now,
    asleep: &'a Cell<Duration>,
}

impl Clock for SleepingClock<'_> {
    fn now(&mut self) -> Instant {
        Instant::from_millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn idle(&mut self, until: Option<Instant>) {
        let left = until.map(|until| until.since(self.now()).max(Duration::from_millis(1)));
        let before = Now::now();
        let _ = self.socket.set_read_timeout(left);
        let _ = self.socket.peek(&mut [0]);
        self.asleep.set(self.asleep.get() + before.elapsed());
    }
}

/// A socket that can tell whether bytes have arrived.
struct Socket<'a>(&'a TcpStream);

impl ErrorType for Socket<'_> {
    type Error = io::Error;
}

impl ReadReady for Socket<'_> {
    fn read_ready(&mut self) -> io::Result<bool> {
        self.0.set_nonblocking(true)?;
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false)?;
        match peeked {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
