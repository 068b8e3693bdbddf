//! Pipes between processes on a real server: both directions, slow readers, limits, and the end of a process, a server or a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use mqtt_engine_nats::store::Engine;
use mqtt_engine_nats::{ABOUT, Config, Incoming, Nats, PipeError, PipeUse, Pipes};
use mqtt_testing::peers::NatsServers;
use mqtt_testing::wires::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;

use crate::shards::of_shards;
use crate::{open, runtime};

pub(crate) const LINK: PipeUse = PipeUse::Link;
const CLIENT: PipeUse = PipeUse::Client;

/// Two processes, each with one of two shards.
pub(crate) struct Two {
    pub(crate) near: Nats,
    pub(crate) pipes: Pipes,
    pub(crate) far: Nats,
    incoming: Incoming,
}

pub(crate) fn two(near: Config, far: Config) -> Two {
    let (near, far) = (open(near), open(far));
    Two {
        pipes: near.pipes().unwrap(),
        incoming: far.pipes().unwrap().serve(),
        near,
        far,
    }
}

fn two_on(servers: &NatsServers) -> Two {
    two(patient(servers, "near"), patient(servers, "far"))
}

/// A configuration with which no pipe fails because the machine is slow.
pub(crate) fn patient(servers: &NatsServers, node: &str) -> Config {
    let mut config = of_shards(servers, node, 2);
    config.lease = Duration::from_secs(30);
    config
}

impl Two {
    /// Opens a pipe, as soon as the request of the other process is known to the server. Returns both ends.
    async fn pipe(&mut self) -> (DuplexStream, DuplexStream) {
        self.pipe_for(LINK).await
    }

    async fn pipe_for(&mut self, carries: PipeUse) -> (DuplexStream, DuplexStream) {
        let about = Bytes::from_static(b"what for");
        let mut near = loop {
            match self
                .pipes
                .open(self.far.shard(), carries, about.clone())
                .await
            {
                Ok(near) => break near,
                // While no server was there, a key may have ended. Its process writes it again, and gets no pipe before.
                Err(PipeError::NoOwner | PipeError::NoAnswer | PipeError::Refused) => {}
                Err(error) => panic!("{error}"),
            }
        };
        near.write_all(b"!").await.unwrap();
        // One whose answer was lost comes before, and is at its end.
        loop {
            let mut opened = self.incoming.next().await.unwrap();
            assert_eq!(opened.about, about);
            if opened.pipe.read_exact(&mut [0]).await.is_ok() {
                return (near, opened.pipe);
            }
        }
    }

    /// Sends bytes to and fro by a pipe of their own.
    pub(crate) async fn echo(&mut self) {
        let (mut asking, mut echoing) = self.pipe().await;
        for n in 0..200 {
            asking.write_all(&[n]).await.unwrap();
            let mut answer = [0];
            echoing.read_exact(&mut answer).await.unwrap();
            echoing.write_all(&answer).await.unwrap();
            asking.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [n]);
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251).to_le_bytes()[0]).collect()
}

#[test]
fn bytes_go_both_ways_until_each_direction_ends() {
    // Shorter messages than a pipe would send.
    let servers = NatsServers::start(1, "max_payload: 5000");
    let mut two = two_on(&servers);
    assert_eq!(two.near.key(), two.far.key());
    runtime().block_on(async {
        let (mut near, mut far) = two.pipe().await;
        let all = pattern(1_000_000);
        let (sent, mut came) = (all.clone(), Vec::new());
        let writing = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(writing, far.read_to_end(&mut came));
        assert_eq!((read.unwrap(), came == all), (all.len(), true));
        // The other direction goes on.
        far.write_all(b"answer").await.unwrap();
        drop(far);
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    });
}

/// What was written before an end is dropped still comes, and then the other end cannot write either.
#[test]
fn an_end_that_is_dropped_ends_both_directions() {
    let servers = NatsServers::start(1, "");
    let mut two = two_on(&servers);
    runtime().block_on(async {
        let (mut near, mut far) = two.pipe().await;
        let all = pattern(200_000);
        near.write_all(&all).await.unwrap();
        drop(near);
        // The answer that nobody takes ends the pipe before all is read.
        far.write_all(b"answer").await.unwrap();
        two.echo().await;
        let mut came = Vec::new();
        far.read_to_end(&mut came).await.unwrap();
        assert!(came == all, "{}", came.len());
        assert!(far.write_all(b"more").await.is_err());
    });
}

