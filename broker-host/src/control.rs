//! Sends commands from other tasks and threads to a running host.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mqtt_broker::{Config, ConnectionId, Hooks, Outgoing, Statistics, Verdict};
use mqtt_proto::{
    Decoded, Encode, EncodeError, MAX_PACKET, Packet, Publish, QoS, ReasonCode, Version,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::layers::Layers;
use crate::listener::serve;
use crate::peer::{Peer, Peers};
use crate::shared::Shared;

/// How many commands may wait.
const COMMANDS: usize = 1_024;

/// Sends commands to a running [`Host`](crate::Host) from other tasks, other threads, and hooks that decide later.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    peers: Peers,
    /// The controls of the other shards, if this is the control of a broker with several ones.
    others: Arc<[Self]>,
}

/// The receiving end of a [`Control`], for the host.
#[derive(Debug)]
pub struct Commands {
    commands: mpsc::Receiver<Command>,
    pub(crate) peers: Peers,
}

#[derive(Debug)]
enum Command {
    Decide(ConnectionId, Verdict),
    /// A message as a packet of MQTT 5, and its quality of service.
    Publish(Vec<u8>, QoS),
    Disconnect(String, ReasonCode, oneshot::Sender<bool>),
    Statistics(oneshot::Sender<Statistics>),
    Clients(usize, oneshot::Sender<Vec<Connected>>),
    Serve(Box<TcpStream>, Arc<Layers>),
    Configure(Box<Config>, Change, oneshot::Sender<bool>),
}

/// A connected client.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Connected {
    /// The client identifier.
    pub client_id: String,
    /// The user name of the client.
    pub user_name: Option<String>,
    /// The version of MQTT that the client uses.
    pub version: Version,
    /// The address of the client, as in [`Peer`].
    pub address: Option<SocketAddr>,
    /// How many filters it subscribes to.
    pub subscriptions: usize,
}

/// A change of a host's hooks. Returns whether the hooks have the expected type.
struct Change(Box<ChangeFn>);

type ChangeFn = dyn FnOnce(&mut dyn Any) -> bool + Send;

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

/// Makes a pair of ends: hooks may store the first, and [`Host::new`](crate::Host::new) takes the second.
#[must_use]
pub fn control() -> (Control, Commands) {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    let peers = Peers::default();
    let control = Control {
        commands: sender,
        peers: peers.clone(),
        others: Arc::default(),
    };
    let commands = Commands {
        commands: receiver,
        peers,
    };
    (control, commands)
}

impl Control {
    /// Returns the control of the broker whose first shard has this control.
    #[cfg(feature = "files")]
    pub(crate) fn with(self, others: Vec<Self>) -> Self {
        Self {
            others: others.into(),
            ..self
        }
    }

    /// Returns the senders of commands to all shards.
    fn shards(&self) -> impl Iterator<Item = &mpsc::Sender<Command>> {
        let others = self.others.iter().map(|other| &other.commands);
        std::iter::once(&self.commands).chain(others)
    }

    /// Gives the decision after [`Verdict::Later`] of a hook. Waits while a thousand commands wait.
    pub async fn decide(&self, connection: ConnectionId, verdict: Verdict) {
        // A host that has ended needs no decisions.
        let _ = self
            .commands
            .send(Command::Decide(connection, verdict))
            .await;
    }

    /// Does the same from a thread without a runtime, such as that of `spawn_blocking`.
    pub fn decide_blocking(&self, connection: ConnectionId, verdict: Verdict) {
        let _ = self
            .commands
            .blocking_send(Command::Decide(connection, verdict));
    }

    /// Publishes a message to all clients with a matching subscription.
    ///
    /// # Errors
    /// The message cannot be encoded as a packet.
    pub async fn publish(&self, message: &Outgoing<'_>) -> Result<(), EncodeError> {
        let publish = Publish {
            retain: message.retain,
            properties: message.properties,
            ..Publish::new(message.topic, message.payload)
        };
        let mut packet = vec![0; publish.encoded_len(Version::V5)?];
        publish.encode(Version::V5, &mut packet)?;
        for shard in self.shards() {
            let command = Command::Publish(packet.clone(), message.qos);
            let _ = shard.send(command).await;
        }
        Ok(())
    }

    /// Ends the connection of a client. Returns `false` if the client is not connected.
    pub async fn disconnect(&self, client_id: &str, reason: ReasonCode) -> bool {
        let mut was_connected = false;
        for shard in self.shards() {
            let (sender, receiver) = oneshot::channel();
            let command = Command::Disconnect(client_id.to_owned(), reason, sender);
            was_connected |= shard.send(command).await.is_ok() && receiver.await.unwrap_or(false);
        }
        was_connected
    }

