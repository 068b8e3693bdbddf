//! A process that waits until it owns a journal.

use std::collections::BTreeSet;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::{self, Store};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, ServerError};
use mqtt_store::Failure;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::background::Background;
use crate::config::{BUCKET, Config, Notice, OpenError};
use crate::connection::{Connection, TIMEOUT, text};
use crate::division::{self, Check, Division, find_stream};
use crate::lease::{Held, Lease, Loss, Renewal};
use crate::nats::{Holding, Nats, OwnPipes, Place, TakeOver, broken};
use crate::owner::{Limits, Name, Owner};
use crate::pipes::{Carrier, PipeSettings, Pipes};
use crate::servers::Servers;

/// The pause between two tries of a process that waits.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it is asked for the number of shards again when it is missing although there are journals.
const TRIES_LACKING: u32 = 3;

/// How many things that the servers do not permit are told for each connection.
const MOST_FORBIDDEN: usize = 8;

/// The bytes of a message that are left for its headers.
const HEADERS: usize = 1024;

/// The most bytes of a block.
const BLOCK: usize = 1 << 20;

/// The stream is compacted when it has this many times the bytes of the entries.
const COMPACT_AT: u64 = 4;

/// Reports a notice to the user of the engine.
pub(crate) type TellNotice = Arc<dyn Fn(Notice) + Send + Sync>;

/// A process that does not own a journal yet.
pub(crate) struct Waiting {
    pub(crate) config: Config,
    pub(crate) servers: Servers,
    pub(crate) instance: u128,
    /// The key that decides the shard of a client, if there is none yet.
    pub(crate) key: u64,
    pub(crate) background: Arc<Background>,
    pub(crate) notice: TellNotice,
    pub(crate) told: Option<Notice>,
    pub(crate) take_over: Arc<TakeOver>,
}

/// The journal of a shard, which this process may take.
struct Candidate {
    shard: u8,
    stream: stream::Stream,
    lease: Lease,
}

/// A journal that this process has taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) owner: Owner,
    pub(crate) connection: Connection,
    pub(crate) lease: Lease,
    pub(crate) renewal: Renewing,
    pub(crate) lost: watch::Receiver<Option<Loss>>,
    pub(crate) renewals: watch::Receiver<Renewal>,
}

/// The task that renews a key. It ends when this is dropped, so that it makes no new key after the key is deleted.
#[derive(Debug)]
pub(crate) struct Renewing(AbortHandle);

impl Renewing {
    pub(crate) fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.end();
    }
}

impl Waiting {
    /// Reports a notice unless it equals the last one.
    fn tell(&mut self, notice: Notice) {
        if self.told.as_ref() != Some(&notice) {
            (self.notice)(notice.clone());
            self.told = Some(notice);
        }
    }

    pub(crate) async fn open(mut self) -> Result<Nats, OpenError> {
        let (client, context) = self.connect().await;
        let key = self.division(&context).await?;
        let mut streams = Vec::new();
        for shard in 0..self.config.shards {
            let stream = self.stream(&context, shard).await;
            for warning in warnings(&stream.cached_info().config, self.config.replicas) {
                self.tell(Notice::Warning(warning));
            }
            streams.push(stream);
        }
        if self.config.shards == 1 {
            // Another process may have noted its number of shards before this one had a stream.
            self.division(&context).await?;
        }
        let bucket = self.bucket(&context).await;
        let mut candidates: Vec<_> = (0..self.config.shards)
            .zip(streams)
            .map(|(shard, stream)| Candidate {
                shard,
                stream,
                lease: self.lease(&bucket, shard),
            })
            .collect();
        let carrier = match self.config.shards {
            1 => None,
            _ => Some(self.carrier(bucket.1).await?),
        };
        // Processes that start together do not all try the same journal first.
        let first = self.instance % u128::from(self.config.shards);
        candidates.rotate_left(usize::try_from(first).unwrap_or(0));
        loop {
            let candidate = self.acquire(&mut candidates).await;
            let (shard, shards) = (candidate.shard, self.config.shards);
            self.tell(Notice::TakesOver { shard, shards });
            let length = candidate.lease.length;
            if let Some(taken) = self.take_over(&client, &context, candidate).await? {
                let pipes = carrier.map(|carrier| {
                    let (stop, stopped) = watch::channel(());
                    let settings = PipeSettings {
                        config: &self.config,
                        shard,
                        instance: self.instance,
                        epoch: taken.owner.epoch(),
                        silence: length,
                        lost: taken.lost.clone(),
                        stop: stopped,
                        notice: Arc::clone(&self.notice),
                    };
                    let pipes = Pipes::start(carrier, settings);
                    OwnPipes { pipes, stop }
                });
                return Ok(Nats::new(taken, Place { shard, shards, key }, pipes));
            }
        }
    }

