//! `mqtt store`: shows and checks the store of a broker or of a client.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mqtt_broker_host::broker::proto::num::to_u64;
use mqtt_broker_host::broker::records::broker::{Entry, Flow};
use mqtt_broker_host::broker::records::{Fault, Format, Machine};
use mqtt_broker_host::broker::{Broker, Config as Limits, Hooks, Instant, RestoreError};
use mqtt_broker_host::store::{Config, OpenError, Store};
use mqtt_broker_host::{Error, StoreParts};
use serde_json::{Value, json};

use crate::failure::{Failure, fail, sentence};
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
    Check(Check),
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    place: Place,
    /// Limit of bytes of all connections, if the broker does not have the default of 536870912
    #[arg(long, value_name = "BYTES")]
    connection_bytes_total: Option<usize>,
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
        let (What::Show(place) | What::Check(Check { place, .. })) = &self.what;
        let parts = StoreParts::read(&place.dir).map_err(|error: Error| fail(sentence(&error)))?;
        if let [dir] = parts.directories()
            && let mut store = open(dir)?
            && let Some(client) = client(&mut store)?
        {
            return self.run_for_client(&client, &mut store);
        }
        match self.what {
            What::Show(place) => show(&place, &parts),
            What::Check(arguments) => check(&arguments, &parts),
        }
    }

    fn run_for_client(&self, client: &Client, store: &mut Store) -> Result<(), Failure> {
        let checks = matches!(self.what, What::Check(_));
        let (What::Show(place) | What::Check(Check { place, .. })) = &self.what;
        if checks {
            client.check(store)?;
        }
        if place.json {
            output_json(&client.json());
            return Ok(());
        }
        if checks {
            output(format_args!("the store is whole\n"));
            print_interrupted(store.interrupted());
        }
        client.print();
        Ok(())
    }
}

