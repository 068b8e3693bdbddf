//! Laws of the stages of `mqtt_transport` for any bytes.

use std::sync::OnceLock;

use mqtt_transport::bytes::BytesMut;
use mqtt_transport::proxy::{ProxyKind, ProxyOptions, ProxyStage};
use mqtt_transport::tls::rustls::ClientConfig;
use mqtt_transport::tls::rustls::crypto::ring::default_provider;
use mqtt_transport::tls::rustls::version::TLS12;
use mqtt_transport::tls::{
    Roots, TlsConnector, TlsOptions, TlsServer, TlsServerOptions, TlsVersion,
};
use mqtt_transport::websocket::{
    WebSocketClient, WebSocketOptions, WebSocketServer, WebSocketServerOptions,
};
use mqtt_transport::{OUTGOING_LIMIT, Stack};

use crate::choices::Choices;
use crate::peers::{Authority, Subject};
use crate::wires::{End, Link};

/// The certificates of all cases of a process, because making keys takes time.
struct Shared {
    server: TlsServer,
    client: TlsConnector,
    old_client: TlsConnector,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let authority = Authority::new("test");
        let issued = authority.issue(&Subject::host("localhost"));
        let server = TlsServerOptions::new(issued.pair());
        let mut client = TlsOptions::default();
        client.roots = Roots::Ca(authority.source());
        let mut with_old = TlsOptions::default();
        with_old.config = Some(tls12(&authority).into());
        client.minimum_version = TlsVersion::V13;
        Shared {
            server: TlsServer::new(server).expect("a server"),
            client: TlsConnector::new(client).expect("a client"),
            old_client: TlsConnector::new(with_old).expect("a client"),
        }
    })
}

/// Returns a configuration of a client with TLS 1.2 only.
///
/// # Panics
/// Never.
#[must_use]
pub fn tls12(authority: &Authority) -> ClientConfig {
    ClientConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&[&TLS12])
        .expect("the provider has suites for it")
        .with_root_certificates(authority.roots())
        .with_no_client_auth()
}

/// Returns a client and a server with the stages that `choice` names.
///
/// # Panics
/// The system has no random numbers.
#[must_use]
pub fn link(choice: u8) -> Link {
    let shared = shared();
    let (mut client, mut server) = (Stack::new(), Stack::new());
    if choice & 1 == 1 {
        let connector = if choice & 4 == 0 {
            &shared.client
        } else {
            &shared.old_client
        };
        client.push(connector.stage("localhost").expect("a stage"));
        server.push(shared.server.stage().expect("a stage"));
    }
    if choice & 2 == 2 {
        let options = WebSocketOptions::default();
        client.push(WebSocketClient::new("localhost:80", &options).expect("a stage"));
        server.push(WebSocketServer::new(WebSocketServerOptions::default()));
    }
    Link::new(client, server)
}

/// With any stages and any split into reads, the plain bytes arrive unchanged, and the stream ends cleanly.
///
/// # Panics
/// The law does not hold.
pub fn split_invariant(choices: &[u8]) {
    let mut choices = Choices::new(choices);
    let mut link = link(choices.byte());
    let mut sizes = choices.clone();
    let mut size = |len: usize| match sizes.byte() {
        0 => len,
        byte => usize::from(byte),
    };
    link.run_in_pieces(&mut size);
    assert!(link.client.stack.is_open(), "{link:?}");
    assert!(link.server.stack.is_open(), "{link:?}");
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..1 + choices.below(4) {
        let part = |choices: &mut Choices<'_>| vec![choices.byte(); usize::from(choices.u16())];
        let (to_server, to_client) = (part(&mut choices), part(&mut choices));
        link.exchange(&to_server, &to_client, &mut size);
        up.extend(to_server);
        down.extend(to_client);
    }
    assert!(link.server.plain == up, "the server got other bytes");
    assert!(link.client.plain == down, "the client got other bytes");
    if link.client.stack.is_plain() {
        return;
    }
    link.client.stack.close();
    link.run_in_pieces(&mut size);
    assert!(link.server.stack.is_ended(), "{link:?}");
    link.server.stack.end_of_file().expect("a clean end");
}

