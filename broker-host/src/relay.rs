//! Serves a client whose session is in another process: passes its bytes to that process, and the answers back.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mqtt_broker::ConnectionId;
use mqtt_proto::{
    ConnAck, Connect, Decoded, Encode, MAX_PACKET, Packet, Properties, Property, ReasonCode,
    Version,
};
use mqtt_transport::bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::about::About;
use crate::link::{LINGER, Wire};
use crate::listener::Accepted;
use crate::peer::Peers;
use crate::processes::{Relays, Unreached};
use crate::shards::Moved;
use crate::shared::wake_after_poll;
use crate::staged::Staged;
use crate::task::Polled;

/// How long a client may take nothing while bytes wait for it. The other process may have ended its connection behind these bytes.
const STALL: Duration = Duration::from_secs(120);
/// How often both directions are tried before other connections have their turn.
const ROUNDS: usize = 4;

/// Serves a client of another process until its connection has ended.
pub(crate) async fn relay(relays: &Relays, moved: Moved, owner: u8, peers: &Peers) {
    let Moved {
        id,
        stream,
        staged,
        peer,
        input,
    } = moved;
    let Ok(accepted) = stream.into_accepted() else {
        return;
    };
    let version = version_of(&input);
    let mut client = Client { id, staged, peers };
    let answer = match redirected(relays, owner, (version, peer.listener)).await {
        Some(answer) => Err(answer),
        None => {
            let about = About::Client {
                peer: peer.clone(),
                logins: relays.processes.logins(),
            };
            let opened = relays.processes.pipes.open(owner, &about).await;
            opened.map_err(|why| {
                client.log(&peer, owner, &why);
                refusal(version, ReasonCode::ServerUnavailable, None)
            })
        }
    };
    let both = match answer {
        Ok(pipe) => Both::new(pipe, input),
        Err(answer) => Both::answering(&answer),
    };
    let mut space = relays.buffer.clone();
    match accepted {
        Accepted::Tcp(mut stream) => both.serve(&mut client, &mut stream, &mut space).await,
        Accepted::Unix(mut stream) => both.serve(&mut client, &mut stream, &mut space).await,
    }
}

/// Returns the answer for a client of MQTT 5 that is sent to the other process.
async fn redirected(
    relays: &Relays,
    owner: u8,
    (version, listener): (Version, usize),
) -> Option<Vec<u8>> {
    let processes = &relays.processes;
    if !processes.redirects || !version.is_v5() {
        return None;
    }
    let addresses = processes.pipes.addresses(owner).await.ok()??;
    // The listeners of all processes are the same.
    let mut lines = addresses.lines().filter_map(|line| line.split_once(' '));
    let (_, address) = lines.find(|(number, _)| number.parse() == Ok(listener))?;
    let reason = ReasonCode::UseAnotherServer;
    Some(refusal(version, reason, Some(address)))
}

/// Returns a CONNACK that refuses a client.
fn refusal(version: Version, reason: ReasonCode, server: Option<&str>) -> Vec<u8> {
    let properties = server.map(Property::ServerReference);
    let connack = ConnAck {
        reason,
        properties: Properties::from(properties.as_slice()),
        ..ConnAck::default()
    };
    let mut bytes = vec![0; connack.encoded_len(version).unwrap_or(0)];
    match connack.encode(version, &mut bytes) {
        Ok(_) => bytes,
        Err(_) => Vec::new(),
    }
}

/// Returns the version of the CONNECT at the front.
fn version_of(input: &[u8]) -> Version {
    connect_of(input).map_or(Version::V311, |connect| connect.version)
}

/// Returns whether the CONNECT at the front has no client identifier.
pub(crate) fn is_unnamed(input: &[u8]) -> bool {
    connect_of(input).is_some_and(|connect| connect.client_id.is_empty())
}

