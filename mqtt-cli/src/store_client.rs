//! `mqtt store`: handles the store of a client.

use std::collections::BTreeMap;

use mqtt_adapter_core::agent::{Agent, Options};
use mqtt_adapter_core::session::records::{Entry, Fault, Outgoing, Owner, Record, Subscribed};
use mqtt_broker_host::store::Store;
use mqtt_tokio::proto::Version;
use mqtt_tokio::proto::num::to_u64;
use serde_json::{Value, json};

use crate::failure::{Failure, fail};
use crate::output;
use crate::store::counted;

/// The content of a client's store.
#[derive(Debug, Default)]
pub(crate) struct Client {
    client_id: String,
    clean: bool,
    version: Option<Version>,
    /// By number: the version and the length of the packet; `None` if the server already has the message.
    messages: BTreeMap<u64, Option<usize>>,
    received: usize,
    subscriptions: Vec<String>,
    note: Option<(u64, Vec<u8>)>,
}

impl Client {
    pub(crate) fn take(&mut self, record: &Record<'_>) -> Result<(), Fault> {
        if let Some(subscribed) = Subscribed::read(record)? {
            self.subscriptions.push(subscribed.filter.to_owned());
            return Ok(());
        }
        if let Some(owner) = Owner::read(record)? {
            if self.client_id.is_empty() {
                owner.client_id.clone_into(&mut self.client_id);
            }
            return Ok(());
        }
        match Entry::read(record)? {
            Some(Entry::Session(session)) => {
                session.client_id.clone_into(&mut self.client_id);
                self.clean = session.clean;
            }
            Some(Entry::Outgoing(number, Some(message))) => {
                let len = match message {
                    Outgoing::Message {
                        version, packet, ..
                    } => {
                        self.version = Some(version);
                        Some(packet.len())
                    }
                    Outgoing::Released { .. } => None,
                };
                self.messages.insert(number, len);
            }
            Some(Entry::Received(_, Some(received))) => {
                self.received += usize::from(!received.released);
                if let Some(note) = received.note
                    && self
                        .note
                        .as_ref()
                        .is_none_or(|(order, _)| *order < note.order)
                {
                    self.note = Some((note.order, note.bytes.to_vec()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.messages.values().flatten().count()
    }

    /// Checks that a client can continue from the store.
    pub(crate) fn check(&self, store: &mut Store) -> Result<(), Failure> {
        let mut options = Options::new("", 0);
        options.version = self.version.unwrap_or_default();
        options.clean_start = false;
        let mut agent = Agent::with_journal(options);
        store
            .restore(|record| agent.restore(record))
            .map_err(fail)?;
        store.finish(|| agent.restored()).map_err(fail)
    }

    pub(crate) fn json(&self) -> Value {
        let note = self.note.as_ref();
        json!({
            "client_id": self.client_id,
            "clean_start_asked": self.clean,
            "messages": self.waiting(),
            "released": self.messages.len() - self.waiting(),
            "received": self.received,
            "subscriptions": self.subscriptions,
            "note": note.map(|(_, bytes)| crate::hex::spaced(bytes)),
        })
    }

    pub(crate) fn print(&self) {
        output(format_args!(
            "client {:?}: {} wait{}, {} wait for PUBCOMP, {} received ones wait for PUBREL\n",
            self.client_id,
            counted(to_u64(self.waiting()), "message"),
            if self.waiting() == 1 { "s" } else { "" },
            self.messages.len() - self.waiting(),
            self.received,
        ));
        for filter in &self.subscriptions {
            output(format_args!("  subscription {filter:?}\n"));
        }
        if let Some((_, note)) = &self.note {
            output(format_args!("  note {}\n", crate::hex::spaced(note)));
        }
    }
}