/// What is held depends on the use of the pipe, and for a client on the budget of all.
#[test]
fn a_slow_reader_holds_the_writer() {
    for (carries, budget, held) in [
        (LINK, 0, 200_000..500_000),
        (CLIENT, 256 << 20, 30_000..70_000),
        (CLIENT, 0, 7_000..30_000),
    ] {
        let servers = NatsServers::start(1, "");
        let of = |node| {
            let mut config = patient(&servers, node);
            config.pipe_bytes = budget;
            config
        };
        let mut two = two(of("near"), of("far"));
        runtime().block_on(async {
            let (mut near, mut far) = two.pipe_for(carries).await;
            let all = pattern(2_000_000);
            let written = Arc::new(AtomicUsize::new(0));
            let (sent, count) = (all.clone(), Arc::clone(&written));
            let writer = tokio::spawn(async move {
                for part in sent.chunks(1_000) {
                    near.write_all(part).await.unwrap();
                    count.fetch_add(part.len(), Ordering::Relaxed);
                }
            });
            // So much is taken from the writer in any case.
            while written.load(Ordering::Relaxed) < held.start {
                tokio::task::yield_now().await;
            }
            // The other pipe goes on meanwhile.
            two.echo().await;
            let most = written.load(Ordering::Relaxed);
            assert!(held.contains(&most), "{carries:?}, {budget}: {most}");
            let mut came = Vec::new();
            far.read_to_end(&mut came).await.unwrap();
            assert!(came == all);
            writer.await.unwrap();
        });
    }
}

/// Clients that do not read have the whole budget. Others go on without it, and get it when the first ones end.
#[test]
fn clients_that_do_not_read_do_not_stop_the_others() {
    let servers = NatsServers::start(1, "");
    let of = |node| {
        let mut config = patient(&servers, node);
        // For two pipes.
        config.pipe_bytes = 50_000;
        config
    };
    let mut two = two(of("near"), of("far"));
    runtime().block_on(async {
        let mut stuck = Vec::new();
        for _ in 0..2 {
            let (mut near, far) = two.pipe_for(CLIENT).await;
            // More than without the budget.
            near.write_all(&pattern(38_000)).await.unwrap();
            stuck.push((near, far));
        }
        let (mut near, mut far) = two.pipe_for(CLIENT).await;
        let all = pattern(300_000);
        let mut came = vec![0; all.len()];
        let (sent, read) = tokio::join!(near.write_all(&all), far.read_exact(&mut came));
        sent.unwrap();
        read.unwrap();
        assert!(came == all);
        let mut write = Box::pin(near.write_all(&all[..38_000]));
        let mut held = std::pin::pin!(two.echo());
        tokio::select! {
            biased;
            _ = &mut write => panic!("there is no budget"),
            () = &mut held => {}
        }
        // The places of the stuck ones are free when both ends are gone.
        drop(stuck);
        let mut byte = [0];
        far.read_exact(&mut byte).await.unwrap();
        write.await.unwrap();
    });
}

/// However many clients there are, and wait to be accepted, a link finds its place.
#[test]
fn clients_do_not_take_the_places_of_links() {
    let servers = NatsServers::start(1, "");
    let mut two = two_on(&servers);
    runtime().block_on(async {
        drop(two.pipe().await);
        let to = two.far.shard();
        let mut kept = Vec::new();
        let refused = loop {
            match two.pipes.open(to, CLIENT, Bytes::new()).await {
                Ok(pipe) => kept.push(pipe),
                Err(error) => break error,
            }
        };
        assert_eq!((refused, kept.len()), (PipeError::Refused, 1024));
        let _link = two.pipes.open(to, LINK, "link".into()).await.unwrap();
        // It is the first.
        assert_eq!(two.incoming.next().await.unwrap().about, "link");
    });
}

