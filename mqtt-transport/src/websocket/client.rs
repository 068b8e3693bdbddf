//! The client of WebSocket.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::BytesMut;
use tungstenite::error::{Error as Fault, ProtocolError};
use tungstenite::handshake::client::{ClientHandshake, Request, generate_key};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::Role;

use super::frames::Frames;
use super::{Limits, PATH, SUB_PROTOCOL};
use crate::detect::{Protocol, detect};
use crate::error::{Error, ErrorKind};
use crate::head::Head;
use crate::queue::Queue;
use crate::stack::{Peer, Stage};

/// The settings of a WebSocket client.
#[derive(Clone)]
#[non_exhaustive]
pub struct WebSocketOptions {
    /// The path of the URL, including what follows a `?`. Default `/mqtt`.
    pub path: String,
    /// The `Origin` header, such as `https://app.example`. Default none, as for programs that are no browser.
    pub origin: Option<String>,
    /// More headers of the request, such as an authorization. Default none.
    pub headers: Vec<(String, String)>,
    /// The limits for what is stored of the server.
    pub limits: Limits,
}

/// Header values may be secret, so only the names are shown.
impl fmt::Debug for WebSocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("WebSocketOptions")
            .field("path", &self.path)
            .field("origin", &self.origin)
            .field("headers", &names)
            .field("limits", &self.limits)
            .finish()
    }
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            path: PATH.to_owned(),
            origin: None,
            headers: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// The client side of a WebSocket connection, as a stage.
#[derive(Debug)]
pub struct WebSocketClient {
    state: State,
    queue: Queue,
}

enum State {
    /// The request is sent.
    Asked(Box<MidHandshake<ClientHandshake<Memory>>>, Head),
    Open(Box<Frames>),
    Failed(Error),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked(..) => "Asked",
            Self::Open(_) => "Open",
            Self::Failed(_) => "Failed",
        })
    }
}

/// The bytes that the handshake reads and writes.
#[derive(Debug, Default)]
struct Memory {
    wire: io::Cursor<Vec<u8>>,
    written: BytesMut,
}

impl Read for Memory {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self.wire.read(space)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WebSocketClient {
    /// Makes a client for the host and port of `authority`, such as `broker.example:8080` or `[::1]:80`.
    ///
    /// # Errors
    /// A path, an origin or a header that HTTP cannot carry.
    pub fn new(authority: &str, options: &WebSocketOptions) -> Result<Self, Error> {
        let request = request(authority, options)?;
        let started = ClientHandshake::start(Memory::default(), request, None).map_err(refuse)?;
        // This writes the request; the handshake then waits for the answer.
        let mut waiting = match started.handshake() {
            Err(HandshakeError::Interrupted(waiting)) => waiting,
            Err(HandshakeError::Failure(fault)) => return Err(refuse(fault)),
            Ok(_) => return Err(wrong("an answer before the request")),
        };
        let queue = Queue(std::mem::take(&mut waiting.get_mut().get_mut().written));
        let head = Head::new(options.limits.head);
        Ok(Self {
            state: State::Asked(Box::new(waiting), head),
            queue,
        })
    }

    /// Continues the handshake with these bytes.
    fn shake_hands(&mut self, wire: &mut &[u8]) -> Result<(), Error> {
        let State::Asked(_, head) = &mut self.state else {
            return Ok(());
        };
        let taken = head.take(wire);
        match detect(head.so_far()) {
            None | Some(Protocol::Http) => {}
            Some(found) => {
                let found = format!("the server speaks {found} where WebSocket is expected");
                return Err(Error::new(ErrorKind::WrongProtocol, found));
            }
        }
        let Some(head) = taken? else {
            return Ok(());
        };
        let open = State::Open(Box::new(Frames::new(Role::Client)));
        let State::Asked(mut waiting, _) = std::mem::replace(&mut self.state, open) else {
            return Ok(());
        };
        waiting.get_mut().get_mut().wire = io::Cursor::new(head);
        match waiting.handshake() {
            Ok(_) => Ok(()),
            Err(HandshakeError::Failure(fault)) => Err(refuse(fault)),
            Err(HandshakeError::Interrupted(_)) => Err(Error::new(
                ErrorKind::Http,
                "the answer to the request for WebSocket is not HTTP",
            )),
        }
    }
}

fn request(authority: &str, options: &WebSocketOptions) -> Result<Request, Error> {
    let mut request = Request::builder()
        .uri(format!("ws://{authority}{}", options.path))
        .header("Host", authority)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        // 3.1.1 [MQTT-6.0.0-3], 5 [MQTT-6.0.0-3]: the client asks for `mqtt`.
        .header("Sec-WebSocket-Protocol", SUB_PROTOCOL)
        .body(())
        .map_err(|error| wrong(&format!("{authority}{}: {error}", options.path)))?;
    let origin = options.origin.as_deref().map(|origin| ("Origin", origin));
    let more = options
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in origin.into_iter().chain(more) {
        // The value may be secret, so the message names only the header.
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
        else {
            return Err(wrong(&format!("the header {name:?} cannot be sent")));
        };
        if request.headers().contains_key(&name) {
            return Err(wrong(&format!("the header {name} is set by WebSocket")));
        }
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Settings, what)
}

/// Translates a refusal to one line of text.
fn refuse(fault: Fault) -> Error {
    let (kind, message) = match &fault {
        Fault::Http(answer) => (
            ErrorKind::Http,
            format!(
                "the server refuses WebSocket: {} (is the path right?)",
                answer.status()
            ),
        ),
        Fault::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => (
            ErrorKind::SubProtocol,
            "the server did not choose the sub-protocol mqtt".to_owned(),
        ),
        other => (
            ErrorKind::Http,
            format!("the server's answer is no upgrade to WebSocket: {other}"),
        ),
    };
    Error::new(kind, message).because(fault)
}

impl Stage for WebSocketClient {
    stage_of_frames!();

    fn end_of_file(&mut self) -> Result<(), Error> {
        match &self.state {
            State::Asked(..) => Err(Error::new(
                ErrorKind::HandshakeCut,
                "the server closed the connection instead of answering the request for WebSocket",
            )),
            // A program that ends may close TCP without a close frame.
            _ => Ok(()),
        }
    }

    fn describe(&self, peer: &mut Peer) {
        if self.is_open() {
            peer.sub_protocol = Some(SUB_PROTOCOL);
        }
    }
}
