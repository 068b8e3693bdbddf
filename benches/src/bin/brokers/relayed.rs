//! What it costs that clients are connected to another process than that of their shard.

use std::time::Duration;

use mqtt_proto::QoS;

use crate::broker::Broker;
use crate::client::{Peer, is_home};
use crate::load::{LOADS, Load, latency, measure as run, middle};

/// Prints the loads of one pair whose clients are connected to their process, and to the other one, in turns. The processor time for
/// each message is that of both processes and of the server of NATS.
pub(crate) fn measure(rounds: usize, span: Duration) {
    let brokers = Broker::shards(2, 1);
    let [first, second] = &brokers[..] else {
        panic!("two were started");
    };
    let at_first = |number: &usize| {
        let mut names = ["p", "s", "p0", "s0"].into_iter();
        names.all(|name| is_home(first.address, &format!("{number}-{name}")))
    };
    let number = (0..).find(at_first);
    let peer = Peer::Numbered(number.expect("a number"));
    let pair = Load {
        publishers: 1,
        subscribers: 1,
        ..LOADS[2]
    };
    for load in [
        Load {
            name: "1 pair, QoS 1",
            ..pair
        },
        Load {
            name: "1 pair, QoS 2",
            qos: QoS::ExactlyOnce,
            ..pair
        },
        LOADS[4],
    ] {
        let mut outcomes = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (broker, outcomes) in [first, second].into_iter().zip(&mut outcomes) {
                outcomes.push(run(broker, load, span, peer));
                // What the publisher left must not come to the next subscriber.
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        let cells = outcomes.map(|mut outcomes| {
            outcomes.sort_by(|a, b| a.micros_each().total_cmp(&b.micros_each()));
            let middle = outcomes[outcomes.len() / 2];
            format!("{:.0}k ({:.2})", middle.rate() / 1e3, middle.micros_each())
        });
        println!("{}, direct | relayed: {}", load.name, cells.join(" | "));
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (broker, times) in [first, second].into_iter().zip(&mut times) {
            times.push(latency(broker, span, peer));
        }
    }
    let cells = times.map(|mut times| format!("{:.0} us", middle(&mut times)));
    let name = "QoS 1 at 1,000 a second, latency p50";
    println!("{name}, direct | relayed: {}", cells.join(" | "));
}
