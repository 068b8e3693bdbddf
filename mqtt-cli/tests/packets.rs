//! Tests `mqtt encode` and `mqtt sign`: each type, form and defect, and the output of `mqtt decode --json` as input.

use mqtt_proto::{Decoded, Encode as _, MAX_PACKET, Packet, Version};
use mqtt_testing::choices::Choices;
use mqtt_testing::packets::generated;
use mqtt_testing::packets::vectors::{self, hex};
use mqtt_testing::process::{Ended, run, words};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

fn mqtt(arguments: &[&str]) -> Ended {
    run(MQTT, arguments, "")
}

#[track_caller]
fn prints(arguments: &[&str], expected: &str) {
    let ended = mqtt(arguments);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), expected),
        "{}",
        ended.stderr
    );
}

#[track_caller]
fn failed(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.stderr.starts_with("mqtt: ") && ended.stderr.contains(words),
        "{}",
        ended.stderr
    );
}

fn spaced(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

/// Decodes to JSON, encodes that, and compares the bytes. Several packets follow each other, as in a dump.
#[track_caller]
fn round_trips(packets: &[Vec<u8>], version: Version) {
    let version = version.to_string();
    let dump: Vec<_> = packets.iter().map(|bytes| spaced(bytes)).collect();
    let json = run(
        MQTT,
        &["decode", "--json", "-V", &version],
        &dump.join("\n"),
    );
    assert_eq!(json.code, Some(0), "{}", json.stderr);
    let back = run(
        MQTT,
        &["encode", "--json", "-", "-V", &version],
        &json.stdout,
    );
    assert_eq!(back.code, Some(0), "{}", back.stderr);
    for ((dumped, back), json) in dump
        .iter()
        .zip(back.stdout.lines())
        .zip(json.stdout.lines())
    {
        assert_eq!(dumped, back, "{json}");
    }
    assert_eq!(back.stdout.lines().count(), dump.len());
}

#[test]
fn each_good_vector_survives_the_way_to_json_and_back() {
    let good: Vec<_> = vectors::all()
        .into_iter()
        .map(|vector| vector.bytes)
        .filter(|bytes| {
            matches!(
                Packet::decode(bytes, Version::V311, MAX_PACKET),
                Ok(Decoded::Packet { .. })
            )
        })
        .collect();
    assert!(good.len() >= 14, "{}", good.len());
    round_trips(&good, Version::V311);
}

/// All types with all their properties and flags.
#[test]
fn arbitrary_packets_survive_the_way_to_json_and_back() {
    for version in generated::VERSIONS {
        let mut made = Vec::new();
        for packet_type in generated::types(version) {
            for seed in 0..40_u8 {
                let bytes: Vec<u8> = (0..255_u8)
                    .map(|n| n.wrapping_mul(31).wrapping_add(seed.wrapping_mul(77)) ^ n >> 2)
                    .collect();
                generated::with_packet(packet_type, version, &mut Choices::new(&bytes), |packet| {
                    let mut bytes = vec![0; packet.encoded_len(version).unwrap()];
                    packet.encode(version, &mut bytes).unwrap();
                    made.push(bytes);
                });
            }
        }
        round_trips(&made, version);
    }
}

#[test]
fn handwritten_json_is_accepted() {
    let json = r#"{"packet":"PUBLISH","topic":"a","qos":1,"payload":{"hex":"00 ff"}}
        {"packet":"PUBLISH","version":"5","topic":"a","properties":[{"content-type":"json"},{"user-property":["k","v"]}]}
        {"packet":"SUBSCRIBE","packet_id":7,"filters":[{"filter":"a/#","qos":2}]}
        {"packet":"PINGREQ"}"#;
    let ended = run(MQTT, &["encode", "--json", "-"], json);
    assert_eq!(
        ended.stdout,
        "32 07 00 01 61 00 01 00 ff\n30 12 00 01 61 0e 03 00 04 6a 73 6f 6e 26 00 01 6b 00 01 76\n\
         82 08 00 07 00 03 61 2f 23 02\nc0 00\n",
        "{}",
        ended.stderr
    );
    for (json, words) in [
        (r#"{"packet":"PUBLISH","topik":"a"}"#, "topik"),
        (r#"{"packet":"PUBLISH","topic":"a","qos":3}"#, "QoS"),
        (r#"{"packet":"PUBLISH","topic":"a","packet_id":1}"#, "QoS 0"),
        (r#"{"packet":"PUBLISH","topic":"a","payload":7}"#, "neither"),
        (
            r#"{"packet":"PUBLISH","topic":"a","version":"6"}"#,
            "versions",
        ),
        (r#"{"packet":"PUBACK","packet_id":0}"#, "identifier"),
        (
            r#"{"packet":"PUBACK","packet_id":1,"properties":[{"colour":1}]}"#,
            "colour",
        ),
        (r#"{"packet":"HELLO"}"#, "HELLO"),
        (r#"{"packet":null,"error":{"at":0}}"#, "malformed"),
        ("{", "object 1"),
    ] {
        failed(&run(MQTT, &["encode", "--json", "-"], json), words);
    }
    assert_eq!(mqtt(&["encode"]).code, Some(2));
    assert_eq!(mqtt(&["encode", "--json", "-", "pingreq"]).code, Some(2));
}

/// Options, and the bytes that follow from the tables of chapter 3 of the standards.
const PACKETS: &[(&str, &str)] = &[
    (
        "connect -i a -u u --pw-hex 00ff -k 1 --will-topic w --will-payload x --will-qos 2 --will-retain",
        "10 1a 00 04 4d 51 54 54 04 f6 00 01 00 01 61 00 01 77 00 01 78 00 01 75 00 02 00 ff",
    ),
    (
        "-V 3.1 connect -i a",
        "10 0f 00 06 4d 51 49 73 64 70 03 02 00 3c 00 01 61",
    ),
    (
        "-V 5 -D receive-maximum=5 connect --will-topic w --will-property will-delay-interval=1",
        "10 1b 00 04 4d 51 54 54 05 06 00 3c 03 21 00 05 00 00 05 18 00 00 00 01 00 01 77 00 00",
    ),
    ("connack --session-present", "20 02 01 00"),
    ("connack --reason not-authorized", "20 02 00 05"),
    ("connack --reason 4", "20 02 00 04"),
    (
        "-V 5 connack --reason 0x87 -D reason-string=no",
        "20 08 00 87 05 1f 00 02 6e 6f",
    ),
    (
        "publish -t a --dup -q 2 -r --packet-id 258 -m x",
        "3d 06 00 01 61 01 02 78",
    ),
    (
        "-V 5 publish -t= -D topic-alias=3",
        "30 06 00 00 03 23 00 03",
    ),
    ("puback --packet-id 31522", "40 02 7b 22"),
    (
        "-V 5 puback --reason no-matching-subscribers",
        "40 03 00 01 10",
    ),
    ("pubrec", "50 02 00 01"),
    ("pubrel", "62 02 00 01"),
    ("pubcomp", "70 02 00 01"),
    (
        "subscribe -t a -t b -q 1 -q 2",
        "82 0a 00 01 00 01 61 01 00 01 62 02",
    ),
    (
        "-V 5 -D subscription-identifier=9 subscribe -t a --no-local --retain-as-published --retain-handling 2",
        "82 09 00 01 02 0b 09 00 01 61 2c",
    ),
    ("suback --code 1 --code 0x80", "90 04 00 01 01 80"),
    (
        "-V 5 suback --code topic-filter-invalid",
        "90 04 00 01 00 8f",
    ),
    ("unsubscribe -t a", "a2 05 00 01 00 01 61"),
    ("unsuback", "b0 02 00 01"),
    ("-V 5 unsuback --code 17", "b0 04 00 01 00 11"),
    ("pingreq", "c0 00"),
    ("pingresp", "d0 00"),
    ("disconnect", "e0 00"),
    ("-V 5 disconnect --reason 0x8e", "e0 01 8e"),
    (
        "-V 5 auth --reason 24 -D authentication-method=m -D authentication-data=hex:00ff",
        "f0 0b 18 09 15 00 01 6d 16 00 02 00 ff",
    ),
];

#[test]
fn options_can_express_all_fifteen_packets() {
    for (line, expected) in PACKETS {
        let arguments = [&["encode"], &words(line)[..]].concat();
        prints(&arguments, &format!("{expected}\n"));
    }
    failed(&mqtt(&["encode", "auth"]), "5");
    let two_for_three = "encode subscribe -t a -t b -t c -q 1 -q 2";
    failed(&mqtt(&words(two_for_three)), "-q");
    failed(
        &mqtt(&["encode", "-V", "5", "-D", "content-type=x", "pingreq"]),
        "PINGREQ",
    );
}

#[test]
fn each_output_form_encodes_the_same_bytes() {
    let packet = ["publish", "-t", "temperature", "--hex", "19"];
    for (form, expected) in [
        ("hex", "30 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19\n"),
        ("HEX", "30 0E 00 0B 74 65 6D 70 65 72 61 74 75 72 65 19\n"),
        ("digits", "300e000b74656d706572617475726519\n"),
        (
            "c",
            "const unsigned char packet[16] = {\n    0x30, 0x0e, 0x00, 0x0b, 0x74, 0x65, 0x6d, 0x70,\n    \
             0x65, 0x72, 0x61, 0x74, 0x75, 0x72, 0x65, 0x19,\n};\n",
        ),
        (
            "rust",
            "const PACKET: [u8; 16] = [\n    0x30, 0x0e, 0x00, 0x0b, 0x74, 0x65, 0x6d, 0x70,\n    \
             0x65, 0x72, 0x61, 0x74, 0x75, 0x72, 0x65, 0x19,\n];\n",
        ),
        (
            "escape",
            "\\x30\\x0e\\x00\\x0b\\x74\\x65\\x6d\\x70\\x65\\x72\\x61\\x74\\x75\\x72\\x65\\x19\n",
        ),
        ("base64", "MA4AC3RlbXBlcmF0dXJlGQ==\n"),
        (
            "at",
            "AT+CIPSEND=16\n30 0E 00 0B 74 65 6D 70 65 72 61 74 75 72 65 19\n",
        ),
    ] {
        prints(&[&["encode", "--as", form][..], &packet].concat(), expected);
    }
    let raw = mqtt(&[&["encode", "--as", "raw", "--length"][..], &packet].concat());
    assert_eq!(raw.stdout.as_bytes(), b"0\x0e\0\x0btemperature\x19");
    assert_eq!(raw.stderr, "16 bytes, 0x10\n");
    prints(
        &[
            "encode",
            "--at-command",
            "AT+QISENDEX=0,{len},\"{HEX}\"",
            "pingreq",
        ],
        "AT+QISENDEX=0,2,\"C000\"\n",
    );
    prints(
        &["encode", "--as", "c", "--name", "ping", "pingreq"],
        "const unsigned char ping[2] = {\n    0xc0, 0x00,\n};\n",
    );
}

const CONNECT: &str = "connect -i abc -u u --will-topic w";
/// Each defect, and packets that can have it.
const DEFECTS: &[(&str, &[&str])] = &[
    ("type", &["pingreq", CONNECT]),
    (
        "flags",
        &["publish -t a", "subscribe -t a", "pubrel", "connack"],
    ),
    ("length-short", &["publish -t a", "subscribe -t a"]),
    ("length-long", &["subscribe -t a", "pingreq"]),
    ("length-endless", &["publish -t a"]),
    ("cut", &["subscribe -t a", "puback", CONNECT]),
    ("extra", &["subscribe -t a", "puback", CONNECT, "pingresp"]),
    ("packet-id-zero", &["publish -t a -q 1", "suback"]),
    ("packet-id-missing", &["subscribe -t abc", "pubrec"]),
    ("string-length", &["publish -t a", CONNECT]),
    ("string-null", &["publish -t a", CONNECT]),
    ("string-utf8", &["publish -t a", CONNECT]),
    ("topic-empty", &["publish -t a", CONNECT]),
    ("topic-wildcard", &["publish -t a", CONNECT]),
    ("filter-wildcard", &["subscribe -t a", "unsubscribe -t a"]),
    ("no-filters", &["subscribe -t a", "unsubscribe -t a"]),
    ("qos3", &["publish -t a", "subscribe -t a", CONNECT]),
    ("protocol-name", &[CONNECT]),
    ("protocol-level", &[CONNECT]),
    ("reserved-bit", &[CONNECT, "connack", "subscribe -t a"]),
    ("code", &["connack", "suback"]),
    ("property-unknown", &["-V 5 publish -t a", "-V 5 connack"]),
    ("property-twice", &["-V 5 -D content-type=x publish -t a"]),
    (
        "property-misplaced",
        &["-V 5 publish -t a", "-V 5 subscribe -t a"],
    ),
];

/// A packet with the defect is refused, incomplete, or differs from the valid one.
#[test]
fn each_defect_makes_an_invalid_packet() {
    let help = mqtt(&["encode", "--help"]).stdout;
    for (defect, packets) in DEFECTS {
        for packet in *packets {
            let arguments: Vec<_> = ["encode", "--bad", defect]
                .into_iter()
                .chain(packet.split(' '))
                .collect();
            let ended = mqtt(&arguments);
            assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
            let bytes = hex(&ended.stdout);
            let version = if packet.contains("-V 5") {
                Version::V5
            } else {
                Version::V311
            };
            let decoded = Packet::decode(&bytes, version, MAX_PACKET);
            let wrong = match decoded {
                Err(_) | Ok(Decoded::Needs(_)) => true,
                Ok(Decoded::Packet { consumed, .. }) => consumed < bytes.len(),
            };
            assert!(wrong, "{arguments:?}: {} is {decoded:?}", ended.stdout);
        }
        assert!(help.contains(&format!("- {defect}:")), "{defect} {help}");
    }
    let listed = help
        .lines()
        .filter(|line| line.trim().starts_with("- "))
        .count();
    // The nine forms of bytes are listed as well.
    assert_eq!(listed, DEFECTS.len() + 9, "{help}");
    failed(&mqtt(&["encode", "--bad", "qos3", "pingreq"]), "no place");
    let cut = mqtt(&["encode", "--bad", "cut", "publish", "-t", "a", "-m", "12"]);
    assert_eq!(cut.stdout, "30 04 00 01 61 31\n");
    assert!(cut.stderr.contains("valid"), "{}", cut.stderr);
    failed(
        &mqtt(&["encode", "--bad", "extra", "publish", "-t", "a"]),
        "no place",
    );
}

const ALIYUN: [&str; 10] = [
    "sign",
    "aliyun",
    "--product-key",
    "a1yyeqgpsKm",
    "--device-name",
    "mqtt_fx",
    "--timestamp",
    "1691648594041",
    "--security",
    "tls",
];
const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn sign_prints_what_aliyun_expects() {
    let with_secret = [&ALIYUN[..], &["--device-secret", SECRET]].concat();
    prints(
        &with_secret,
        "client id  a1yyeqgpsKm.mqtt_fx|securemode=2,signmethod=hmacsha256,timestamp=1691648594041|\n\
         user name  mqtt_fx&a1yyeqgpsKm\n\
         password   8e516c4b721828245c32fe853ecb1d540743389a42ecbfec3d1a32994adaa04c\n\
         host       a1yyeqgpsKm.iot-as-mqtt.cn-shanghai.aliyuncs.com\nport       1883\n",
    );
    let from_input = [
        &ALIYUN[..],
        &["--device-secret", "-", "--method", "sha1", "--json"],
    ]
    .concat();
    let ended = run(MQTT, &from_input, &format!("{SECRET}\n"));
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["password"], "100df1dc65c48b5f0ad18f65796b55610af76c41");
    // This is a CONNECT that the platform accepted, without the password at its end: the test does not know the device secret.
    let connect = vectors::all()
        .into_iter()
        .find(|vector| vector.name == "connect_aliyun");
    let mut connect = connect.unwrap().bytes;
    let password = b"8e516c4b721828245c32fe853ecb1d540743389a42ecbfec3d1a32994adaa04c";
    let start = connect.len() - password.len();
    connect[start..].copy_from_slice(password);
    let encoded = [&with_secret[..], &["--encode", "-k", "60"]].concat();
    prints(&encoded, &format!("{}\n", spaced(&connect)));
}

#[test]
fn sign_prints_what_onenet_expects() {
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let arguments = [
        "sign",
        "onenet",
        "--product-id",
        "323685",
        "--device-name",
        "pump-7",
        "--expires",
        "1800000000",
        "--key",
    ];
    prints(
        &[&arguments[..], &[key, "--method", "md5"]].concat(),
        "client id  pump-7\nuser name  323685\n\
         password   version=2018-10-31&res=products%2F323685%2Fdevices%2Fpump-7&et=1800000000\
         &method=md5&sign=Q1wq7F0LgG%2Bj5hAcP5nT7w%3D%3D\n\
         host       mqtts.heclouds.com\nport       1883\n",
    );
    failed(&mqtt(&[&arguments[..], &["no key"]].concat()), "base64");
}
