//! Runs `mqtt bench` with `mqtt broker`.

use std::collections::BTreeSet;

use mqtt_testing::process::{Process, run, whole_lines};

use crate::broker::{Broker, MQTT};
use crate::commands::{failed, folder, is_well};

#[test]
fn a_bench_counts_its_messages() {
    let broker = Broker::start(&[]);
    for qos in ["0", "1", "2"] {
        let load = [
            "--publishers",
            "2",
            "--subscribers",
            "3",
            "--rate",
            "100",
            "-d",
            "0.2",
        ];
        let ended = broker.run("bench", &[&load[..], &["--json", "-q", qos]].concat());
        is_well(&ended);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let published = report["published"].as_u64().unwrap();
        assert!(published > 0, "{report}");
        assert_eq!(report["received"], published * 3, "{report}");
        assert_eq!(report["lost"], 0, "{report}");
        let latency = &report["latency_us"];
        assert!(latency["p50"].as_u64() > Some(0), "{report}");
        assert!(
            latency["p50"].as_u64() <= latency["max"].as_u64(),
            "{report}"
        );
    }
    let ended = broker.run(
        "bench",
        &[
            "--pairs",
            "--publishers",
            "2",
            "--subscribers",
            "2",
            "-d",
            "0.1",
            "-V",
            "5",
        ],
    );
    is_well(&ended);
    assert!(
        ended.stdout.contains("latency       p50"),
        "{}",
        ended.stdout
    );
    failed(
        &broker.run("bench", &["--pairs", "--publishers", "2"]),
        1,
        "--pairs",
    );
    failed(&run(MQTT, &["bench", "-p", "1"], ""), 1, "refused");
}

/// Starts a run that waits for Ctrl-C.
fn endless(broker: &Broker, arguments: &[&str]) -> Process {
    let mut all = vec!["-d", "600", "--per-second"];
    all.extend(arguments);
    broker.spawn("bench", &all)
}

#[test]
fn connections_are_opened_at_a_rate_and_held() {
    let broker = Broker::start(&[]);
    let arguments = "--connect 20 --connect-rate 200 -d 0.1 -A 127.0.0.2 -A 127.0.0.3 -V 5";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let ended = broker.run("bench", &[&arguments[..], &["--json"]].concat());
    is_well(&ended);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["opened"], 20, "{report}");
    assert_eq!(report["connected"], 20, "{report}");
    assert_eq!(report["lost"], 0, "{report}");
    // The last one begins 19 of 200 parts of a second after the first one.
    assert!(
        report["opening_seconds"].as_f64() >= Some(0.095),
        "{report}"
    );
    assert!(report["connect_us"]["p50"].as_u64() > Some(0), "{report}");
    let table = broker.run("bench", &arguments);
    is_well(&table);
    for line in ["opened        20 in ", "connected     20 at the end"] {
        assert!(table.stdout.contains(line), "{}", table.stdout);
    }
    broker.process.signal("TERM");
    let log = broker.process.end().stderr;
    for address in ["127.0.0.2:", "127.0.0.3:"] {
        assert!(log.contains(address), "{log}");
    }
}

#[test]
fn connections_that_fail_or_are_lost_are_counted() {
    let users = folder("bench_users");
    let users = users.join("users");
    let users = users.to_str().unwrap();
    is_well(&run(MQTT, &["passwd", users, "user-0"], "secret\n"));
    let broker = Broker::start(&["--user-file", users]);
    let two = "--connect 2 -u user-%i -P secret -d 0";
    let two: Vec<&str> = two.split(' ').collect();
    let ended = broker.run("bench", &two);
    failed(&ended, 1, "1 connections failed and 0 were lost");
    assert!(
        ended.stdout.contains("failed        1: "),
        "{}",
        ended.stdout
    );

    let broker = Broker::start(&[]);
    let bench = endless(&broker, &["--connect", "3"]);
    bench.wait_stdout("3 connected");
    broker.process.signal("KILL");
    bench.wait_stdout(" 0 connected");
    bench.signal("INT");
    let ended = bench.end();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stdout.contains("lost          3\n"),
        "{}",
        ended.stdout
    );
}

#[test]
fn placeholders_in_topics_users_and_identifiers_are_replaced() {
    let broker = Broker::start(&[]);
    let observer = broker.spawn("sub", &["-t", "#", "-q", "1", "-F", "%t", "-d"]);
    observer.wait_stderr("receiving SUBACK");
    let names = "-i meter-%i -u user-%c -t site/%u/%i --publishers 2 --rate 10 -d 1 -q 1";
    let names: Vec<&str> = names.split(' ').collect();
    is_well(&broker.run("bench", &names));
    is_well(&broker.run("pub", &["-t", "end", "-q", "1", "-m", "x"]));
    observer.wait_stdout("end\n");
    let printed = observer.printed();
    let topics: BTreeSet<_> = whole_lines(&printed).collect();
    let expected = ["end", "site/user-meter-0/0", "site/user-meter-1/1"];
    assert_eq!(topics, BTreeSet::from(expected));
    for (names, error) in [
        ("-i same", "--id needs %i"),
        ("-i %c%i", "refer to themselves"),
        ("-x 5", "-V 5"),
        ("--connect 2000000", "2000000"),
        ("--connect 2 --pairs", "cannot be used with"),
    ] {
        let names: Vec<&str> = names.split(' ').collect();
        let ended = broker.run("bench", &names);
        assert_ne!(ended.code, Some(0));
        assert!(ended.stderr.contains(error), "{}", ended.stderr);
    }
}

#[test]
fn a_line_is_printed_for_each_second() {
    let broker = Broker::start(&[]);
    let bench = endless(&broker, &["--rate", "100", "--json"]);
    bench.wait_stdout("\"second\":2,");
    bench.signal("INT");
    let ended = bench.end();
    let lines: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let sum = |key: &str| -> u64 {
        lines
            .iter()
            .filter(|line| line["second"].is_u64())
            .filter_map(|line| line[key].as_u64())
            .sum()
    };
    let report = lines.last().unwrap();
    assert!(
        report["published"].as_u64() >= Some(sum("published")),
        "{report}"
    );
    assert!(sum("received") > 0, "{report}");
    let bench = endless(&broker, &["--rate", "100"]);
    bench.wait_stdout("   1 s  ");
    bench.signal("INT");
    failed(&bench.end(), 1, "interrupted");
}

#[test]
fn the_load_grows_within_the_ramp() {
    let broker = Broker::start(&[]);
    let ramp = "--publishers 4 --rate 50 --ramp 0.4 -d 0 --json -q 1";
    let ramp: Vec<&str> = ramp.split(' ').collect();
    let ended = broker.run("bench", &ramp);
    is_well(&ended);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    // Without the ramp, 4 publishers send 4 * 50 * 0.4 = 80 messages and 4 more at the start; with it they have 10 / 16 of the
    // time.
    let published = report["published"].as_u64().unwrap();
    assert!((1..=60).contains(&published), "{report}");
}
