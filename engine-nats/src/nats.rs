//! The engine: waits until this process is the owner, and stores on the servers of NATS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context, kv};
use async_nats::{Client, ConnectOptions};
use mqtt_store::journal::Record;
use mqtt_store::{Changes, Engine, Failure};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::background::Background;
use crate::config::{BUCKET, Config, Notice};
use crate::connection::{Connection, TIMEOUT, text};
use crate::lease::{Held, Lease, Loss};
use crate::owner::{Limits, Name, Owner};
use crate::random::random;
use crate::servers::Servers;

/// The pause between two tries of a process that waits.
const PAUSE: Duration = Duration::from_secs(1);

/// The bytes of a message that are left for its headers.
const HEADERS: usize = 1024;

/// The most bytes of a block.
const BLOCK: usize = 1 << 20;

/// The stream is compacted when it has this many times the bytes of the entries.
const COMPACT_AT: u64 = 4;

/// The journal of a broker on the servers of NATS. This process is its owner until it closes it, or until another process takes
/// over.
#[derive(Debug)]
pub struct Nats {
    owner: Owner,
    connection: Connection,
    lease: Lease,
    renewal: AbortHandle,
    lost: watch::Receiver<Option<Loss>>,
}

/// Waits until another process owns the journal.
#[derive(Clone, Debug)]
pub struct Lost(watch::Receiver<Option<Loss>>);

impl Lost {
    /// Returns when this process is not the owner any more. An owner without changes learns it here, not by a commit.
    pub async fn wait(mut self) -> Failure {
        match self.0.wait_for(Option::is_some).await {
            Ok(loss) => failure(&loss),
            // The journal was closed.
            Err(_) => std::future::pending().await,
        }
    }
}

fn failure(loss: &Option<Loss>) -> Failure {
    match loss {
        Some(Loss::To(node)) => Failure::Superseded(node.clone()),
        Some(Loss::NoAnswer(why)) => Failure::Broken(why.clone()),
        None => Failure::Broken("the journal is closed".to_owned()),
    }
}

impl Nats {
    /// Connects, waits in reserve until there is no other owner, and takes over. Tries for as long as it takes, and tells by `notice`
    /// what it waits for.
    ///
    /// # Errors
    /// The journal is damaged, or the configuration cannot be used.
    pub async fn open(
        config: Config,
        notice: impl Fn(Notice) + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        if let Some(fault) = config.fault_of_name() {
            return Err(Failure::Broken(fault.to_owned()));
        }
        let servers = Servers::parse(&config.servers).map_err(Failure::Broken)?;
        let background = Background::start().map_err(|error| broken(&error))?;
        let background = Arc::new(background);
        let waiting = Waiting {
            instance: random().map_err(|error| broken(&error))?,
            background: Arc::clone(&background),
            servers,
            config,
            notice: Box::new(notice),
            told: None,
        };
        let opening = background.handle.spawn(waiting.open());
        let _ended_with_this = Ends(opening.abort_handle());
        opening.await.map_err(|error| broken(&error))?
    }

    /// Returns what waits until another process owns the journal.
    #[must_use]
    pub fn lost(&self) -> Lost {
        Lost(self.lost.clone())
    }

    /// Returns the epoch of this owner.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.owner.epoch()
    }
}

impl Engine for Nats {
    fn read(&mut self, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), Failure> {
        self.owner.read(&mut self.connection, each)
    }

    fn commit(&mut self, changes: &Changes<'_>, room: u64) -> Result<i64, Failure> {
        self.owner.commit(&mut self.connection, changes, room)
    }

    fn reopen(&mut self, _: bool) -> Result<(), Failure> {
        // There is nothing to open again, and no reserve.
        Ok(())
    }

    fn renew_reserve(&mut self) -> bool {
        true
    }

    fn close(&mut self) -> Result<(), Failure> {
        self.renewal.abort();
        let lease = self.lease.clone();
        let release = async { timeout(TIMEOUT, lease.release()).await };
        // Without this the key ends by itself.
        let _ = self.connection.background.wait(release);
        Ok(())
    }
}

