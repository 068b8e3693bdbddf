//! Opens pipes to other processes by servers of NATS.

use mqtt_engine_nats::{Opened, PipeError, PipeUse, Pipes as Nats};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{Receiver, channel};

use crate::about::About;
use crate::processes::{Arrived, LocalFuture, Pipes, Unreached};

/// How many pipes of others wait to be taken.
const WAITING: usize = 16;

/// The pipes of an engine.
#[derive(Debug)]
pub(crate) struct NatsPipes(pub(crate) Nats);

impl From<PipeError> for Unreached {
    fn from(error: PipeError) -> Self {
        match error {
            PipeError::NoOwner => Self::NoOwner,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Pipes for NatsPipes {
    fn open(&self, shard: u8, about: &About) -> LocalFuture<Result<DuplexStream, Unreached>> {
        let carries = match about {
            About::Client { .. } => PipeUse::Client,
            About::Link | About::Stops => PipeUse::Link,
        };
        let (pipes, about) = (self.0.clone(), about.bytes().into());
        Box::pin(async move { Ok(pipes.open(shard, carries, about).await?) })
    }

    fn is_there(&self, shard: u8) -> LocalFuture<Result<(), Unreached>> {
        let pipes = self.0.clone();
        Box::pin(async move { Ok(pipes.is_there(shard).await?) })
    }

    fn addresses(&self, shard: u8) -> LocalFuture<Result<Option<String>, Unreached>> {
        let pipes = self.0.clone();
        Box::pin(async move { Ok(pipes.address(shard).await?) })
    }

    fn serve(&self) -> Receiver<Arrived> {
        let (sender, arrived) = channel(WAITING);
        let mut incoming = self.0.serve();
        tokio::task::spawn_local(async move {
            while let Some(opened) = incoming.next().await {
                let Opened {
                    shard,
                    epoch,
                    about,
                    pipe,
                    ..
                } = opened;
                let arrived = Arrived {
                    shard,
                    epoch,
                    about: about.into(),
                    pipe,
                };
                if sender.send(arrived).await.is_err() {
                    return;
                }
            }
        });
        arrived
    }
}
