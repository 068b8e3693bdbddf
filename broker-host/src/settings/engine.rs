//! Settings of an engine that cannot be used.

use mqtt_broker::MOST_SHARDS;

use super::{Checked, Settings};

/// The longest address for redirections, which is a part of CONNACK.
const LONGEST_ADDRESS: usize = 1 << 10;

impl Settings {
    pub(super) fn engine_unusable(&self) -> [Checked; 7] {
        let is_set = self.engine.is_some();
        [
            (
                is_set && self.store.is_some(),
                "engine",
                "cannot be given with store: the journal is on the engine or in the directory",
            ),
            (
                is_set && self.node.is_none(),
                "node",
                "must be given with engine: the other processes report it",
            ),
            (
                self.engine_replicas == Some(0),
                "engine-replicas",
                "must be at least 1",
            ),
            (
                self.engine_lease == Some(0),
                "engine-lease",
                "must be at least 1",
            ),
            (
                self.engine_shards
                    .is_some_and(|n| n == 0 || n > MOST_SHARDS),
                "engine-shards",
                "must be from 1 to 64",
            ),
            (
                self.process_shards() > 1 && !cfg!(unix),
                "engine-shards",
                "must be 1 on this system: only Unix has several",
            ),
            (
                self.numbered_listeners().iter().any(|(_, own)| {
                    let address = own.node_address.as_ref();
                    address.is_some_and(|address| !is_address(address))
                }),
                "node-address",
                "must have from 1 to 1024 bytes and no spaces",
            ),
        ]
    }
}

fn is_address(text: &str) -> bool {
    let has_length = !text.is_empty() && text.len() <= LONGEST_ADDRESS;
    has_length && !text.contains(char::is_whitespace)
}