/// Ends a task when it is dropped.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A process that does not own the journal yet.
struct Waiting {
    config: Config,
    servers: Servers,
    instance: u128,
    background: Arc<Background>,
    notice: Box<dyn Fn(Notice) + Send + Sync>,
    told: Option<Notice>,
}

impl Waiting {
    /// Tells a notice if it is not the one that was told last.
    fn tell(&mut self, notice: Notice) {
        if self.told.as_ref() != Some(&notice) {
            (self.notice)(notice.clone());
            self.told = Some(notice);
        }
    }

    async fn open(mut self) -> Result<Nats, Failure> {
        let (client, context) = self.connect().await;
        let stream = self.stream(&context).await;
        for warning in warnings(&stream.cached_info().config, self.config.replicas) {
            self.tell(Notice::Warning(warning));
        }
        let mut lease = self.lease(&context).await;
        loop {
            self.acquire(&mut lease).await;
            self.tell(Notice::TakesOver);
            let (sender, lost) = watch::channel(None);
            let keep = lease.clone().keep(self.config.patience, sender);
            let renewal = self.background.handle.spawn(keep).abort_handle();
            let mut connection = self.connection(&context, &stream);
            let (name, limits) = (self.name(), self.limits(&client));
            let take_over = move || {
                let owner = Owner::take_over(&mut connection, name, limits);
                owner.map(|owner| (owner, connection))
            };
            let taken = self.background.handle.spawn_blocking(take_over).await;
            match taken.map_err(|error| broken(&error))? {
                Ok((owner, connection)) => {
                    return Ok(Nats {
                        owner,
                        connection,
                        lease,
                        renewal,
                        lost,
                    });
                }
                // The servers do not answer, or have no room. Another process may be the owner when they do.
                Err(failure @ (Failure::Broken(_) | Failure::DiskFull)) => {
                    self.wait(failure.to_string()).await;
                }
                Err(failure) => {
                    renewal.abort();
                    let _ = timeout(TIMEOUT, lease.release()).await;
                    return Err(failure);
                }
            }
            renewal.abort();
        }
    }

    async fn connect(&mut self) -> (Client, Context) {
        let Servers { addresses, login } = self.servers.clone();
        loop {
            let options = match login.clone() {
                Some((user, password)) => ConnectOptions::with_user_and_password(user, password),
                None => ConnectOptions::new(),
            };
            let options = options
                .name(format!("mqtt {}", self.config.node))
                .reconnect_delay_callback(|tries| {
                    let millis = u64::try_from(tries).unwrap_or(u64::MAX).saturating_mul(100);
                    Duration::from_millis(millis.min(1000))
                });
            match options.connect(&addresses[..]).await {
                Ok(client) => {
                    let mut context = jetstream::new(client.clone());
                    context.set_timeout(TIMEOUT);
                    return (client, context);
                }
                Err(error) => self.wait(text(&error)).await,
            }
        }
    }

    /// Tells why this process waits, and waits.
    async fn wait(&mut self, why: String) {
        self.tell(Notice::Waits(why));
        sleep(PAUSE).await;
    }

    async fn stream(&mut self, context: &Context) -> stream::Stream {
        loop {
            match self.try_stream(context).await {
                Ok(stream) => return stream,
                Err(why) => self.wait(why).await,
            }
        }
    }

    /// Finds the stream, or makes it.
    async fn try_stream(&mut self, context: &Context) -> Result<stream::Stream, String> {
        use jetstream::context::GetStreamErrorKind::JetStream;
        let name = self.config.stream();
        let error = match context.get_stream(&name).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let is_missing = matches!(error.kind(), JetStream(error)
            if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND);
        if !is_missing {
            return Err(text(&error));
        }
        let made = context.create_stream(stream::Config {
            name: name.clone(),
            subjects: vec![self.config.subject()],
            description: Some("The journal of an MQTT broker".to_owned()),
            num_replicas: self.config.replicas,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            deny_delete: true,
            ..stream::Config::default()
        });
        let stream = made.await.map_err(|error| text(&error))?;
        self.tell(Notice::Created(name));
        Ok(stream)
    }

