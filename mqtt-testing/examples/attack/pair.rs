//! Measures a pair of clients: one publishes a message about each millisecond, the other receives it.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::{Client, publish, subscribe};

/// The times of messages in microseconds.
pub(crate) struct Latencies {
    pub(crate) middle: u64,
    pub(crate) high: u64,
    pub(crate) longest: u64,
    pub(crate) messages: usize,
}

const TOPIC: &str = "honest/pair";

/// A message that takes longer counts as this long.
const MOST: Duration = Duration::from_secs(10);

/// Measures at least one message.
pub(crate) fn measure(address: SocketAddr, time: Duration) -> Latencies {
    let mut times = Vec::new();
    let mut messages = 0;
    let began = Instant::now();
    let pair = Client::connect(address, "honest-1", None)
        .and_then(|from| Some((from, Client::connect(address, "honest-2", None)?)));
    if let Some((mut from, mut to)) = pair {
        to.say(&subscribe([TOPIC].into_iter(), None));
        let mut suback = [0; 6];
        let _ = to.0.read_exact(&mut suback);
        while times.is_empty() || began.elapsed() < time {
            let number = u64::try_from(times.len()).expect("few");
            let bytes = publish(TOPIC, &number.to_be_bytes());
            let sent = Instant::now();
            let received = from.say(&bytes) && receives(&mut to, number);
            times.push(sent.elapsed());
            if !received {
                break;
            }
            messages += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if times.is_empty() {
        times.push(MOST);
    }
    times.sort_unstable();
    let micros = |at: usize| {
        let time = times[at.min(times.len() - 1)].min(MOST);
        u64::try_from(time.as_micros()).expect("short")
    };
    Latencies {
        middle: micros(times.len() / 2),
        high: micros(times.len() * 99 / 100),
        longest: micros(times.len()),
        messages,
    }
}

/// Reads until the message with this number comes. Returns `false` if the connection ends before.
fn receives(to: &mut Client, number: u64) -> bool {
    loop {
        let mut head = [0; 2];
        if to.0.read_exact(&mut head).is_err() {
            return false;
        }
        let mut body = vec![0; usize::from(head[1])];
        if to.0.read_exact(&mut body).is_err() {
            return false;
        }
        if body.ends_with(&number.to_be_bytes()) {
            return true;
        }
    }
}
