//! The server of WebSocket.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use tungstenite::error::{CapacityError, Error as Fault, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tungstenite::http::{HeaderName, HeaderValue, StatusCode};
use tungstenite::protocol::Role;

use super::frames::Frames;
use super::{Limits, PATH};
use crate::detect::{Protocol, detect};
use crate::error::{Error, ErrorKind};
use crate::head::Head;
use crate::queue::Queue;
use crate::stack::{Peer, Stage};

/// Which web pages may connect. A browser sends the origin of the page; other programs send any origin, or none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Origins {
    /// All pages.
    #[default]
    Any,
    /// Pages of these origins, such as `https://app.example`, and clients that send no origin.
    ThoseOrNone(Vec<String>),
    /// Pages of these origins only.
    Only(Vec<String>),
    /// Pages that this machine serves at any port: their host is `localhost` or a loopback address.
    ThisMachine,
}

impl Origins {
    fn allow(&self, origin: Option<&str>) -> bool {
        let listed = |list: &[String]| {
            origin.is_some_and(|origin| list.iter().any(|one| one.eq_ignore_ascii_case(origin)))
        };
        match self {
            Self::Any => true,
            Self::ThoseOrNone(list) => origin.is_none() || listed(list),
            Self::Only(list) => listed(list),
            Self::ThisMachine => origin.is_some_and(|origin| {
                origin
                    .split_once("://")
                    .is_some_and(|(_, authority)| is_this_machine(authority))
            }),
        }
    }
}

/// Returns whether a host, with or without a port, names the loopback interface: `localhost`, `127.0.0.1:80`, `[::1]:80`.
#[must_use]
pub fn is_this_machine(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The settings of a WebSocket server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WebSocketServerOptions {
    /// The path that clients must ask for; `None` accepts any. Default `/mqtt`.
    pub path: Option<String>,
    /// Which web pages may connect. Default all.
    pub origins: Origins,
    /// More headers of the answer. Default none.
    pub headers: Vec<(String, String)>,
    /// The limits for what is stored of the client.
    pub limits: Limits,
    /// Whether to take the address of the client from `X-Forwarded-For`: its last address is the one that the nearest proxy
    /// saw. Set it only if there is a known proxy in front, since other clients can write any address. Default `false`.
    pub trust_forwarded: bool,
}

impl Default for WebSocketServerOptions {
    fn default() -> Self {
        Self {
            path: Some(PATH.to_owned()),
            origins: Origins::default(),
            headers: Vec::new(),
            limits: Limits::default(),
            trust_forwarded: false,
        }
    }
}

/// The server side of a WebSocket connection, as a stage.
#[derive(Debug)]
pub struct WebSocketServer {
    options: WebSocketServerOptions,
    state: State,
    queue: Queue,
    peer: Peer,
}

#[derive(Debug)]
enum State {
    Waiting(Head),
    Open(Box<Frames>),
    Failed(Error),
}

/// The HTTP answer that refuses a request, and its error.
struct Refusal(StatusCode, Error);

impl Refusal {
    fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(status, Error::new(kind, message))
    }
}

impl WebSocketServer {
    /// Makes a stage for an accepted connection.
    #[must_use]
    pub fn new(options: WebSocketServerOptions) -> Self {
        let head = Head::new(options.limits.head);
        Self {
            options,
            state: State::Waiting(head),
            queue: Queue::default(),
            peer: Peer::default(),
        }
    }

