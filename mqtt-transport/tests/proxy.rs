//! The dialogues with proxies, byte by byte.
#![cfg(feature = "proxy")]

use bytes::BytesMut;
use mqtt_transport::proxy::{ProxyKind, ProxyOptions, ProxyStage};
use mqtt_transport::{ErrorKind, Stack};

fn proxy(kind: ProxyKind, login: bool) -> ProxyOptions {
    let mut proxy = ProxyOptions::new(kind, "proxy.example", 1080);
    proxy.credentials = login.then(|| ("pump".to_owned(), "secret".to_owned()));
    proxy
}

fn stack(proxy: &ProxyOptions, host: &str) -> Stack {
    Stack::new().with(ProxyStage::client(proxy, host, 1883).unwrap())
}

/// A dialogue: the stack sends the first text of a line, and gets the second one byte by byte. Bytes after the dialogue pass.
fn talk(mut stack: Stack, lines: &[(&[u8], &[u8])]) {
    let mut plain = BytesMut::new();
    for (said, heard) in lines {
        assert!(!stack.is_open());
        assert_eq!(stack.output(b"early"), 0);
        assert_eq!(stack.outgoing(), *said);
        let n = stack.outgoing().len();
        stack.sent(n);
        for byte in *heard {
            stack.input(&[*byte], &mut plain).unwrap();
        }
    }
    assert!(stack.is_open() && stack.is_plain());
    stack.input(b"first", &mut plain).unwrap();
    assert_eq!(plain, &b"first"[..]);
    assert_eq!(stack.output(b"hello"), 5);
    assert_eq!(stack.outgoing(), b"hello");
    stack.end_of_file().unwrap();
}

