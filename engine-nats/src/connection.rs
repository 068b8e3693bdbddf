//! The stream of the journal on the servers of NATS.

use std::error::Error as _;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream as NatsStream};
use async_nats::jetstream::{self, Context, ErrorCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use mqtt_store::Failure;

use crate::background::Background;
use crate::stream::{Answer, Each, Ends, Stream};

/// How long one request waits for its answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How many messages, and of how many bytes, one request for messages returns. A block has at most 1 MiB.
const MESSAGES: usize = 1000;
const BYTES: usize = 2 << 20;

/// The stream of the journal.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) background: Arc<Background>,
    pub(crate) context: Context,
    pub(crate) stream: NatsStream,
    /// Whether this process does not take over any more.
    pub(crate) is_given_up: Arc<AtomicBool>,
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) patience: Duration,
    /// When the tries began that have had no success yet, and why the last one had none.
    pub(crate) since: Instant,
    pub(crate) why: String,
}

impl Connection {
    /// Waits for a request. Returns `None` and notes why if it failed.
    fn request<T: Send + 'static, E: Display + Send + 'static>(
        &mut self,
        request: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Option<T> {
        let timed = async move { tokio::time::timeout(TIMEOUT * 2, request).await };
        match self.background.wait(timed) {
            Some(Ok(Ok(result))) => return Some(result),
            Some(Ok(Err(error))) => self.why = error.to_string(),
            Some(Err(_)) => "the servers do not answer".clone_into(&mut self.why),
            None => "the request was not made".clone_into(&mut self.why),
        }
        None
    }

    /// Repeats a request until it succeeds.
    fn repeat<T, F, E>(&mut self, request: impl Fn() -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        E: Display + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let since = Instant::now();
        for tries in 0.. {
            if let Some(result) = self.request(request()) {
                return Ok(result);
            }
            self.pause_since(since, tries)?;
        }
        Err(Failure::Broken(self.why.clone()))
    }

    fn check_wanted(&self) -> Result<(), Failure> {
        match self.is_given_up.load(Ordering::Acquire) {
            true => Err(Failure::Broken(
                "this process waits no longer for its journal".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Waits before another try, unless the tries have gone on for too long, or nobody waits for the journal any more.
    fn pause_since(&self, since: Instant, tries: u32) -> Result<(), Failure> {
        self.check_wanted()?;
        if since.elapsed() >= self.patience {
            let seconds = self.patience.as_secs();
            let why = format!("no success for {seconds} s: {}", self.why);
            return Err(Failure::Broken(why));
        }
        let pause = Duration::from_millis(5).saturating_mul(1 << tries.min(10));
        thread::sleep(pause.min(LONGEST_PAUSE));
        Ok(())
    }
}

impl Stream for Connection {
    fn append(&mut self, expected: u64, message: &[u8]) -> Result<Answer, Failure> {
        self.check_wanted()?;
        let message = PublishMessage::build()
            .payload(Bytes::copy_from_slice(message))
            .expected_last_sequence(expected)
            .expected_stream(&self.name);
        let (context, subject) = (self.context.clone(), self.subject.clone());
        let publish = async move {
            let published = async { context.send_publish(subject, message).await?.await };
            Ok::<_, PublishError>(match published.await {
                Ok(stored) => (Answer::Stored(stored.sequence), String::new()),
                Err(error) => (refusal(&error), text(&error)),
            })
        };
        Ok(match self.request(publish) {
            Some((answer, why)) => {
                self.why = why;
                answer
            }
            None => Answer::Unknown,
        })
    }

    fn get(&mut self, sequence: u64) -> Result<Option<Vec<u8>>, Failure> {
        let stream = self.stream.clone();
        self.repeat(move || {
            let stream = stream.clone();
            async move {
                match stream.get_raw_message(sequence).await {
                    Ok(message) => Ok(Some(message.payload.to_vec())),
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                    Err(error) => Err(text(&error)),
                }
            }
        })
    }

    fn ends(&mut self) -> Result<Ends, Failure> {
        let stream = self.stream.clone();
        let info = self.repeat(move || {
            let stream = stream.clone();
            async move { stream.get_info().await.map_err(|error| text(&error)) }
        })?;
        let last = info.state.last_sequence;
        let first = match info.state.messages {
            0 => last.saturating_add(1),
            _ => info.state.first_sequence,
        };
        Ok(Ends { first, last })
    }

    fn read(&mut self, through: u64, each: &mut Each<'_>) -> Result<(), Failure> {
        let mut next = 1;
        let mut tries = 0;
        let mut consumer = None;
        while next <= through {
            let (from, used) = (self.stream.clone(), consumer.take());
            let is_new = used.is_none();
            let fetched = self.request(async move {
                let consumer = match used {
                    Some(consumer) => consumer,
                    None => consumer_from(&from, next).await?,
                };
                let fetched = fetch(&consumer).await?;
                Ok::<_, async_nats::Error>((consumer, fetched))
            });
            let Some((used, fetched)) = fetched.filter(|(_, fetched)| !fetched.messages.is_empty())
            else {
                // Where this is answered may be behind, or another owner may have deleted the messages.
                if self.ends()?.first > through {
                    return Ok(());
                }
                self.pause(tries)?;
                tries += 1;
                continue;
            };
            consumer = fetched.is_whole.then_some(used);
            tries = 0;
            for (place, (sequence, message)) in fetched.messages.into_iter().enumerate() {
                if sequence != next && !(is_new && place == 0) {
                    // A connection that was lost took messages with it, or the stream lacks them: a new consumer tells.
                    consumer = None;
                    break;
                }
                if sequence <= through {
                    each(sequence, &message)?;
                }
                next = sequence.saturating_add(1);
            }
        }
        Ok(())
    }

    fn purge(&mut self, sequence: u64) -> Result<(), Failure> {
        let stream = self.stream.clone();
        let purged = self.request(async move { stream.purge().sequence(sequence).await });
        match purged {
            Some(_) => Ok(()),
            None => Err(Failure::Broken(self.why.clone())),
        }
    }

    fn pause(&mut self, tries: u32) -> Result<(), Failure> {
        if tries == 0 {
            self.since = Instant::now();
        }
        self.pause_since(self.since, tries)
    }
}

/// Makes a consumer of the messages from `sequence` on. The servers delete it when it is not used.
async fn consumer_from(
    stream: &NatsStream,
    sequence: u64,
) -> Result<jetstream::consumer::Consumer<pull::Config>, async_nats::Error> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: sequence,
        },
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: Duration::from_secs(30),
        ..pull::Config::default()
    };
    Ok(stream.create_consumer(config).await?)
}

/// The messages of one request, with their sequences.
struct Fetched {
    messages: Vec<(u64, Bytes)>,
    /// Whether all that the consumer has sent is here. Otherwise its next message may not be the next one of the stream.
    is_whole: bool,
}

/// Returns the messages that are there now, as many as one request returns, and as come within [`TIMEOUT`].
async fn fetch(
    consumer: &jetstream::consumer::Consumer<pull::Config>,
) -> Result<Fetched, async_nats::Error> {
    let by = tokio::time::Instant::now() + TIMEOUT;
    let fetch = consumer.fetch().max_messages(MESSAGES).max_bytes(BYTES);
    let mut source = fetch.messages().await?;
    let mut messages = Vec::new();
    loop {
        let next = tokio::time::timeout_at(by, source.next()).await;
        match next {
            Ok(Some(Ok(message))) => {
                let sequence = message.info()?.stream_sequence;
                messages.push((sequence, message.message.payload));
            }
            // The server says so as well when the next message is beyond the bytes.
            Ok(Some(Err(error))) if messages.is_empty() => return Err(error),
            Ok(_) => break,
            Err(_) if messages.is_empty() => return Err("no messages come".into()),
            Err(_) => {
                let is_whole = false;
                return Ok(Fetched { messages, is_whole });
            }
        }
    }
    let is_whole = true;
    Ok(Fetched { messages, is_whole })
}

/// Returns the answer to a message that was not stored, as far as that is known.
fn refusal(error: &PublishError) -> Answer {
    if error.kind() == PublishErrorKind::WrongLastSequence {
        return Answer::Refused;
    }
    let source = error.source();
    let code = source
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .map(jetstream::Error::error_code);
    match code {
        Some(
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_STORE_FAILED,
        ) => Answer::Full,
        _ => Answer::Unknown,
    }
}

/// Returns an error and its sources in one line.
pub(crate) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        // Some errors repeat their source.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
