//! `mqtt sub` and `mqtt pub` pass 3,000 numbered messages at each QoS through Mosquitto and a proxy that cuts their
//! connections at random bytes. Prints how many were lost and doubled, and fails if the QoS does not allow it.

use std::collections::HashMap;
use std::process::ExitCode;

use mqtt_testing::peers::Mosquitto;
use mqtt_testing::process::{Process, example, run};
use mqtt_testing::wires::Proxy;

const COUNT: usize = 3_000;

fn main() -> ExitCode {
    // Examples are in a folder beside the program.
    let mqtt = example("../mqtt").replace("examples/../", "");
    println!("mqtt pub -> proxy -> Mosquitto -> proxy -> mqtt sub, {COUNT} messages each");
    println!("version  QoS  connections cut  received  lost  doubled");
    let mut kept = true;
    for version in ["3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let (cuts, heard) = exchange(&mqtt, version, qos);
            let lost = (0..COUNT)
                .filter(|n| !heard.contains_key(&n.to_string()))
                .count();
            let doubled = heard.values().filter(|times| **times > 1).count();
            println!(
                "{version:7}  {qos:3}  {cuts:15}  {:8}  {lost:4}  {doubled:7}",
                heard.len()
            );
            kept &= match qos {
                "0" => doubled == 0,
                "1" => lost == 0,
                _ => lost == 0 && doubled == 0,
            };
        }
    }
    if kept {
        println!("QoS 0 came at most once, QoS 1 at least once, QoS 2 exactly once");
        ExitCode::SUCCESS
    } else {
        println!("a promise was broken");
        ExitCode::FAILURE
    }
}

/// Common arguments, beside port, version, identifier and quality of service.
const COMMON: [&str; 7] = [
    "-h",
    "127.0.0.1",
    "-c",
    "-t",
    "numbers",
    "--longest-wait",
    "0.02",
];

/// Returns how often connections were cut, and how often each message came.
fn exchange(mqtt: &str, version: &str, qos: &str) -> (u32, HashMap<String, u32>) {
    let broker = Mosquitto::start("");
    let near = Proxy::start(broker.port, 2_000, 20_000, 1);
    // Mosquitto 2.0.11 doubles QoS 2 messages if a resumed connection is cut before their PUBREL is written.
    let far = Proxy::start(broker.port, 8_000, 24_000, 2);
    let load = ["-V", version, "-q", qos];
    let port = far.port.to_string();
    let subscribe = [
        &["sub", "-p", &port, "-i", "subscriber", "-d"],
        &load[..],
        &COMMON,
    ]
    .concat();
    let subscriber = Process::start(mqtt, &subscribe);
    subscriber.wait_stderr("receiving SUBACK");
    let numbers: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    let port = near.port.to_string();
    let publish = [
        &["pub", "-p", &port, "-i", "publisher", "-l"],
        &load[..],
        &COMMON,
    ]
    .concat();
    let published = run(mqtt, &publish, &(numbers.join("\n") + "\n"));
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let cuts = near.cuts() + far.cuts();
    // The last message is published until it is received, since it may be lost at QoS 0.
    near.stop_cutting();
    far.stop_cutting();
    let direct = broker.port.to_string();
    let end = [
        "pub",
        "-h",
        "127.0.0.1",
        "-p",
        &direct,
        "-V",
        version,
        "-t",
        "numbers",
        "-m",
        "end",
        "-q",
        "1",
    ];
    while !subscriber.has_printed("end") {
        assert_eq!(run(mqtt, &end, "").code, Some(0));
    }
    subscriber.signal("INT");
    let mut heard = HashMap::new();
    for line in subscriber
        .end()
        .stdout
        .lines()
        .filter(|line| *line != "end")
    {
        *heard.entry(line.to_owned()).or_default() += 1;
    }
    (cuts, heard)
}
