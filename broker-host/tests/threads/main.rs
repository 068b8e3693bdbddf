//! Tests a broker with several threads, through sockets.
#![cfg(unix)]

mod client;

use std::net::SocketAddr;
use std::path::PathBuf;

use client::{Client, Heard};
use mqtt_broker_host::broker::{Outgoing, Statistics};
use mqtt_broker_host::{Control, Error, Reloader, Settings};
use mqtt_proto::{
    Connect, Packet, Properties, Property, Publish, QoS, ReasonCode, TopicName, Version, Will,
};
use mqtt_testing::packets::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Enough clients that each thread has some of them, whatever the hash.
const MANY: usize = 12;

/// A running broker.
struct Broker {
    address: SocketAddr,
    control: Control,
    reloader: Reloader,
    settings: Settings,
}

impl Broker {
    async fn clients(&self, version: Version, name: &str) -> Vec<Client> {
        let mut clients = Vec::new();
        for n in 0..MANY {
            clients.push(Client::new(self.address, version, &format!("{name}-{n}")).await);
        }
        clients
    }

    async fn statistics(&self) -> Statistics {
        self.control.statistics().await.unwrap()
    }
}

/// Runs a story with a broker, which ends after it.
async fn beside<F: Future<Output = ()>>(
    threads: usize,
    set: impl FnOnce(&mut Settings),
    story: impl FnOnce(Broker) -> F,
) {
    let mut settings = Settings::default();
    settings.bind = Some(vec!["127.0.0.1:0".into()]);
    settings.statistics_interval = Some(0);
    settings.threads = Some(threads);
    set(&mut settings);
    let listening = settings.listen().await.unwrap();
    let broker = Broker {
        address: listening.addresses().next().unwrap(),
        control: listening.control(),
        reloader: listening.reloader(),
        settings,
    };
    let story = Box::pin(story(broker));
    listening.run(story).await.unwrap();
}

#[tokio::test]
async fn each_subscriber_gets_each_message_once_and_in_order() {
    for threads in [2, 3] {
        beside(
            threads,
            |_| {},
            |broker| async move {
                for version in VERSIONS {
                    let mut subscribers = broker.clients(version, "sub").await;
                    for client in &mut subscribers {
                        assert_eq!(client.subscribe("a/+", QoS::ExactlyOnce).await, 2);
                    }
                    let mut publishers = broker.clients(version, "pub").await;
                    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                        for round in 0..3 {
                            for (n, publisher) in publishers.iter_mut().enumerate() {
                                let topic = format!("a/{n}");
                                publisher
                                    .publish(&topic, &round.to_string(), qos, false)
                                    .await;
                            }
                        }
                        for client in &mut subscribers {
                            let mut next = [0; MANY];
                            for _ in 0..3 * MANY {
                                let (topic, payload, _) = client.hears_message().await;
                                let from: usize =
                                    topic.strip_prefix("a/").unwrap().parse().unwrap();
                                assert_eq!(payload, next[from].to_string(), "{topic} at {qos:?}");
                                next[from] += 1;
                            }
                            assert_eq!(next, [3; MANY]);
                        }
                    }
                }
            },
        )
        .await;
    }
}

