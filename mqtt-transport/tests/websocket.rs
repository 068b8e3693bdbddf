//! WebSocket stages: which requests and which frames are accepted.
#![cfg(feature = "websocket")]

use bytes::BytesMut;
use mqtt_testing::wires::{Link, answer_to, outgoing_text};
use mqtt_transport::websocket::{
    Origins, WebSocketClient, WebSocketOptions, WebSocketServer, WebSocketServerOptions,
};
use mqtt_transport::{ErrorKind, Stack, Stage};

fn link_with(client: &WebSocketOptions, server: WebSocketServerOptions) -> Link {
    let client = WebSocketClient::new("broker.example:8080", client).unwrap();
    Link::new(
        Stack::new().with(client),
        Stack::new().with(WebSocketServer::new(server)),
    )
}

fn link() -> Link {
    link_with(
        &WebSocketOptions::default(),
        WebSocketServerOptions::default(),
    )
}

/// Returns a valid request with some headers replaced.
fn request(line: &str, headers: &[&str]) -> String {
    let defaults = [
        "Host: broker.example",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: mqtt",
    ];
    let name = |header: &str| header.split(':').next().map(str::to_owned);
    let kept = defaults
        .iter()
        .filter(|header| !headers.iter().any(|given| name(given) == name(header)));
    let mut text = format!("{line}\r\n");
    for header in kept.chain(headers).filter(|header| !header.ends_with(':')) {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text + "\r\n"
}

const GET: &str = "GET /mqtt HTTP/1.1";

/// Returns the answer of a server, and its error.
fn answer(server: WebSocketServerOptions, request: &str) -> (String, Option<(ErrorKind, String)>) {
    let mut server = WebSocketServer::new(server);
    let result = server.input(request.as_bytes(), &mut BytesMut::new());
    let answer = outgoing_text(&server);
    let error = result.err().map(|error| (error.kind(), error.to_string()));
    (answer, error)
}

/// Returns a server after the handshake, with nothing outgoing.
fn open_server(options: WebSocketServerOptions) -> WebSocketServer {
    let mut server = WebSocketServer::new(options);
    server
        .input(request(GET, &[]).as_bytes(), &mut BytesMut::new())
        .unwrap();
    let n = server.outgoing().len();
    server.sent(n);
    server
}

/// Returns a frame of a client with a mask of zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(len @ 0..=125) => bytes.push(0x80 | u8::try_from(len).unwrap()),
        Ok(len) => {
            bytes.push(0x80 | 126);
            bytes.extend(len.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Returns the header of a frame with a payload of `len` bytes.
fn announced(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend(len.to_be_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// 3.1.1 [MQTT-6.0.0-3], 5 [MQTT-6.0.0-3]: the client asks for `mqtt`. 3.1.1 [MQTT-6.0.0-4], 5 [MQTT-6.0.0-4]: the server
/// chooses it.
#[test]
fn the_sub_protocol_is_asked_for_and_chosen() {
    let mut link = link();
    let asked = String::from_utf8(link.client.stack.outgoing().to_vec()).unwrap();
    assert!(asked.starts_with("GET /mqtt HTTP/1.1\r\nHost: broker.example:8080\r\n"));
    assert!(
        asked.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"),
        "{asked}"
    );
    link.run();
    assert!(link.client.stack.is_open());
    assert_eq!(link.client.stack.peer().sub_protocol, Some("mqtt"));
    let peer = link.server.stack.peer();
    assert_eq!(peer.sub_protocol, Some("mqtt"));
    assert_eq!(peer.path.as_deref(), Some("/mqtt"));
}

#[test]
fn the_first_sub_protocol_that_is_known_is_chosen() {
    for (asked, chosen) in [
        ("mqtt", "mqtt"),
        ("mqttv3.1", "mqttv3.1"),
        ("mqttv3.1.1, mqtt", "mqttv3.1.1"),
        ("chat,mqtt", "mqtt"),
    ] {
        let asked = format!("Sec-WebSocket-Protocol: {asked}");
        let (answer, error) = answer(WebSocketServerOptions::default(), &request(GET, &[&asked]));
        assert_eq!(error, None);
        let chosen = format!("sec-websocket-protocol: {chosen}\r\n");
        assert!(answer.contains(&chosen), "{answer}");
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    }
}

/// First lines and replaced headers of requests, and the answers to them.
const NO_UPGRADES: &[(&str, &[&str], &str, ErrorKind)] = &[
    (GET, &["Upgrade:"], "400 Bad Request", ErrorKind::Http),
    (
        GET,
        &["Connection: close"],
        "400 Bad Request",
        ErrorKind::Http,
    ),
    (
        GET,
        &["Sec-WebSocket-Key: short"],
        "400 Bad Request",
        ErrorKind::Http,
    ),
    (
        GET,
        &["Sec-WebSocket-Version: 8"],
        "400 Bad Request",
        ErrorKind::Http,
    ),
    (
        "GET /mqtt HTTP/1.0",
        &[],
        "400 Bad Request",
        ErrorKind::Http,
    ),
    (
        "GET /mq tt HTTP/1.1",
        &[],
        "400 Bad Request",
        ErrorKind::Http,
    ),
    (
        "POST /mqtt HTTP/1.1",
        &[],
        "405 Method Not Allowed",
        ErrorKind::Http,
    ),
    ("GET /other HTTP/1.1", &[], "404 Not Found", ErrorKind::Http),
    (
        GET,
        &["Sec-WebSocket-Protocol: chat"],
        "400 Bad Request",
        ErrorKind::SubProtocol,
    ),
    (
        GET,
        &["Sec-WebSocket-Protocol:"],
        "400 Bad Request",
        ErrorKind::SubProtocol,
    ),
];

#[test]
fn http_that_is_no_upgrade_is_answered_with_a_sentence() {
    let options = WebSocketServerOptions::default;
    for &(line, headers, status, kind) in NO_UPGRADES {
        let (answer, error) = answer(options(), &request(line, headers));
        let (found, message) = error.expect("an error");
        assert_eq!(found, kind, "{line} {headers:?}");
        assert!(!message.contains('\n'));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        assert!(
            answer.ends_with(&format!("\r\n\r\n{message}\n")),
            "{answer}"
        );
    }
}

#[test]
fn a_path_may_be_another_one_or_any() {
    let mut options = WebSocketServerOptions::default();
    options.path = None;
    let other = request("GET /other?x=1 HTTP/1.1", &[]);
    assert_eq!(answer(options.clone(), &other).1, None);
    options.path = Some("/other".to_owned());
    assert_eq!(answer(options.clone(), &other).1, None);
    let mut client = WebSocketOptions::default();
    let mut refused = link_with(&client, options.clone());
    refused.run();
    let error = refused.client.failed.unwrap();
    assert_eq!(error.kind(), ErrorKind::Http);
    assert_eq!(
        error.to_string(),
        "the server refuses WebSocket: 404 Not Found (is the path right?)"
    );
    client.path = "/other".to_owned();
    let mut link = link_with(&client, options);
    link.run();
    assert!(link.client.stack.is_open());
}

#[test]
fn origins_may_be_restricted() {
    let page = "https://app.example".to_owned();
    let cases = [
        (Origins::Any, [true, true, true]),
        (
            Origins::ThoseOrNone(vec![page.clone()]),
            [true, false, true],
        ),
        (Origins::Only(vec![page]), [true, false, false]),
    ];
    for (origins, allowed) in cases {
        for (headers, allowed) in [
            &["Origin: https://app.example"][..],
            &["Origin: https://evil.example"],
            &[],
        ]
        .into_iter()
        .zip(allowed)
        {
            let mut options = WebSocketServerOptions::default();
            options.origins = origins.clone();
            let (answer, error) = answer(options, &request(GET, headers));
            assert_eq!(error.is_none(), allowed, "{origins:?} {headers:?}");
            assert_eq!(answer.starts_with("HTTP/1.1 403"), !allowed, "{answer}");
        }
    }
}

#[test]
fn headers_are_bounded() {
    let long = format!("X: {}", "x".repeat(10_000));
    let (text, error) = answer(WebSocketServerOptions::default(), &request(GET, &[&long]));
    assert_eq!(error.unwrap().0, ErrorKind::TooLarge);
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let many = vec!["X: y"; 200];
    let (text, error) = answer(WebSocketServerOptions::default(), &request(GET, &many));
    assert_eq!(error.unwrap().0, ErrorKind::TooLarge);
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let mut client = WebSocketClient::new("a", &WebSocketOptions::default()).unwrap();
    let endless = [b"HTTP/1.1 101 X\r\nX: ", &[b'x'; 10_000][..]].concat();
    let error = client.input(&endless, &mut BytesMut::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn headers_of_the_client_are_sent_and_not_shown() {
    let mut options = WebSocketOptions::default();
    options.origin = Some("https://app.example".to_owned());
    options.headers = vec![("Authorization".to_owned(), "Bearer secret".to_owned())];
    assert!(!format!("{options:?}").contains("secret"));
    let client = WebSocketClient::new("[::1]:80", &options).unwrap();
    let asked = outgoing_text(&client);
    assert!(asked.contains("\r\nHost: [::1]:80\r\n"), "{asked}");
    assert!(
        asked.contains("\r\nOrigin: https://app.example\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("\r\nauthorization: Bearer secret\r\n"),
        "{asked}"
    );
    for (name, value) in [("a b", "c"), ("a", "b\r\nc"), ("Upgrade", "x")] {
        options.headers = vec![(name.to_owned(), value.to_owned())];
        let error = WebSocketClient::new("a", &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{name}");
    }
    let path = WebSocketOptions::default();
    let error = WebSocketClient::new("a b", &path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
}

#[test]
fn other_protocols_are_told() {
    for (bytes, found) in [
        (&b"\x10\x0c\0\x04MQTT"[..], "plain MQTT"),
        (b"\x16\x03\x01\0\x05", "TLS"),
        (b"PROXY TCP4", "the PROXY protocol"),
    ] {
        let mut server = WebSocketServer::new(WebSocketServerOptions::default());
        let error = server.input(bytes, &mut BytesMut::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongProtocol);
        let expected = format!("the client speaks {found} where WebSocket is expected");
        assert_eq!(error.to_string(), expected);
        assert!(server.outgoing().is_empty());
    }
    let mut client = WebSocketClient::new("a", &WebSocketOptions::default()).unwrap();
    let error = client
        .input(b"\x15\x03\x03", &mut BytesMut::new())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server speaks TLS where WebSocket is expected"
    );
}

#[test]
fn a_server_without_the_sub_protocol_is_refused() {
    let mut client = WebSocketClient::new("a", &WebSocketOptions::default()).unwrap();
    let mut server = WebSocketServer::new(WebSocketServerOptions::default());
    let answer = answer_to(&mut server, &outgoing_text(&client));
    let without = answer.replace("sec-websocket-protocol: mqtt\r\n", "");
    assert_ne!(without, answer);
    let error = client
        .input(without.as_bytes(), &mut BytesMut::new())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SubProtocol);
    assert_eq!(
        error.to_string(),
        "the server did not choose the sub-protocol mqtt"
    );
}

/// 3.1.1 [MQTT-6.0.0-2], 5 [MQTT-6.0.0-2].
#[test]
fn packets_need_not_be_aligned_with_frames() {
    let mut server = open_server(WebSocketServerOptions::default());
    let mut plain = BytesMut::new();
    let mut wire = Vec::new();
    // Two and a half packets in one frame, a fragmented message with a ping inside, an empty frame, single bytes.
    wire.extend(frame(0x82, b"onetwoth"));
    wire.extend(frame(0x02, b"r"));
    wire.extend(frame(0x89, b"ping"));
    wire.extend(frame(0x00, b"e"));
    wire.extend(frame(0x80, b"e"));
    wire.extend(frame(0x82, b""));
    for byte in b"four" {
        wire.extend(frame(0x82, &[*byte]));
    }
    for byte in &wire {
        server.input(&[*byte], &mut plain).unwrap();
    }
    assert_eq!(plain, &b"onetwothreefour"[..]);
    assert_eq!(server.outgoing(), b"\x8a\x04ping", "the pong");
}

/// No memory depends on the length that a frame announces, and none keeps its payload.
#[test]
fn payload_is_passed_on_as_it_arrives() {
    let mut server = open_server(WebSocketServerOptions::default());
    let mut plain = BytesMut::new();
    // The longest frame that there can be, as the first fragment of a message.
    server
        .input(&announced(0x02, (1 << 63) - 1), &mut plain)
        .unwrap();
    for round in 1..=100 {
        server.input(&[7; 1_000], &mut plain).unwrap();
        assert_eq!(plain.len(), round * 1_000);
    }
    assert!(plain.capacity() < 1_000_000, "{}", plain.capacity());
}

/// Each length has each of its encodings, and the bytes come in pieces of each size.
#[test]
fn masked_payload_is_restored_wherever_the_bytes_are_cut() {
    let payload: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for len in [0, 1, 7, 8, 9, 125, 126, 300, 65_535, 65_536, 70_000] {
        let payload = &payload[..len];
        let mask = [0x5a, 0x01, 0xff, 0x80];
        let whole = frame(0x82, payload);
        let header = whole.len() - len;
        let mut wire = whole[..header - 4].to_vec();
        wire.extend(mask);
        wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
        wire.extend(frame(0x82, b"next"));
        for piece in [1, 2, 3, 5, 13, 14, 15, 1_000, wire.len()] {
            let mut server = open_server(WebSocketServerOptions::default());
            let mut plain = BytesMut::new();
            for bytes in wire.chunks(piece) {
                server.input(bytes, &mut plain).unwrap();
            }
            assert!(plain == [payload, b"next"].concat(), "{len} by {piece}");
        }
    }
}

#[test]
fn a_masked_frame_of_the_server_closes_with_1002() {
    let mut link = link();
    link.run();
    let wire = frame(0x82, b"masked");
    let error = link.client.stack.input(&wire, &mut BytesMut::new());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::WebSocket);
}

/// 3.1.1 [MQTT-6.0.0-1], 5 [MQTT-6.0.0-1].
#[test]
fn a_text_frame_closes_with_1003() {
    for text in [
        frame(0x81, b"text"),
        frame(0x81, b"\xff\xfe"),
        frame(0x01, b"fragment"),
        announced(0x81, 1 << 40),
    ] {
        let mut server = open_server(WebSocketServerOptions::default());
        let mut plain = BytesMut::new();
        let wire = [frame(0x82, b"before"), text].concat();
        let error = server.input(&wire, &mut plain).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TextFrame);
        assert_eq!(
            error.to_string(),
            "the peer sent a text frame; MQTT sends binary frames only"
        );
        assert_eq!(plain, &b"before"[..]);
        assert_eq!(
            server.outgoing()[..4],
            [0x88, 26, 0x03, 0xeb],
            "close, 1003"
        );
        assert_eq!(server.output(b"more"), 0);
    }
}

#[test]
fn broken_frames_close_with_a_code() {
    let unmasked = b"\x82\x01a".to_vec();
    for (wire, kind, code) in [
        (unmasked, ErrorKind::WebSocket, 1002),
        (frame(0xc2, b"reserved bit"), ErrorKind::WebSocket, 1002),
        (frame(0x83, b"reserved opcode"), ErrorKind::WebSocket, 1002),
        (
            frame(0x80, b"nothing to continue"),
            ErrorKind::WebSocket,
            1002,
        ),
        (frame(0x09, b"fragmented ping"), ErrorKind::WebSocket, 1002),
        (frame(0x89, &[0; 126]), ErrorKind::WebSocket, 1002),
        (
            [frame(0x02, b"a"), frame(0x82, b"a message in another")].concat(),
            ErrorKind::WebSocket,
            1002,
        ),
        (
            [frame(0x02, b"a"), frame(0x81, b"text in another")].concat(),
            ErrorKind::WebSocket,
            1002,
        ),
        (
            [frame(0x02, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(),
            ErrorKind::WebSocket,
            1002,
        ),
        (frame(0x88, b"\x03"), ErrorKind::WebSocket, 1002),
        // The header is enough for a refusal: of an announced payload nothing is needed.
        (announced(0xc2, 1 << 40), ErrorKind::WebSocket, 1002),
        (announced(0x89, 126), ErrorKind::WebSocket, 1002),
        (announced(0x82, 1 << 63), ErrorKind::TooLarge, 1009),
    ] {
        let mut server = open_server(WebSocketServerOptions::default());
        let error = server.input(&wire, &mut BytesMut::new()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let said = server.outgoing();
        assert_eq!(said[0], 0x88, "{error}");
        assert_eq!(u16::from_be_bytes([said[2], said[3]]), code, "{error}");
    }
}

#[test]
fn a_close_frame_is_answered_and_ends() {
    let mut link = link();
    link.run();
    link.client.stack.close();
    link.run();
    assert!(link.server.stack.is_ended());
    assert!(link.client.stack.is_ended());
    link.server.stack.end_of_file().unwrap();
    link.client.stack.end_of_file().unwrap();
}

#[test]
fn an_end_without_a_close_frame_is_an_end() {
    let mut link = link();
    assert_eq!(
        link.client.stack.end_of_file().unwrap_err().kind(),
        ErrorKind::HandshakeCut
    );
    assert_eq!(
        link.server.stack.end_of_file().unwrap_err().kind(),
        ErrorKind::HandshakeCut
    );
    link.run();
    link.server.stack.end_of_file().unwrap();
}

#[test]
fn a_peer_that_pings_and_does_not_read_is_cut_off() {
    let mut server = open_server(WebSocketServerOptions::default());
    let pings = frame(0x89, &[7; 100]).repeat(100);
    let error = (0..1_000)
        .find_map(|_| server.input(&pings, &mut BytesMut::new()).err())
        .expect("it is cut off");
    assert_eq!(error.kind(), ErrorKind::Flooded);
    assert!(server.outgoing().len() < 300_000);
}

#[test]
fn the_address_that_the_nearest_proxy_saw_is_taken_if_it_is_trusted() {
    for (header, trusted, address) in [
        (
            "X-Forwarded-For: 192.0.2.1, 192.0.2.7",
            true,
            Some("192.0.2.7:0"),
        ),
        ("X-Forwarded-For: 192.0.2.7:99", true, Some("192.0.2.7:99")),
        (
            "X-Forwarded-For: 2001:db8::7",
            true,
            Some("[2001:db8::7]:0"),
        ),
        (
            "X-Forwarded-For: [2001:db8::7]",
            true,
            Some("[2001:db8::7]:0"),
        ),
        ("X-Forwarded-For: unknown", true, None),
        ("X-Forwarded-For: 192.0.2.7", false, None),
    ] {
        let mut options = WebSocketServerOptions::default();
        options.trust_forwarded = trusted;
        let mut stack = Stack::new().with(WebSocketServer::new(options));
        let asked = request(GET, &[header]);
        stack.input(asked.as_bytes(), &mut BytesMut::new()).unwrap();
        let found = stack.peer().address.map(|address| address.to_string());
        assert_eq!(found.as_deref(), address, "{header}");
    }
}
