//! Tests listeners by scheme: their protocols, and the clients that they accept and refuse.
#![cfg(unix)]

mod client;
mod refused;
mod unfinished;

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use client::{Client, tls, trusting, websocket};
use mqtt_broker_host::broker::{Config, ConnectionId, Hooks, Verdict};
use mqtt_broker_host::transport::Stack;
use mqtt_broker_host::transport::tls::{
    ClientCertificate, IdentityPart, TlsServer, TlsServerOptions,
};
use mqtt_broker_host::transport::websocket::WebSocketServerOptions;
use mqtt_broker_host::users::{self, Cost};
use mqtt_broker_host::{
    Control, Host, Layers, Listener, Listening, Peer, Reloader, Settings, control, listen,
};
use mqtt_proto::{Connect, ReasonCode, Version};
use mqtt_testing::peers::{Authority, Subject};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mqtt-listeners-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes a host certificate and its key, and returns settings that name them.
    fn certify(&self, authority: &Authority) -> Settings {
        let issued = authority.issue(&Subject::host("localhost"));
        let mut settings = Settings::default();
        settings.cert = Some(vec![self.write("cert", &issued.certificate)]);
        settings.key = Some(vec![self.write("key", &issued.key)]);
        settings
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns how many threads the brokers of these tests have: as many as the variable `MQTT_TEST_THREADS` says, or one.
fn threads() -> usize {
    let number = std::env::var("MQTT_TEST_THREADS");
    number.map_or(1, |number| number.parse().expect("a number"))
}

/// A broker with these settings. It runs while the story runs.
struct Running {
    addresses: Vec<SocketAddr>,
    reloader: Reloader,
    broker: Listening,
}

impl Running {
    async fn start(mut settings: Settings, bind: &[&str]) -> Self {
        settings.bind = Some(bind.iter().map(|&bind| bind.to_owned()).collect());
        settings.statistics_interval = Some(0);
        settings.threads.get_or_insert_with(threads);
        let broker = settings.listen().await.unwrap();
        Self {
            addresses: broker.addresses().collect(),
            reloader: broker.reloader(),
            broker,
        }
    }

    async fn beside<F: Future<Output = ()>>(
        self,
        story: impl FnOnce(Vec<SocketAddr>, Reloader) -> F,
    ) {
        // In a debug build the future of a long story would take much of the test's stack.
        let story = Box::pin(story(self.addresses, self.reloader));
        self.broker.run(story).await.expect("it has no store");
    }
}

#[tokio::test]
async fn each_scheme_carries_mqtt_of_each_version() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let socket = folder.0.join("socket");
    let unix = format!("unix://{}", socket.display());
    let bind = [
        "127.0.0.1:0",
        "mqtts://127.0.0.1:0",
        "ws://127.0.0.1:0",
        "wss://127.0.0.1:0",
        &unix,
    ];
    let running = Running::start(folder.certify(&authority), &bind).await;
    running
        .beside(|addresses, _| async move {
            for version in [Version::V31, Version::V311, Version::V5] {
                let secured = || tls(&trusting(&authority));
                let mut clients = [
                    Client::tcp(addresses[0], Stack::new()).await,
                    Client::tcp(addresses[1], secured()).await,
                    Client::tcp(addresses[2], websocket(Stack::new())).await,
                    Client::tcp(addresses[3], websocket(secured())).await,
                    Client::unix(&socket).await,
                ];
                for (n, client) in clients.iter_mut().enumerate() {
                    let topic = format!("client-{n}");
                    client.connect(version, &topic).await;
                    assert_eq!(client.subscribe(&topic).await, 0);
                    client.echo(&topic, b"hello").await;
                    // The message is larger than a record, a frame and the buffers between them.
                    client.echo(&topic, &vec![b'x'; 900_000]).await;
                }
            }
        })
        .await;
    assert!(!folder.0.join("socket").exists());
}

/// One listener requires a password; the other accepts clients without a user name, and checks the others.
#[tokio::test]
async fn each_listener_asks_its_own_clients_for_passwords() {
    let folder = Folder::new();
    let users = folder.0.join("users");
    users::create(&users, "alice", "secret", Cost::default()).unwrap();
    let text = format!(
        "user-file = {users:?}\nbind = ['127.0.0.1:0']\nstatistics-interval = 0\n\
         [[listener]]\nbind = ['127.0.0.1:0']\nallow-anonymous = true\n"
    );
    let settings = Settings::read(&folder.write("config", &text)).unwrap();
    let broker = settings.listen().await.unwrap();
    let running = Running {
        addresses: broker.addresses().collect(),
        reloader: broker.reloader(),
        broker,
    };
    running
        .beside(|addresses, _| async move {
            let anonymous = Connect::new(Version::V5, "client");
            let alice = |password: &'static [u8]| Connect {
                user_name: Some("alice"),
                password: Some(password),
                ..anonymous
            };
            let clients = [anonymous, alice(b"secret"), alice(b"wrong")];
            for (address, told) in [(0, [0x87, 0, 0x86]), (1, [0, 0, 0x86])] {
                for (connect, told) in clients.iter().zip(told) {
                    let mut client = Client::tcp(addresses[address], Stack::new()).await;
                    let connack = client.try_connect(connect).await.unwrap();
                    assert_eq!((connack[0], connack[3]), (0x20, told), "{connect:?}");
                }
            }
        })
        .await;
}