/// CONNECT comes in single bytes, or together with what follows it.
#[tokio::test]
async fn all_bytes_of_a_client_come_to_its_thread() {
    beside(
        3,
        |_| {},
        |broker| async move {
            let mut all = broker.clients(Version::V5, "all").await;
            for client in &mut all {
                client.subscribe("#", QoS::AtLeastOnce).await;
            }
            for n in 0..MANY {
                let name = format!("client-{n}");
                let mut bytes = encode(
                    &Packet::Connect(Connect::new(Version::V311, &name)),
                    Version::V311,
                );
                let publish = Publish::new(TopicName::new("a").unwrap(), name.as_bytes());
                bytes.extend(encode(&Packet::Publish(publish), Version::V311));
                bytes.extend([0xC0, 0]);
                let mut client = Client {
                    stream: TcpStream::connect(broker.address).await.unwrap(),
                    input: Vec::new(),
                    version: Version::V311,
                };
                if n % 2 == 0 {
                    client.stream.write_all(&bytes).await.unwrap();
                } else {
                    client.stream.set_nodelay(true).unwrap();
                    for byte in bytes {
                        client.stream.write_all(&[byte]).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                }
                assert_eq!(client.hears().await, Heard::Packet(2, 0));
                assert_eq!(client.hears().await, Heard::Packet(13, 0));
                for other in &mut all {
                    assert_eq!(other.hears_message().await.1, name);
                }
            }
        },
    )
    .await;
}

#[tokio::test]
async fn retained_messages_wills_and_shares_are_those_of_all_threads() {
    beside(
        3,
        |_| {},
        |broker| async move {
            let mut clients = broker.clients(Version::V5, "client").await;
            clients[0]
                .publish("kept", "1", QoS::AtLeastOnce, true)
                .await;
            for client in &mut clients {
                // It comes to the other threads after PUBACK.
                while client.subscribe("kept", QoS::AtLeastOnce).await == 1 {
                    client.send(&Packet::PingReq).await;
                    let mut came = false;
                    loop {
                        match client.hears().await {
                            Heard::Message(topic, payload, retain) => {
                                assert_eq!((&*topic, &*payload, retain), ("kept", "1", true));
                                came = true;
                            }
                            heard => {
                                assert_eq!(heard, Heard::Packet(13, 0));
                                break;
                            }
                        }
                    }
                    if came {
                        break;
                    }
                }
                client.subscribe("will", QoS::ExactlyOnce).await;
            }
            for n in 0..MANY {
                let name = format!("dying-{n}");
                let mut connect = Connect::new(Version::V5, &name);
                connect.will = Some(Will {
                    qos: QoS::ExactlyOnce,
                    ..Will::new(TopicName::new("will").unwrap(), name.as_bytes())
                });
                drop(Client::connect(broker.address, &connect).await);
                for client in &mut clients {
                    assert_eq!(client.hears_message().await.1, name);
                }
            }
            shares(&broker, &mut clients).await;
        },
    )
    .await;
}

/// Each message goes to one member, wherever the members are, and a tenth of them or more to each.
async fn shares(broker: &Broker, members: &mut [Client]) {
    for member in &mut *members {
        member.subscribe("$share/g/work", QoS::ExactlyOnce).await;
    }
    let mut publishers = broker.clients(Version::V5, "giver").await;
    let mut sent = Vec::new();
    for round in 0..10 {
        for (n, publisher) in publishers.iter_mut().enumerate() {
            let work = format!("{n}-{round}");
            publisher
                .publish("work", &work, QoS::ExactlyOnce, false)
                .await;
            sent.push(work);
        }
    }
    // All have got theirs when the end comes to a subscriber of the same order, and each link and session keeps order.
    let (mut heard, mut members_with_work) = (Vec::new(), 0);
    for publisher in &mut publishers {
        publisher
            .publish("will", "end", QoS::ExactlyOnce, false)
            .await;
    }
    for member in members {
        let (mut ends, before) = (0, heard.len());
        while ends < MANY {
            match member.hears_message().await {
                (topic, _, _) if topic == "will" => ends += 1,
                (_, work, _) => heard.push(work),
            }
        }
        members_with_work += usize::from(heard.len() > before);
    }
    heard.sort_unstable();
    sent.sort_unstable();
    assert_eq!(heard, sent);
    assert_eq!(members_with_work, MANY);
}

#[tokio::test]
async fn a_client_takes_over_its_own_connection() {
    beside(
        3,
        |_| {},
        |broker| async move {
            for n in 0..MANY {
                let name = format!("client-{n}");
                let mut connect = Connect::new(Version::V5, &name);
                let expiry = [Property::SessionExpiryInterval(100)];
                (connect.clean_start, connect.properties) = (false, Properties::from(&expiry[..]));
                let mut first = Client::connect(broker.address, &connect).await;
                // A topic of its own: the message of the client before may still be on its way to another thread.
                let topic = format!("plant/{n}");
                first.subscribe(&topic, QoS::AtLeastOnce).await;
                let mut second = Client::connect(broker.address, &connect).await;
                assert_eq!(first.hears().await, Heard::Packet(14, 0x8E));
                second.publish(&topic, "x", QoS::AtMostOnce, false).await;
                assert_eq!(second.hears_message().await.1, "x");
            }
            // A client without an identifier is of any thread.
            for _ in 0..MANY {
                Client::new(broker.address, Version::V311, "").await;
            }
            let connects = broker.statistics().await.connects;
            assert_eq!(connects, 3 * u64::try_from(MANY).unwrap());
        },
    )
    .await;
}

#[tokio::test]
async fn counts_and_commands_are_those_of_all_threads() {
    let set = |settings: &mut Settings| settings.statistics_interval = Some(1);
    beside(2, set, |broker| async move {
        let many = u64::try_from(MANY).unwrap();
        let mut clients = broker.clients(Version::V5, "client").await;
        for client in &mut clients {
            client.subscribe("a", QoS::AtLeastOnce).await;
        }
        let mut publisher = Client::new(broker.address, Version::V311, "publisher").await;
        publisher.publish("a", "x", QoS::AtLeastOnce, false).await;
        for client in &mut clients {
            assert_eq!(client.hears_message().await.1, "x");
        }
        let all = many + 1;
        let counts = broker.statistics().await;
        assert_eq!((counts.clients_connected, counts.sessions), (all, all));
        assert_eq!((counts.sockets, counts.connects), (all, all));
        assert_eq!((counts.publish_received, counts.publish_sent), (1, many));
        assert_eq!(counts.subscriptions, many);
        assert_eq!(broker.control.clients(100).await.unwrap().len(), MANY + 1);
        assert_eq!(broker.control.clients(5).await.unwrap().len(), 5);
        let topic = TopicName::new("a").unwrap();
        let message = Outgoing::new(topic, QoS::AtLeastOnce, b"from the host");
        broker.control.publish(&message).await.unwrap();
        for client in &mut clients {
            assert_eq!(client.hears_message().await.1, "from the host");
            client
                .subscribe("$SYS/broker/clients/connected", QoS::AtMostOnce)
                .await;
            let mut last = String::new();
            while last != all.to_string() {
                last = client.hears_message().await.1;
            }
        }
        let ended = broker
            .control
            .disconnect("client-3", ReasonCode::AdministrativeAction);
        assert!(ended.await);
        while clients[3].hears().await != Heard::Packet(14, 0x98) {}
        let unknown = broker
            .control
            .disconnect("client-3", ReasonCode::AdministrativeAction);
        assert!(!unknown.await);
    })
    .await;
}

struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mqtt-threads-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Checks what all clients hear after a message to "a", and after one to "b".
async fn answers_are(clients: &mut [Client], a: u8, b: u8) {
    for client in clients {
        for (topic, answer) in [("a", a), ("b", b)] {
            let heard = client.publish(topic, "x", QoS::AtLeastOnce, false).await;
            assert_eq!(heard, answer, "{topic}");
        }
    }
}

#[tokio::test]
async fn new_rules_are_for_the_clients_of_all_threads() {
    let file = File::new("topic readwrite a\n");
    let set = |settings: &mut Settings| settings.acl_file = Some(file.0.clone());
    beside(3, set, |broker| async move {
        let mut clients = broker.clients(Version::V5, "client").await;
        answers_are(&mut clients, 0x10, 0x87).await;
        std::fs::write(
            broker.settings.acl_file.as_ref().unwrap(),
            "topic readwrite b\n",
        )
        .unwrap();
        let mut settings = broker.settings.clone();
        settings.threads = Some(2);
        assert_eq!(
            broker.reloader.reload(&settings).await.unwrap(),
            ["threads"]
        );
        answers_are(&mut clients, 0x87, 0x10).await;
    })
    .await;
}

#[tokio::test]
async fn the_limit_of_connections_is_that_of_all_threads() {
    let set = |settings: &mut Settings| settings.connections = Some(MANY);
    beside(3, set, |broker| async move {
        let mut clients = broker.clients(Version::V311, "client").await;
        let mut more = TcpStream::connect(broker.address).await.unwrap();
        assert_eq!(more.read(&mut [0]).await.unwrap_or(0), 0);
        // The place of one that goes is free, whichever thread had it.
        for n in 0..MANY {
            drop(clients.remove(0));
            let name = format!("other-{n}");
            let connect = Connect::new(Version::V311, &name);
            clients.push(accepted_at_last(&broker, &connect).await);
        }
    })
    .await;
}

/// Waits until a client with this CONNECT is accepted: the end of the one before may not be known yet.
async fn accepted_at_last(broker: &Broker, connect: &Connect<'_>) -> Client {
    for _ in 0..10_000 {
        let mut client = Client::open(broker.address, connect).await;
        if client.hears().await == Heard::Packet(2, 0) {
            return client;
        }
    }
    panic!("it is never accepted");
}

fn with_user(name: &str) -> Connect<'_> {
    Connect {
        user_name: Some("user"),
        ..Connect::new(Version::V5, name)
    }
}