    /// Continues the handshake with these bytes.
    fn shake_hands(&mut self, wire: &mut &[u8]) -> Result<(), Error> {
        let State::Waiting(head) = &mut self.state else {
            return Ok(());
        };
        let taken = head.take(wire);
        // A client of another protocol would not read an answer of HTTP.
        if let Some(found @ (Protocol::Mqtt | Protocol::Tls | Protocol::Proxy)) =
            detect(head.so_far())
        {
            let found = format!("the client speaks {found} where WebSocket is expected");
            return Err(Error::new(ErrorKind::WrongProtocol, found));
        }
        let answer = match taken {
            Ok(None) => return Ok(()),
            Ok(Some(head)) => self.answer(&head),
            Err(error) => Err(Refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, error)),
        };
        let written = answer.and_then(|answer| {
            let mut bytes = Vec::new();
            write_response(&mut bytes, &answer).map_err(|fault| malformed(&fault))?;
            Ok(bytes)
        });
        match written {
            Ok(bytes) => {
                self.queue.0.extend_from_slice(&bytes);
                let frames = Frames::new(Role::Server);
                self.state = State::Open(Box::new(frames));
                Ok(())
            }
            Err(Refusal(status, error)) => {
                let sentence = format!("{error}\n");
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{sentence}",
                    sentence.len()
                );
                self.queue.0.extend_from_slice(answer.as_bytes());
                Err(error)
            }
        }
    }

    /// Returns the answer to a request.
    fn answer(&mut self, head: &[u8]) -> Result<Response, Refusal> {
        let request = match Request::try_parse(head) {
            Ok(Some((_, request))) => request,
            Ok(None) => return Err(malformed(&Fault::AttackAttempt)),
            Err(fault) => return Err(malformed(&fault)),
        };
        let mut answer = create_response(&request).map_err(|fault| malformed(&fault))?;
        let path = request.uri().path();
        if self.options.path.as_deref().is_some_and(|one| one != path) {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                ErrorKind::Http,
                "MQTT is not served at this path",
            ));
        }
        if !self.options.origins.allow(text(&request, "Origin")) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                ErrorKind::Http,
                "pages of this origin may not connect",
            ));
        }
        let sub_protocol = choose(&request)?;
        // 3.1.1 [MQTT-6.0.0-4], 5 [MQTT-6.0.0-4]: the server answers with the sub-protocol that it chose.
        answer.headers_mut().insert(
            "Sec-WebSocket-Protocol",
            HeaderValue::from_static(sub_protocol),
        );
        for (name, value) in &self.options.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                answer.headers_mut().append(name, value);
            }
        }
        self.peer.path = Some(path.to_owned());
        self.peer.sub_protocol = Some(sub_protocol);
        if self.options.trust_forwarded {
            self.peer.address = forwarded(&request);
        }
        Ok(answer)
    }
}

/// Returns the first sub-protocol of the client that MQTT has: `mqtt`, or an older name that some clients use.
/// 3.1.1 [MQTT-6.0.0-3], 5 [MQTT-6.0.0-3]: a client that asks for none of them is refused.
fn choose(request: &Request) -> Result<&'static str, Refusal> {
    const KNOWN: [&str; 3] = [super::SUB_PROTOCOL, "mqttv3.1.1", "mqttv3.1"];
    request
        .headers()
        .get_all("Sec-WebSocket-Protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|name| KNOWN.into_iter().find(|known| *known == name.trim()))
        .ok_or_else(|| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                ErrorKind::SubProtocol,
                "the client does not ask for the WebSocket sub-protocol mqtt",
            )
        })
}

fn text<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    // A header that is no text must not count as a missing one.
    Some(request.headers().get(name)?.to_str().unwrap_or("?"))
}

/// Returns the address that the nearest proxy saw.
fn forwarded(request: &Request) -> Option<SocketAddr> {
    let last = request
        .headers()
        .get_all("X-Forwarded-For")
        .iter()
        .next_back()?;
    let last = last.to_str().ok()?.rsplit(',').next()?.trim();
    last.parse().ok().or_else(|| {
        let address: IpAddr = last.trim_matches(['[', ']']).parse().ok()?;
        Some(SocketAddr::new(address, 0))
    })
}

/// Refuses HTTP that is no request for WebSocket.
fn malformed(fault: &Fault) -> Refusal {
    let (status, kind) = match fault {
        Fault::Protocol(ProtocolError::WrongHttpMethod) => {
            (StatusCode::METHOD_NOT_ALLOWED, ErrorKind::Http)
        }
        Fault::Capacity(CapacityError::TooManyHeaders) => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ErrorKind::TooLarge,
        ),
        _ => (StatusCode::BAD_REQUEST, ErrorKind::Http),
    };
    let why = match fault {
        Fault::Protocol(error) => error.to_string(),
        other => other.to_string(),
    };
    Refusal::new(
        status,
        kind,
        format!(
            "this server speaks MQTT over WebSocket, and the request is not one for WebSocket: {why}"
        ),
    )
}

impl Stage for WebSocketServer {
    stage_of_frames!();

    fn end_of_file(&mut self) -> Result<(), Error> {
        match &self.state {
            State::Waiting(_) => Err(Error::new(
                ErrorKind::HandshakeCut,
                "the client closed the connection before it asked for WebSocket",
            )),
            // A program that ends may close TCP without a close frame.
            _ => Ok(()),
        }
    }

    fn describe(&self, peer: &mut Peer) {
        peer.address = self.peer.address.or(peer.address);
        peer.path.clone_from(&self.peer.path);
        peer.sub_protocol = self.peer.sub_protocol;
    }
}
