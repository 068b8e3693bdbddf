//! Tests clients that are refused, or that are slow.

use std::time::Duration;

use mqtt_broker_host::Settings;
use mqtt_broker_host::transport::Stack;
use mqtt_proto::{Connect, Packet, Version};
use mqtt_testing::packets::encode;
use mqtt_testing::peers::{Authority, Subject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, tls, trusting, websocket};
use crate::{Folder, Running};

/// Sends bytes, and returns the answer up to the end of the connection.
async fn answer(address: std::net::SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // The answer is complete; a reset could destroy it.
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn who_speaks_another_protocol_is_answered_in_his_own_and_closed() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let bind = ["127.0.0.1:0", "mqtts://127.0.0.1:0", "ws://127.0.0.1:0"];
    let running = Running::start(folder.certify(&authority), &bind).await;
    running
        .beside(|addresses, _| async move {
            let connect = encode(
                &Packet::Connect(Connect::new(Version::V311, "a")),
                Version::V311,
            );
            let [plain, secured, web] = addresses[..] else {
                panic!()
            };
            // The answer is a TLS alert.
            assert_eq!(answer(secured, &connect).await[..1], [0x15]);
            assert_eq!(
                answer(secured, b"GET / HTTP/1.1\r\n\r\n").await[..1],
                [0x15]
            );
            assert_eq!(answer(web, &connect).await, b"");
            let mut wrong = Client::tcp(plain, tls(&trusting(&authority))).await;
            let hello = Connect::new(Version::V5, "a");
            wrong.try_connect(&hello).await.unwrap_err();

            let says = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let text = says(answer(web, b"GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n").await);
            assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
            assert!(
                text.contains("the request is not one for WebSocket"),
                "{text}"
            );
            let text = says(answer(web, b"POST /mqtt HTTP/1.1\r\nHost: a\r\n\r\n").await);
            assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
            // The header is longer than one read, and longer than the limit.
            let long = format!("GET /mqtt HTTP/1.1\r\nLong: {}", "x".repeat(150_000));
            let text = says(answer(web, long.as_bytes()).await);
            assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        })
        .await;
}

#[tokio::test]
async fn a_client_without_a_good_certificate_is_told_why() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let other = Authority::new("another");
    let mut settings = folder.certify(&authority);
    settings.client_ca = Some(folder.write("ca", authority.pem()));
    let list = authority.revocation_list(&[2]);
    settings.crl = Some(vec![folder.write("crl", &list)]);
    let running = Running::start(settings, &["mqtts://127.0.0.1:0"]).await;
    running
        .beside(|addresses, _| async move {
            let subject = |serial| Subject {
                serial,
                ..Subject::client("pump")
            };
            let expired = Subject {
                years: (2020, 2021),
                ..subject(1)
            };
            let cases = [
                (Some(authority.issue(&subject(1))), None),
                (None, Some("requires a client certificate")),
                (Some(authority.issue(&subject(2))), Some("it was revoked")),
                (Some(authority.issue(&expired)), Some("it expired")),
                (Some(other.issue(&subject(1))), Some("its CA is unknown")),
            ];
            for (identity, why) in cases {
                let mut options = trusting(&authority);
                options.identity = identity.map(|identity| identity.pair());
                let mut client = Client::tcp(addresses[0], tls(&options)).await;
                let connect = Connect::new(Version::V5, "a");
                match (client.try_connect(&connect).await, why) {
                    (Ok(connack), None) => assert_eq!(connack[3], 0),
                    (Err(error), Some(why)) => {
                        assert!(error.to_string().contains(why), "{error}: {why}");
                    }
                    (result, why) => panic!("{result:?}: {why:?}"),
                }
            }
        })
        .await;
}

#[tokio::test]
async fn silent_handshakes_end_and_make_room() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let mut settings: Settings = folder.certify(&authority);
    settings.handshakes = Some(2);
    // Long enough for the others on a busy machine: their handshakes have a low priority.
    settings.connect_timeout = Duration::from_secs(5).try_into().ok();
    let bind = ["mqtts://127.0.0.1:0", "wss://127.0.0.1:0", "127.0.0.1:0"];
    let running = Running::start(settings, &bind).await;
    running
        .beside(|addresses, _| async move {
            let mut silent = Vec::new();
            for _ in 0..2 {
                let mut stream = TcpStream::connect(addresses[0]).await.unwrap();
                stream.write_all(b"\x16\x03").await.unwrap();
                silent.push(stream);
            }
            // Plain listeners do not wait for these clients.
            let mut plain = Client::tcp(addresses[2], Stack::new()).await;
            plain.connect(Version::V5, "plain").await;
            // Other clients wait until those have reached their time limit.
            let secured = || tls(&trusting(&authority));
            let mut client = Client::tcp(addresses[0], secured()).await;
            client.connect(Version::V5, "late").await;
            let mut client = Client::tcp(addresses[1], websocket(secured())).await;
            client.connect(Version::V5, "later").await;
            for mut stream in silent {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        })
        .await;
}

/// They need not reach their time limit.
#[tokio::test]
async fn silent_handshakes_keep_nobody_out() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let mut settings: Settings = folder.certify(&authority);
    settings.handshakes = Some(2);
    settings.connect_timeout = Duration::from_secs(600).try_into().ok();
    let running = Running::start(settings, &["mqtts://127.0.0.1:0"]).await;
    running
        .beside(|addresses, _| async move {
            let mut silent = Vec::new();
            for _ in 0..3 {
                let mut stream = TcpStream::connect(addresses[0]).await.unwrap();
                stream.write_all(b"\x16\x03").await.unwrap();
                silent.push(stream);
            }
            let mut client = Client::tcp(addresses[0], tls(&trusting(&authority))).await;
            let connects = client.connect(Version::V5, "honest");
            let connected = tokio::time::timeout(Duration::from_secs(60), connects).await;
            connected.expect("it waits for silent clients");
        })
        .await;
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_told() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let good = folder.certify(&authority);
    let why = |settings: Settings, bind: &'static str| async move {
        let mut settings = settings;
        settings.bind = Some(vec![bind.to_owned()]);
        let error = settings.listen().await.unwrap_err();
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    };
    let tls = "mqtts://127.0.0.1:0";
    let text = why(Settings::default(), tls).await;
    assert_eq!(text, "cert: mqtts and wss need a certificate");
    let mut settings = good.clone();
    settings.key = settings.cert.clone();
    assert!(
        why(settings, tls)
            .await
            .ends_with("cert: there is no private key in it")
    );
    let mut settings = good.clone();
    settings.client_certificate = Some("optional".into());
    assert_eq!(
        why(settings, tls).await,
        "client-certificate: needs client-ca"
    );
    let mut settings = good.clone();
    settings.client_ca = Some(folder.write("ca", authority.pem()));
    settings.identity_as_username = Some("name".into());
    assert!(
        why(settings, tls)
            .await
            .starts_with("identity-as-username: must be ")
    );
    let mut settings = good.clone();
    settings.proxy_from = Some(vec!["everywhere".into()]);
    assert!(why(settings, tls).await.starts_with("proxy-from: must be "));
    // Every client without a certificate could connect to a public address.
    let text = why(good.clone(), "mqtts://0.0.0.0:0").await;
    assert!(
        text.starts_with("everyone could connect to 0.0.0.0:"),
        "{text}"
    );
    let mut settings = good;
    settings.client_ca = Some(folder.write("ca", authority.pem()));
    settings.bind = Some(vec!["mqtts://0.0.0.0:0".into()]);
    settings.listen().await.unwrap();
}
