//! The stages below MQTT on both sides of a wire: those of `mqtt_transport`, with a model of TLS. The masks of WebSocket are random,
//! but no length depends on them, so a seed still decides what happens.

use bytes::BytesMut;
use mqtt_transport::proxy::ProxyStage;
use mqtt_transport::websocket::{
    WebSocketClient, WebSocketOptions, WebSocketServer, WebSocketServerOptions,
};
use mqtt_transport::{AnyServer, AnyServerOptions, Error, ErrorKind, Stack};

use super::Random;
use super::tls::{ModelTls, Role};

/// The stages of one connection.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) client: Stack,
    pub(super) server: Stack,
    /// Whether the client was told that its handshakes are over.
    pub(super) is_open: bool,
    has_tls: bool,
}

/// The header that a proxy in front of the server sends before the bytes of the client.
const PROXY: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 1883\r\n";

impl Layers {
    /// Makes stages that the random numbers choose.
    pub(super) fn new(random: &mut Random) -> Self {
        let (mut client, mut server) = (Stack::new(), Stack::new());
        if random.once_in(4) {
            server.push(ProxyStage::header());
            let (first, second) = PROXY.split_at(random.below(PROXY.len()));
            for part in [first, second] {
                let mut plain = BytesMut::new();
                server.input(part, &mut plain).expect("a header of a proxy");
            }
        }
        let has_tls = random.once_in(2);
        if has_tls {
            client.push(ModelTls::new(Role::Client, random.next()));
            server.push(ModelTls::new(Role::Server, random.next()));
        }
        let (websocket, any) = (random.once_in(2), random.once_in(3));
        if websocket {
            let options = WebSocketOptions::default();
            client.push(WebSocketClient::new("broker", &options).expect("valid"));
        }
        let options = WebSocketServerOptions::default();
        if any {
            let mut either = AnyServerOptions::default();
            either.websocket = Some(options);
            server.push(AnyServer::new(either));
        } else if websocket {
            server.push(WebSocketServer::new(options));
        }
        Self {
            is_open: client.is_open(),
            client,
            server,
            has_tls,
        }
    }

    /// Gives plain bytes to the client's stages, and moves up to `most` bytes of the wire to the server. Returns how many plain bytes
    /// were taken and how many bytes moved.
    pub(super) fn up(
        &mut self,
        outgoing: &[u8],
        most: usize,
        plain: &mut BytesMut,
    ) -> Result<(usize, usize), Error> {
        let taken = self.client.output(outgoing);
        let moved = self.client.outgoing().len().min(most);
        let wire = self.client.outgoing()[..moved].to_vec();
        self.client.sent(moved);
        self.server.input(&wire, plain)?;
        Ok((taken, moved))
    }

    /// Moves up to `most` bytes of the server's stages to the wire. Returns how many.
    pub(super) fn down(&mut self, most: usize, wire: &mut BytesMut) -> usize {
        let moved = self.server.outgoing().len().min(most);
        wire.extend_from_slice(&self.server.outgoing()[..moved]);
        self.server.sent(moved);
        moved
    }

    /// Checks what the client's stages say about the end of the stream: an end that the server sent is told apart from a cut.
    pub(super) fn check_end(&mut self, by_server: bool) -> Result<(), String> {
        let was_open = self.client.is_open();
        let told = self.client.end_of_file().map_err(|error| error.kind());
        let expected = match (by_server, was_open) {
            (true, true) => Ok(()),
            (false, true) if self.has_tls && !self.client.is_ended() => Err(ErrorKind::Truncated),
            // During a handshake, the stages that are not open report it. Without TLS a cut is not noticed.
            _ => return Ok(()),
        };
        if told == expected {
            return Ok(());
        }
        Err(format!(
            "the stream ends, by the server {by_server}: {told:?} is told, not {expected:?}, by {:?}",
            self.client
        ))
    }
}
