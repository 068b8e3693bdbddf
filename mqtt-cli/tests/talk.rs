//! Tests `mqtt talk` over TCP and over a serial line, with scripts and with replays.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use mqtt_testing::packets::vectors::hex;
use mqtt_testing::process::{Process, run, shows};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// Starts a server that sends each answer after it has received the number of bytes of its question. Returns the received bytes.
fn server(script: &'static [(usize, &'static str)]) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        let mut got = Vec::new();
        for (length, answer) in script {
            let mut question = vec![0; *length];
            stream.read_exact(&mut question).unwrap();
            got.extend(question);
            stream.write_all(&hex(answer)).unwrap();
        }
        // Reads until the other side has received everything and closes.
        let _ = stream.read_to_end(&mut got);
        got
    });
    (address, serving)
}

fn path(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_script_waits_for_answers_and_explains_them() {
    let (address, serving) = server(&[(15, "20 02 00 00"), (8, "90 03 00 01 00"), (2, "d0 00")]);
    let script = "# a comment\nconnect -i a\nsub -t a\n{0xC0, 0}\ndisconnect\n";
    let ended = run(MQTT, &["talk", &address], script);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    shows(
        &ended,
        &[
            "sent: CONNECT, 15 bytes, MQTT 3.1.1",
            "received: CONNACK, 4 bytes",
            "return code success",
            "sent: SUBSCRIBE, 8 bytes",
            "received: SUBACK",
            "sent: PINGREQ",
            "received: PINGRESP",
            "sent: DISCONNECT",
        ],
    );
    let got = serving.join().unwrap();
    assert_eq!(
        got,
        hex("10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61 82 06 00 01 00 01 61 00 c0 00 e0 00")
    );
}

/// Packets that only together break a rule are reported, and change the exit code.
#[test]
fn violations_by_the_broker_are_reported() {
    for (script, answers, words) in [
        ("connect -i a", &[(15, "20 02 01 00")][..], "MQTT-3.2.2-1"),
        (
            "connect -i a\nsub -t a",
            &[(15, "20 02 00 00"), (8, "40 02 00 07 90 03 00 01 00")],
            "no request awaits this PUBACK 7",
        ),
        (
            "connect -i a",
            &[(15, "20 02 00 00 20 02 00 00")],
            "no request awaits this CONNACK",
        ),
        ("connect -i a", &[(15, "20 02 00 09")], "malformed"),
    ] {
        // Each script runs once; its leaked memory lets the thread borrow it.
        let answers: &'static [(usize, &'static str)] = Vec::leak(answers.to_vec());
        let (address, serving) = server(answers);
        let ended = run(MQTT, &["talk", &address], &format!("{script}\n"));
        shows(&ended, &[words]);
        assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
        serving.join().unwrap();
    }
}

/// Wrong bytes are sent unchanged, and the advice is printed beside them.
#[test]
fn a_wrong_packet_is_sent_with_advice() {
    let (address, serving) = server(&[(8, "")]);
    let ended = run(MQTT, &["talk", &address], "80 06 00 01 00 01 61 00\n");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    shows(
        &ended,
        &["sent: SUBSCRIBE, malformed", "cause:", "corrected: 82 06"],
    );
    assert_eq!(serving.join().unwrap(), hex("80 06 00 01 00 01 61 00"));
    let (address, serving) = server(&[(3, "")]);
    let ended = run(MQTT, &["talk", &address], "82 08 00\nhello\n");
    assert_eq!(ended.code, Some(1));
    shows(&ended, &["sent: SUBSCRIBE, cut short: 3 of 10 bytes"]);
    serving.join().unwrap();
}

#[test]
fn no_answer_and_a_closed_connection_are_errors() {
    let (address, serving) = server(&[(2, "")]);
    let (host, port) = address.split_once(':').unwrap();
    let arguments = ["talk", host, "-p", port, "--wait", "0.05"];
    let ended = run(MQTT, &arguments, "ping\n");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("no answer came"), "{}", ended.stderr);
    serving.join().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let closing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
    });
    let ended = run(MQTT, &["talk", &address], "ping\nping\n");
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("closed before the end"),
        "{}",
        ended.stderr
    );
    closing.join().unwrap();
    assert_eq!(run(MQTT, &["talk", "127.0.0.1:1"], "").code, Some(1));
    let twice = run(MQTT, &["talk", "127.0.0.1:1", "-p", "1"], "");
    assert!(twice.stderr.contains("twice"), "{}", twice.stderr);
    assert_eq!(run(MQTT, &["talk"], "").code, Some(2));
}

