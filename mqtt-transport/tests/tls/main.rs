//! TLS stages of a client and a server: handshakes, errors and ends.
#![cfg(feature = "tls")]

mod certificates;

use std::fs;
use std::io::{self, Write};

use bytes::BytesMut;
use mqtt_testing::laws::transport::tls12;
use mqtt_testing::peers::{Authority, Subject, pem_source};
use mqtt_testing::wires::Link;
use mqtt_transport::tls::{
    ClientCertificate, KeyPair, Roots, Source, TlsConnector, TlsOptions, TlsServer,
    TlsServerOptions, psk_refused,
};
use mqtt_transport::{ErrorKind, Peer, Stack, Stage};

/// A server with a certificate, and a client that trusts an authority.
struct Case {
    authority: Authority,
    client: TlsOptions,
    server: TlsServerOptions,
}

impl Case {
    fn new() -> Self {
        let authority = Authority::new("an authority");
        Self::with(authority, &Subject::host("localhost"))
    }

    fn with(authority: Authority, subject: &Subject) -> Self {
        let mut client = TlsOptions::default();
        client.roots = Roots::Ca(authority.source());
        let server = TlsServerOptions::new(authority.issue(subject).pair());
        Self {
            authority,
            client,
            server,
        }
    }

    /// Makes the server ask for certificates of the same authority.
    fn asks(mut self, client_certificate: ClientCertificate) -> Self {
        self.server.client_ca = Some(self.authority.source());
        self.server.client_certificate = client_certificate;
        self
    }

    fn client_is(mut self, subject: &Subject) -> Self {
        self.client.identity = Some(self.authority.issue(subject).pair());
        self
    }

    fn link(&self) -> Link {
        let client = TlsConnector::new(self.client.clone()).unwrap();
        let server = TlsServer::new(self.server.clone()).unwrap();
        Link::new(
            Stack::new().with(client.stage("localhost").unwrap()),
            Stack::new().with(server.stage().unwrap()),
        )
    }

    fn run(&self) -> Link {
        let mut link = self.link();
        link.run();
        link
    }

    /// Returns the message of the client's error.
    fn refused(&self, kind: ErrorKind) -> String {
        let error = self.run().client.failed.expect("the client is told");
        assert_eq!(error.kind(), kind, "{error}");
        one_line(&error.to_string())
    }
}

fn one_line(text: &str) -> String {
    assert!(!text.contains('\n'), "{text:?} has more than one line");
    text.to_owned()
}

fn works(link: &mut Link) {
    link.exchange(b"there", b"and back", &mut |len| len);
    assert_eq!(link.server.plain, &b"there"[..], "{link:?}");
    assert_eq!(link.client.plain, &b"and back"[..], "{link:?}");
}

#[test]
fn bytes_pass_in_both_versions() {
    let mut case = Case::new();
    let mut link = case.run();
    works(&mut link);
    assert_eq!(link.client.stack.peer().tls.as_deref(), Some("TLSv1_3"));
    case.client.config = Some(tls12(&case.authority).into());
    let mut link = case.run();
    works(&mut link);
    assert_eq!(link.client.stack.peer().tls.as_deref(), Some("TLSv1_2"));
}

#[test]
fn close_notify_is_a_clean_end() {
    let mut link = Case::new().run();
    works(&mut link);
    link.client.stack.close();
    link.run();
    assert!(link.server.stack.is_ended());
    link.server.stack.end_of_file().unwrap();
}

#[test]
fn a_cut_without_close_notify_is_told() {
    let mut link = Case::new().run();
    works(&mut link);
    let error = link.server.stack.end_of_file().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert_eq!(
        error.to_string(),
        "the client closed the connection without the end of TLS (close_notify): bytes may be missing"
    );
    assert!(!link.server.stack.is_ended());
}