    /// Becomes the owner. `None` if the servers do not answer, or have no room: another process may be the owner when they do.
    async fn take_over(
        &mut self,
        client: &Client,
        context: &Context,
        candidate: &Candidate,
    ) -> Result<Option<Taken>, Failure> {
        let lease = candidate.lease.clone();
        let (lose, lost) = watch::channel(None);
        let (begin, begun) = watch::channel(None);
        // How long ago the key was written is not known, if the answer to that was lost.
        let (until, has_epoch) = (Instant::now(), false);
        let (renew, mut renewals) = watch::channel(Renewal { until, has_epoch });
        let keep = lease.clone().keep(self.config.patience, lose, begun, renew);
        let renewal = Renewing(self.background.handle.spawn(keep).abort_handle());
        let mut connection = self.connection(context, candidate);
        let runs = self.holds(lease.clone());
        let (name, limits) = (self.name(candidate.shard), self.limits(client));
        let take_over = move || {
            let owner = Owner::take_over(&mut connection, name, limits);
            drop(runs);
            owner.map(|owner| (owner, connection))
        };
        let taken = self.background.handle.spawn_blocking(take_over).await;
        match taken.map_err(|error| broken(&error))? {
            Ok((owner, connection)) => {
                begin.send_replace(Some(owner.epoch()));
                // Otherwise other processes find this one a little later.
                let is_known = renewals.wait_for(|renewal| renewal.has_epoch);
                let _ = timeout(TIMEOUT, is_known).await;
                return Ok(Some(Taken {
                    owner,
                    connection,
                    lease,
                    renewal,
                    lost,
                    renewals,
                }));
            }
            Err(failure @ (Failure::Broken(_) | Failure::DiskFull)) => {
                self.wait(failure.to_string()).await;
            }
            Err(failure) => {
                renewal.end();
                let _ = timeout(TIMEOUT, lease.release()).await;
                return Err(failure);
            }
        }
        Ok(None)
    }

    /// Notes the key that this process has. The thread that takes over drops the result at its end.
    fn holds(&self, lease: Lease) -> oneshot::Sender<()> {
        let (runs, taking) = oneshot::channel();
        // The value is valid at any time, even if a thread panicked while it held the lock.
        let holds = self.take_over.holds.lock();
        *holds.unwrap_or_else(PoisonError::into_inner) = Some(Holding { lease, taking });
        runs
    }

    /// Checks that the broker has as many shards as this process expects, and returns the key that decides the shard of a client.
    async fn division(&mut self, context: &Context) -> Result<u64, OpenError> {
        let new = Division {
            shards: self.config.shards,
            key: self.key,
        };
        let mut lacking = 0;
        loop {
            match division::check(context, &self.config, new).await {
                Ok(Check::Fits(key)) => return Ok(key),
                Ok(Check::Other(stored)) => {
                    return Err(OpenError::Shards {
                        journal: self.config.shard.clone(),
                        stored,
                        given: self.config.shards,
                    });
                }
                Ok(Check::Again) => continue,
                // The server that answered may be behind.
                Ok(Check::Lacks(what)) if lacking == TRIES_LACKING => {
                    return Err(Failure::Damaged(what).into());
                }
                Ok(Check::Lacks(what)) => {
                    lacking += 1;
                    self.wait(what).await;
                }
                Err(why) => self.wait(why).await,
            }
        }
    }

    async fn connect(&mut self) -> (Client, Context) {
        let addresses = self.servers.addresses.clone();
        loop {
            match self.options().connect(&addresses[..]).await {
                Ok(client) => {
                    let mut context = jetstream::new(client.clone());
                    context.set_timeout(TIMEOUT);
                    return (client, context);
                }
                Err(error) => self.wait(text(&error)).await,
            }
        }
    }