    async fn lease(&mut self, context: &Context) -> Lease {
        loop {
            match self.try_lease(context).await {
                Ok(lease) => return lease,
                Err(why) => self.wait(why).await,
            }
        }
    }

    /// Finds the bucket of the keys, or makes it.
    async fn try_lease(&mut self, context: &Context) -> Result<Lease, String> {
        let store = match context.get_key_value(BUCKET).await {
            Ok(store) => store,
            Err(_) => {
                let made = context.create_key_value(kv::Config {
                    bucket: BUCKET.to_owned(),
                    description: "The owners of the journals of MQTT brokers".to_owned(),
                    history: 1,
                    max_age: self.config.lease,
                    num_replicas: self.config.replicas,
                    ..kv::Config::default()
                });
                made.await.map_err(|error| text(&error))?
            }
        };
        let status = store.status().await.map_err(|error| text(&error))?;
        let length = status.max_age();
        if length.is_zero() {
            return Err(format!("the keys of the bucket {BUCKET} never end"));
        }
        if length != self.config.lease {
            self.tell(Notice::Warning(format!(
                "the keys of the bucket {BUCKET} end after {length:?}, whatever the configuration of this process says"
            )));
        }
        let Config { shard, node, .. } = &self.config;
        Ok(Lease::new(store, shard, node, self.instance, length))
    }

    /// Waits until this process has the key.
    async fn acquire(&mut self, lease: &mut Lease) {
        let pause = (lease.length / 5).min(PAUSE);
        loop {
            match timeout(TIMEOUT * 2, lease.acquire()).await {
                Ok(Ok(Held::ByThis)) => return,
                Ok(Ok(Held::By(owner))) => self.tell(Notice::Reserve { owner }),
                Ok(Err(why)) => self.tell(Notice::Waits(why)),
                Err(_) => self.tell(Notice::Waits("they do not answer".to_owned())),
            }
            sleep(pause).await;
        }
    }

    fn connection(&self, context: &Context, stream: &stream::Stream) -> Connection {
        Connection {
            background: Arc::clone(&self.background),
            context: context.clone(),
            stream: stream.clone(),
            name: self.config.stream(),
            subject: self.config.subject(),
            patience: self.config.patience,
            since: Instant::now(),
            why: String::new(),
        }
    }

    fn name(&self) -> Name {
        Name {
            shard: self.config.shard.clone(),
            node: self.config.node.clone(),
            instance: self.instance,
        }
    }

    fn limits(&self, client: &Client) -> Limits {
        let most = client.server_info().max_payload;
        Limits {
            message: most.min(BLOCK).saturating_sub(HEADERS),
            compact_from: self.config.compact_from,
            compact_at: COMPACT_AT,
        }
    }
}

/// Returns a sentence for each setting of the stream that does not keep the guarantees.
fn warnings(config: &stream::Config, replicas: usize) -> Vec<String> {
    let deletes = config.retention != RetentionPolicy::Limits
        || !config.max_age.is_zero()
        || config.max_messages_per_subject > 0
        || (config.discard == DiscardPolicy::Old
            && (config.max_bytes > 0 || config.max_messages > 0));
    let early = config.persist_mode == Some(stream::PersistenceMode::Async) || config.no_ack;
    let checks = [
        (
            config.num_replicas < replicas,
            "has fewer replicas than the configuration of this process",
        ),
        (
            config.storage != StorageType::File,
            "is not stored in files",
        ),
        (
            !config.deny_delete,
            "allows that single messages are deleted",
        ),
        (deletes, "deletes messages by itself"),
        (early, "answers before a message is stored"),
    ];
    let wrong = checks.into_iter().filter(|(is_wrong, _)| *is_wrong);
    let sentence = |(_, what)| format!("the stream {} {what}", config.name);
    wrong.map(sentence).collect()
}

fn broken(error: &dyn std::error::Error) -> Failure {
    Failure::Broken(text(error))
}
