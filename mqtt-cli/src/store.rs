//! `mqtt store`: shows and checks the store of a broker or of a client.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mqtt_broker_host::broker::records::broker::{Entry, Flow};
use mqtt_broker_host::broker::records::{Fault, Format, Machine};
use mqtt_broker_host::broker::{Broker, Config as Limits, Hooks, Instant};
use mqtt_broker_host::store::{Config, OpenError, Store};
use serde_json::{Value, json};

use crate::failure::{Failure, fail};
use crate::store_client::Client;
use crate::{output, output_json};

/// Shows or checks the store of a broker or of a client that is not running.
#[derive(Args, Debug)]
pub(crate) struct StoreCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print sessions, their subscriptions and waiting messages, and retained messages; for a client, its session
    Show(Place),
    /// Check that a broker or a client can start with the store
    Check(Place),
}

#[derive(Args, Debug)]
struct Place {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print one object of JSON
    #[arg(long)]
    json: bool,
}

impl StoreCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (What::Show(place) | What::Check(place)) = &self.what;
        let mut store = open(&place.dir)?;
        if let Some(client) = client(&mut store)? {
            if let What::Check(_) = self.what {
                client.check(&mut store)?;
            }
            if place.json {
                output_json(&client.json());
            } else {
                if let What::Check(_) = self.what {
                    output(format_args!("the store is whole\n"));
                }
                client.print();
            }
            return Ok(());
        }
        drop(store);
        match self.what {
            What::Show(place) => show(&place),
            What::Check(place) => check(&place),
        }
    }
}

/// Opens an existing store.
fn open(dir: &Path) -> Result<Store, Failure> {
    if !dir.join("journal.redb").exists() {
        return Err(fail(format!("{}: there is no store", dir.display())));
    }
    let opened = Store::open(Config::new(dir)).map_err(fail)?;
    opened.ok_or_else(|| fail("the store is off"))
}

/// Reads the store of a client; `None` if it is that of a broker.
fn client(store: &mut Store) -> Result<Option<Client>, Failure> {
    let (mut client, mut machine) = (Client::default(), None);
    let read = store.restore(|record| {
        match machine {
            None => machine = Some(Format::read(record)?.machine),
            Some(Machine::Broker) => {}
            Some(_) => client.take(record)?,
        }
        Ok::<_, Fault>(())
    });
    read.map_err(fail)?;
    Ok(machine
        .is_some_and(|machine| machine != Machine::Broker)
        .then_some(client))
}

/// The printed fields of a session.
#[derive(Debug, Default)]
struct Session {
    client_id: String,
    version: String,
    expiry: u32,
    connected: bool,
    subscriptions: Vec<String>,
    messages: u64,
}

/// The content of a store.
#[derive(Debug, Default)]
struct Contents {
    sessions: BTreeMap<u64, Session>,
    /// The topic, the quality of service and the length of the packet.
    retained: Vec<(String, u8, usize)>,
    /// The sessions that still need each message.
    targets: BTreeMap<u64, Vec<u64>>,
}

impl Contents {
    fn take(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Session(number, Some(session)) => {
                self.sessions.insert(
                    *number,
                    Session {
                        client_id: session.client_id.to_owned(),
                        version: session.version.to_string(),
                        expiry: session.expiry,
                        connected: session.away.is_none(),
                        ..Session::default()
                    },
                );
            }
            Entry::Subscription {
                session, filter, ..
            } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.subscriptions.push((*filter).to_owned());
                }
            }
            Entry::Retained(topic, Some(message)) => {
                let (qos, len) = (message.qos.get(), message.packet.len());
                self.retained.push(((*topic).to_owned(), qos, len));
            }
            Entry::Message(number, Some(message)) => {
                let targets = message.targets.iter().map(|target| target.session);
                self.targets.insert(*number, targets.collect());
            }
            Entry::Flow {
                message,
                session,
                flow: Some(flow),
            } => {
                let targets = self.targets.entry(*message).or_default();
                targets.retain(|target| target != session);
                if !matches!(flow, Flow::Done) {
                    targets.push(*session);
                }
            }
            _ => {}
        }
    }

    /// Counts the messages of each session. The upper bytes of a target's name are the number of its session.
    fn count(&mut self) {
        for target in self.targets.values().flatten() {
            if let Some(session) = self.sessions.get_mut(&(target >> 16)) {
                session.messages += 1;
            }
        }
    }
}

fn show(place: &Place) -> Result<(), Failure> {
    let mut contents = Contents::default();
    let mut store = open(&place.dir)?;
    store
        .restore(|record| {
            if let Some(entry) = Entry::read(record)? {
                contents.take(&entry);
            }
            Ok::<_, Fault>(())
        })
        .map_err(fail)?;
    contents.count();
    if place.json {
        output_json(&contents.json());
    } else {
        contents.print();
    }
    Ok(())
}

impl Contents {
    fn json(&self) -> Value {
        let sessions = self.sessions.values().map(|session| {
            json!({
                "client_id": session.client_id,
                "version": session.version,
                "session_expiry": session.expiry,
                "connected": session.connected,
                "subscriptions": session.subscriptions,
                "messages": session.messages,
            })
        });
        let retained = self
            .retained
            .iter()
            .map(|(topic, qos, bytes)| json!({"topic": topic, "qos": qos, "bytes": bytes}));
        json!({
            "sessions": sessions.collect::<Vec<_>>(),
            "retained": retained.collect::<Vec<_>>(),
        })
    }

    fn print(&self) {
        for session in self.sessions.values() {
            let state = if session.connected {
                "connected"
            } else {
                "away"
            };
            output(format_args!(
                "session {:?}: MQTT {}, {state}, {} messages wait, expires {}\n",
                session.client_id,
                session.version,
                session.messages,
                match session.expiry {
                    u32::MAX => "never".to_owned(),
                    seconds => format!("after {seconds} s"),
                },
            ));
            for filter in &session.subscriptions {
                output(format_args!("  subscription {filter:?}\n"));
            }
        }
        for (topic, qos, bytes) in &self.retained {
            output(format_args!(
                "retained {topic:?}: QoS {qos}, a packet of {bytes} bytes\n"
            ));
        }
    }
}

struct Nobody;

impl Hooks for Nobody {
    fn unguessable(&mut self) -> u128 {
        0
    }
}

fn check(place: &Place) -> Result<(), Failure> {
    let now = Instant::from_millis(0);
    let mut limits = Limits::default();
    limits.sessions = usize::MAX;
    limits.retained_messages = usize::MAX;
    limits.retained_bytes = usize::MAX;
    let mut broker = Broker::new(limits, Nobody, now);
    broker.start_journal();
    let mut store = open(&place.dir)?;
    store
        .restore(|record| broker.restore(record))
        .map_err(fail)?;
    let mut found = None;
    store
        .finish(|| broker.restored(now).map(|restored| found = Some(restored)))
        .map_err(|error: OpenError| fail(error))?;
    let found = found.unwrap_or_default();
    if place.json {
        output_json(&json!({
            "sessions": found.sessions,
            "subscriptions": found.subscriptions,
            "messages": found.messages,
            "retained": found.retained,
        }));
    } else {
        output(format_args!(
            "the store is whole: {} sessions, {} subscriptions, {} messages, {} retained messages\n",
            found.sessions, found.subscriptions, found.messages, found.retained
        ));
    }
    Ok(())
}