/// Opens an existing store, and changes nothing.
fn open(dir: &Path) -> Result<Store, Failure> {
    if !dir.join("journal.redb").exists() {
        return Err(fail(format!("{}: there is no store", dir.display())));
    }
    Store::open_to_read(Config::new(dir)).map_err(fail)
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

/// The content of a store, or of one part of it.
#[derive(Debug, Default)]
struct Contents {
    sessions: BTreeMap<u64, Session>,
    retained: BTreeMap<String, Retained>,
    /// The sessions that still need each message.
    targets: BTreeMap<u64, Vec<u64>>,
    /// The bytes of an interrupted write at the end.
    interrupted: u64,
}

/// The printed fields of a retained message.
#[derive(Debug)]
struct Retained {
    qos: u8,
    bytes: usize,
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
                let (qos, bytes) = (message.qos.get(), message.packet.len());
                let retained = Retained { qos, bytes };
                self.retained.insert((*topic).to_owned(), retained);
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

/// The content of all parts of a store.
#[derive(Debug, Default)]
struct Whole {
    threads: usize,
    sessions: Vec<Session>,
    /// The messages that one thread has for another one.
    between_threads: u64,
    retained: BTreeMap<String, Retained>,
    interrupted: u64,
}

impl Whole {
    /// Puts together what `read` returns for each part, by its directory and its number.
    fn read(
        parts: &StoreParts,
        read: impl Fn(&Path, usize) -> Result<Contents, Failure>,
    ) -> Result<Self, Failure> {
        let mut whole = Self {
            threads: parts.directories().len(),
            ..Self::default()
        };
        for (part, dir) in parts.directories().iter().enumerate() {
            let contents = read(dir, part)?;
            let own = |topic: &String| parts.part_of(topic) == part;
            let retained = contents.retained.into_iter();
            let retained = retained.filter(|(topic, _)| own(topic));
            whole.retained.extend(retained);
            whole.interrupted += contents.interrupted;
            for session in contents.sessions.into_values() {
                if session.client_id.starts_with(LINK) {
                    whole.between_threads += session.messages;
                } else {
                    whole.sessions.push(session);
                }
            }
        }
        Ok(whole)
    }
}

/// The client identifiers of links between threads begin with this character, which no client may use.
const LINK: char = '\0';

impl Contents {
    fn read(dir: &Path) -> Result<Self, Failure> {
        let mut contents = Self::default();
        let read = open(dir)?.restore(|record| {
            if let Some(entry) = Entry::read(record)? {
                contents.take(&entry);
            }
            Ok::<_, Fault>(())
        });
        read.map_err(fail)?;
        contents.count();
        Ok(contents)
    }
}

fn show(place: &Place, parts: &StoreParts) -> Result<(), Failure> {
    let whole = Whole::read(parts, |dir, _| Contents::read(dir))?;
    if place.json {
        output_json(&whole.json());
    } else {
        whole.print();
    }
    Ok(())
}

/// Returns a number and the name of what it counts.
pub(crate) fn counted(number: u64, name: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {name}{end}")
}

impl Whole {
    fn json(&self) -> Value {
        let sessions = self.sessions.iter().map(|session| {
            json!({
                "client_id": session.client_id,
                "version": session.version,
                "session_expiry": session.expiry,
                "connected": session.connected,
                "subscriptions": session.subscriptions,
                "messages": session.messages,
            })
        });
        let retained = self.retained.iter();
        let retained = retained.map(
            |(topic, message)| json!({"topic": topic, "qos": message.qos, "bytes": message.bytes}),
        );
        json!({
            "threads": self.threads,
            "sessions": sessions.collect::<Vec<_>>(),
            "between_threads": self.between_threads,
            "retained": retained.collect::<Vec<_>>(),
        })
    }

    fn print(&self) {
        for session in &self.sessions {
            session.print();
        }
        if self.between_threads > 0 {
            let messages = counted(self.between_threads, "message");
            output(format_args!("between threads: {messages}\n"));
        }
        for (topic, Retained { qos, bytes }) in &self.retained {
            output(format_args!(
                "retained {topic:?}: QoS {qos}, a packet of {bytes} bytes\n"
            ));
        }
    }
}

impl Session {
    fn print(&self) {
        let state = if self.connected { "connected" } else { "away" };
        output(format_args!(
            "session {:?}: MQTT {}, {state}, {} wait{}, expires {}\n",
            self.client_id,
            self.version,
            counted(self.messages, "message"),
            if self.messages == 1 { "s" } else { "" },
            match self.expiry {
                u32::MAX => "never".to_owned(),
                seconds => format!("after {seconds} s"),
            },
        ));
        for filter in &self.subscriptions {
            output(format_args!("  subscription {filter:?}\n"));
        }
    }
}

struct Nobody;

impl Hooks for Nobody {
    fn unguessable(&mut self) -> u128 {
        0
    }
}

/// Reads the part `part` of a store that has `parts`, as a broker does that starts with it.
fn restored(dir: &Path, limits: &Limits, part: usize, parts: usize) -> Result<Contents, Failure> {
    let now = Instant::from_millis(0);
    let small = |number| u8::try_from(number).unwrap_or(u8::MAX);
    let mut broker = Broker::new(limits.of_shard(small(parts)), Nobody, now);
    broker.start_links(small(part), small(parts));
    broker.start_journal();
    let (mut store, mut contents) = (open(dir)?, Contents::default());
    contents.interrupted = store.interrupted();
    let read = store.restore(|record| {
        broker.restore(record)?;
        if let Ok(Some(entry)) = Entry::read(record) {
            contents.take(&entry);
        }
        Ok::<_, RestoreError>(())
    });
    read.map_err(fail)?;
    let mut result = Ok(());
    let finished = store.finish(|| {
        result = broker.restored(now).map(drop);
        result
    });
    if let Err(why @ RestoreError::InFlight) = result {
        let total = limits.connection_bytes_total;
        return Err(fail(format!(
            "{}: a broker needs a connection-bytes-total above {total}: {why}; the store is not damaged",
            dir.display()
        )));
    }
    finished.map_err(|error: OpenError| fail(error))?;
    contents.count();
    Ok(contents)
}

fn check(arguments: &Check, parts: &StoreParts) -> Result<(), Failure> {
    let count = parts.directories().len();
    let mut limits = Limits::default();
    if let Some(total) = arguments.connection_bytes_total {
        limits.connection_bytes_total = total;
    }
    let whole = Whole::read(parts, |dir, part| restored(dir, &limits, part, count))?;
    let all = |count: fn(&Session) -> u64| whole.sessions.iter().map(count).sum::<u64>();
    let sessions = all(|_| 1);
    let subscriptions = all(|session| to_u64(session.subscriptions.len()));
    let messages = all(|session| session.messages);
    let retained = to_u64(whole.retained.len());
    if arguments.place.json {
        output_json(&json!({
            "threads": whole.threads,
            "sessions": sessions,
            "subscriptions": subscriptions,
            "messages": messages,
            "between_threads": whole.between_threads,
            "retained": retained,
            "interrupted_bytes": whole.interrupted,
        }));
        return Ok(());
    }
    output(format_args!(
        "the store is whole: {}, {}, {}, {}\n",
        counted(sessions, "session"),
        counted(subscriptions, "subscription"),
        counted(messages, "message"),
        counted(retained, "retained message"),
    ));
    if whole.between_threads > 0 {
        let messages = counted(whole.between_threads, "message");
        output(format_args!("between threads: {messages}\n"));
    }
    print_interrupted(whole.interrupted);
    Ok(())
}

/// Prints how much of a write that was interrupted is not used. Nothing of it was acknowledged.
fn print_interrupted(bytes: u64) {
    if bytes > 0 {
        let bytes = counted(bytes, "byte");
        output(format_args!(
            "its end was being written when the process ended: {bytes} are not used\n"
        ));
    }
}
