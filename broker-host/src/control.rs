//! Commands from other tasks and threads to a running host.

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

/// Commands that may wait.
const COMMANDS: usize = 1_024;

/// Speaks to a running [`Host`](crate::Host) from anywhere: other tasks, other threads, hooks that decide later.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    peers: Peers,
}

/// The host's end of a [`Control`].
#[derive(Debug)]
pub struct Commands {
    commands: mpsc::Receiver<Command>,
    pub(crate) peers: Peers,
}

#[derive(Debug)]
enum Command {
    Decide(ConnectionId, Verdict),
    /// As the packet it would be in MQTT 5 at this quality of service.
    Publish(Vec<u8>, QoS),
    Disconnect(String, ReasonCode, oneshot::Sender<bool>),
    Statistics(oneshot::Sender<Statistics>),
    Clients(usize, oneshot::Sender<Vec<Connected>>),
    Serve(Box<TcpStream>, Arc<Layers>),
    Configure(Box<Config>, Change, oneshot::Sender<bool>),
}

/// A client that is connected.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Connected {
    /// Its client identifier.
    pub client_id: String,
    /// Its user name.
    pub user_name: Option<String>,
    /// The version of MQTT that it speaks.
    pub version: Version,
    /// Its address, as in [`Peer`].
    pub address: Option<SocketAddr>,
    /// How many filters it subscribes to.
    pub subscriptions: usize,
}

/// What is done to the hooks of a host; returns whether they are of the type that was meant.
struct Change(Box<ChangeFn>);

type ChangeFn = dyn FnOnce(&mut dyn Any) -> bool + Send;

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

/// A pair: hooks may hold the first, [`Host::new`](crate::Host::new) takes the second.
#[must_use]
pub fn control() -> (Control, Commands) {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    let peers = Peers::default();
    let control = Control {
        commands: sender,
        peers: peers.clone(),
    };
    let commands = Commands {
        commands: receiver,
        peers,
    };
    (control, commands)
}

impl Control {
    /// Answers a hook's [`Verdict::Later`]. Waits while a thousand commands wait.
    pub async fn decide(&self, connection: ConnectionId, verdict: Verdict) {
        // A host that is gone needs no decisions.
        let _ = self
            .commands
            .send(Command::Decide(connection, verdict))
            .await;
    }

    /// The same from a thread without a runtime, such as that of `spawn_blocking`.
    pub fn decide_blocking(&self, connection: ConnectionId, verdict: Verdict) {
        let _ = self
            .commands
            .blocking_send(Command::Decide(connection, verdict));
    }

    /// Publishes a message to all whose subscriptions match.
    ///
    /// # Errors
    /// It cannot be written as a packet.
    pub async fn publish(&self, message: &Outgoing<'_>) -> Result<(), EncodeError> {
        let publish = Publish {
            retain: message.retain,
            properties: message.properties,
            ..Publish::new(message.topic, message.payload)
        };
        let mut packet = vec![0; publish.encoded_len(Version::V5)?];
        publish.encode(Version::V5, &mut packet)?;
        let _ = self
            .commands
            .send(Command::Publish(packet, message.qos))
            .await;
        Ok(())
    }

    /// Ends the connection of a client. `false` if it is not connected.
    pub async fn disconnect(&self, client_id: &str, reason: ReasonCode) -> bool {
        let (sender, receiver) = oneshot::channel();
        let command = Command::Disconnect(client_id.to_owned(), reason, sender);
        self.commands.send(command).await.is_ok() && receiver.await.unwrap_or(false)
    }

    /// Returns who is at the other end of a connection. `None` if it is gone. Hooks ask it when a client connects.
    #[must_use]
    pub fn peer(&self, connection: ConnectionId) -> Option<Peer> {
        self.peers.get(connection)
    }

    /// What the broker counts. `None` if it is gone.
    pub async fn statistics(&self) -> Option<Statistics> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Statistics(sender)).await.ok()?;
        receiver.await.ok()
    }

    /// Returns the clients that are connected, at most `most` of them. `None` if the broker is gone.
    pub async fn clients(&self, most: usize) -> Option<Vec<Connected>> {
        let (sender, receiver) = oneshot::channel();
        let command = Command::Clients(most, sender);
        self.commands.send(command).await.ok()?;
        receiver.await.ok()
    }

    /// Serves a connection that the program has accepted, with these layers between the socket and MQTT.
    pub async fn serve(&self, stream: TcpStream, layers: Arc<Layers>) {
        // A host that is gone closes it.
        let command = Command::Serve(Box::new(stream), layers);
        let _ = self.commands.send(command).await;
    }

    /// Replaces the limits as [`Broker::configure`](mqtt_broker::Broker::configure) does, and calls `change` with the hooks, both
    /// between two packets: no client meets the one without the other. Returns `false`, and changes nothing, if the host is gone or
    /// its hooks are no `H`.
    pub async fn configure<H: Hooks + 'static>(
        &self,
        config: Config,
        change: impl FnOnce(&mut H) + Send + 'static,
    ) -> bool {
        let change = Change(Box::new(|hooks| {
            hooks.downcast_mut::<H>().map(change).is_some()
        }));
        let (sender, receiver) = oneshot::channel();
        let command = Command::Configure(Box::new(config), change, sender);
        self.commands.send(command).await.is_ok() && receiver.await.unwrap_or(false)
    }
}

/// Carries out the commands until every [`Control`] is dropped.
pub(crate) async fn obey<H: Hooks + 'static>(
    shared: Rc<RefCell<Shared<H>>>,
    mut commands: Commands,
) {
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
                // It borrows the state itself.
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