/// A client that reads the end of TLS knows that no byte is missing: the server has refused it.
#[cfg(feature = "websocket")]
#[test]
fn a_stage_above_that_fails_ends_tls() {
    use mqtt_transport::websocket::{WebSocketServer, WebSocketServerOptions};
    for (request, answer) in [
        (&b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"[..], ""),
        (b"GET /mqtt HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        let case = Case::new();
        let server = TlsServer::new(case.server.clone()).unwrap().stage();
        let websocket = WebSocketServer::new(WebSocketServerOptions::default());
        let mut link = case.link();
        link.server.stack = Stack::new().with(server.unwrap()).with(websocket);
        link.run();
        assert_eq!(link.client.stack.output(request), request.len());
        link.run();
        assert!(link.server.failed.is_some());
        let answered = String::from_utf8_lossy(&link.client.plain);
        assert_eq!(answered.lines().next().unwrap_or_default(), answer);
        assert!(link.client.stack.is_ended(), "{link:?}");
        link.client.stack.end_of_file().unwrap();
    }
}

#[test]
fn a_handshake_that_is_cut_at_any_byte_is_told() {
    for case in [
        Case::new(),
        Case::new()
            .asks(ClientCertificate::Required)
            .client_is(&Subject::client("pump-7")),
    ] {
        let mut link = case.link();
        let mut cuts = 0;
        while pass_a_byte(&mut link) {
            cuts += 1;
            for end in [&mut link.client, &mut link.server] {
                assert!(end.failed.is_none(), "byte {cuts}: {end:?}");
                let is_open = end.stack.is_open();
                let error = end.stack.end_of_file().unwrap_err();
                let kind = if is_open {
                    ErrorKind::Truncated
                } else {
                    ErrorKind::HandshakeCut
                };
                assert_eq!(error.kind(), kind, "byte {cuts}: {error}");
            }
        }
        assert!(cuts > 1_000, "{cuts}");
        works(&mut link);
    }
}

/// Returns whether there was a byte.
fn pass_a_byte(link: &mut Link) -> bool {
    let Link { client, server } = link;
    for to_server in [true, false] {
        let (from, to) = if to_server {
            (&mut *client, &mut *server)
        } else {
            (&mut *server, &mut *client)
        };
        if let Some(byte) = from.stack.outgoing().first().copied() {
            from.stack.sent(1);
            to.read(&[byte]);
            return true;
        }
    }
    false
}

#[test]
fn keys_may_be_changed_at_any_time() {
    let case = Case::new();
    let client = TlsConnector::new(case.client).unwrap();
    let server = TlsServer::new(case.server).unwrap();
    let mut client = client.stage("localhost").unwrap();
    let mut server = server.stage().unwrap();
    let mut plain = BytesMut::new();
    let mut expected = Vec::new();
    for round in 0..20_u8 {
        for _ in 0..4 {
            let bytes = client.outgoing().to_vec();
            client.sent(bytes.len());
            server.input(&bytes, &mut plain).unwrap();
            let bytes = server.outgoing().to_vec();
            server.sent(bytes.len());
            client.input(&bytes, &mut Default::default()).unwrap();
        }
        let before = (client.outgoing().len(), server.outgoing().len());
        if round % 3 == 0 {
            client.refresh_keys().unwrap();
        } else {
            server.refresh_keys().unwrap();
        }
        let after = (client.outgoing().len(), server.outgoing().len());
        assert_ne!(before, after, "nothing was said about the keys");
        assert_eq!(client.output(&[round; 100]), 100);
        expected.extend([round; 100]);
    }
    let bytes = client.outgoing().to_vec();
    server.input(&bytes, &mut plain).unwrap();
    assert!(plain == expected);
}

#[test]
fn a_session_is_resumed_across_connections() {
    let mut case = Case::new();
    for version in ["TLSv1_3", "TLSv1_2"] {
        if version == "TLSv1_2" {
            case.client.config = Some(tls12(&case.authority).into());
        }
        let client = TlsConnector::new(case.client.clone()).unwrap();
        let server = TlsServer::new(case.server.clone()).unwrap();
        let mut resumed = Vec::new();
        for _ in 0..3 {
            let mut link = Link::new(
                Stack::new().with(client.stage("localhost").unwrap()),
                Stack::new().with(server.stage().unwrap()),
            );
            link.run();
            works(&mut link);
            assert_eq!(link.client.stack.peer().tls.as_deref(), Some(version));
            resumed.push(link.server.stack.peer().resumed);
        }
        assert_eq!(resumed, [false, true, true], "{version}");
        // After a reload the server accepts no older tickets: the certificate of the client may be revoked.
        server.reload().unwrap();
        let mut link = Link::new(
            Stack::new().with(client.stage("localhost").unwrap()),
            Stack::new().with(server.stage().unwrap()),
        );
        link.run();
        works(&mut link);
        assert!(!link.server.stack.peer().resumed, "{version}");
    }
}

#[test]
fn plain_protocols_on_a_port_for_tls_are_told() {
    for (bytes, found) in [
        (&b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"[..], "plain MQTT"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"PROXY TCP4 1", "the PROXY protocol"),
    ] {
        for cut in 1..bytes.len() {
            let mut link = Case::new().link();
            link.server.read(&bytes[..cut]);
            link.server.read(&bytes[cut..]);
            let error = link.server.failed.take().unwrap();
            assert_eq!(error.kind(), ErrorKind::WrongProtocol);
            assert_eq!(
                error.to_string(),
                format!("the client speaks {found} where TLS is expected")
            );
        }
    }
    let mut link = Case::new().link();
    link.client.read(b"\x20\x02\0\x05");
    assert_eq!(
        link.client.failed.unwrap().to_string(),
        "the server speaks plain MQTT where TLS is expected"
    );
    let mut link = Case::new().link();
    link.server.read(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let error = link.server.failed.unwrap();
    assert_eq!(error.kind(), ErrorKind::WrongProtocol);
    assert_eq!(error.to_string(), "the client does not speak TLS");
}

#[test]
fn a_server_that_only_closes_is_told() {
    let mut link = Case::new().link();
    assert_eq!(
        link.client.stack.end_of_file().unwrap_err().to_string(),
        "the server closed the connection before it said anything in TLS: is this a port for TLS?"
    );
}

#[test]
fn changed_bytes_are_told() {
    let mut link = Case::new().run();
    assert_eq!(link.client.stack.output(b"hello"), 5);
    let mut bytes = link.client.stack.outgoing().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    link.server.read(&bytes);
    assert_eq!(link.server.failed.unwrap().kind(), ErrorKind::Tls);
    assert!(link.server.plain.is_empty());
}

#[test]
fn application_protocols_are_agreed_on() {
    let mut case = Case::new();
    case.client.alpn = vec![b"mqtt".to_vec()];
    works(&mut case.run());
    case.server.alpn = vec![b"mqtt".to_vec()];
    works(&mut case.run());
    case.server.alpn = vec![b"h2".to_vec()];
    assert_eq!(
        case.refused(ErrorKind::Tls),
        "the server speaks none of the application protocols (ALPN) that were offered"
    );
    // A client that offers none is not refused.
    case.client.alpn.clear();
    works(&mut case.run());
}

#[test]
fn names_of_application_protocols_have_the_length_of_one_byte() {
    let case = Case::new();
    for (name, is_valid) in [
        (vec![], false),
        (vec![b'a'; 1], true),
        (vec![b'a'; 255], true),
        (vec![b'a'; 256], false),
    ] {
        let (mut client, mut server) = (case.client.clone(), case.server.clone());
        client.alpn = vec![name.clone()];
        server.alpn = vec![name];
        assert_eq!(TlsConnector::new(client).is_ok(), is_valid);
        assert_eq!(TlsServer::new(server).is_ok(), is_valid);
    }
}

#[test]
fn output_is_bounded_and_waits_for_the_handshake() {
    let mut link = Case::new().link();
    assert_eq!(link.client.stack.output(b"early"), 0);
    link.run();
    let (mut taken, most) = (0, 2 * mqtt_transport::OUTGOING_LIMIT);
    loop {
        let n = link.client.stack.output(&[7; 10_000]);
        taken += n;
        assert!(link.client.stack.outgoing().len() <= most);
        if n == 0 {
            break;
        }
    }
    assert!(taken >= mqtt_transport::OUTGOING_LIMIT / 2, "{taken}");
    link.run();
    assert_eq!(link.server.plain.len(), taken);
}

/// A wire that takes `room` bytes now.
struct Narrow {
    room: usize,
    taken: Vec<u8>,
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.room);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= n;
        self.taken.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_goes_to_the_wire_as_far_as_that_takes_it() {
    goes_to_the_wire(Case::new().run());
}

#[cfg(feature = "websocket")]
#[test]
fn output_of_several_stages_goes_to_the_wire_as_well() {
    use mqtt_transport::websocket::{WebSocketClient, WebSocketServer};
    let mut link = Case::new().link();
    let client = WebSocketClient::new("localhost", &Default::default()).unwrap();
    link.client.stack.push(client);
    link.server
        .stack
        .push(WebSocketServer::new(Default::default()));
    link.run();
    goes_to_the_wire(link);
}

fn goes_to_the_wire(mut link: Link) {
    let bytes: Vec<u8> = (0..40_000_u32)
        .flat_map(u32::to_be_bytes)
        .take(40_000)
        .collect();
    for room in [0, 1, 16_500, usize::MAX] {
        let taken = Vec::new();
        let mut wire = Narrow { room, taken };
        let n = link.client.stack.output_to(&bytes, &mut wire).unwrap();
        assert_eq!(n, bytes.len(), "{room}");
        let rest = link.client.stack.outgoing().to_vec();
        assert_eq!(wire.room == 0, room != usize::MAX, "{room}");
        assert_eq!(rest.is_empty(), room == usize::MAX, "{room}");
        link.client.stack.sent(rest.len());
        // What waits is not overtaken.
        link.server.read(&wire.taken);
        link.server.read(&rest);
        assert!(link.server.plain[..] == bytes, "{room}");
        link.server.plain.clear();
    }
}

#[test]
fn an_error_of_the_wire_is_returned() {
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut link = Case::new().run();
    let error = link.client.stack.output_to(b"x", &mut Broken).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

/// A folder that is removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mqtt-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> Source {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        Source::File(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn changed_files_are_read_for_the_next_connection() {
    let folder = Folder::new("reload");
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let files = |authority: &Authority| {
        let issued = authority.issue(&Subject::host("localhost"));
        KeyPair::new(
            folder.write("server.pem", &issued.certificate),
            folder.write("server.key", &issued.key),
        )
    };
    let server = TlsServer::new(TlsServerOptions::new(files(&first))).unwrap();
    let mut options = TlsOptions::default();
    options.roots = Roots::Ca(folder.write("ca.pem", first.pem()));
    let client = TlsConnector::new(options).unwrap();
    let connect = || {
        let mut link = Link::new(
            Stack::new().with(client.stage("localhost").unwrap()),
            Stack::new().with(server.stage().unwrap()),
        );
        link.run();
        link
    };
    let mut before = connect();
    works(&mut before);
    files(&second);
    works(&mut connect());
    server.reload().unwrap();
    assert!(connect().client.failed.is_some());
    folder.write("ca.pem", second.pem());
    works(&mut connect());
    // The older connection still works.
    before.client.plain.clear();
    before.server.plain.clear();
    works(&mut before);
    // A server with invalid files keeps the old configuration and returns an error.
    folder.write("server.key", "nothing");
    let error = server.reload().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert!(
        error
            .to_string()
            .ends_with("server.key: there is no private key in it")
    );
    works(&mut connect());
}

#[test]
fn wrong_settings_are_told_before_the_first_connection() {
    let folder = Folder::new("settings");
    let authority = Authority::new("a");
    let issued = authority.issue(&Subject::host("localhost"));
    let other = authority.issue(&Subject::host("localhost"));
    let certificate = folder.write("c.pem", &issued.certificate);
    let key = folder.write("k.pem", &issued.key);
    let other_key = folder.write("o.pem", &other.key);
    let encrypted = folder.write("e.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    let missing = Source::File(folder.0.join("missing"));
    let server = |chain: &Source, key: &Source| {
        let pair = KeyPair::new(chain.clone(), key.clone());
        let error = TlsServer::new(TlsServerOptions::new(pair)).err();
        error.map(|error| one_line(&error.to_string()))
    };
    assert_eq!(server(&certificate, &key), None);
    for (chain, key, expected) in [
        (&missing, &key, "missing: No such file or directory"),
        (&key, &key, "k.pem: there is no certificate in it"),
        (
            &certificate,
            &certificate,
            "c.pem: there is no private key in it",
        ),
        (&certificate, &encrypted, "e.pem: the key is encrypted"),
        (
            &certificate,
            &other_key,
            "o.pem: it does not belong to the certificate",
        ),
    ] {
        let error = server(chain, key).unwrap();
        assert!(error.contains(expected), "{error}");
    }
    let mut options = TlsServerOptions::new(issued.pair());
    options.client_certificate = ClientCertificate::Required;
    let error = TlsServer::new(options).unwrap_err().to_string();
    assert_eq!(error, "client certificates need the CA that signs them");
    let mut options = TlsOptions::default();
    let empty = folder.0.join("empty");
    fs::create_dir(&empty).unwrap();
    options.roots = Roots::CaDirectory(empty);
    let error = TlsConnector::new(options).unwrap_err().to_string();
    assert!(error.contains("no CA certificate"), "{error}");
    let mut options = TlsOptions::default();
    options.roots = Roots::InsecureAcceptAny;
    options.server_name = Some("no name".to_owned());
    let error = TlsConnector::new(options).unwrap_err().to_string();
    assert_eq!(error, "\"no name\" is not a valid name for a certificate");
    assert!(psk_refused().to_string().contains("client certificate"));
}

#[test]
fn keys_are_never_shown() {
    let issued = Authority::new("a").issue(&Subject::host("localhost"));
    let pair = issued.pair();
    let mut options = TlsOptions::default();
    options.identity = Some(pair.clone());
    let shown = format!(
        "{pair:?} {options:?} {:?}",
        TlsServerOptions::new(pair.clone())
    );
    let secret = issued.key.lines().nth(1).unwrap();
    assert!(
        !shown.contains(secret) && !shown.contains("BEGIN"),
        "{shown}"
    );
}
