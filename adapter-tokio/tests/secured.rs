//! Runs the suites of the handle over TLS, WebSocket, both, and Unix sockets.

use std::time::Duration;

use mqtt_testing::peers::Mosquitto;
use mqtt_testing::wires::terminator::{End, through};
use mqtt_tokio::{Clock, Handle, Options, Scheme};

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test)
}

fn start(options: Options, scheme: Scheme, end: End) -> Handle {
    let (options, dial) = through(options, scheme, end);
    Handle::start_dialling(options, dial)
}

mqtt_testing::handles_over! { Handle::start_dialling, run;
    tls: Scheme::Mqtts;
    websocket: Scheme::Ws;
    websocket_over_tls: Scheme::Wss;
    unix: Scheme::Unix;
}

/// Tests with brokers that have TLS and WebSocket built in.
mod brokers {
    use super::*;

    mqtt_testing::secured!(Handle::start_dialling, run);
}

/// Tests with connections that are cut within TLS records and WebSocket frames.
mod cut {
    use super::*;

    mod tls {
        use super::*;

        fn start(options: Options) -> Handle {
            super::super::start(options, Scheme::Mqtts, End::Cut)
        }

        mqtt_testing::interop!(Clock, start, run);
    }

    mod websocket {
        use super::*;

        fn start(options: Options) -> Handle {
            super::super::start(options, Scheme::Wss, End::Cut)
        }

        mqtt_testing::interop!(Clock, start, run);
    }
}

/// Returns why the first attempt fails, in one line.
fn refused(options: Options, dial: mqtt_tokio::DialOptions) -> String {
    run(async {
        let handle = Handle::start_dialling(options, dial);
        let error = handle.first_attempt().await.unwrap_err();
        handle.close(Duration::ZERO).await;
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    })
}

#[test]
fn a_failed_handshake_is_reported_in_one_line() {
    let broker = Mosquitto::start("");
    let (options, mut dial) = through(
        Options::new("127.0.0.1", broker.port),
        Scheme::Mqtts,
        End::Clean,
    );
    let mut wrong_host = options.clone();
    wrong_host.host = "127.0.0.1".to_owned();
    let port = options.port;
    assert_eq!(
        refused(wrong_host, dial.clone()),
        format!(
            "cannot connect: 127.0.0.1:{port}: the server's certificate is for another host: expected 127.0.0.1, found localhost"
        )
    );
    let mut plain = options.clone();
    plain.port = broker.port;
    let told = refused(plain, dial.clone());
    let start = format!("cannot connect: localhost:{}: the server ", broker.port);
    assert!(told.starts_with(&start), "{told}");
    dial.tls.roots = mqtt_tokio::transport::tls::Roots::Ca("/nowhere/ca.pem".into());
    let told = refused(options, dial);
    assert!(
        told.starts_with("cannot connect: /nowhere/ca.pem: "),
        "{told}"
    );
}

#[test]
fn a_unix_socket_may_have_a_path() {
    let path = std::env::temp_dir().join(format!("mqtt-path-{}", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let url = format!("unix://{}", path.display());
    run(async {
        let handle = Handle::start(Options::from_url(&url).unwrap());
        let (client, _) = tokio::task::spawn_blocking(move || listener.accept())
            .await
            .unwrap()
            .unwrap();
        drop(client);
        assert!(handle.first_attempt().await.is_err());
    });
    std::fs::remove_file(path).unwrap();
}
