use super::*;

/// Returns the settings for a file.
fn toml_of(text: &str) -> String {
    import(text).toml
}

const THEIRS: &str = "
# A comment
listener 1883 127.0.0.1
listener 1884 ::1
listener 0 /run/mqtt.socket
allow_anonymous true
check_retain_source false
upgrade_outgoing_qos true
password_file /etc/mosquitto/the \"passwords\"
acl_file /etc/mosquitto/acl
max_packet_size 100000
max_queued_messages 0
persistent_client_expiration 2d
persistence true
persistence_location /var/lib/mosquitto/
set_tcp_nodelay true
log_type all
";

const OURS: &str = r#"bind = ["127.0.0.1:1883", "[::1]:1884", "unix:///run/mqtt.socket"]
acl-file = "/etc/mosquitto/acl"
allow-anonymous = true
check-retained-source = false
log = "debug"
packet-size = 100000
raise-qos = true
session-expiry-maximum = 172800
store = "/var/lib/mosquitto/"
user-file = "/etc/mosquitto/the \"passwords\""

# What cannot be said:
# line 12: max_queued_messages 0
"#;

#[test]
fn known_keys_are_converted_and_others_are_listed() {
    assert_eq!(toml_of(THEIRS), OURS);
    assert_eq!(
        toml_of("port 1885\nallow_anonymous true\n"),
        "bind = [\"0.0.0.0:1885\"]\nallow-anonymous = true\n"
    );
    assert_eq!(toml_of("# nothing\n\n"), "");
}

#[test]
fn values_without_a_counterpart_are_listed() {
    for line in [
        "set_tcp_nodelay false",
        "acl_file",
        "max_qos 3",
        "log_type subscribe",
    ] {
        let listed = format!("\n# What cannot be said:\n# line 1: {line}\n");
        assert_eq!(toml_of(line), listed);
    }
    let ours = "bind = [\"127.0.0.1:1884\"]\nallow-anonymous = false\n\n\
                # What cannot be said:\n# line 1: listener 1884 127.0.0.1 more\n";
    assert_eq!(toml_of("listener 1884 127.0.0.1 more"), ours);
    let ours = "allow-anonymous = false\n\n[[listener]]\nbind = [\"ws://127.0.0.1:1883\"]\nwebsocket-path = \"*\"\n";
    assert_eq!(toml_of("protocol websockets"), ours);
    let ours = "log = \"warn\"\n";
    assert_eq!(toml_of("log_type error\nlog_type warning\n"), ours);
    let ours = "log = \"info\"\n";
    assert_eq!(toml_of("log_type error\nlog_type information\n"), ours);
}

#[test]
fn what_needs_a_missing_setting_is_listed() {
    let rest = "crlfile /r\nuse_identity_as_username true\n";
    let no_ca = format!("listener 8883\ncertfile /c\nkeyfile /k\ncafile /a\n{rest}");
    let ours = "allow-anonymous = false\n\n[[listener]]\nbind = [\"mqtts://0.0.0.0:8883\"]\ncert = [\"/c\"]\nkey = [\"/k\"]\n\n\
                # What cannot be said:\n# line 5: crlfile /r\n# line 6: use_identity_as_username true\n";
    assert_eq!(toml_of(&no_ca), ours);
    let no_certificate = format!("keyfile /k\nrequire_certificate true\ncafile /a\n{rest}");
    let listed = "\n# What cannot be said:\n# line 1: keyfile /k\n# line 2: require_certificate true\n\
                  # line 3: cafile /a\n# line 4: crlfile /r\n# line 5: use_identity_as_username true\n";
    assert_eq!(toml_of(&no_certificate), listed);
}

const THEIR_LISTENERS: &str = "
per_listener_settings true
listener 1883 127.0.0.1
allow_anonymous true
listener 8883
protocol mqtt
cafile /etc/ca.pem
certfile /etc/broker.pem
keyfile /etc/broker.key
require_certificate true
use_identity_as_username true
tls_version tlsv1.3
listener 9001
protocol websockets
password_file /etc/users
listener 9002
protocol websockets
ciphers ALL
";

const OUR_LISTENERS: &str = r#"
[[listener]]
bind = ["127.0.0.1:1883"]
allow-anonymous = true

[[listener]]
bind = ["mqtts://0.0.0.0:8883"]
allow-anonymous = false
cert = ["/etc/broker.pem"]
client-ca = "/etc/ca.pem"
identity-as-username = "common-name"
key = ["/etc/broker.key"]
tls-minimum = "1.3"

