//! Runs the commands of `packaging`: that of the unit of systemd, and that of the image.

use std::path::Path;
use std::process::Command;

use mqtt_testing::process::{Process, run};

use crate::broker::{MQTT, digits};
use crate::commands::{folder, is_well};

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../broker-host/broker.toml");

fn packaged(name: &str) -> String {
    std::fs::read_to_string(Path::new(PACKAGING).join(name)).unwrap()
}

/// Returns the words behind `key` in the only line that begins with it.
fn words_of<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(key));
    let words = lines.next().unwrap().split([' ', '"', ',', '[', ']']);
    assert_eq!(lines.next(), None, "{key}");
    words.filter(|word| !word.is_empty()).collect()
}

/// Starts the broker of a command as it is, with the sample of the configuration, another folder for its store and another port, and
/// passes a message.
fn serves(name: &str, words: &[&str]) {
    let store = folder(name);
    let replaced = |word: &&str| match *word {
        "/etc/mqtt/broker.toml" => SAMPLE.to_owned(),
        "${STATE_DIRECTORY}" | "/var/lib/mqtt" => store.to_str().unwrap().to_owned(),
        word => word.to_owned(),
    };
    let mut arguments: Vec<_> = words.iter().map(replaced).collect();
    arguments.extend(["--bind".to_owned(), "127.0.0.1:0".to_owned()]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let broker = Process::start(MQTT, &arguments);
    let port = digits(&broker.wait_stderr_after("address=127.0.0.1:"));
    let to = ["-p", &port, "-q", "1", "-t", "a"];
    let publish = [&["pub"], &to[..], &["-r", "-m", "x"]].concat();
    is_well(&run(MQTT, &publish, ""));
    let subscribe = [&["sub"], &to[..], &["-C", "1", "-W", "10"]].concat();
    assert_eq!(run(MQTT, &subscribe, "").stdout, "x\n");
    let mut files = std::fs::read_dir(&store).unwrap();
    assert!(files.next().is_some(), "the folder of the store is used");
}

#[test]
fn the_commands_of_the_unit_and_of_the_image_serve() {
    let unit = packaged("mqtt-broker.service");
    let command = words_of(&unit, "ExecStart=");
    assert_eq!(command[0], "/usr/bin/mqtt");
    serves("unit", &command[1..]);
    let image = packaged("Dockerfile");
    assert_eq!(words_of(&image, "ENTRYPOINT "), ["/mqtt"]);
    serves("image", &words_of(&image, "CMD "));
}

#[test]
fn systemd_knows_each_line_of_the_units() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("left out: there is no systemd-analyze");
        return;
    }
    let folder = folder("units");
    let unit = |name: &str| {
        let path = folder.join(name);
        // The program must exist.
        let text = packaged(name).replace("/usr/bin/mqtt", MQTT);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (service, socket) = (unit("mqtt-broker.service"), unit("mqtt-broker.socket"));
    let words = ["verify", "--man=no", &service, &socket];
    let ended = run("systemd-analyze", &words, "");
    is_well(&ended);
    // An unknown key is a warning.
    let about_these = |line: &&str| line.contains("mqtt-broker");
    let told: Vec<_> = ended.stderr.lines().filter(about_these).collect();
    assert_eq!(told, [""; 0]);
}
