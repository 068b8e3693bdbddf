//! Tests `mqtt top` and the progress bar in a terminal of util-linux's `script`.

use mqtt_testing::process::{Process, run};

use crate::broker::{Broker, MQTT};
use crate::commands::{failed, folder, is_well};

/// Starts `mqtt top` in a terminal of 100 columns.
fn top(broker: &Broker, colours: &str) -> Process {
    let command = format!(
        "stty rows 30 cols 100; {colours} exec {MQTT} top -p {}",
        broker.port
    );
    Process::start("script", &["-q", "-e", "-c", &command, "/dev/null"])
}

#[test]
fn a_terminal_shows_the_topics_and_publishes() {
    let broker = Broker::start(&[]);
    let evil = "\u{1b}]0;title\u{7}";
    is_well(&broker.run("pub", &["-t", "plant/pump", "-m", evil, "-r"]));
    let observer = broker.spawn("sub", &["-t", "plant/pump", "-R", "-C", "1", "-d"]);
    observer.wait_stderr("receiving SUBACK");
    let mut top = top(&broker, "");
    top.wait_stdout("pump");
    // Selects the last line, then writes a message to its topic. Unchanged parts of the screen are not drawn again, so most texts
    // come in parts.
    top.write("\u{1b}[F");
    top.wait_stdout("10 bytes, QoS 0, retained");
    top.write("poff\r");
    assert_eq!(observer.end().stdout, "off\n");
    top.write("q");
    let ended = top.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("\u{FFFD}]0;title\u{FFFD}"));
    assert!(!ended.stdout.contains("\u{1b}]0;"), "{:?}", ended.stdout);
    // The terminal is restored.
    assert!(ended.stdout.contains("\u{1b}[?1049l"), "{:?}", ended.stdout);
}

#[test]
fn a_terminal_is_needed_and_a_broker_too() {
    let broker = Broker::start(&[]);
    failed(&broker.run("top", &[]), 1, "needs a terminal");
    let command = format!("{MQTT} top -h 127.0.0.1 -p 1");
    let ended = run("script", &["-q", "-e", "-c", &command, "/dev/null"], "");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("refused"), "{}", ended.stdout);
    // The screen was not used.
    assert!(!ended.stdout.contains("\u{1b}[?1049h"));
}

/// Only a file with a terminal has a bar, which disappears at the end.
#[test]
fn the_lines_of_a_file_have_a_progress_bar() {
    let broker = Broker::start(&[]);
    let file = folder("progress").join("lines");
    std::fs::write(&file, "one\ntwo\n").unwrap();
    let publish = format!("{MQTT} pub -p {} -t a -l", broker.port);
    let terminal = |command: &str| {
        let command = format!("stty cols 100; {command}");
        let ended = run("script", &["-q", "-e", "-c", &command, "/dev/null"], "");
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        ended.stdout
    };
    let file = file.display();
    let bar = "of 8 B, ";
    assert!(terminal(&format!("{publish} < {file}")).contains(bar));
    assert!(!terminal(&format!("{publish} --quiet < {file}")).contains(bar));
    assert!(!terminal(&format!("cat {file} | {publish}")).contains(bar));
    let elsewhere = run("bash", &["-c", &format!("{publish} < {file}")], "");
    assert_eq!((elsewhere.code, elsewhere.stderr.as_str()), (Some(0), ""));
}