/// For any bytes a stage does not panic, its memory is bounded, and a failed stage stays failed.
///
/// # Panics
/// The law does not hold.
pub fn withstands(choices: &[u8]) {
    let mut choices = Choices::new(choices);
    let kind = choices.byte();
    let mut victim = victim(kind);
    let mut honest = counterpart(kind);
    let mut given = 0;
    while !choices.is_empty() {
        let mut wire = match choices.below(4) {
            // Bytes of a valid peer, which may be changed below.
            0 | 1 => {
                let bytes = honest.stack.outgoing().to_vec();
                honest.stack.sent(bytes.len());
                bytes
            }
            2 => choices.slice(255).to_vec(),
            _ => script(choices.byte()).to_vec(),
        };
        if choices.byte() < 40 && !wire.is_empty() {
            let at = usize::from(choices.u16()) % wire.len();
            wire[at] ^= choices.byte();
        }
        if choices.byte() < 20 {
            wire.truncate(usize::from(choices.u16()));
        }
        given += wire.len();
        victim.read(&wire);
        let answer = victim.stack.outgoing().to_vec();
        if choices.byte() < 200 {
            victim.stack.sent(answer.len());
            honest.read(&answer);
        }
        let message = choices.slice(64);
        let _ = victim.stack.output(message);
        let _ = honest.stack.output(message);
        check(&mut victim, given);
        // The stage has failed: with further bytes it must return the same error.
        if choices.byte() < 5 {
            victim.stack.close();
        }
        let _ = honest.stack.outgoing();
    }
    let _ = victim.stack.end_of_file();
    let _ = victim.stack.peer();
}

/// Checks the limits that hold at any time.
fn check(victim: &mut End, given: usize) {
    let outgoing = victim.stack.outgoing().len();
    // The queue of one stage goes into the queue of the stage below, and grows by its framing.
    assert!(outgoing <= 8 * OUTGOING_LIMIT, "{outgoing} are outgoing");
    let plain = victim.plain.len();
    assert!(plain <= given, "{plain} bytes came out of {given}");
    if let Some(failed) = &victim.failed {
        let again = victim.stack.input(b"more", &mut BytesMut::new());
        let again = again.expect_err("what failed goes on");
        assert_eq!(again.kind(), failed.kind(), "{failed:?}, then {again:?}");
    }
}

fn victim(kind: u8) -> End {
    let proxy = |kind, login: bool| {
        let mut proxy = ProxyOptions::new(kind, "proxy", 1080);
        proxy.credentials = login.then(|| ("user".to_owned(), "password".to_owned()));
        Stack::new().with(ProxyStage::client(&proxy, "localhost", 1883).expect("a stage"))
    };
    let mut choice = link(kind >> 4);
    match kind & 7 {
        0 | 1 => std::mem::take(&mut choice.client),
        2 | 3 => std::mem::take(&mut choice.server),
        4 => End::new(proxy(ProxyKind::Socks5, kind & 8 == 8)),
        5 => End::new(proxy(ProxyKind::Http, kind & 8 == 8)),
        6 => End::new(Stack::new().with(ProxyStage::header())),
        _ => {
            let shared = shared();
            let tls = shared.server.stage().expect("a stage");
            End::new(Stack::new().with(ProxyStage::header()).with(tls))
        }
    }
}

/// Returns a peer that follows the protocols.
fn counterpart(kind: u8) -> End {
    let mut choice = link(kind >> 4);
    match kind & 7 {
        0 | 1 => std::mem::take(&mut choice.server),
        2 | 3 => std::mem::take(&mut choice.client),
        _ => std::mem::take(&mut link(1).client),
    }
}

/// Returns byte strings of the protocols.
fn script(choice: u8) -> &'static [u8] {
    const SCRIPTS: [&[u8]; 16] = [
        b"\x05\x00",
        b"\x05\x02",
        b"\x01\x00",
        b"\x05\x00\x00\x01\x7f\x00\x00\x01\x07\x5b",
        b"\x05\x00\x00\x03\x01a\x07\x5b",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x01\0\x02",
        b"GET /mqtt HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
        b"\x89\x80\0\0\0\0",
        b"\x89\0",
        b"\x88\0",
        b"\x82\xfe\x01\0\0\0\0\0",
        b"\x02\x01a\x80\x01b",
        b"\x15\x03\x03\0\x02\x02\x28",
    ];
    SCRIPTS[usize::from(choice) % SCRIPTS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_a_link_differ() {
        assert!(link(0).client.stack.is_plain());
        for choice in 1..8 {
            let mut link = link(choice);
            link.run();
            let peer = link.server.stack.peer();
            assert_eq!(peer.tls.is_some(), choice & 1 == 1, "{choice}");
            assert_eq!(peer.path.is_some(), choice & 2 == 2, "{choice}");
        }
    }
}