fn connect_of(input: &[u8]) -> Option<Connect<'_>> {
    match Packet::decode(input, Version::V5, MAX_PACKET) {
        Ok(Decoded::Packet {
            packet: Packet::Connect(connect),
            ..
        }) => Some(connect),
        _ => None,
    }
}

/// The client, without its transport.
struct Client<'p> {
    id: ConnectionId,
    staged: Option<Box<Staged>>,
    peers: &'p Peers,
}

impl Client<'_> {
    /// Returns whether the transport has more bytes than the stages have read in this turn.
    fn has_more(&mut self) -> bool {
        let staged = self.staged.as_mut();
        staged.is_some_and(|staged| std::mem::take(&mut staged.has_more))
    }

    /// Logs that the client is refused; the lines of one address are limited.
    fn log(&self, peer: &crate::Peer, owner: u8, why: &Unreached) {
        #[cfg(feature = "files")]
        if self.peers.may_log_failure(peer) {
            let peer = peer.address.map(tracing::field::display);
            tracing::warn!(peer, shard = owner, %why, "a client of another process is refused");
        }
        #[cfg(not(feature = "files"))]
        let _ = (peer, owner, why, self.peers);
    }
}

/// The client on its transport.
struct Reached<'c, 'p, T> {
    client: &'c mut Client<'p>,
    transport: &'c mut T,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Reached<'_, '_, T> {
    /// Does something with the transport, or with the stages above it.
    fn with<R>(&mut self, cx: &mut Context<'_>, work: impl FnOnce(&mut dyn Wire) -> R) -> R {
        let transport = &mut *self.transport;
        let mut wire = Polled { transport, cx };
        let Client { id, staged, peers } = &mut *self.client;
        match staged {
            Some(staged) => work(&mut staged.over(&mut wire, *id, peers)),
            None => work(&mut wire),
        }
    }

    /// Ends the stages after an error, and logs it if it is one of theirs.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) {
        self.with(cx, |wire| wire.write_last(&[]));
        if let Some(staged) = &mut self.client.staged {
            staged.log_failure(self.client.id, self.client.peers);
        }
    }
}

/// The bytes of one direction.
#[derive(Debug, Default)]
struct Direction {
    bytes: BytesMut,
    /// Whether no more come.
    has_ended: bool,
    /// Whether the receiver knows that.
    is_shut: bool,
}

impl Direction {
    /// Notes that the first `n` bytes are written. A silent client keeps no buffer.
    fn written(&mut self, n: usize) {
        self.bytes.advance(n);
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}

/// Both directions between a client and a pipe.
struct Both {
    /// `None` if the client only gets an answer, and after the end of the pipe.
    pipe: Option<DuplexStream>,
    up: Direction,
    down: Direction,
    /// Whether the client takes no bytes any more. What it sent before is still passed on.
    is_deaf: bool,
    /// How long the client may take to go on, or to close its connection.
    lingers: Option<Pin<Box<Sleep>>>,
}

impl Both {
    fn new(pipe: DuplexStream, input: BytesMut) -> Self {
        let up = Direction {
            bytes: input,
            ..Direction::default()
        };
        Self {
            pipe: Some(pipe),
            up,
            down: Direction::default(),
            is_deaf: false,
            lingers: None,
        }
    }

    fn answering(answer: &[u8]) -> Self {
        let mut down = Direction::default();
        down.bytes.extend_from_slice(answer);
        down.has_ended = true;
        Self {
            pipe: None,
            up: Direction::default(),
            down,
            is_deaf: false,
            lingers: None,
        }
    }

