//! Processes that ask the owner of a shard, and others that say to be it.

use std::sync::mpsc::Receiver;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::{self, kv};
use async_nats::{Client, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use mqtt_engine_nats::{Notice, PipeError};
use mqtt_testing::peers::NatsServers;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::pipes::{LINK, patient, two};
use crate::shards::of_shards;
use crate::{open, opening, runtime};

/// Writes the key of an owner.
async fn write_key(client: &Client, shard: u8, value: &str) {
    let value = value.to_owned().into();
    let store = owners(client).await;
    store.put(format!("0.{shard}"), value).await.unwrap();
}

/// Returns the bucket with the keys of the owners.
async fn owners(client: &Client) -> kv::Store {
    let context = jetstream::new(client.clone());
    context.get_key_value("MQTT-owner").await.unwrap()
}

/// Returns the warnings among what was told.
fn warnings(notices: &Receiver<Notice>) -> Vec<String> {
    let warning = |notice: Notice| match notice {
        Notice::Warning(warning) => Some(warning),
        _ => None,
    };
    notices.try_iter().filter_map(warning).collect()
}

/// Gives the same answer to all requests to owners, and returns their subjects.
async fn answer_all(client: &Client, answer: Vec<u8>) -> UnboundedReceiver<Subject> {
    let mut requests = client.subscribe("mqtt.shard.>").await.unwrap();
    client.flush().await.unwrap();
    let (sender, asked) = unbounded_channel();
    let answering = client.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let reply = request.reply.unwrap();
            answering
                .publish(reply, answer.clone().into())
                .await
                .unwrap();
            let _ = sender.send(request.subject);
        }
    });
    asked
}

/// A process whose key is that of another one is not asked, and does not answer who asks it all the same: two owners would both take
/// clients.
#[test]
fn an_owner_without_its_key_does_not_answer() {
    let servers = NatsServers::start(1, "");
    let two = two(
        of_shards(&servers, "near", 2),
        of_shards(&servers, "far", 2),
    );
    let (shard, epoch) = (two.far.shard(), two.far.epoch());
    runtime().block_on(async {
        while two.pipes.address(shard).await != Ok(None) {}
        let client = async_nats::connect(servers.url()).await.unwrap();
        write_key(&client, shard, "ff 9 other").await;
        while two.pipes.address(shard).await != Err(PipeError::NoOwner) {}
        two.far.lost().wait().await;
        let subject = format!("mqtt.shard.0.{shard}.{epoch}");
        let asked = async || client.request(subject.clone(), "\u{2}".into()).await;
        // The server tells that nobody takes the request, or it was taken before the owner knew.
        loop {
            match asked().await {
                Err(error) if error.kind() == RequestErrorKind::NoResponders => break,
                _ => {}
            }
        }
    });
}

/// A process that was frozen while another one took its shard opens a link before it knows.
#[test]
fn an_owner_without_its_key_gets_no_pipe() {
    let servers = NatsServers::start(1, "");
    let near = open(patient(&servers, "near"));
    let (pipes, shard) = (near.pipes().unwrap(), near.shard());
    let (thread, told) = opening(patient(&servers, "far"));
    let far = thread.join().unwrap().unwrap();
    let mut incoming = far.pipes().unwrap().serve();
    runtime().block_on(async {
        while pipes.is_there(far.shard()).await.is_err() {}
        let client = async_nats::connect(servers.url()).await.unwrap();
        // It had the key a moment ago.
        let mut refused = async || loop {
            match pipes.open(far.shard(), LINK, Bytes::new()).await {
                Ok(_) => drop(incoming.next().await),
                Err(error) => break error,
            }
        };
        // A process that has no epoch yet does not own the shard: the one before it may only be late.
        write_key(&client, shard, "ff - other").await;
        assert_eq!(refused().await, PipeError::Refused);
        assert_eq!(warnings(&told), [""; 0]);
        write_key(&client, shard, "ff 9 other").await;
        tokio::select! {
            refused = refused() => assert_eq!(refused, PipeError::Refused),
            loss = near.lost().wait() => panic!("{loss:?} before a pipe is refused"),
        }
    });
    let warning = format!("a process opens a pipe for shard {shard}, which it does not own");
    assert_eq!(warnings(&told), [warning]);
}