const TRANSCRIPT: &str = "> 10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61\n< 20 02 00 00\n\
    > 82 06 00 01 00 01 61 01\n< 90 03 00 01 01\n< 30 05 00 01 61 68 69\n";

#[test]
fn a_transcript_is_written_down() {
    let file = path("transcript-written");
    let (address, serving) = server(&[
        (15, "20 02 00 00"),
        (8, "90 03 00 01 01 30 05 00 01 61 68 69"),
    ]);
    let mut process = Process::start(MQTT, &["talk", &address, "--transcript", &file]);
    process.write("connect -i a\nsub -t a -q 1\n");
    process.wait_stdout("payload 2 bytes: \"hi\"");
    process.close_input();
    assert_eq!(process.end().code, Some(0));
    serving.join().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), TRANSCRIPT);
}

/// Answers may come in any order, `??` stands for any byte, and a missing or different answer is an error.
#[test]
fn a_transcript_is_replayed_as_a_test() {
    let file = path("transcript-replayed");
    let replay = |text: &str, answers: &[(usize, &'static str)]| {
        std::fs::write(&file, text).unwrap();
        let (address, serving) = server(Vec::leak(answers.to_vec()));
        let ended = run(
            MQTT,
            &["talk", &address, "--replay", &file, "--wait", "60"],
            "",
        );
        serving.join().unwrap();
        ended
    };
    let good = [
        (15, "20 02 00 00"),
        (8, "30 05 00 01 61 68 69 90 03 00 01 01"),
    ];
    let ended = replay(TRANSCRIPT, &good);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    shows(
        &ended,
        &["replayed: 2 times sent, 3 packets received as in the transcript"],
    );
    let any = TRANSCRIPT.replace("61 68 69", "61 ?? ??   # any payload");
    assert_eq!(replay(&any, &good).code, Some(0));
    let other = [
        (15, "20 02 00 00"),
        (8, "90 03 00 01 80 30 05 00 01 61 68 69"),
    ];
    let ended = replay(TRANSCRIPT, &other);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains("90 03 00 01 80 came, which the transcript does not have after line 3"),
        "{}",
        ended.stderr
    );
    let text = "> c0 00\n< d0 00\n";
    std::fs::write(&file, text).unwrap();
    let (address, serving) = server(&[(2, "")]);
    let ended = run(
        MQTT,
        &["talk", &address, "--replay", &file, "--wait", "0.05"],
        "",
    );
    assert!(
        ended.stderr.contains("this did not come: d0 00"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.code, Some(1));
    serving.join().unwrap();
    let ended = replay("c0 00", &[]);
    assert!(ended.stderr.contains("line 1"), "{}", ended.stderr);
}

/// With a keep-alive of one second, PINGREQ is sent without a line for it.
#[test]
fn the_option_ping_sends_pings() {
    let (address, serving) = server(&[(15, "20 02 00 00"), (2, "d0 00")]);
    let mut process = Process::start(MQTT, &["talk", &address, "--ping"]);
    process.write("connect -i a -k 1\n");
    process.wait_stdout("received: PINGRESP");
    process.close_input();
    assert_eq!(process.end().code, Some(0));
    assert!(serving.join().unwrap().ends_with(&[0xC0, 0]));
}

#[cfg(unix)]
#[test]
fn packets_go_over_a_serial_line() {
    use std::os::fd::AsRawFd;

    let (mut modem, line) = serial2::SerialPort::pair().unwrap();
    let device = std::fs::read_link(format!("/proc/self/fd/{}", line.as_raw_fd())).unwrap();
    modem
        .set_read_timeout(std::time::Duration::from_secs(60))
        .unwrap();
    let serving = std::thread::spawn(move || {
        let mut question = [0; 15];
        modem.read_exact(&mut question).unwrap();
        modem.write_all(&hex("20 02 00 00")).unwrap();
        // The modem stays open: if it was dropped, its answer would be lost.
        (question, modem)
    });
    let device = device.to_str().unwrap();
    let ended = run(
        MQTT,
        &["talk", "--serial", device, "--baud", "9600"],
        "connect -i a\n",
    );
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    shows(&ended, &["received: CONNACK, 4 bytes"]);
    assert!(serving.join().unwrap().0.starts_with(&[0x10, 0x0D]));
}