    /// Passes bytes until the connection has ended.
    fn serve<'c, T: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        client: &'c mut Client<'_>,
        transport: &'c mut T,
        space: &mut std::rc::Rc<std::cell::RefCell<Box<[u8]>>>,
    ) -> impl Future<Output = ()> {
        let mut reached = Reached { client, transport };
        poll_fn(move |cx| {
            for _ in 0..ROUNDS {
                let mut space = space.borrow_mut();
                let up = self.up(&mut reached, &mut space, cx);
                let down = self.down(&mut reached, &mut space, cx);
                if down.is_ready() {
                    self.lingers = None;
                }
                match (up, down) {
                    (Poll::Ready(Err(_)), _) => {
                        reached.say_goodbye(cx);
                        return Poll::Ready(());
                    }
                    (_, Poll::Ready(Err(_))) => {
                        // The bytes that the client sent before it closed its connection are still read, such as DISCONNECT.
                        self.is_deaf = true;
                        self.down.bytes = BytesMut::new();
                    }
                    (Poll::Pending, Poll::Pending) if reached.client.has_more() => break,
                    (Poll::Pending, Poll::Pending) => return self.is_over(cx),
                    _ => {}
                }
            }
            wake_after_poll(cx);
            Poll::Pending
        })
    }

    /// Returns whether the client has closed its connection, or had the time to.
    fn is_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.down.is_shut && self.up.has_ended {
            return Poll::Ready(());
        }
        let most = match self.down.has_ended {
            true => LINGER,
            false if self.down.bytes.is_empty() => return Poll::Pending,
            false => STALL,
        };
        let lingers = self.lingers.get_or_insert_with(|| Box::pin(sleep(most)));
        lingers.as_mut().poll(cx)
    }

    /// Does the next step towards the process. An error ends the connection of the client.
    fn up<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Reached<'_, '_, T>,
        space: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(pipe) = &mut self.pipe else {
            // Nobody takes it.
            self.up.bytes = BytesMut::new();
            if !self.up.has_ended {
                let n = ready!(client.with(cx, |wire| wire.discard(space)))?;
                self.up.has_ended = n == 0;
                return Poll::Ready(Ok(()));
            }
            return Poll::Pending;
        };
        if !self.up.bytes.is_empty() {
            match ready!(Pin::new(&mut *pipe).poll_write(cx, &self.up.bytes)) {
                Ok(n) => self.up.written(n),
                // The bytes that the process wrote before are still read.
                Err(_) => self.up.bytes = BytesMut::new(),
            }
        } else if !self.up.has_ended {
            let bytes = &mut self.up.bytes;
            let n = ready!(client.with(cx, |wire| wire.read_onto(bytes, space)))?;
            self.up.has_ended = n == 0;
        } else if !self.up.is_shut {
            let _ = ready!(Pin::new(&mut *pipe).poll_shutdown(cx));
            self.up.is_shut = true;
        } else {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Does the next step towards the client.
    fn down<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Reached<'_, '_, T>,
        space: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let down = &mut self.down;
        if self.is_deaf {
            down.bytes = BytesMut::new();
        }
        if !down.bytes.is_empty() {
            let bytes = &down.bytes;
            let n = ready!(client.with(cx, |wire| wire.write(bytes)))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            down.written(n);
            return Poll::Ready(Ok(()));
        }
        let flushed = match self.is_deaf {
            true => Poll::Ready(Ok(())),
            false => client.with(cx, |wire| wire.flush()),
        };
        if !down.has_ended {
            if let Poll::Ready(Err(error)) = flushed {
                return Poll::Ready(Err(error));
            }
            let Some(pipe) = &mut self.pipe else {
                return Poll::Pending;
            };
            let mut space = ReadBuf::new(space);
            let read = ready!(Pin::new(&mut *pipe).poll_read(cx, &mut space));
            down.bytes.extend_from_slice(space.filled());
            if read.is_err() || space.filled().is_empty() {
                down.has_ended = true;
                self.pipe = None;
            }
            return Poll::Ready(Ok(()));
        }
        if down.is_shut {
            return Poll::Pending;
        }
        ready!(flushed)?;
        if !self.is_deaf {
            ready!(client.with(cx, |wire| wire.shut_down()))?;
        }
        down.is_shut = true;
        Poll::Ready(Ok(()))
    }
}
