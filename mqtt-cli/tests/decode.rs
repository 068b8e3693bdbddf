//! Tests `mqtt decode`: forms of input, versions, causes, unknown bytes, pipes and captures.

use std::path::PathBuf;

use etherparse::PacketBuilder;
use mqtt_proto::{Decoded, MAX_PACKET, Packet, Version};
use mqtt_testing::packets::vectors::hex;
use mqtt_testing::process::{Ended, Process, run, shows};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

fn decode(arguments: &[&str]) -> Ended {
    run(MQTT, &[&["decode"], arguments].concat(), "")
}

fn file(name: &str, bytes: &[u8]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

const TEMPERATURE: &str = "30 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19";
const SUBSCRIBE: &str = "82 10 00 0a 00 0b 74 65 6d 70 65 72 61 74 75 72 65 00";
const CONNECT: &str = "10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61";

/// Frequent mistakes, words of their messages, and the packets as they were meant.
const MISTAKES: &[(&str, &str, &str)] = &[
    // The vector of oneNET.
    (
        "80 10 00 0A 00 0B 74 65 6D 70 65 72 61 74 75 72 65 00",
        "SUBSCRIBE begins with 82",
        SUBSCRIBE,
    ),
    ("60 02 00 01", "PUBREL begins with 62", "62 02 00 01"),
    (
        "30 1c 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19",
        "counts bytes, not hex digits: 14, not 28",
        TEMPERATURE,
    ),
    (
        "30 20 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19",
        "not the hex digits of the packet: 14, not 32",
        TEMPERATURE,
    ),
    (
        "30 10 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19",
        "does not count the fixed header: 14, not 16",
        TEMPERATURE,
    ),
    (
        "82 13 00 0a 00 0b 74 65 6d 70 65 72 61 74 75 72 65 00",
        "is 19, but 16 bytes follow",
        SUBSCRIBE,
    ),
    (
        "82 00 0a 00 0b 74 65 6d 70 65 72 61 74 75 72 65 00",
        "remaining length is missing: 10",
        SUBSCRIBE,
    ),
    (
        "82 00 10 00 0a 00 0b 74 65 6d 70 65 72 61 74 75 72 65 00",
        "seven bits a byte",
        SUBSCRIBE,
    ),
    (
        "30 0c 74 65 6d 70 65 72 61 74 75 72 65 19",
        "topic begins with its length",
        TEMPERATURE,
    ),
    (
        "30 0d 0b 74 65 6d 70 65 72 61 74 75 72 65 19",
        "length of a string takes two bytes",
        TEMPERATURE,
    ),
    (
        "30 0e 0b 00 74 65 6d 70 65 72 61 74 75 72 65 19",
        "high byte",
        TEMPERATURE,
    ),
    (
        "30 0e 00 16 74 65 6d 70 65 72 61 74 75 72 65 19",
        "topic counts bytes, not hex digits: 11, not 22",
        TEMPERATURE,
    ),
    (
        "82 0f 00 0a 00 0b 74 65 6d 70 65 72 61 74 75 72 65",
        "a byte with the QoS",
        SUBSCRIBE,
    ),
    (
        "82 10 00 0a 00 0b 74 65 6d 70 65 72 61 74 75 72 65",
        "a byte with the QoS",
        SUBSCRIBE,
    ),
    (
        "82 0e 00 0a 74 65 6d 70 65 72 61 74 75 72 65 00",
        "begins with its length in two bytes",
        SUBSCRIBE,
    ),
    (
        "82 0d 00 0a 74 65 6d 70 65 72 61 74 75 72 65",
        "and a byte with the QoS follows it",
        SUBSCRIBE,
    ),
    (
        "82 0f 00 0a 0b 74 65 6d 70 65 72 61 74 75 72 65 00",
        "length of a string takes two bytes",
        SUBSCRIBE,
    ),
    (
        "82 10 00 0a 00 16 74 65 6d 70 65 72 61 74 75 72 65 00",
        "topic filter counts bytes, not hex digits: 11, not 22",
        SUBSCRIBE,
    ),
    (
        "82 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 00",
        "packet identifier is missing",
        "82 10 00 01 00 0b 74 65 6d 70 65 72 61 74 75 72 65 00",
    ),
    (
        "80 0f 00 0a 00 0b 74 65 6d 70 65 72 61 74 75 72 65",
        "SUBSCRIBE begins with 82: its flags are fixed, and 80 has others; a byte",
        SUBSCRIBE,
    ),
    (
        "a0 07 00 01 00 03 61 2f 62",
        "UNSUBSCRIBE begins with a2",
        "a2 07 00 01 00 03 61 2f 62",
    ),
    (
        "10 0d 00 04 4d 51 54 54 04 c2 00 3c 00 01 61",
        "neither user name nor password: the connect flags are 02, not c2",
        CONNECT,
    ),
    (
        "10 0b 4d 51 54 54 04 02 00 3c 00 01 61",
        "protocol name begins with its length",
        CONNECT,
    ),
    (
        "10 0d 00 04 4d 51 54 54 03 02 00 3c 00 01 61",
        "level of MQTT 3.1.1 is 4",
        CONNECT,
    ),
    (
        "10 0b 00 04 4d 51 54 54 04 02 00 3c 61",
        "client identifier begins with its length",
        CONNECT,
    ),
    (
        "33 30 30 45 30 30 30 42 37 34 36 35 36 44 37 30 36 35 37 32 36 31 37 34 37 35 37 32 36 35 31 39",
        "characters of hex digits",
        TEMPERATURE,
    ),
    ("0d 0a c0 00", "CR, LF", "c0 00"),
];

#[test]
fn common_mistakes_are_explained() {
    for &(wrong, cause, corrected) in MISTAKES {
        let ended = decode(&["--json", wrong]);
        assert_eq!(ended.code, Some(1), "{wrong}: {}", ended.stdout);
        let object: serde_json::Value =
            serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
        let error = &object["error"];
        assert!(
            error["cause"]
                .as_str()
                .is_some_and(|text| text.contains(cause)),
            "{wrong}: {error}"
        );
        assert_eq!(error["corrected"], corrected, "{wrong}: {error}");
        let bytes = hex(corrected);
        let good = Packet::decode(&bytes, Version::V311, MAX_PACKET);
        assert!(matches!(good, Ok(Decoded::Packet { consumed, .. }) if consumed == bytes.len()));
        let plain = decode(&[wrong]);
        shows(&plain, &["cause:     ", "corrected: "]);
    }
    // Without a known mistake there is no advice.
    let ended = decode(&["--json", "30 0b 00 01 61 ff"]);
    assert!(
        ended
            .stdout
            .contains("remaining length is 11, but 4 bytes follow"),
        "{}",
        ended.stdout
    );
    let ended = decode(&["--json", "f7 01 02"]);
    assert!(ended.stdout.contains("\"cause\":null"), "{}", ended.stdout);
}

#[test]
fn the_detected_version_is_printed_with_its_reason() {
    for (hex, version, why) in [
        ("c0 00", "3.1.1", "fit 5 as well"),
        ("20 03 00 00 00", "5", "do not fit 3.1.1"),
        ("20 02 00 00", "3.1.1", "do not fit 5"),
        ("c0 00 e0 01 04", "5", "do not fit 3.1.1"),
    ] {
        let ended = decode(&[hex]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        shows(
            &ended,
            &[
                &format!("MQTT {version}: "),
                why,
                &format!(", MQTT {version}\n"),
            ],
        );
        let json = decode(&["--json", hex]);
        shows(&json, &[&format!("\"version\":\"{version}\""), why]);
    }
    let given = decode(&["-V", "5", "20 02 00 00"]);
    assert_eq!(given.code, Some(1));
    shows(&given, &["MQTT 5: -V says so", "malformed"]);
    let connect = decode(&["10 10 00 04 4d 51 54 54 05 02 00 3c 00 00 03 61 62 63 20 03 00 00 00"]);
    assert_eq!(connect.code, Some(0), "{}", connect.stderr);
    assert!(
        connect.stdout.starts_with("CONNECT, 18 bytes, MQTT 5\n"),
        "{}",
        connect.stdout
    );
}

#[test]
fn each_byte_is_explained() {
    let ended = decode(&[
        "--explain",
        "10 ?? 00 04 4d 51 54 54 04 c2 00 78 00 01 61 00 01 75 00 01 70 82 08 00 0a 00 03 61 2f 62 01",
    ]);
    // The unknown length covers all following bytes; two packets are an error.
    assert_eq!(ended.code, Some(1));
    let ended = decode(&[
        "--explain",
        "10 ?? 00 04 4d 51 54 54 04 c2 00 78 00 01 61 00 01 75 00 01 70",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    shows(
        &ended,
        &[
            "the remaining length is 19: 13\n",
            "0001 0000: type 1 CONNECT, flags 0000",
            "remaining length 19: so many bytes follow",
            "length of the protocol name: 4",
            "connect flags 11000010: user name 1, password 1, will retain 0, will QoS 0, will 0, clean start 1",
            "keep-alive 0 * 256 + 120 = 120 s",
            "length of the password: 1",
        ],
    );
    let long = format!("30 80 01 00 01 61 {}", "41 ".repeat(125));
    shows(
        &decode(&["-e", &long]),
        &["128: so many bytes follow (0 + 1 * 128;"],
    );
    let topic = decode(&["82 08 00 0a 00 ?? 61 2f 62 01"]);
    shows(&topic, &["byte 5 must be 03", "topic filter \"a/b\""]);
    assert_eq!(decode(&["82 08 00 0a ?? ?? ?? 2f 62 01"]).code, Some(1));
}

#[test]
fn notes_explain_sequences_of_packets() {
    let both = decode(&["10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61 20 02 01 00"]);
    assert_eq!(both.code, Some(0));
    shows(
        &both,
        &[
            "CONNACK",
            "note: the broker says that it has a session",
            "MQTT-3.2.2-1",
        ],
    );
    shows(
        &decode(&["40 02 7B 22"]),
        &["note: the packet identifier 31522 is the text \"{\\\"\""],
    );
    assert!(!decode(&["40 02 00 0a"]).stdout.contains("note"));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    // Topic and payload with an escape sequence that clears the screen, and C1 controls.
    let ended = decode(&["30 0c 00 05 61 1b 5b 32 4a 62 1b 5b c2 9b", "-e"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for text in [
        ended.stdout,
        decode(&["30 0b 00 05 61 1b 5b 32 4a 1b 5b c2 9b", "--json"]).stdout,
    ] {
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\n'),
            "{text:?}"
        );
    }
}

#[test]
fn input_forms_are_read_from_arguments_and_pipes() {
    for text in [
        "{0x20, 0x02, 0x00, 0x00}",
        "\\x20\\x02\\x00\\x00",
        "IAIAAA==",
    ] {
        shows(&decode(&[text]), &["read as ", "CONNACK, 4 bytes"]);
        shows(
            &run(MQTT, &["decode"], text),
            &["read as ", "CONNACK, 4 bytes"],
        );
    }
    let modem = decode(&["AT+CIPSEND=4\n> c000"]);
    shows(
        &modem,
        &["the modem's command says 4 bytes, but 2 follow; it counts bytes, not hex digits"],
    );
    shows(&decode(&["--from", "base64", "wAA="]), &["PINGREQ"]);
    assert_eq!(decode(&["--from", "dump", "c000"]).code, Some(1));
    let path = file("raw-connack", b"\x20\x02\0\0");
    shows(&decode(&["-f", &path]), &["CONNACK"]);
}

/// The first packet is printed before the second one is complete.
#[test]
fn packets_of_a_pipe_are_printed_as_they_arrive() {
    let mut process = Process::start(MQTT, &["decode", "--binary"]);
    process.write("0\u{5}\0\u{1}ahi0\u{5}\0");
    process.wait_stdout("payload 2 bytes: \"hi\"");
    process.write("\u{1}byo");
    process.wait_stdout("payload 2 bytes: \"yo\"");
    process.close_input();
    assert_eq!(process.end().code, Some(0));
    let client = file(
        "side-client",
        &hex("10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61 c0 00"),
    );
    let broker = file("side-broker", &hex("20 02 00 00 d0"));
    let ended = decode(&["--client", &client, "--broker", &broker]);
    assert_eq!(ended.code, Some(1));
    for words in [
        "client: CONNECT, ",
        "client: PINGREQ, ",
        "broker: CONNACK, ",
        "broker: PINGRESP, cut short",
    ] {
        shows(&ended, &[words]);
    }
}

const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
const BROKER: ([u8; 4], u16) = ([192, 0, 2, 2], 1_883);

type Address = ([u8; 4], u16);

/// Makes a segment. One without a payload is the first of its side.
fn frame(from: Address, to: Address, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let syn = payload.is_empty();
    let tcp = PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4(from.0, to.0, 64)
        .tcp(from.1, to.1, sequence, 1_000);
    let tcp = if syn { tcp.syn() } else { tcp };
    let tcp = if from == CLIENT && syn {
        tcp
    } else {
        tcp.ack(1)
    };
    let mut frame = Vec::new();
    tcp.write(&mut frame, payload).unwrap();
    frame
}

/// Makes a conversation with segments that are split, doubled and out of order, and with sequence numbers that wrap.
fn conversation() -> Vec<Vec<u8>> {
    let connect = hex("10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61");
    let publish = hex("30 05 00 01 61 68 69");
    let before = u32::MAX - 1;
    vec![
        frame(CLIENT, BROKER, 99, b""),
        frame(BROKER, CLIENT, before, b""),
        frame(CLIENT, BROKER, 100, &connect[..6]),
        frame(
            ([192, 0, 2, 9], 5_000),
            ([192, 0, 2, 2], 80),
            7,
            b"GET / HTTP/1.1",
        ),
        // Out of order, then doubled with more.
        frame(CLIENT, BROKER, 115, &publish[..3]),
        frame(CLIENT, BROKER, 106, &connect[6..]),
        frame(CLIENT, BROKER, 106, &connect[6..]),
        frame(CLIENT, BROKER, 115, &publish),
        frame(BROKER, CLIENT, u32::MAX, &hex("20")),
        frame(BROKER, CLIENT, 0, &hex("02 00 00")),
    ]
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = hex("d4c3b2a1 0200 0400 00000000 00000000 ffff0000 01000000");
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
        bytes.extend([[0; 4], [0; 4], len, len].concat());
        bytes.extend(frame);
    }
    bytes
}

fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = hex("0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000");
    bytes.extend(hex("01000000 14000000 0100 0000 ffff0000 14000000"));
    for frame in frames {
        let padded = frame.len().next_multiple_of(4);
        let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
        let block = u32::try_from(padded + 32).unwrap().to_le_bytes();
        bytes.extend([6, 0, 0, 0]);
        bytes.extend([block, [0; 4], [0; 4], [0; 4], len, len].concat());
        bytes.extend(frame);
        bytes.resize(bytes.len() + padded - frame.len(), 0);
        bytes.extend(block);
    }
    bytes
}

#[test]
fn captured_segments_are_joined_for_both_directions() {
    for (name, bytes) in [
        ("a.pcap", pcap(&conversation())),
        ("a.pcapng", pcapng(&conversation())),
    ] {
        let path = file(name, &bytes);
        let ended = decode(&["-f", &path]);
        assert_eq!(
            ended.code,
            Some(0),
            "{name}: {}{}",
            ended.stdout,
            ended.stderr
        );
        shows(
            &ended,
            &[
                "connection 1: client 192.0.2.1:40000, broker 192.0.2.2:1883\n",
                "client 1: CONNECT, 15 bytes, MQTT 3.1.1",
                "client 1: PUBLISH, 7 bytes",
                "payload 2 bytes: \"hi\"",
                "broker 1: CONNACK, 4 bytes",
                "1 other TCP connections were skipped",
            ],
        );
        assert_eq!(ended.stdout.matches("CONNECT, ").count(), 1);
        assert_eq!(ended.stdout.matches("PUBLISH, ").count(), 1);
        let json = decode(&["-f", &path, "--json"]);
        assert_eq!(json.stdout.lines().count(), 3, "{}", json.stdout);
        shows(
            &json,
            &["\"direction\":\"client 1\"", "\"direction\":\"broker 1\""],
        );
    }
}

#[test]
fn gaps_of_a_capture_are_reported() {
    let mut frames = conversation();
    // The second part of CONNECT is missing.
    frames.remove(5);
    frames.remove(5);
    let ended = decode(&["-f", &file("gap.pcap", &pcap(&frames))]);
    assert_eq!(ended.code, Some(1));
    shows(
        &ended,
        &[
            "192.0.2.1:40000 sent 9 bytes that are not in the capture",
            "cut short",
        ],
    );
    let web = vec![frame(CLIENT, ([192, 0, 2, 2], 80), 7, b"GET / HTTP/1.1")];
    let ended = decode(&["-f", &file("web.pcap", &pcap(&web))]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("no MQTT connection"),
        "{}",
        ended.stderr
    );
    // The capture begins within a connection: it has no SYN and no CONNECT.
    let middle = vec![
        frame(BROKER, CLIENT, 5, &hex("d0 00")),
        frame(CLIENT, BROKER, 5, &hex("c0 00")),
    ];
    let ended = decode(&["-f", &file("middle.pcap", &pcap(&middle))]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    shows(
        &ended,
        &[
            "client 192.0.2.1:40000",
            "MQTT 3.1.1: no CONNECT",
            "broker 1: PINGRESP",
            "client 1: PINGREQ",
        ],
    );
    let cut = pcap(&middle);
    let ended = decode(&["-f", &file("cut.pcap", &cut[..cut.len() - 3])]);
    shows(
        &ended,
        &["broker 1: PINGRESP", "ends in the middle of a frame"],
    );
    assert_eq!(decode(&["-f", &file("bad.pcap", &cut[..10])]).code, Some(1));
}

/// Wireshark copies whole frames.
#[test]
fn headers_of_a_copied_frame_are_skipped() {
    let frame = frame(CLIENT, BROKER, 5, &hex("c0 00"));
    let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    shows(
        &decode(&[&digits]),
        &[
            "read as a frame with its Ethernet, IP and TCP headers",
            "PINGREQ, 2 bytes",
        ],
    );
}