    fn options(&self) -> ConnectOptions {
        let options = match self.servers.login.clone() {
            Some((user, password)) => ConnectOptions::with_user_and_password(user, password),
            None => ConnectOptions::new(),
        };
        options
            .name(format!("mqtt {}", self.config.node))
            // A server without a leader of the servers does not answer at all.
            .request_timeout(Some(TIMEOUT))
            .event_callback(forbidden(Arc::clone(&self.notice)))
            .reconnect_delay_callback(|tries| {
                let millis = u64::try_from(tries).unwrap_or(u64::MAX).saturating_mul(100);
                Duration::from_millis(millis.min(1000))
            })
    }

    /// Makes the connection of the pipes.
    async fn carrier(&mut self, lease: Duration) -> Result<Carrier, Failure> {
        let background = Background::start("mqtt-pipes").map_err(|error| broken(&error))?;
        let background = Arc::new(background);
        loop {
            // The network may lose a connection without a word. Another server is found after two intervals.
            let options = self.options().ping_interval(lease / 3);
            let addresses = self.servers.addresses.clone();
            let connecting = async move { options.connect(&addresses[..]).await };
            let connected = background.handle.spawn(connecting).await;
            match connected.map_err(|error| broken(&error))? {
                Ok(client) => {
                    let context = jetstream::new(client.clone());
                    let bucket = context.get_stream_no_info(format!("KV_{BUCKET}"));
                    return Ok(Carrier {
                        client,
                        bucket: bucket.await.map_err(|error| broken(&error))?,
                        background,
                    });
                }
                Err(error) => self.wait(text(&error)).await,
            }
        }
    }

    /// Reports why this process waits, and waits.
    async fn wait(&mut self, why: String) {
        self.tell(Notice::Waits(why));
        sleep(PAUSE).await;
    }

    async fn stream(&mut self, context: &Context, shard: u8) -> stream::Stream {
        loop {
            match self.try_stream(context, shard).await {
                Ok(stream) => return stream,
                Err(why) => self.wait(why).await,
            }
        }
    }

    /// Finds the stream of a shard, or makes it.
    async fn try_stream(&mut self, context: &Context, shard: u8) -> Result<stream::Stream, String> {
        let journal = self.config.journal(shard);
        if let Some(stream) = find_stream(context, &journal.stream).await? {
            return Ok(stream);
        }
        let made = context.create_stream(stream::Config {
            name: journal.stream.clone(),
            subjects: vec![journal.subject()],
            description: Some("The journal of an MQTT broker".to_owned()),
            num_replicas: self.config.replicas,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            deny_delete: true,
            ..stream::Config::default()
        });
        let stream = made.await.map_err(|error| text(&error))?;
        self.tell(Notice::Created(journal.stream));
        Ok(stream)
    }

    async fn bucket(&mut self, context: &Context) -> (Store, Duration) {
        loop {
            match self.try_bucket(context).await {
                Ok(bucket) => return bucket,
                Err(why) => self.wait(why).await,
            }
        }
    }

    /// Finds the bucket of the keys, or makes it. Returns also how long its keys live.
    async fn try_bucket(&mut self, context: &Context) -> Result<(Store, Duration), String> {
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
        Ok((store, length))
    }

    fn lease(&self, (store, length): &(Store, Duration), shard: u8) -> Lease {
        let key = self.config.journal(shard).name;
        let Config { node, .. } = &self.config;
        Lease::new(store.clone(), &key, node, self.instance, *length)
    }

