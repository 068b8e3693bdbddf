//! Clients of another process whose connections the broker ends or counts.

use super::*;

/// A process that stops ends the clients that it relays as the owner ends its own: with a reason, and their wills.
#[tokio::test]
async fn a_process_that_stops_says_goodbye_to_relayed_clients() {
    play(async {
        let all = Served::default();
        let first = process(0, &all, Wanted::default()).await;
        let second = process(1, &all, Wanted::default()).await;
        let mut watcher = join(second.address, "").await;
        subscribe(&mut watcher, b'w').await;
        let mut client = join_with_will(first.address, Version::V5).await;
        // A second one, in the middle of a packet.
        let other = (0..).map(|n| format!("other-{n}"));
        let other = { other }.find(|name| shard_of(name, 2, 0) == 1).unwrap();
        let mut old = join(first.address, &other).await;
        old.write_all(&[0x30, 10]).await.unwrap();
        let leaving = first.end();
        let seen = async {
            assert_eq!(next(&mut client, Version::V5).await, "ServerShuttingDown");
            assert_eq!(next(&mut client, Version::V5).await, "end");
            assert_eq!(next(&mut old, Version::V311).await, "end");
            drop((client, old));
        };
        tokio::join!(leaving, seen);
        assert_eq!(next(&mut watcher, Version::V311).await, "w gone");
        second.end().await;
    })
    .await;
}

/// A process may accept a client that another process has sent before that one stopped. It does not serve such a client. It serves the
/// clients of the process that follows.
#[tokio::test]
async fn a_client_of_a_process_that_has_stopped_is_not_served() {
    play(async {
        let all = Served::default();
        let second = process(1, &all, Wanted::default()).await;
        let stopped = InMemory {
            own: 0,
            epoch: 1,
            all: all.clone(),
        };
        let client = About::Client {
            peer: Peer::default(),
            logins: 7,
        };
        while stopped.to(1).is_err() {
            tokio::task::yield_now().await;
        }
        // One that waits for the links, and one that was on its way.
        let mut waits = stopped.open(1, &client).await.unwrap();
        stopped.open(1, &About::Stops).await.unwrap();
        let mut late = stopped.open(1, &client).await.unwrap();
        for pipe in [&mut waits, &mut late] {
            let bytes = connect(Version::V311, &name(1));
            pipe.write_all(&bytes).await.unwrap();
        }
        let wanted = Wanted {
            epoch: 2,
            ..Wanted::default()
        };
        let first = process(0, &all, wanted).await;
        for pipe in [&mut waits, &mut late] {
            assert_eq!(pipe.read(&mut [0]).await.unwrap(), 0);
        }
        let _client = join(first.address, &name(1)).await;
        first.end().await;
        second.end().await;
    })
    .await;
}

/// Clients whose address the proxy does not know have no limit of one address, neither here nor in the other process.
#[cfg(feature = "proxy")]
#[tokio::test]
async fn clients_without_an_address_are_not_those_of_one_address() {
    play(async {
        let all = Served::default();
        let wanted = || Wanted {
            layers: Layers {
                proxy_from: vec!["127.0.0.0/8".parse().unwrap()],
                ..Layers::default()
            },
            of_address: 1,
            ..Wanted::default()
        };
        let first = process(0, &all, wanted()).await;
        let second = process(1, &all, wanted()).await;
        let mut kept = Vec::new();
        for n in 0..20 {
            let name = format!("client-{n}");
            let bytes = [&b"PROXY UNKNOWN\r\n"[..], &connect(Version::V311, &name)].concat();
            let (client, answer) = ask_with(first.address, Version::V311, &bytes).await;
            assert_eq!(answer, "Success ", "{n}");
            kept.push(client);
        }
        let counts = [first.clients().await.len(), second.clients().await.len()];
        assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
        first.end().await;
        second.end().await;
    })
    .await;
}