#[tokio::test]
async fn the_limits_of_sessions_are_those_of_all_threads() {
    type Set = fn(&mut Settings);
    let limits: [Set; 3] = [
        |settings| settings.sessions = Some(MANY),
        |settings| settings.sessions_per_address = Some(MANY),
        |settings| settings.sessions_per_user = Some(MANY),
    ];
    for limit in limits {
        beside(3, limit, |broker| async move {
            let mut clients = Vec::new();
            for n in 0..MANY {
                let name = format!("client-{n}");
                clients.push(Client::connect(broker.address, &with_user(&name)).await);
            }
            for n in 0..MANY {
                let name = format!("more-{n}");
                let mut more = Client::open(broker.address, &with_user(&name)).await;
                assert_eq!(more.hears().await, Heard::Packet(2, 0x97));
                // One that comes again keeps its places, with a new session.
                let name = format!("client-{n}");
                clients.push(Client::connect(broker.address, &with_user(&name)).await);
            }
            // The place of one that goes is free, whichever thread had it.
            for n in 0..MANY {
                drop(clients.pop());
                let name = format!("other-{n}");
                clients.insert(0, accepted_at_last(&broker, &with_user(&name)).await);
            }
        })
        .await;
    }
}

/// Sessions, messages and retained messages are there again with the same number of threads, and another number is refused.
#[tokio::test]
async fn a_store_has_a_part_for_each_thread() {
    let dir = std::env::temp_dir().join(format!("mqtt-threads-store-{}", std::process::id()));
    let set = |settings: &mut Settings| settings.store = Some(dir.clone());
    let names: Vec<_> = (0..MANY).map(|n| format!("client-{n}")).collect();
    let names = &names;
    let expiry = [Property::SessionExpiryInterval(100)];
    let lasting = &|name| Connect {
        clean_start: false,
        properties: Properties::from(&expiry[..]),
        ..Connect::new(Version::V5, name)
    };
    beside(3, set, |broker| async move {
        for name in names {
            let mut client = Client::connect(broker.address, &lasting(name)).await;
            client.subscribe("a", QoS::ExactlyOnce).await;
        }
        let mut publishers = broker.clients(Version::V5, "publisher").await;
        for (n, client) in publishers.iter_mut().enumerate() {
            let payload = n.to_string();
            client.publish("a", &payload, QoS::ExactlyOnce, false).await;
            client
                .publish(&format!("kept/{n}"), &payload, QoS::ExactlyOnce, true)
                .await;
        }
    })
    .await;
    beside(3, set, |broker| async move {
        for name in names {
            let mut client = Client::connect(broker.address, &lasting(name)).await;
            let mut heard = Vec::new();
            for _ in 0..MANY {
                let (topic, payload, _) = client.hears_message().await;
                assert_eq!(topic, "a");
                heard.push(payload.parse::<usize>().unwrap());
            }
            heard.sort_unstable();
            assert!(heard.into_iter().eq(0..MANY), "{name}");
        }
        assert_eq!(
            broker.statistics().await.retained,
            u64::try_from(MANY).unwrap()
        );
    })
    .await;
    for threads in [1, 2, 4] {
        let mut settings = Settings::default();
        settings.bind = Some(vec!["127.0.0.1:0".into()]);
        (settings.store, settings.threads) = (Some(dir.clone()), Some(threads));
        let error = settings.listen().await.unwrap_err();
        assert!(
            matches!(error, Error::OtherThreads { stored: 3, .. }),
            "{error}"
        );
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// All parts are moved aside if one of them is damaged, also after a crash in between.
#[tokio::test]
async fn a_damaged_part_of_a_store_is_moved_aside_with_the_others() {
    let dir = std::env::temp_dir().join(format!("mqtt-threads-aside-{}", std::process::id()));
    let expiry = [Property::SessionExpiryInterval(100)];
    let with = |word: &str| {
        let (dir, word) = (dir.clone(), word.to_owned());
        move |settings: &mut Settings| {
            (settings.store, settings.store_damaged) = (Some(dir), Some(word));
        }
    };
    let joins = &|broker: Broker| async move {
        assert_eq!(broker.statistics().await.sessions, 0);
        for n in 0..MANY {
            let name = format!("client-{n}");
            let connect = Connect {
                properties: Properties::from(&expiry[..]),
                ..Connect::new(Version::V5, &name)
            };
            Client::connect(broker.address, &connect).await;
        }
    };
    let parts = |name: &str| {
        let parts = (0..3).filter(|part| dir.join(format!("thread-{part}/{name}")).exists());
        parts.count()
    };
    beside(3, with("refuse"), joins).await;
    std::fs::write(dir.join("thread-1/journal.redb"), "damaged").unwrap();
    let mut settings = Settings::default();
    (settings.bind, settings.threads) = (Some(vec!["127.0.0.1:0".into()]), Some(3));
    with("refuse")(&mut settings);
    let error = settings.listen().await.unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{error}");
    beside(3, with("move-aside"), joins).await;
    assert_eq!((parts("damaged-1.redb"), parts("journal.redb")), (3, 3));
    // The process ended after it had begun. Then one part is still there, in the middle.
    std::fs::write(dir.join("moving-aside"), "").unwrap();
    for file in ["journal.redb", "journal.log"] {
        std::fs::remove_file(dir.join("thread-0").join(file)).unwrap();
    }
    beside(3, with("refuse"), joins).await;
    assert_eq!((parts("damaged-2.redb"), parts("journal.redb")), (2, 3));
    assert!(!dir.join("moving-aside").exists());
    // The sessions are there after the next start.
    beside(3, with("refuse"), |broker| async move {
        let many = u64::try_from(MANY).unwrap();
        assert_eq!(broker.statistics().await.sessions, many);
    })
    .await;
    std::fs::remove_dir_all(dir.join("thread-2")).unwrap();
    let error = settings.listen().await.unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{error}");
    assert!(!dir.join("thread-2").exists());
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn the_end_of_the_broker_is_told_to_all_clients() {
    let mut clients = Vec::new();
    beside(
        3,
        |_| {},
        |broker| {
            let clients = &mut clients;
            async move { *clients = broker.clients(Version::V5, "client").await }
        },
    )
    .await;
    for mut client in clients {
        assert_eq!(client.hears().await, Heard::Packet(14, 0x8B));
    }
    // A broker that never runs ends its threads.
    let mut settings = Settings::default();
    (settings.bind, settings.threads) = (Some(vec!["127.0.0.1:0".into()]), Some(2));
    let listening = settings.listen().await.unwrap();
    let control = listening.control();
    drop(listening);
    assert!(control.statistics().await.is_none());
}

#[tokio::test]
async fn impossible_numbers_of_threads_are_refused() {
    for (text, name) in [
        ("threads = 0", "threads"),
        ("threads = 65", "threads"),
        ("threads = 2\nengine = 'nats://h'\nnode = 'a'", "threads"),
    ] {
        let settings = Settings::parse(text).unwrap();
        match settings.listen().await.unwrap_err() {
            Error::Setting { name: told, .. } => assert_eq!(told, name, "{text}"),
            other => panic!("{text}: {other}"),
        }
    }
}
