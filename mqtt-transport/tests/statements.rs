//! The statements of chapter 6, WebSocket, which the stages of both sides keep. `scripts/conformance.py` makes docs/CONFORMANCE.md of
//! the table below.
#![cfg(feature = "websocket")]

use bytes::BytesMut;
use mqtt_proto::{Connect, Packet, Version};
use mqtt_testing::packets::encode;
use mqtt_testing::wires::{Link, answer_to, outgoing_text};
use mqtt_transport::websocket::{
    WebSocketClient, WebSocketOptions, WebSocketServer, WebSocketServerOptions,
};
use mqtt_transport::{ErrorKind, Stack, Stage};

/// Which scenario shows which statements: of 3.1.1 in the first brackets, of 5 in the second.
macro_rules! statements {
    ($($scenario:ident: [$($v4:ident)*] [$($v5:ident)*];)*) => {
        mod v3_1_1 {
            use super::*;
            $(#[test] fn $scenario() { super::$scenario(Version::V311); })*
        }
        mod v5 {
            use super::*;
            $(#[test] fn $scenario() { super::$scenario(Version::V5); })*
        }
    };
}

statements! {
    packets_go_in_binary_frames_and_no_others: [mqtt_6_0_0_1] [mqtt_6_0_0_1];
    frames_need_not_be_aligned_with_packets: [mqtt_6_0_0_2] [mqtt_6_0_0_2];
    the_client_asks_for_the_sub_protocol: [mqtt_6_0_0_3] [mqtt_6_0_0_3];
    the_server_chooses_the_sub_protocol: [mqtt_6_0_0_4] [mqtt_6_0_0_4];
}

fn client() -> WebSocketClient {
    WebSocketClient::new("broker.example", &WebSocketOptions::default()).unwrap()
}

/// The request of a client.
fn asked() -> String {
    outgoing_text(&client())
}

/// Both sides after the handshake.
fn open() -> Link {
    let server = WebSocketServer::new(WebSocketServerOptions::default());
    let mut link = Link::new(Stack::new().with(client()), Stack::new().with(server));
    link.run();
    assert!(link.client.stack.is_open() && link.server.stack.is_open());
    link
}

fn connect(version: Version) -> Vec<u8> {
    encode(&Packet::Connect(Connect::new(version, "pump")), version)
}

/// A short frame, masked by zeros if a client sends it.
fn frame(first: u8, is_masked: bool, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    let (mask, key) = match is_masked {
        true => (0x80, &[0; 4][..]),
        false => (0, &[][..]),
    };
    [&[first, mask | len][..], key, payload].concat()
}

fn packets_go_in_binary_frames_and_no_others(version: Version) {
    let packet = connect(version);
    let mut link = open();
    for end in [&mut link.client, &mut link.server] {
        assert_eq!(end.stack.output(&packet), packet.len());
        // The last frame of a message, binary.
        assert_eq!(end.stack.outgoing()[0], 0x82);
        let n = end.stack.outgoing().len();
        end.stack.sent(n);
    }
    for (end, is_masked) in [(&mut link.server, true), (&mut link.client, false)] {
        end.read(&frame(0x81, is_masked, &packet));
        assert_eq!(end.failed.as_ref().unwrap().kind(), ErrorKind::TextFrame);
        assert_eq!(end.stack.outgoing()[0], 0x88, "a close frame");
        assert!(end.plain.is_empty());
    }
}

fn frames_need_not_be_aligned_with_packets(version: Version) {
    let two = connect(version).repeat(2);
    for cut in 1..two.len() {
        let mut link = open();
        for (end, is_masked) in [(&mut link.server, true), (&mut link.client, false)] {
            let (before, behind) = two.split_at(cut);
            end.read(&frame(0x82, is_masked, before));
            end.read(&frame(0x82, is_masked, behind));
            assert!(end.failed.is_none(), "{:?}", end.failed);
            assert_eq!(end.plain, &two[..]);
        }
    }
}

fn the_client_asks_for_the_sub_protocol(_: Version) {
    let asked = asked();
    assert!(
        asked.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"),
        "{asked}"
    );
}

fn the_server_chooses_the_sub_protocol(_: Version) {
    let asked = asked();
    let mut server = WebSocketServer::new(WebSocketServerOptions::default());
    let answer = answer_to(&mut server, &asked);
    assert!(
        answer.contains("\r\nsec-websocket-protocol: mqtt\r\n"),
        "{answer}"
    );
    // Nobody else is let in.
    let mut server = WebSocketServer::new(WebSocketServerOptions::default());
    let other = asked.replace("Protocol: mqtt", "Protocol: chat");
    let refused = server.input(other.as_bytes(), &mut BytesMut::new());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::SubProtocol);
}