    /// Waits until this process has the key of one of the journals.
    async fn acquire<'c>(&mut self, candidates: &'c mut [Candidate]) -> &'c Candidate {
        let at = loop {
            match try_all(candidates).await {
                Ok(Tried::Has(at)) => break at,
                Ok(Tried::Owners(owners)) => self.tell(reserve(owners)),
                Err(why) => self.tell(Notice::Waits(why)),
            }
            let length = candidates.first().map(|candidate| candidate.lease.length);
            sleep(length.map_or(PAUSE, |length| (length / 5).min(PAUSE))).await;
        };
        &candidates[at]
    }

    fn connection(&self, context: &Context, candidate: &Candidate) -> Connection {
        let journal = self.config.journal(candidate.shard);
        Connection {
            background: Arc::clone(&self.background),
            context: context.clone(),
            stream: candidate.stream.clone(),
            is_given_up: Arc::clone(&self.take_over.is_given_up),
            subject: journal.subject(),
            name: journal.stream,
            patience: self.config.patience,
            since: Instant::now(),
            why: String::new(),
        }
    }

    fn name(&self, shard: u8) -> Name {
        Name {
            shard: self.config.journal(shard).name,
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

/// Returns what tells the first things that the servers do not permit. A subscription that they refuse gets no messages, and nothing else
/// shows it.
fn forbidden(notice: TellNotice) -> impl Fn(Event) -> Ready<()> + Send + Sync {
    let told = Mutex::new(BTreeSet::new());
    move |event| {
        if let Event::ServerError(ServerError::Other(why)) = event
            && why.to_ascii_lowercase().contains("permissions violation")
        {
            // The values are valid at any time, even if a thread panicked while it held the lock.
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() < MOST_FORBIDDEN && told.insert(why.clone()) {
                notice(Notice::Forbidden(why));
            }
        }
        ready(())
    }
}

/// The result of the try to get the key of one of several journals.
#[derive(Debug, Eq, PartialEq)]
enum Tried {
    /// This process has the key of the candidate at this place.
    Has(usize),
    /// All have owners, in the order of the shards.
    Owners(Vec<String>),
}

/// A key that a process tries to get.
trait Key {
    fn shard(&self) -> u8;

    fn acquire(&mut self) -> impl Future<Output = Result<Held, String>> + Send;
}

impl Key for Candidate {
    fn shard(&self) -> u8 {
        self.shard
    }

    async fn acquire(&mut self) -> Result<Held, String> {
        let held = timeout(TIMEOUT * 2, self.lease.acquire()).await;
        held.map_err(|_| "they do not answer".to_owned())?
    }
}

/// Tries to get the key of one journal after the other.
async fn try_all(keys: &mut [impl Key]) -> Result<Tried, String> {
    let (mut owners, mut unclear) = (Vec::new(), None);
    for (at, key) in keys.iter_mut().enumerate() {
        // Without an answer this process may have the key: it tries no other key before that is known.
        match key.acquire().await? {
            Held::ByThis | Held::Renewed => return Ok(Tried::Has(at)),
            Held::By(owner) => owners.push((key.shard(), owner)),
            // The key is not that of this process, or ends by itself. The server may answer like this for long.
            Held::Unclear(why) => unclear = unclear.or(Some(why)),
        }
    }
    if let Some(why) = unclear {
        return Err(why.to_owned());
    }
    owners.sort_unstable();
    Ok(Tried::Owners(
        owners.into_iter().map(|(_, owner)| owner).collect(),
    ))
}

fn reserve(mut owners: Vec<String>) -> Notice {
    match owners.pop() {
        Some(owner) if owners.is_empty() => Notice::Reserve { owner },
        last => {
            owners.extend(last);
            Notice::ReserveForAll { owners }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of a shard with an answer, which is taken when it is tried.
    struct Scripted(u8, Option<Result<Held, String>>);

    impl Key for Scripted {
        fn shard(&self) -> u8 {
            self.0
        }

        async fn acquire(&mut self) -> Result<Held, String> {
            self.1.take().unwrap()
        }
    }

    /// Tries keys with these answers. Returns the result, and how many were tried.
    fn tried<const N: usize>(answers: [Result<Held, String>; N]) -> (Result<Tried, String>, usize) {
        let keys = (0..).zip(answers);
        let mut keys: Vec<_> = keys.map(|(n, held)| Scripted(n, Some(held))).collect();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let result = runtime.build().unwrap().block_on(try_all(&mut keys));
        let tried = keys.iter().filter(|key| key.1.is_none());
        (result, tried.count())
    }

    /// A server may have an earlier key of one shard for long, while another shard has no owner.
    #[test]
    fn an_answer_that_does_not_tell_does_not_keep_from_other_shards() {
        let by = |node: &str| Ok(Held::By(node.to_owned()));
        let behind = || Ok(Held::Unclear("behind"));
        assert_eq!(
            tried([by("a"), behind(), Ok(Held::ByThis)]),
            (Ok(Tried::Has(2)), 3)
        );
        assert_eq!(tried([behind(), by("a")]), (Err("behind".to_owned()), 2));
        let owners = ["a", "b"].map(str::to_owned).into();
        assert_eq!(tried([by("a"), by("b")]), (Ok(Tried::Owners(owners)), 2));
        // This process may have the key.
        assert_eq!(
            tried([Err("away".to_owned()), Ok(Held::ByThis)]),
            (Err("away".to_owned()), 1)
        );
    }
}