/// The epoch of an earlier owner is not asked again, whatever the key says, until there is no key. Then the journal may be another one.
#[test]
fn an_earlier_owner_is_not_asked() {
    let servers = NatsServers::start(1, "");
    let near = open(patient(&servers, "near"));
    let (pipes, shard) = (near.pipes().unwrap(), 1 - near.shard());
    runtime().block_on(async {
        let client = async_nats::connect(servers.url()).await.unwrap();
        let answer = [&[1][..], &[0; 15], &[0xff], b"address"].concat();
        let mut asked = answer_all(&client, answer).await;
        let subject = |epoch| format!("mqtt.shard.0.{shard}.{epoch}");
        let found = Ok(Some("address".to_owned()));
        write_key(&client, shard, "ff 9 other").await;
        while pipes.address(shard).await != found {}
        assert_eq!(*asked.recv().await.unwrap(), *subject(9));
        // The answer is known from then on.
        for _ in 0..3 {
            assert_eq!(pipes.address(shard).await, found);
            assert!(asked.try_recv().is_err());
            pipes.is_there(shard).await.unwrap();
            assert_eq!(*asked.recv().await.unwrap(), *subject(9));
        }
        write_key(&client, shard, "ff 8 other").await;
        while pipes.address(shard).await == found {
            while let Ok(again) = asked.try_recv() {
                assert_eq!(*again, *subject(9));
            }
        }
        write_key(&client, shard, "ff 10 other").await;
        while pipes.address(shard).await != found {}
        while *asked.recv().await.unwrap() != *subject(10) {}
        owners(&client)
            .await
            .delete(format!("0.{shard}"))
            .await
            .unwrap();
        while pipes.address(shard).await != Err(PipeError::NoOwner) {}
        write_key(&client, shard, "ff 3 other").await;
        while pipes.address(shard).await != found {}
        while *asked.recv().await.unwrap() != *subject(3) {}
    });
}

/// A stranger answers before the owner, or opens a pipe as if it were one.
#[test]
fn strangers_get_no_pipe_and_are_told_once() {
    let servers = NatsServers::start(1, "");
    let (thread, notices) = opening(patient(&servers, "near"));
    let near = thread.join().unwrap().unwrap();
    let (pipes, shard) = (near.pipes().unwrap(), 1 - near.shard());
    let (thread, told) = opening(patient(&servers, "far"));
    let far = thread.join().unwrap().unwrap();
    runtime().block_on(async {
        let client = async_nats::connect(servers.url()).await.unwrap();
        let mut incoming = far.pipes().unwrap().serve();
        let subject = format!("mqtt.shard.0.{shard}.{}", far.epoch());
        // It says to be the owner of the other shard, in a late epoch.
        let open = [&[1, 0, near.shard()][..], &[0xff; 8], &[7; 24], b"link"].concat();
        for _ in 0..2 {
            let answer = loop {
                let asked = client.request(subject.clone(), open.clone().into()).await;
                if let Ok(answer) = asked {
                    break answer.payload;
                }
            };
            assert_eq!(answer[..], [0]);
        }
        let about = Bytes::from_static(b"what for");
        let _near = pipes.open(shard, LINK, about.clone()).await.unwrap();
        let opened = incoming.next().await.unwrap();
        assert_eq!(opened.about, about);
        let from = (opened.shard, opened.epoch);
        assert_eq!(from, (near.shard(), near.epoch()));

        // Nobody answers but the stranger.
        drop(far);
        write_key(&client, shard, "ff 9 other").await;
        let answer = [&[1][..], &[7; 24]].concat();
        let _asked = answer_all(&client, answer).await;
        for _ in 0..2 {
            loop {
                match pipes.open(shard, LINK, about.clone()).await {
                    Err(PipeError::NoOwner) => {}
                    other => break assert_eq!(other.unwrap_err(), PipeError::Stranger),
                }
            }
        }
        assert_eq!(pipes.address(shard).await, Err(PipeError::Stranger));
    });
    let it = format!("shard {}, which it does not own", near.shard());
    assert_eq!(
        warnings(&told),
        [format!("a process opens a pipe for {it}")]
    );
    let it = format!("shard {shard}, which it does not own");
    assert_eq!(warnings(&notices), [format!("a process answers for {it}")]);
}
