//! A server that tells by the first bytes of a connection what the client speaks.

use std::io::{self, Write};

use bytes::BytesMut;

use crate::detect::{Protocol, detect};
use crate::error::{Error, ErrorKind};
use crate::stack::{Peer, Stack, Stage};

/// The protocols that clients may use at one port. A protocol that is not set is refused.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AnyServerOptions {
    /// Whether plain MQTT, without TLS and WebSocket, is refused. Default `false`.
    pub refuse_plain: bool,
    /// TLS, with MQTT or WebSocket above it. Default none.
    #[cfg(feature = "tls")]
    pub tls: Option<std::sync::Arc<crate::tls::TlsServer>>,
    /// WebSocket. Default none.
    #[cfg(feature = "websocket")]
    pub websocket: Option<crate::websocket::WebSocketServerOptions>,
}

/// The server side of a connection, as a stage: the first bytes of the client decide whether TLS, WebSocket or both stand between it and
/// MQTT.
#[derive(Debug)]
pub struct AnyServer {
    options: AnyServerOptions,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The first bytes, which may still become one of several protocols.
    Undecided(Vec<u8>),
    Decided(Box<Stack>),
    Failed(Error),
}

impl AnyServer {
    /// Makes a stage for an accepted connection.
    #[must_use]
    pub const fn new(options: AnyServerOptions) -> Self {
        Self {
            options,
            state: State::Undecided(Vec::new()),
        }
    }

    /// Returns the stages for a protocol.
    fn stages(&mut self, protocol: Protocol) -> Result<Stack, Error> {
        let refused = || {
            let found = format!("the client speaks {protocol}, which this port is not for");
            Err(Error::new(ErrorKind::WrongProtocol, found))
        };
        match protocol {
            Protocol::Mqtt if !self.options.refuse_plain => Ok(Stack::new()),
            #[cfg(feature = "tls")]
            Protocol::Tls => match self.options.tls.take() {
                Some(tls) => {
                    // The protocol above TLS is recognised in the same way. TLS within TLS is refused.
                    let mut above = self.options.clone();
                    above.refuse_plain = false;
                    Ok(Stack::new().with(tls.stage()?).with(Self::new(above)))
                }
                None => refused(),
            },
            #[cfg(feature = "websocket")]
            Protocol::Http => match self.options.websocket.take() {
                Some(options) => {
                    Ok(Stack::new().with(crate::websocket::WebSocketServer::new(options)))
                }
                None => refused(),
            },
            _ => refused(),
        }
    }

    /// Takes first bytes until they show the protocol. Returns all first bytes then.
    fn decide(&mut self, wire: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let State::Undecided(first) = &mut self.state else {
            return Ok(None);
        };
        first.extend_from_slice(wire);
        let Some(protocol) = detect(first) else {
            return Ok(None);
        };
        let first = std::mem::take(first);
        self.state = State::Decided(Box::new(self.stages(protocol)?));
        Ok(Some(first))
    }
}

impl Stage for AnyServer {
    fn input(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        let result = self.decide(wire).and_then(|first| match &mut self.state {
            State::Decided(stack) => stack.input(first.as_deref().unwrap_or(wire), plain),
            State::Failed(error) => Err(error.clone()),
            State::Undecided(_) => Ok(()),
        });
        if let (Err(error), State::Undecided(_)) = (&result, &self.state) {
            self.state = State::Failed(error.clone());
        }
        result
    }

    fn output(&mut self, plain: &[u8]) -> usize {
        match &mut self.state {
            State::Decided(stack) => stack.output(plain),
            _ => 0,
        }
    }

    fn output_to(&mut self, plain: &[u8], wire: &mut dyn Write) -> io::Result<usize> {
        match &mut self.state {
            State::Decided(stack) => stack.output_to(plain, wire),
            _ => Ok(0),
        }
    }

    fn outgoing(&self) -> &[u8] {
        match &self.state {
            State::Decided(stack) => stack.outgoing(),
            _ => &[],
        }
    }

    fn sent(&mut self, n: usize) {
        if let State::Decided(stack) = &mut self.state {
            stack.sent(n);
        }
    }

    fn end_of_file(&mut self) -> Result<(), Error> {
        match &mut self.state {
            State::Decided(stack) => stack.end_of_file(),
            State::Failed(error) => Err(error.clone()),
            State::Undecided(_) => Err(Error::new(
                ErrorKind::HandshakeCut,
                "the client closed the connection before it showed what it speaks",
            )),
        }
    }

    fn close(&mut self) {
        if let State::Decided(stack) = &mut self.state {
            stack.close();
        }
    }

    fn is_open(&self) -> bool {
        matches!(&self.state, State::Decided(stack) if stack.is_open())
    }

    fn is_ended(&self) -> bool {
        matches!(&self.state, State::Decided(stack) if stack.is_ended())
    }

    fn is_passed(&self) -> bool {
        matches!(&self.state, State::Decided(stack) if stack.is_plain() && stack.outgoing().is_empty())
    }

    fn describe(&self, peer: &mut Peer) {
        if let State::Decided(stack) = &self.state {
            stack.describe(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(options: AnyServerOptions, pieces: &[&[u8]]) -> (Result<(), Error>, BytesMut, bool) {
        let mut stack = Stack::new().with(AnyServer::new(options));
        let mut plain = BytesMut::new();
        for piece in pieces {
            if let Err(error) = stack.input(piece, &mut plain) {
                let again = stack.input(b"\x10", &mut plain);
                assert_eq!(again.map_err(|error| error.kind()), Err(error.kind()));
                return (Err(error), plain, false);
            }
        }
        (Ok(()), plain, stack.is_open())
    }

    #[test]
    fn plain_mqtt_passes_unless_it_is_refused() {
        let connect = b"\x10\x0c\0\x04MQTT";
        let (result, plain, is_open) = input(AnyServerOptions::default(), &[connect]);
        assert!(result.is_ok() && is_open);
        assert_eq!(&plain[..], connect);
        let options = AnyServerOptions {
            refuse_plain: true,
            ..AnyServerOptions::default()
        };
        let (result, ..) = input(options, &[connect]);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongProtocol);
        assert!(error.to_string().contains("plain MQTT"), "{error}");
    }

    #[test]
    fn what_is_not_set_is_refused() {
        for (pieces, name) in [
            ([&b"GE"[..], b"T /mqtt HTTP/1.1\r\n"], "HTTP"),
            ([b"\x16", b"\x03\x01\x02\0"], "TLS"),
            ([b"\0\0", b""], "something unknown"),
        ] {
            let (result, plain, _) = input(AnyServerOptions::default(), &pieces);
            let text = result.unwrap_err().to_string();
            assert!(text.contains(name), "{text}");
            assert!(plain.is_empty());
        }
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn websocket_is_recognised_in_any_pieces() {
        let options = AnyServerOptions {
            websocket: Some(crate::websocket::WebSocketServerOptions::default()),
            ..AnyServerOptions::default()
        };
        let request =
            b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Protocol: mqtt\r\n\r\n";
        let pieces: Vec<&[u8]> = request.chunks(1).collect();
        let (result, plain, is_open) = input(options, &pieces);
        assert!(result.is_ok() && is_open && plain.is_empty());
    }
}
