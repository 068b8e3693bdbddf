//! The examples run against Mosquitto, and the one with TLS also against the broker of this workspace.

use mqtt_testing::peers::{Authority, Mosquitto, SecuredBroker, free_port};
use mqtt_testing::process::{example, run};
use mqtt_testing::suites::secured::Scheme;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

fn succeeds(name: &str, arguments: &[&str], last_line: &str) {
    let ended = run(&example(name), arguments, "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains(last_line), "{}", ended.stdout);
}

#[test]
fn a_sleeper_publishes_and_sleeps() {
    let broker = Mosquitto::start("");
    let address = format!("127.0.0.1:{}", broker.port);
    succeeds(
        "embedded_sleeper",
        &[&address, "5"],
        "5 readings acknowledged, asleep ",
    );
}

#[test]
fn a_session_over_a_pseudo_terminal() {
    let broker = Mosquitto::start("");
    let address = format!("127.0.0.1:{}", broker.port);
    succeeds(
        "embedded_serial",
        &[&address],
        "10 messages acknowledged and heard",
    );
}

/// A certificate of a known authority is accepted, one of another authority is not.
#[test]
fn a_session_over_tls() {
    let folder = std::env::temp_dir().join(format!("embedded-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let authority = || {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate, Issuer::new(params, key))
    };
    let ((certificate, issuer), (other, _)) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    std::fs::write(path("ca.der"), certificate.der()).unwrap();
    std::fs::write(path("other.der"), other.der()).unwrap();
    std::fs::write(path("server.pem"), server.pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();

    let port = free_port();
    let broker = Mosquitto::start(&format!(
        "listener {port} 127.0.0.1\ncertfile {}\nkeyfile {}\nallow_anonymous true",
        path("server.pem"),
        path("key.pem")
    ));
    let address = format!("127.0.0.1:{port}");
    succeeds(
        "embedded_tls",
        &[&address, &path("ca.der")],
        "5 messages acknowledged over TLS",
    );
    let refused = run(
        &example("embedded_tls"),
        &[&address, &path("other.der")],
        "",
    );
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("TLS: "), "{}", refused.stderr);
    drop(broker);
    let _ = std::fs::remove_dir_all(folder);
}

/// The TLS of a device and the TLS of the broker of this workspace are two implementations.
#[test]
fn a_session_over_tls_with_the_own_broker() {
    let broker = SecuredBroker::own();
    let address = format!("127.0.0.1:{}", broker.port(Scheme::Mqtts));
    let folder = std::env::temp_dir().join(format!("embedded-own-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, authority: &Authority| {
        let path = folder.join(name);
        std::fs::write(&path, authority.der()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let known = file("known.der", broker.authority());
    succeeds(
        "embedded_tls",
        &[&address, &known],
        "5 messages acknowledged over TLS",
    );
    let other = file("other.der", &Authority::new("another"));
    let refused = run(&example("embedded_tls"), &[&address, &other], "");
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    std::fs::remove_dir_all(folder).unwrap();
}