#[test]
fn many_pipes_at_once() {
    let servers = NatsServers::start(1, "");
    let mut two = two_on(&servers);
    runtime().block_on(async {
        let mut all = JoinSet::new();
        for _ in 0..300 {
            let (mut near, mut far) = two.pipe().await;
            all.spawn(async move {
                let mut buffer = [0; 100];
                while let Ok(len @ 1..) = far.read(&mut buffer).await {
                    far.write_all(&buffer[..len]).await.unwrap();
                }
            });
            all.spawn(async move {
                for n in 0..20 {
                    near.write_all(&[n; 50]).await.unwrap();
                    let mut answer = [0; 50];
                    near.read_exact(&mut answer).await.unwrap();
                    assert_eq!(answer, [n; 50]);
                }
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn a_pipe_that_cannot_be_opened_is_an_error() {
    let servers = NatsServers::start(1, "max_payload: 70000");
    let with = |node, pipes| {
        let mut config = patient(&servers, node);
        config.shards = 3;
        (config.pipes, config.address) = (pipes, Some(format!("{node}:1883")));
        config
    };
    let (near, mut far) = (open(with("near", 3)), open(with("far", 2)));
    let (pipes, to) = (near.pipes().unwrap(), far.shard());
    runtime().block_on(async {
        let about = |len| Bytes::from(vec![1; len]);
        let error = async |to, len| pipes.open(to, CLIENT, about(len)).await.unwrap_err();
        let free = 3 - near.shard() - to;
        assert_eq!(error(free, 1).await, PipeError::NoOwner);
        // Its owner does not serve yet.
        assert_eq!(error(to, 1).await, PipeError::NoOwner);
        let mut incoming = far.pipes().unwrap().serve();
        while pipes.address(to).await == Err(PipeError::NoOwner) {}
        assert_eq!(pipes.address(to).await, Ok(Some("far:1883".to_owned())));
        assert_eq!(error(to, ABOUT + 1).await, PipeError::TooLong);
        let mut kept = Vec::new();
        for _ in 0..2 {
            kept.push(pipes.open(to, CLIENT, about(ABOUT)).await.unwrap());
            kept.push(incoming.next().await.unwrap().pipe);
        }
        // The limit of the other process, and then that of this one.
        assert_eq!(error(to, 1).await, PipeError::Refused);
        let third = near
            .pipes()
            .unwrap()
            .open(to, CLIENT, about(1))
            .await
            .unwrap_err();
        assert_eq!(third, PipeError::Refused);
        kept.clear();
        // The places are free again when both ends know.
        let mut again = loop {
            match pipes.open(to, CLIENT, about(1)).await {
                Ok(pipe) => break pipe,
                Err(error) => assert_eq!(error, PipeError::Refused),
            }
        };
        far.close().unwrap();
        assert_eq!(again.read(&mut [0]).await.unwrap(), 0);
        assert!(far.pipes().is_none());
        assert!(incoming.next().await.is_some() && incoming.next().await.is_none());
        assert_eq!(error(to, 1).await, PipeError::NoOwner);
    });
    drop(near);
    let closed = runtime().block_on(pipes.open(to, CLIENT, Bytes::new()));
    assert_eq!(closed.unwrap_err(), PipeError::Closed);
}

/// Whether a process is killed or its journal dropped, its pipes end.
#[test]
fn pipes_end_with_the_journal_of_either_end() {
    let servers = NatsServers::start(1, "");
    let mut two = two_on(&servers);
    runtime().block_on(async {
        let (mut near, mut far) = two.pipe().await;
        let shard = two.far.shard();
        drop(two.far);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        let open = two.pipes.open(shard, LINK, Bytes::new()).await;
        assert_eq!(open.unwrap_err(), PipeError::NoOwner);
    });
}

#[test]
fn pipes_end_with_the_server() {
    let mut servers = NatsServers::start(1, "");
    let mut two = two(
        of_shards(&servers, "near", 2),
        of_shards(&servers, "far", 2),
    );
    runtime().block_on(async {
        let (mut near, mut far) = two.pipe().await;
        servers.kill(0);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        assert!(near.write_all(&pattern(1_000_000)).await.is_err());
        servers.restart(0);
        let (mut near, mut far) = two.pipe().await;
        near.write_all(b"again").await.unwrap();
        let mut again = [0; 5];
        far.read_exact(&mut again).await.unwrap();
        assert_eq!(&again, b"again");
    });
}

/// The connections of one process are cut again and again. What is read is always the begin of what was written, and both ends of a
/// pipe that lost something end.
#[test]
fn cut_connections_lose_the_end_of_a_pipe_only() {
    let servers = NatsServers::start(1, "");
    let port = servers.url().rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port, 300_000, 900_000, 7);
    let mut cut = of_shards(&servers, "near", 2);
    cut.servers = vec![format!("nats://127.0.0.1:{}", proxy.port)];
    let mut two = two(cut, of_shards(&servers, "far", 2));
    let all = pattern(2_000_000);
    let mut whole = 0;
    runtime().block_on(async {
        for round in 0..12 {
            if round == 10 {
                proxy.stop_cutting();
            }
            let (near, far) = two.pipe().await;
            // The process with the cut connection writes, and reads.
            let (mut writer, mut reader) = if round % 2 == 0 {
                (near, far)
            } else {
                (far, near)
            };
            let sent = all.clone();
            let writing = tokio::spawn(async move {
                let written = writer.write_all(&sent).await;
                written.and(writer.shutdown().await)?;
                // Returns when the other end has ended, or has told that it has all.
                let mut end = Vec::new();
                writer.read_to_end(&mut end).await.map(|_| end)
            });
            let mut came = Vec::new();
            let _ = reader.read_to_end(&mut came).await;
            assert!(all.starts_with(&came), "round {round}");
            let is_whole = came.len() == all.len();
            if is_whole {
                let _ = reader.write_all(b"all").await;
            }
            drop(reader);
            let told = writing.await.unwrap().unwrap_or_default();
            assert!(is_whole || told.is_empty(), "round {round}");
            whole += usize::from(told == b"all");
        }
    });
    assert!(proxy.cuts() >= 3, "{} cuts", proxy.cuts());
    assert!((1..12).contains(&whole), "{whole} whole ones");
}

/// A message of a stranger is answered and changes nothing; one that is doubled ends the pipe.
#[test]
fn foreign_and_doubled_messages() {
    let servers = NatsServers::start(1, "");
    let mut two = two_on(&servers);
    runtime().block_on(async {
        let client = async_nats::connect(servers.url()).await.unwrap();
        let mut seen = client.subscribe("mqtt.pipe.>").await.unwrap();
        let mut answers = client.subscribe("stranger").await.unwrap();
        client.flush().await.unwrap();
        let (mut near, mut far) = two.pipe().await;
        // That with the mark of the test: a kind, two numbers, the byte.
        let marked = loop {
            let message = seen.next().await.unwrap();
            if message.payload.len() == 18 {
                break message;
            }
        };
        let (subject, reply) = (marked.subject, marked.reply.unwrap());
        let (all, _) = subject.rsplit_once('.').unwrap();
        let unknown = format!("{all}.12345");
        let unnumbered = format!("{all}.a");
        for to in [unnumbered, subject.to_string(), unknown] {
            let stranger = client.publish_with_reply(to, "stranger", marked.payload.clone());
            stranger.await.unwrap();
        }
        for _ in 0..2 {
            assert_eq!(answers.next().await.unwrap().payload[0], 4, "it is gone");
        }
        near.write_all(b"still").await.unwrap();
        let mut still = [0; 5];
        far.read_exact(&mut still).await.unwrap();
        assert_eq!(&still, b"still");
        let doubled = client.publish_with_reply(subject.clone(), reply, marked.payload);
        doubled.await.unwrap();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        // Without its header.
        let (mut near, mut far) = two.pipe().await;
        let (to, reply) = loop {
            let message = seen.next().await.unwrap();
            let reply = message.reply.filter(|reply| reply.as_str() != "stranger");
            if let Some(reply) = reply
                && message.subject != subject
                && message.payload.len() == 18
            {
                break (message.subject, reply);
            }
        };
        let short = client.publish_with_reply(to, reply, "short".into());
        short.await.unwrap();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        // A request that this version does not know.
        let subject = format!("mqtt.shard.0.{}.{}", two.far.shard(), two.far.epoch());
        let refused = client.request(subject, "\u{3}".into()).await.unwrap();
        assert_eq!(refused.payload[..], [0]);
    });
}
