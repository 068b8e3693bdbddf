//! No output of the program has the password of a URL, whatever is wrong with the URL or the option.

use mqtt_testing::peers::ClosedPort;
use mqtt_testing::process::{Ended, run};

use crate::broker::{Broker, MQTT};

const PASSWORD: &str = "s3cr3t";

/// Runs the program, where `PORT` is a port without a listener, and checks its output.
fn keeps_it(words: &str, proxy: Option<&str>) -> Ended {
    let closed = ClosedPort::new();
    let port = closed.number().to_string();
    let set = |text: &str| text.replace("PORT", &port).replace("PASSWORD", PASSWORD);
    let proxy = format!("all_proxy={}", set(proxy.unwrap_or_default()));
    let words = set(words);
    let mut all = vec![proxy.as_str(), MQTT];
    all.extend(words.split('|'));
    let ended = run("env", &all, "");
    assert_hidden(&ended, &words);
    ended
}

#[track_caller]
fn assert_hidden(ended: &Ended, what: &str) {
    let all = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!all.contains(PASSWORD), "{what}: {all}");
}

/// URLs with a password, of which only the first are valid.
const URLS: [&str; 19] = [
    "mqtt://u:PASSWORD@127.0.0.1:PORT",
    "mqtts://u:PASSWORD@127.0.0.1:PORT",
    "ws://u:PASSWORD@127.0.0.1:PORT",
    "wss://u:PASSWORD@127.0.0.1:PORT",
    "mqtt://u:PASSWORD@127.0.0.1:99999",
    "mqtt://u:PASSWORD@127.0.0.1:x",
    "mqtt://u:PASSWORD@",
    "mqtt://u:PASSWORD@a host",
    "mqtt://u:PASSWORD@[::1",
    "mqtt://u:%zzPASSWORD@127.0.0.1",
    "mqtt://u:p@PASSWORD@127.0.0.1:x",
    "mqtt://u:PASSWORD",
    "foo://u:PASSWORD@127.0.0.1",
    "mqtt+unix://u:PASSWORD@127.0.0.1",
    "unix://u:PASSWORD@127.0.0.1",
    "mqtt:/u:PASSWORD@127.0.0.1",
    "u:PASSWORD@127.0.0.1:x",
    "http://u:PASSWORD@127.0.0.1:PORT",
    "socks5://u:PASSWORD@127.0.0.1:x",
];

#[test]
fn a_url_that_fails_is_reported_without_its_password() {
    for url in URLS {
        for command in ["pub|-m|x|-t|a|-d", "sub|-t|a|-d", "rr|-t|a|-e|b|-m|x|-d"] {
            // As an address, in a place for something else, and where none belongs.
            for option in ["-L", "-h", "-p", "--url=", "--nothing"] {
                let joint = if option.ends_with('=') { "" } else { "|" };
                let ended = keeps_it(&format!("{command}|{option}{joint}{url}"), None);
                assert_ne!(ended.code, Some(0), "{option} {url}");
            }
        }
        for line in ["bench|-h|", "bench|", "check|", "talk|", "broker|", "top|"] {
            let ended = keeps_it(&format!("{line}{url}"), None);
            assert_ne!(ended.code, Some(0), "{line} {url}");
        }
    }
}

#[test]
fn a_proxy_that_fails_is_reported_without_its_password() {
    for url in URLS.iter().chain(&["socks5://u:PASSWORD@127.0.0.1:PORT"]) {
        let publish = "pub|-t|a|-m|x|-d|-h|127.0.0.2";
        let ended = keeps_it(&format!("{publish}|--proxy|{url}"), None);
        assert_ne!(ended.code, Some(0), "{url}");
        for command in [publish, "check|127.0.0.2", "bench|-h|127.0.0.2"] {
            let ended = keeps_it(command, Some(url));
            assert_ne!(ended.code, Some(0), "{url}");
        }
    }
}

#[test]
fn an_address_of_a_listener_is_reported_without_a_password() {
    for url in URLS {
        let ended = keeps_it(&format!("broker|--log|trace|--bind|{url}"), None);
        assert_ne!(ended.code, Some(0), "{url}");
    }
    let file = std::env::temp_dir().join(format!("mqtt-secrets-{}", std::process::id()));
    let path = file.to_str().unwrap();
    for url in URLS {
        let url = url.replace("PASSWORD", PASSWORD);
        // Valid TOML, another type, no TOML, and a name that does not exist.
        for text in [
            "bind = [\"URL\"]",
            "bind = \"URL\"",
            "bind = URL",
            "x = \"URL\"",
        ] {
            std::fs::write(&file, text.replace("URL", &url)).unwrap();
            let ended = keeps_it(&format!("broker|--config|{path}"), None);
            assert_ne!(ended.code, Some(0), "{text} {url}");
        }
    }
    let _ = std::fs::remove_file(file);
}

#[test]
fn logs_of_a_connection_have_no_password() {
    let broker = Broker::start(&["--log", "trace"]);
    let url = format!("mqtt://user:{PASSWORD}@127.0.0.1:{}", broker.port);
    let topic = format!("{url}/a");
    for version in ["3.1.1", "5"] {
        let words = [
            "pub", "-L", &topic, "-m", "x", "-q", "1", "-d", "-V", version,
        ];
        let ended = run(MQTT, &words, "");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("CONNECT"), "{}", ended.stderr);
        assert_hidden(&ended, &topic);
    }
    let ended = run(MQTT, &["check", &url], "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_hidden(&ended, &url);
    broker.process.signal("TERM");
    assert_hidden(&broker.process.end(), "the broker");
}
