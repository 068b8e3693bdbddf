//! What it costs that three processes serve instead of one.

use std::time::Duration;

use crate::broker::{Broker, Doors};
use crate::client::Peer;
use crate::load::{LOADS, measure as run};

/// Prints loads of pairs with one process, with three whose clients are connected to the process that has their session, and with
/// three whose clients are connected by turns, each time on three servers. The processor time for each message is that of all
/// processes and servers.
pub(crate) fn measure(rounds: usize, span: Duration) {
    for load in LOADS
        .into_iter()
        .filter(|load| load.name.starts_with("50 pairs"))
    {
        let mut outcomes = [(); 3].map(|()| Vec::new());
        for _ in 0..rounds {
            for (way, outcomes) in outcomes.iter_mut().enumerate() {
                let mut brokers = Broker::shards(if way == 0 { 1 } else { 3 }, 3);
                let all: Vec<_> = brokers.iter().map(|broker| broker.address).collect();
                brokers[0].opens(match way {
                    0 => Doors::Own,
                    1 => Doors::Home(all),
                    _ => Doors::Turns(all),
                });
                outcomes.push(run(&brokers[0], load, span, Peer::Lasting));
            }
        }
        let cells = outcomes.map(|mut outcomes| {
            outcomes.sort_by(|a, b| a.micros_each().total_cmp(&b.micros_each()));
            let middle = outcomes[outcomes.len() / 2];
            format!("{:.0}k ({:.2})", middle.rate() / 1e3, middle.micros_each())
        });
        let name = load.name;
        println!(
            "{name}, one | three, at home | three, by turns: {}",
            cells.join(" | ")
        );
    }
}