/// A connection that the program accepts, as for the page of `--web`, asks for a password if each listener does.
#[tokio::test]
async fn who_comes_from_no_listener_is_asked_as_at_the_listeners() {
    let folder = Folder::new();
    let users = folder.0.join("users");
    users::create(&users, "alice", "secret", Cost::default()).unwrap();
    let at_listener = format!("127.0.0.1:0?user-file={}", users.display());
    let running = Running::start(Settings::default(), &[&at_listener]).await;
    let control = running.broker.control();
    running
        .beside(|addresses, _| async move {
            let anonymous = Connect::new(Version::V5, "client");
            let mut client = Client::tcp(addresses[0], Stack::new()).await;
            assert_eq!(client.try_connect(&anonymous).await.unwrap()[3], 0x87);
            let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = own.local_addr().unwrap();
            let (mut client, accepted) =
                tokio::join!(Client::tcp(address, Stack::new()), own.accept());
            let layers = Arc::new(Layers::default());
            control.serve(accepted.unwrap().0, layers).await;
            assert_eq!(client.try_connect(&anonymous).await.unwrap()[3], 0x87);
        })
        .await;
}

#[tokio::test]
async fn the_certificate_of_a_client_names_its_user() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let mut settings = folder.certify(&authority);
    settings.client_ca = Some(folder.write("ca", authority.pem()));
    settings.client_certificate = Some("optional".into());
    settings.identity_as_username = Some("common-name".into());
    settings.acl_file = Some(folder.write("acl", "user pump-7\ntopic write own\n"));
    let running = Running::start(settings, &["mqtts://127.0.0.1:0"]).await;
    running
        .beside(|addresses, _| async move {
            let nobody = ReasonCode::NoMatchingSubscribers.get();
            for (who, answer) in [
                (Some("pump-7"), nobody),
                (Some("pump-8"), 0x87),
                (None, 0x87),
            ] {
                let mut options = trusting(&authority);
                options.identity = who.map(|name| authority.issue(&Subject::client(name)).pair());
                let mut client = Client::tcp(addresses[0], tls(&options)).await;
                // The user name of CONNECT does not matter.
                let connect = Connect {
                    user_name: who.map(|_| "pump-7"),
                    ..Connect::new(Version::V5, "client")
                };
                let connack = client.try_connect(&connect).await.unwrap();
                assert_eq!(connack[3], 0);
                assert_eq!(client.publish("own").await, answer, "{who:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn certificates_change_for_those_who_come_later() {
    let folder = Folder::new();
    let authorities = ["old", "new"].map(Authority::new);
    let settings = folder.certify(&authorities[0]);
    let running = Running::start(settings.clone(), &["mqtts://127.0.0.1:0"]).await;
    running
        .beside(|addresses, reloader| async move {
            let mut settings = settings;
            settings.bind = Some(vec!["mqtts://127.0.0.1:0".into()]);
            settings.statistics_interval = Some(0);
            settings.threads = Some(threads());
            let [trusts_old, trusts_new] = authorities.each_ref().map(trusting);
            let mut before = Client::tcp(addresses[0], tls(&trusts_old)).await;
            before.connect(Version::V5, "before").await;

            // With a key that does not match the certificate, nothing changes.
            folder.write(
                "key",
                &authorities[1].issue(&Subject::host("localhost")).key,
            );
            reloader.reload(&settings).await.unwrap_err();
            let mut again = Client::tcp(addresses[0], tls(&trusts_old)).await;
            again.connect(Version::V5, "again").await;

            folder.certify(&authorities[1]);
            assert!(reloader.reload(&settings).await.unwrap().is_empty());
            let mut after = Client::tcp(addresses[0], tls(&trusts_new)).await;
            after.connect(Version::V5, "after").await;
            let mut stale = Client::tcp(addresses[0], tls(&trusts_old)).await;
            let connect = Connect::new(Version::V5, "stale");
            let why = stale.try_connect(&connect).await.unwrap_err().to_string();
            assert!(why.contains("unknown CA"), "{why}");
            before.ping().await;
            again.ping().await;

            settings.websocket_path = Some("/other".into());
            let fixed = reloader.reload(&settings).await.unwrap();
            assert_eq!(fixed, ["websocket-path"]);
        })
        .await;
}

/// Hooks that note connected clients.
struct Watching {
    control: Control,
    seen: Rc<RefCell<Vec<Peer>>>,
}

impl Hooks for Watching {
    fn unguessable(&mut self) -> u128 {
        0
    }

    fn connect(&mut self, connection: ConnectionId, _: &Connect<'_>) -> Verdict {
        let peer = self.control.peer(connection);
        self.seen.borrow_mut().push(peer.expect("it is known"));
        Verdict::Accept
    }
}

/// Returns a plain listener, one for TLS behind a proxy, one for WebSocket behind a proxy, and one that does not trust proxies.
fn behind_proxies(authority: &Authority) -> [Listener; 4] {
    let issued = authority.issue(&Subject::host("localhost"));
    let mut options = TlsServerOptions::new(issued.pair());
    options.client_ca = Some(authority.source());
    options.client_certificate = ClientCertificate::Required;
    let mut secured = Layers::default();
    secured.tls = Some(TlsServer::new(options).unwrap().into());
    secured.user_from = Some(IdentityPart::Subject);
    secured.proxy_from = vec!["127.0.0.0/8".parse().unwrap()];
    let mut forwarded = Layers::default();
    forwarded.websocket = Some(WebSocketServerOptions::default());
    forwarded.forwarded_from = vec!["127.0.0.1".parse().unwrap()];
    let mut distrusting = forwarded.clone();
    distrusting.forwarded_from = vec!["127.0.0.2".parse().unwrap()];
    let bound = || Listener::from(listen(([127, 0, 0, 1], 0).into()).unwrap());
    [
        bound(),
        bound().over(secured).numbered(1),
        bound().over(forwarded).numbered(2),
        bound().over(distrusting).numbered(3),
    ]
}

#[tokio::test]
async fn hooks_see_who_is_behind_proxies_and_certificates() {
    let authority = Authority::new("an authority");
    let listeners = behind_proxies(&authority);
    let addresses: Vec<_> = listeners.iter().map(|one| one.address().unwrap()).collect();
    let (control, commands) = control();
    let seen = Rc::default();
    let hooks = Watching {
        control,
        seen: Rc::clone(&seen),
    };
    let mut config = Config::default();
    config.statistics_interval = 0;
    let host = Host::new(config, hooks, commands);
    let story = async {
        let stream = TcpStream::connect(addresses[0]).await.unwrap();
        let own = stream.local_addr().unwrap();
        let mut plain = Client::new(Box::new(stream), Stack::new());
        plain.connect(Version::V5, "plain").await;

        let mut options = trusting(&authority);
        options.identity = Some(authority.issue(&Subject::client("pump-7")).pair());
        let mut stream = TcpStream::connect(addresses[1]).await.unwrap();
        let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\n";
        stream.write_all(header).await.unwrap();
        let mut proxied = Client::new(Box::new(stream), tls(&options));
        proxied.connect(Version::V5, "proxied").await;

        for address in &addresses[2..] {
            let mut client = Client::tcp(*address, client::forwarded("192.0.2.8")).await;
            client.connect(Version::V5, "forwarded").await;
        }

        let seen = seen.borrow();
        assert_eq!((seen[0].address, seen[0].listener), (Some(own), 0));
        assert_eq!(seen[1].address, Some("192.0.2.7:4711".parse().unwrap()));
        assert_eq!(
            (seen[1].user.as_deref(), seen[1].listener),
            (Some("CN=pump-7"), 1)
        );
        let told = seen[1].layers.as_ref().unwrap();
        assert_eq!(told.tls.as_deref(), Some("TLSv1_3"));
        assert_eq!(seen[2].address, Some("192.0.2.8:0".parse().unwrap()));
        assert_eq!(seen[3].address.unwrap().ip(), own.ip());
    };
    host.run(listeners, story).await;
}

#[tokio::test]
async fn limits_are_those_of_the_address_behind_a_proxy() {
    let authority = Authority::new("an authority");
    let listeners = behind_proxies(&authority);
    let address = listeners[2].address().unwrap();
    let (control, commands) = control();
    let seen = Rc::default();
    let hooks = Watching { control, seen };
    let mut config = Config::default();
    config.statistics_interval = 0;
    config.connections_per_address = 1;
    let host = Host::new(config, hooks, commands);
    let story = async {
        let mut clients = Vec::new();
        for (client_id, from) in [("a", "192.0.2.1"), ("b", "192.0.2.2")] {
            let mut client = Client::tcp(address, client::forwarded(from)).await;
            client.connect(Version::V5, client_id).await;
            clients.push(client);
        }
        let mut client = Client::tcp(address, client::forwarded("192.0.2.1")).await;
        let connect = Connect::new(Version::V5, "c");
        client.try_connect(&connect).await.unwrap_err();
    };
    host.run(listeners, story).await;
}

/// The networks of proxies with a header of HTTP do not matter to clients without HTTP: these count for the address of their socket.
#[tokio::test]
async fn clients_without_websocket_are_limited_by_their_own_address() {
    let bound = || Listener::from(listen(([127, 0, 0, 1], 0).into()).unwrap());
    let mut plain = Layers::default();
    plain.forwarded_from = vec!["127.0.0.1".parse().unwrap()];
    let mut any = plain.clone();
    any.websocket = Some(WebSocketServerOptions::default());
    any.by_first_bytes = true;
    let listeners = [bound().over(plain), bound().over(any)];
    let addresses: Vec<_> = listeners.iter().map(|one| one.address().unwrap()).collect();
    let (control, commands) = control();
    let seen = Rc::default();
    let hooks = Watching { control, seen };
    let mut config = Config::default();
    config.statistics_interval = 0;
    config.connections_per_address = 1;
    let host = Host::new(config, hooks, commands);
    let story = async {
        let mut first = Client::tcp(addresses[0], Stack::new()).await;
        first.connect(Version::V5, "first").await;
        for address in &addresses {
            let mut client = Client::tcp(*address, Stack::new()).await;
            let connect = Connect::new(Version::V5, "second");
            client.try_connect(&connect).await.unwrap_err();
        }
        // Behind the proxy there is another address.
        let mut client = Client::tcp(addresses[1], client::forwarded("192.0.2.1")).await;
        client.connect(Version::V5, "third").await;
    };
    host.run(listeners, story).await;
}

/// Returns the answers of a listener to clients without a password: one with a certificate, one that only names itself, and one without a
/// name.
async fn answers_without_users(authority: &Authority, address: SocketAddr) -> [u8; 3] {
    let mut answers = [0; 3];
    let clients = [
        (true, Some("pump-7")),
        (false, Some("pump-7")),
        (false, None),
    ];
    for (answer, (is_certified, user_name)) in answers.iter_mut().zip(clients) {
        let mut options = trusting(authority);
        let subject = Subject::client("pump-7");
        options.identity = is_certified.then(|| authority.issue(&subject).pair());
        let mut client = Client::tcp(address, tls(&options)).await;
        let connect = Connect {
            user_name,
            ..Connect::new(Version::V5, "client")
        };
        *answer = client.try_connect(&connect).await.unwrap()[3];
    }
    answers
}

/// Without a user file, nobody has a password: who may not be anonymous needs a certificate that names its user.
#[tokio::test]
async fn without_users_a_name_is_no_log_in() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let mut settings = folder.certify(&authority);
    settings.client_ca = Some(folder.write("ca", authority.pem()));
    settings.client_certificate = Some("optional".into());
    settings.identity_as_username = Some("common-name".into());
    settings.allow_anonymous = Some(false);
    let running = Running::start(settings, &["mqtts://127.0.0.1:0"]).await;
    running
        .beside(|addresses, _| async move {
            let answers = answers_without_users(&authority, addresses[0]).await;
            assert_eq!(answers, [0, 0x86, 0x87]);
        })
        .await;
}

/// A reload is refused that would let everyone connect to a public address, as the start would be.
#[tokio::test]
async fn a_reload_does_not_open_a_public_address() {
    let (folder, authority) = (Folder::new(), Authority::new("an authority"));
    let mut settings = folder.certify(&authority);
    settings.client_ca = Some(folder.write("ca", authority.pem()));
    let running = Running::start(settings.clone(), &["mqtts://0.0.0.0:0"]).await;
    running
        .beside(|addresses, reloader| async move {
            let address = SocketAddr::from(([127, 0, 0, 1], addresses[0].port()));
            settings.bind = Some(vec!["mqtts://0.0.0.0:0".into()]);
            settings.statistics_interval = Some(0);
            settings.threads = Some(threads());
            let mut optional = settings.clone();
            optional.client_certificate = Some("optional".into());
            let mut without = settings.clone();
            without.client_ca = None;
            for open in [optional, without] {
                let why = reloader.reload(&open).await.unwrap_err().to_string();
                assert!(
                    why.starts_with("everyone could connect to 0.0.0.0:"),
                    "{why}"
                );
                let mut client = Client::tcp(address, tls(&trusting(&authority))).await;
                let connect = Connect::new(Version::V5, "without a certificate");
                client.try_connect(&connect).await.unwrap_err();
            }
            assert!(reloader.reload(&settings).await.unwrap().is_empty());
        })
        .await;
}
