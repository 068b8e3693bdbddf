//! How long a broker in reserve takes until it serves.

use std::time::Instant;

use crate::broker::Broker;
use crate::client::{Client, Peer};
use crate::stored::queue;

const SESSIONS: usize = 10_000;

/// Prints how long it takes from the end of a broker until the one in reserve accepts a client, if the first one is asked to end and
/// if it is killed: with no sessions, and with 10,000 that are away and `queued` messages for each of them.
pub(crate) fn measure() {
    for queued in [0, 10, 100] {
        for is_killed in [false, true] {
            let first = Broker::start("mqtt broker, 3 servers");
            if queued > 0 {
                queue(&first, SESSIONS, queued);
            }
            let before = first.memory();
            let second = first.reserve();
            // Its log is not read here. If it is not in reserve by then, the time is longer.
            std::thread::sleep(std::time::Duration::from_secs(2));
            let began = Instant::now();
            match is_killed {
                true => drop(first),
                false => first.end(),
            }
            second.listens();
            drop(Client::connect(second.address, "new", None, Peer::Broker));
            println!(
                "{} messages: a client is accepted {:.2} s after the first broker {}; {:.0} MiB of memory before, {:.0} MiB then, \
                 {:.0} MiB at most",
                SESSIONS * queued,
                began.elapsed().as_secs_f64(),
                if is_killed {
                    "was killed"
                } else {
                    "was asked to end"
                },
                mib(before),
                mib(second.memory()),
                mib(second.most_memory()),
            );
        }
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