    /// Returns the peer of a connection; `None` if the connection has ended. Hooks call it when a client connects.
    #[must_use]
    pub fn peer(&self, connection: ConnectionId) -> Option<Peer> {
        self.peers.get(connection)
    }

    /// Returns the statistics of the broker; `None` if the host has ended.
    pub async fn statistics(&self) -> Option<Statistics> {
        let mut all = Vec::new();
        for shard in self.shards() {
            let (sender, receiver) = oneshot::channel();
            shard.send(Command::Statistics(sender)).await.ok()?;
            all.push(receiver.await.ok()?);
        }
        Some(Statistics::of_all(&all))
    }

    /// Returns the connected clients, at most `most` of them; `None` if the host has ended.
    pub async fn clients(&self, most: usize) -> Option<Vec<Connected>> {
        let mut all = Vec::new();
        for shard in self.shards() {
            let (sender, receiver) = oneshot::channel();
            let command = Command::Clients(most.saturating_sub(all.len()), sender);
            shard.send(command).await.ok()?;
            all.extend(receiver.await.ok()?);
        }
        Some(all)
    }

    /// Serves a connection that the program has accepted, with these layers over the socket.
    pub async fn serve(&self, stream: TcpStream, layers: Arc<Layers>) {
        // A host that has ended closes the connection.
        let command = Command::Serve(Box::new(stream), layers);
        let _ = self.commands.send(command).await;
    }

    /// Replaces the limits as [`Broker::configure`](mqtt_broker::Broker::configure) does, and calls `change` with the hooks. Both
    /// happen between two packets, so that both apply to each client at the same time. Returns `false`, and changes nothing, if
    /// the host has ended or its hooks are not an `H`. With several threads, one thread after the other changes, and each has its part
    /// of the limits ([`Config::of_shard`]).
    pub async fn configure<H: Hooks + 'static>(
        &self,
        config: Config,
        change: impl FnOnce(&mut H) + Clone + Send + 'static,
    ) -> bool {
        let shards = u8::try_from(self.others.len() + 1).unwrap_or(u8::MAX);
        let mut all = true;
        for shard in self.shards() {
            let change = change.clone();
            let change = Change(Box::new(|hooks| {
                hooks.downcast_mut::<H>().map(change).is_some()
            }));
            let (sender, receiver) = oneshot::channel();
            let config = match shards {
                1 => config.clone(),
                _ => config.of_shard(shards),
            };
            let command = Command::Configure(Box::new(config), change, sender);
            all &= shard.send(command).await.is_ok() && receiver.await.unwrap_or(false);
        }
        all
    }
}

/// Executes commands until every [`Control`] is dropped.
pub(crate) async fn obey<H: Hooks + 'static>(
    shared: Rc<RefCell<Shared<H>>>,
    mut commands: Commands,
) {
    crate::shards::all_ready(&shared).await;
    while let Some(command) = commands.commands.recv().await {
        let mut state = shared.borrow_mut();
        let now = state.now();
        match command {
            Command::Decide(connection, verdict) => state.broker.decide(connection, verdict, now),
            Command::Publish(packet, qos) => {
                if let Ok(Decoded::Packet {
                    packet: Packet::Publish(publish),
                    ..
                }) = Packet::decode(&packet, Version::V5, MAX_PACKET)
                {
                    let message = Outgoing {
                        retain: publish.retain,
                        properties: publish.properties,
                        ..Outgoing::new(publish.topic, qos, publish.payload)
                    };
                    state.broker.publish(&message, now);
                }
            }
            Command::Disconnect(client_id, reason, answer) => {
                let _ = answer.send(state.broker.disconnect(&client_id, reason, now));
            }
            Command::Statistics(answer) => {
                let _ = answer.send(state.broker.statistics(now));
            }
            Command::Clients(most, answer) => {
                let _ = answer.send(connected(&state, most));
            }
            Command::Serve(stream, layers) => {
                // The function borrows the state itself.
                drop(state);
                serve(&shared, *stream, &layers);
                continue;
            }
            Command::Configure(config, change, answer) => {
                let changed = (change.0)(state.broker.hooks());
                if changed {
                    state.broker.configure(*config, now);
                    state.broker.rights_changed();
                }
                let _ = answer.send(changed);
            }
        }
        state.wake(None);
    }
}

fn connected<H: Hooks>(shared: &Shared<H>, most: usize) -> Vec<Connected> {
    let clients = shared.broker.clients().take(most);
    clients
        .map(|client| Connected {
            client_id: client.client_id.to_owned(),
            user_name: client.user_name.map(str::to_owned),
            version: client.version,
            address: shared
                .peers
                .get(client.connection)
                .and_then(|peer| peer.address),
            subscriptions: client.subscriptions,
        })
        .collect()
}