[[listener]]
bind = ["ws://0.0.0.0:9001"]
user-file = "/etc/users"
websocket-path = "*"

[[listener]]
bind = ["ws://0.0.0.0:9002"]
allow-anonymous = false
websocket-path = "*"

# What cannot be said:
# line 18: ciphers ALL
"#;

/// A listener with TLS does not become one without, and who may connect to one listener may not connect to others.
#[test]
fn settings_of_one_listener_stay_separate() {
    let ours = toml_of(THEIR_LISTENERS);
    assert_eq!(ours, OUR_LISTENERS);
    assert!(mqtt_broker_host::Settings::parse(&ours).is_ok());
    let default = "port 8883\ncertfile c\nkeyfile k\ncafile a\n";
    let ours = "allow-anonymous = false\n\n[[listener]]\nbind = [\"mqtts://0.0.0.0:8883\"]\ncert = [\"c\"]\nkey = [\"k\"]\n";
    assert_eq!(toml_of(default), ours);
}

/// Limits that Mosquitto has for each listener do not become those of all listeners.
#[test]
fn limits_of_one_listener_are_listed() {
    let alone = "listener 1883\nallow_anonymous true\nmax_connections 5\nmax_qos 1\n";
    let ours =
        "bind = [\"0.0.0.0:1883\"]\nallow-anonymous = true\nconnections = 5\nmaximum-qos = 1\n";
    assert_eq!(toml_of(alone), ours);
    assert_eq!(toml_of("max_connections 5\n"), "connections = 5\n");
    let two = "password_file p\nlistener 1883\nmax_connections 5000\nmax_qos 1\nmax_topic_alias 7\n\
               listener 1884\nmax_connections 5000\nmax_qos 1\nmax_topic_alias 8\n";
    let ours = "bind = [\"0.0.0.0:1883\", \"0.0.0.0:1884\"]\nmaximum-qos = 1\nuser-file = \"p\"\n\n\
                # What cannot be said:\n# line 3: max_connections 5000\n# line 5: max_topic_alias 7\n\
                # line 7: max_connections 5000\n# line 9: max_topic_alias 8\n";
    assert_eq!(toml_of(two), ours);
}

/// The result is not more open than Mosquitto without a word.
#[test]
fn lines_that_protect_are_told() {
    let layered = "listener 8883\ncertfile c\nkeyfile k\ncapath d\nrequire_certificate true\n";
    let translation = import(layered);
    let lines: Vec<usize> = translation.protecting.iter().map(|(at, _)| *at).collect();
    assert_eq!(lines, [4, 5]);
    let settings = mqtt_broker_host::Settings::parse(&translation.toml);
    assert!(settings.is_err() || settings.unwrap().check().is_err());
    let own_rules = "per_listener_settings true\nlistener 1883\nallow_anonymous true\nacl_file a\n";
    assert_eq!(import(own_rules).protecting, [(4, "acl_file a".to_owned())]);
    assert_eq!(import(THEIR_LISTENERS).protecting, []);
}

/// Mosquitto opens the default listener beside others if a line before them says how it is.
#[test]
fn lines_before_the_first_listener_are_of_the_default_one() {
    let limited = "max_connections 5\nallow_anonymous true\nlistener 1884\n";
    let ours = "bind = [\"0.0.0.0:1883\", \"0.0.0.0:1884\"]\nallow-anonymous = true\n\n\
                # What cannot be said:\n# line 1: max_connections 5\n";
    assert_eq!(toml_of(limited), ours);
    let users =
        "per_listener_settings true\npassword_file p\nlistener 1884\nallow_anonymous true\n";
    let ours = "\n[[listener]]\nbind = [\"0.0.0.0:1883\"]\nuser-file = \"p\"\n\
                \n[[listener]]\nbind = [\"0.0.0.0:1884\"]\nallow-anonymous = true\n";
    assert_eq!(toml_of(users), ours);
}

/// Mosquitto lets in no client without a user name where it listens, unless a line says so.
#[test]
fn clients_without_a_user_name_are_refused_as_in_mosquitto() {
    let ours = "bind = [\"0.0.0.0:1883\"]\nallow-anonymous = false\n";
    assert_eq!(toml_of("listener 1883\n"), ours);
    assert_eq!(toml_of("max_keepalive 60\n"), "keep-alive-maximum = 60\n");
}