/// Returns the error after the stack got these bytes at once.
fn refused(mut stack: Stack, heard: &[u8], kind: ErrorKind) -> String {
    let error = stack.input(heard, &mut BytesMut::new()).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

#[test]
fn socks5_connects_to_names_and_addresses() {
    let no_login = proxy(ProxyKind::Socks5, false);
    let connected = &b"\x05\0\0\x01\x7f\0\0\x01\x12\x34"[..];
    talk(
        stack(&no_login, "a.example"),
        &[
            (b"\x05\x01\0", b"\x05\0"),
            (b"\x05\x01\0\x03\x09a.example\x07\x5b", connected),
        ],
    );
    talk(
        stack(&no_login, "192.0.2.1"),
        &[
            (b"\x05\x01\0", b"\x05\0"),
            (
                b"\x05\x01\0\x01\xc0\0\x02\x01\x07\x5b",
                b"\x05\0\0\x03\x02ab\x12\x34",
            ),
        ],
    );
    talk(
        stack(&no_login, "::1"),
        &[
            (b"\x05\x01\0", b"\x05\0"),
            (
                b"\x05\x01\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x07\x5b",
                b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x07\x5b",
            ),
        ],
    );
    talk(
        stack(&proxy(ProxyKind::Socks5, true), "a"),
        &[
            (b"\x05\x02\0\x02", b"\x05\x02"),
            (b"\x01\x04pump\x06secret", b"\x01\0"),
            (b"\x05\x01\0\x03\x01a\x07\x5b", connected),
        ],
    );
}

#[test]
fn socks5_refusals_are_told() {
    let no_login = || stack(&proxy(ProxyKind::Socks5, false), "a");
    let login = || stack(&proxy(ProxyKind::Socks5, true), "a");
    for (stack, heard, expected) in [
        (
            no_login(),
            &b"\x05\xff"[..],
            "the proxy requires a user name and a password",
        ),
        (
            login(),
            b"\x05\x02\x01\x01",
            "the proxy refuses the user name or the password",
        ),
        (
            login(),
            b"\x05\xff",
            "the proxy requires another method than user name and password",
        ),
        (
            no_login(),
            b"\x05\0\x05\x05\0\x01\0\0\0\0\0\0",
            "the proxy cannot connect: the host refused the connection",
        ),
        (
            no_login(),
            b"HTTP/1.1 400",
            "the proxy does not speak SOCKS5",
        ),
    ] {
        assert_eq!(refused(stack, heard, ErrorKind::Proxy), expected);
    }
    let long = "a".repeat(256);
    let error = ProxyStage::client(&proxy(ProxyKind::Socks5, false), &long, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert_eq!(
        no_login().end_of_file().unwrap_err().kind(),
        ErrorKind::HandshakeCut
    );
}

#[test]
fn http_connects() {
    let ok = &b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"[..];
    talk(
        stack(&proxy(ProxyKind::Http, false), "a.example"),
        &[(
            b"CONNECT a.example:1883 HTTP/1.1\r\nHost: a.example:1883\r\n\r\n",
            ok,
        )],
    );
    talk(
        stack(&proxy(ProxyKind::Http, true), "::1"),
        &[(
            b"CONNECT [::1]:1883 HTTP/1.1\r\nHost: [::1]:1883\r\nProxy-Authorization: Basic cHVtcDpzZWNyZXQ=\r\n\r\n",
            b"HTTP/1.0 200\r\n\r\n",
        )],
    );
}

#[test]
fn http_refusals_are_told() {
    let stack = || stack(&proxy(ProxyKind::Http, false), "a");
    for (heard, kind, expected) in [
        (
            &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
            ErrorKind::Proxy,
            "the proxy refuses the user name or the password, or requires them: 407",
        ),
        (
            b"HTTP/1.1 502 Bad \x1b[31mGateway\r\n\r\n",
            ErrorKind::Proxy,
            "the proxy does not connect: 502 Bad \\u{1b}[31mGateway",
        ),
        (
            b"SSH-2.0",
            ErrorKind::Proxy,
            "the proxy does not speak HTTP",
        ),
        (
            b"HTTP/1.1 X\r\n\r\n",
            ErrorKind::Proxy,
            "the proxy does not speak HTTP",
        ),
        (
            &[b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 9_000][..]].concat(),
            ErrorKind::TooLarge,
            "the proxy: the HTTP headers are longer than 8192 bytes",
        ),
    ] {
        assert_eq!(refused(stack(), heard, kind), expected);
    }
    for host in ["a b", "a\r\nX: y", ""] {
        let error = ProxyStage::client(&proxy(ProxyKind::Http, false), host, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{host:?}");
    }
}

#[test]
fn what_follows_the_answer_of_a_proxy_passes() {
    let mut stack = stack(&proxy(ProxyKind::Http, false), "a");
    let mut plain = BytesMut::new();
    stack
        .input(b"HTTP/1.1 200 OK\r\n\r\nhello", &mut plain)
        .unwrap();
    assert_eq!(plain, &b"hello"[..]);
}

/// Returns a header of version 2 of the proxy protocol.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len, body].concat()
}

/// From 192.0.2.7:4242 to 192.0.2.1:1883.
const V4: &[u8] = b"\xc0\0\x02\x07\xc0\0\x02\x01\x10\x92\x07\x5b";

/// From port 99 of 2001::7.
fn v6() -> [u8; 36] {
    let mut addresses = [0; 36];
    (addresses[0], addresses[1], addresses[15], addresses[33]) = (0x20, 0x01, 7, 99);
    addresses
}

#[test]
fn the_header_of_the_proxy_protocol_tells_the_address() {
    for (header, address) in [
        (
            b"PROXY TCP4 192.0.2.7 192.0.2.1 4242 1883\r\n".to_vec(),
            Some("192.0.2.7:4242"),
        ),
        (
            b"PROXY TCP6 2001::7 ::1 99 1883\r\n".to_vec(),
            Some("[2001::7]:99"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN a b c d\r\n".to_vec(), None),
        (v2(0x21, 0x11, V4), Some("192.0.2.7:4242")),
        (
            v2(0x21, 0x11, &[V4, &b"\x03\0\x04abcd"[..]].concat()),
            Some("192.0.2.7:4242"),
        ),
        (v2(0x21, 0x21, &v6()), Some("[2001::7]:99")),
        (v2(0x20, 0x11, V4), None),
        (v2(0x21, 0x31, &[0; 216]), None),
    ] {
        for size in [1, 7, 1_000] {
            let mut stack = Stack::new().with(ProxyStage::header());
            let mut plain = BytesMut::new();
            let wire = [&header[..], b"hello"].concat();
            for piece in wire.chunks(size) {
                stack.input(piece, &mut plain).unwrap();
            }
            assert_eq!(plain, &b"hello"[..], "{header:?}");
            let found = stack.peer().address.map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{header:?}");
        }
    }
}

#[test]
fn a_wrong_header_of_the_proxy_protocol_is_refused() {
    for (header, kind) in [
        (b"\x10\x0c\0\x04MQTT".to_vec(), ErrorKind::WrongProtocol),
        (b"PROXY TCP4 a b 1 2\r\n".to_vec(), ErrorKind::Proxy),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), ErrorKind::Proxy),
        (
            b"PROXY TCP4 192.0.2.7 192.0.2.1 70000 2\r\n".to_vec(),
            ErrorKind::Proxy,
        ),
        (
            [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            ErrorKind::Proxy,
        ),
        (v2(0x31, 0x11, V4), ErrorKind::Proxy),
        (v2(0x2f, 0x11, V4), ErrorKind::Proxy),
        (v2(0x21, 0x11, &V4[..8]), ErrorKind::Proxy),
        (v2(0x21, 0x21, &v6()[..33]), ErrorKind::Proxy),
        (v2(0x21, 0x11, &[0; 5_000]), ErrorKind::Proxy),
    ] {
        let mut stack = Stack::new().with(ProxyStage::header());
        let error = stack.input(&header, &mut BytesMut::new()).unwrap_err();
        assert_eq!(error.kind(), kind, "{header:?}: {error}");
    }
}
