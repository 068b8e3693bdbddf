//! Runs a server for TLS, WebSocket and Unix sockets in front of a server for plain MQTT over TCP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use mqtt_adapter_core::{DialOptions, Options, Scheme};
use mqtt_transport::Stack;
use mqtt_transport::bytes::BytesMut;
use mqtt_transport::tls::{Roots, TlsServer, TlsServerOptions};
use mqtt_transport::websocket::{WebSocketServer, WebSocketServerOptions};

use crate::peers::{Authority, Subject};

/// How a connection to the client ends after the server has ended its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// With the end of TLS and WebSocket.
    Clean,
    /// After a part of the last bytes, without that end.
    Cut,
}

/// Returns options of a client that connects through a terminator to the port of its options.
///
/// # Panics
/// There is no free port.
#[must_use]
pub fn through(mut options: Options, scheme: Scheme, end: End) -> (Options, DialOptions) {
    let behind = options.port;
    options.scheme = scheme;
    options.host = "localhost".to_owned();
    if scheme == Scheme::Unix {
        options.path = listen_unix(behind);
    } else {
        options.port = listen(behind, scheme, end);
    }
    let mut dial = DialOptions::default();
    dial.tls.roots = Roots::Ca(authority().0.source());
    (options, dial)
}

fn authority() -> &'static (Authority, TlsServer) {
    static AUTHORITY: OnceLock<(Authority, TlsServer)> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let authority = Authority::new("terminators");
        let issued = authority.issue(&Subject::host("localhost"));
        let server = TlsServer::new(TlsServerOptions::new(issued.pair())).expect("a server");
        (authority, server)
    })
}

/// The threads end with the process, because a client may outlive the test that made it.
fn listen(behind: u16, scheme: Scheme, end: End) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let mut stack = Stack::new();
            if scheme.is_tls() {
                stack.push(authority().1.stage().expect("a stage"));
            }
            if scheme.is_websocket() {
                stack.push(WebSocketServer::new(WebSocketServerOptions::default()));
            }
            let _ = client.set_nodelay(true);
            thread::spawn(move || serve(client, behind, stack, end));
        }
    });
    port
}

#[cfg(target_os = "linux")]
fn listen_unix(behind: u16) -> String {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // An abstract socket leaves no file behind.
    let name = format!("mqtt-{}-{count}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("a free name");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", behind)) else {
                continue;
            };
            let _ = server.set_nodelay(true);
            let back = |mut server: TcpStream, mut client: UnixStream| {
                let _ = io::copy(&mut server, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            };
            let (Ok(server_again), Ok(client_again)) = (server.try_clone(), client.try_clone())
            else {
                continue;
            };
            thread::spawn(move || back(server_again, client_again));
            thread::spawn(move || {
                let (mut client, mut server) = (client, server);
                let _ = io::copy(&mut client, &mut server);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    format!("@{name}")
}

/// The suites use Unix sockets on Linux only, because other systems have no abstract sockets.
#[cfg(not(target_os = "linux"))]
fn listen_unix(_behind: u16) -> String {
    panic!("there are no abstract sockets on this system")
}

struct Shared {
    stack: Mutex<Stack>,
    client: Mutex<TcpStream>,
}

impl Shared {
    fn stack(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the outgoing bytes.
    fn send(&self) -> io::Result<()> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let piece = self.stack().outgoing().to_vec();
            if piece.is_empty() {
                return Ok(());
            }
            client.write_all(&piece)?;
            self.stack().sent(piece.len());
        }
    }

    /// Moves plain bytes of the server to the client. Fails when the stack takes nothing more, because it is closed.
    fn answer(&self, mut plain: &[u8]) -> io::Result<()> {
        while !plain.is_empty() {
            let n = self.stack().output(plain);
            if n == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            plain = &plain[n..];
            self.send()?;
        }
        Ok(())
    }

    fn end(&self, end: End) {
        if end == End::Clean {
            self.stack().close();
            let _ = self.send();
        }
        // While it is locked, no other thread sends the rest of the bytes that are cut here: a client would take them for bytes
        // of the server.
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if end == End::Cut {
            // A part of the record with the end, or of a last message.
            let mut stack = self.stack();
            let _ = stack.output(&[0; 100]);
            let half = stack.outgoing().len() / 2;
            let piece = stack.outgoing()[..half].to_vec();
            drop(stack);
            let _ = client.write_all(&piece);
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}

fn serve(mut client: TcpStream, behind: u16, stack: Stack, end: End) -> Option<()> {
    let shared = Arc::new(Shared {
        stack: Mutex::new(stack),
        client: Mutex::new(client.try_clone().ok()?),
    });
    let mut server: Option<TcpStream> = None;
    let (mut space, mut plain) = (vec![0; 64 << 10], BytesMut::new());
    loop {
        let n = client.read(&mut space).unwrap_or(0);
        let result = match n {
            0 => shared.stack().end_of_file(),
            n => shared.stack().input(&space[..n], &mut plain),
        };
        let sent = shared.send();
        if server.is_none() && shared.stack().is_open() {
            let far = TcpStream::connect(("127.0.0.1", behind)).ok();
            let Some(far) = far else {
                shared.end(End::Clean);
                return None;
            };
            let _ = far.set_nodelay(true);
            let (from, shared) = (far.try_clone().ok()?, Arc::clone(&shared));
            thread::spawn(move || bring_answers(from, &shared, end));
            server = Some(far);
        }
        if let Some(server) = &mut server {
            let _ = server.write_all(&plain);
            plain.clear();
        }
        if n == 0 || result.is_err() || sent.is_err() || shared.stack().is_ended() {
            let _ = server?.shutdown(Shutdown::Both);
            return None;
        }
    }
}

fn bring_answers(mut server: TcpStream, shared: &Shared, end: End) {
    let mut space = vec![0; 64 << 10];
    while let Ok(n @ 1..) = server.read(&mut space) {
        if shared.answer(&space[..n]).is_err() {
            break;
        }
    }
    shared.end(end);
}
