//! Checks what a client gets as an answer to its password.

use mqtt_broker_host::broker::Config;
use mqtt_broker_host::users::{Cost, set_password};
use mqtt_broker_host::{Guard, Host, Users, control};
use mqtt_proto::{Connect, Packet, Version};
use mqtt_testing::packets::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::task::{LocalSet, spawn_local};

/// Returns all bytes that a client gets which sends a password and then nothing.
async fn answer(host: &Host<Guard>, version: Version, password: &str) -> Vec<u8> {
    let connect = Connect {
        user_name: Some("pump"),
        password: Some(password.as_bytes()),
        ..Connect::new(version, "pump")
    };
    let (mut client, transport) = duplex(1_000);
    spawn_local(host.connection(transport));
    let connect = encode(&Packet::Connect(connect), version);
    client.write_all(&connect).await.unwrap();
    let mut answer = vec![0; 4];
    client.read_exact(&mut answer).await.unwrap();
    if answer[3] != 0 {
        // A refused client is disconnected.
        client.read_to_end(&mut answer).await.unwrap();
    }
    answer
}

/// There is no place in the queue of passwords. Who was here before needs none.
#[tokio::test]
async fn a_client_without_a_place_in_the_queue_is_told_that_the_server_is_busy() {
    let folder = std::env::temp_dir().join(format!("log-ins-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("users");
    let mut cheap = Cost::default();
    (cheap.memory_kib, cheap.iterations) = (8, 1);
    set_password(&file, "pump", "secret", cheap).unwrap();
    let users = Users::read(&file).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let serve = |queue: usize| {
        let users = users.clone();
        async move {
            let (control, commands) = control();
            let mut guard = Guard::new(control).unwrap();
            guard.users = Some(users);
            guard.set_password_queue(queue);
            let host = Host::new(Config::default(), guard, commands);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let none: [tokio::net::TcpListener; 0] = [];
            let asks = async {
                let mut answers = Vec::new();
                for version in [Version::V311, Version::V5] {
                    for password in ["wrong", "secret"] {
                        answers.push(answer(&host, version, password).await);
                    }
                }
                drop(stop);
                answers
            };
            let run = host.run(none, async {
                let _ = stopped.await;
            });
            tokio::join!(asks, run).0
        }
    };
    let local = LocalSet::new();
    let busy = local.run_until(serve(0)).await;
    let busy_3_1_1 = vec![0x20, 2, 0, 3];
    let busy_5 = vec![0x20, 3, 0, 0x89, 0];
    assert_eq!(
        busy,
        [&busy_3_1_1, &busy_3_1_1, &busy_5, &busy_5].map(Vec::clone)
    );
    let answers = local.run_until(serve(1)).await;
    assert_eq!(answers[0], [0x20, 2, 0, 4]);
    assert_eq!(answers[1], [0x20, 2, 0, 0]);
    assert_eq!(answers[2], [0x20, 3, 0, 0x86, 0]);
    assert_eq!((answers[3][0], answers[3][3]), (0x20, 0));
    // The users of this process know the right password now.
    let known = local.run_until(serve(0)).await;
    assert_eq!(known[0], busy_3_1_1);
    assert_eq!(known[1], [0x20, 2, 0, 0]);
}
