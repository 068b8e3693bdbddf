//! Finds settings that have no effect because another setting is missing. The broker refuses them: it would not do what their operator
//! expects.

use mqtt_store::Durability;

use super::{Checked, Settings};
use crate::ListenerSettings;

const ENGINE: &str = "needs engine, without which it has no effect";
const SHARDS: &str =
    "needs engine-shards above 1, without which there is no other process that serves";
const STORE: &str = "needs store, without which it has no effect";
const CERTIFICATE: &str = "needs cert, without which there is no TLS";
const CLIENT_CA: &str = "needs client-ca";

impl Settings {
    pub(super) fn lacks_engine(&self) -> [Checked; 11] {
        let without_engine = |is_set: bool, name| (is_set && self.engine.is_none(), name, ENGINE);
        let is_alone = self.engine.is_some() && self.process_shards() < 2;
        [
            without_engine(self.node.is_some(), "node"),
            without_engine(self.engine_journal.is_some(), "engine-journal"),
            without_engine(self.engine_replicas.is_some(), "engine-replicas"),
            without_engine(self.engine_lease.is_some(), "engine-lease"),
            without_engine(self.engine_patience.is_some(), "engine-patience"),
            without_engine(self.engine_shards.is_some(), "engine-shards"),
            without_engine(self.engine_redirect.is_some(), "engine-redirect"),
            without_engine(self.engine_pipe_bytes.is_some(), "engine-pipe-bytes"),
            without_engine(self.has_node_address(), "node-address"),
            (
                is_alone && self.engine_redirect == Some(true),
                "engine-redirect",
                SHARDS,
            ),
            (is_alone && self.has_node_address(), "node-address", SHARDS),
        ]
    }

    /// Returns whether any listener has an address for clients of other processes.
    fn has_node_address(&self) -> bool {
        let mut tables = self.listener.iter().flatten();
        self.node_address.is_some() || tables.any(|table| table.node_address.is_some())
    }

    pub(super) fn lacks_store(&self) -> [Checked; 3] {
        let without_store = |is_set: bool, name| (is_set && self.store.is_none(), name, STORE);
        // It asks for what is there without a store.
        let asks_nothing = |word: &str| word.parse() == Ok(Durability::Off);
        let durability = self.durability.as_deref();
        [
            without_store(
                durability.is_some_and(|word| !asks_nothing(word)),
                "durability",
            ),
            without_store(self.store_damaged.is_some(), "store-damaged"),
            (
                self.store_limit.is_some() && self.store.is_none() && self.engine.is_none(),
                "store-limit",
                "needs store or engine, without which it has no effect",
            ),
        ]
    }

    /// Returns the settings of TLS with which a listener asks its clients for less than they say.
    pub(super) fn lacks_certificate(&self) -> Vec<Checked> {
        type Has = fn(&ListenerSettings) -> bool;
        let has_cert: Has = |own| own.cert.is_some();
        let has_ca: Has = |own| own.client_ca.is_some();
        let rules: [(Has, Has, &str, &str); 5] = [
            (|own| own.key.is_some(), has_cert, "key", CERTIFICATE),
            (has_ca, has_cert, "client-ca", CERTIFICATE),
            (
                |own| own.client_certificate.is_some(),
                has_ca,
                "client-certificate",
                CLIENT_CA,
            ),
            (|own| own.crl.is_some(), has_ca, "crl", CLIENT_CA),
            (
                |own| own.identity_as_username.is_some(),
                has_ca,
                "identity-as-username",
                CLIENT_CA,
            ),
        ];
        let mut checked = Vec::new();
        for scope in self.scopes() {
            for (is_set, has_needed, name, why) in rules {
                let lacks = is_set(&scope.own) && !scope.listeners.iter().any(has_needed);
                checked.push((lacks, name, why));
            }
        }
        checked
    }
}
