//! Tests clients with a store: the state that outlives the client, and stores that cannot be used.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mqtt_adapter_core::proto::{QoS, Version};
use mqtt_adapter_core::{ConnectionEvent, Error, Handle, Options, Refused, StoreFault};

use super::{connect, message, number, options, publish_numbers};
use crate::peers::HostedBroker;

/// An empty directory, which is removed when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mqtt-store-suite-{}-{count}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Deref for Directory {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stored(port: u16, version: Version, dir: &Path) -> Options {
    let mut options = options(port);
    options.version = version;
    options.client_id = format!("stored {version}");
    options.store(dir.to_str().unwrap());
    options
}

/// Port 1 of this machine, which has no listener.
const NOBODY: u16 = 1;

const SOON: Duration = Duration::from_secs(10);

/// Messages that were stored without a connection are sent by the next client with the store, in their order.
pub async fn messages_outlive_their_client<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = HostedBroker::start(None);
    for version in [Version::V311, Version::V5] {
        let dir = Directory::new();
        let reader = connect(&start, options(broker.port)).await.unwrap();
        let mut messages = reader.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        let writer = start(stored(NOBODY, version, &dir));
        for n in 0..20 {
            let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][n % 2];
            let payload = n.to_string();
            let message = message(qos, payload.as_bytes());
            let ticket = writer.publish_message(&message).await.unwrap();
            ticket.stored().await.unwrap();
        }
        assert_eq!(writer.close(Duration::ZERO).await.len(), 20);
        let writer = start(stored(broker.port, version, &dir));
        for n in 0..20 {
            assert_eq!(number(&messages.next().await.unwrap().payload), n);
        }
        assert!(writer.close(SOON).await.is_empty());
        let writer = start(stored(NOBODY, version, &dir));
        assert!(writer.unsent().is_empty());
        let _ = writer.close(Duration::ZERO).await;
    }
}

/// A message that the program had not finished comes again; a QoS 2 message that it had finished does not; the note tells them
/// apart.
pub async fn a_note_and_its_message_are_stored_together<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = HostedBroker::start(None);
    for version in [Version::V311, Version::V5] {
        let dir = Directory::new();
        let reader = start(stored(broker.port, version, &dir));
        let mut messages = reader.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        let writer = connect(&start, options(broker.port)).await.unwrap();
        publish_numbers(&writer, "a", QoS::ExactlyOnce, 0..10).await;
        for n in 0..5_u32 {
            let message = messages.next().await.unwrap();
            assert_eq!(number(&message.payload), n);
            reader.acknowledge_with(&message, &n.to_be_bytes()).unwrap();
            let again = reader.acknowledge_with(&message, b"");
            assert!(matches!(
                again,
                Err(Error::Refused(Refused::NothingToAcknowledge))
            ));
        }
        let unfinished = messages.next().await.unwrap();
        assert_eq!(number(&unfinished.payload), 5);
        let _ = reader.close(Duration::ZERO).await;
        drop(messages);
        let reader = start(stored(broker.port, version, &dir));
        assert_eq!(reader.note(), Some(4_u32.to_be_bytes().to_vec()));
        let mut messages = reader.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        for n in 5..10 {
            assert_eq!(number(&messages.next().await.unwrap().payload), n);
        }
        let _ = reader.close(SOON).await;
    }
}

/// A store that is in use, belongs to another client or is damaged stops the client with an error that names the reason.
pub async fn a_store_that_cannot_be_used_is_an_error<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let dir = Directory::new();
    let first = start(stored(NOBODY, Version::V311, &dir));
    let ticket = first.publish("a", QoS::AtLeastOnce, false, "x").await;
    ticket.unwrap().stored().await.unwrap();
    let refused = |options: Options| connect(&start, options);
    let fault = |refused: Result<H, Error>| match refused {
        Err(Error::Store(fault, error)) => (fault, error.to_string()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it starts"),
    };
    let (why, text) = fault(refused(stored(NOBODY, Version::V311, &dir)).await);
    assert_eq!(why, StoreFault::InUse);
    assert!(text.contains("is in use by"), "{text}");
    assert_eq!(first.close(Duration::ZERO).await.len(), 1);
    let (why, text) = fault(refused(stored(NOBODY, Version::V5, &dir)).await);
    assert_eq!(why, StoreFault::OtherClient);
    assert!(text.contains("MQTT 3.1.1"), "{text}");
    let file = dir.join("journal.redb");
    let mut bytes = fs::read(&file).unwrap();
    bytes.iter_mut().take(512).for_each(|byte| *byte = !*byte);
    fs::write(&file, bytes).unwrap();
    let (why, text) = fault(refused(stored(NOBODY, Version::V311, &dir)).await);
    assert_eq!(why, StoreFault::Damaged);
    assert!(text.contains("is damaged at"), "{text}");
}

/// A store without room is reported. Accepted messages are sent, and their ends make room again.
pub async fn a_full_store_is_reported_and_has_room_again<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = HostedBroker::start(None);
    let dir = Directory::new();
    let mut options = stored(NOBODY, Version::V5, &dir);
    options.store.as_mut().unwrap().limit = Some(1_000);
    let writer = start(options.clone());
    let mut events = writer.events();
    let message = &message(QoS::AtLeastOnce, &[b'x'; 300]);
    let mut accepted = 0;
    let refused = loop {
        match writer.try_publish(message) {
            Ok(ticket) => ticket.stored().await.unwrap(),
            Err(refused) => break refused,
        }
        accepted += 1;
    };
    assert!(
        matches!(refused, Error::Refused(Refused::Full)),
        "{refused}"
    );
    assert!((2..5).contains(&accepted), "{accepted}");
    while !matches!(events.next().await.unwrap(), ConnectionEvent::StoreFull) {}
    assert_eq!(writer.close(Duration::ZERO).await.len(), accepted);
    // Stored messages are sent by the next client.
    options.port = broker.port;
    let writer = connect(&start, options).await.unwrap();
    let ticket = writer.publish_message(message).await.unwrap();
    ticket.stored().await.unwrap();
    assert!(writer.close(SOON).await.is_empty());
}
