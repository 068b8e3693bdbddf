//! The number of shards of a broker, and the key that decides the shard of a client. Both are written once, before the first journal
//! of several, and stay in a bucket of their own. A broker of one shard has no entry there.

use async_nats::jetstream::kv::{self, CreateErrorKind, Store};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;

use crate::config::Config;
use crate::connection::text;

/// The name of the bucket.
const BUCKET: &str = "MQTT-shards";

/// The shards of a broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Division {
    pub(crate) shards: u8,
    pub(crate) key: u64,
}

impl Division {
    fn text(self) -> String {
        format!("{} {:016x}", self.shards, self.key)
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (shards, key) = str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self {
            shards: shards.parse().ok().filter(|shards| *shards > 1)?,
            key: u64::from_str_radix(key, 16).ok()?,
        })
    }
}

/// The value of a journal in the bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Noted {
    Nothing,
    Division(Division),
    /// A value that no process wrote.
    Damaged,
}

/// The result of the comparison of the number of shards in the bucket with that of this process.
pub(crate) enum Check {
    /// The numbers are equal. The value is the key that decides the shard of a client.
    Fits(u64),
    /// The bucket has this other number.
    Other(u8),
    /// A process has just written the number, so the caller checks again.
    Again,
    /// The bucket has no number, or a damaged one. The sentence says why.
    Lacks(String),
}

/// Compares the number of shards with that of this process. Writes it if there is no journal yet.
pub(crate) async fn check(
    context: &Context,
    config: &Config,
    new: Division,
) -> Result<Check, String> {
    let found = noted(context, config).await?;
    let of_one = find_stream(context, &config.journal_of_one().stream).await?;
    let other = |stored| Ok(Check::Other(stored));
    match (found, new.shards) {
        (Noted::Division(found), shards) if found.shards != shards => other(found.shards),
        (_, 2..) if of_one.is_some() => other(1),
        (Noted::Division(found), _) => Ok(Check::Fits(found.key)),
        (Noted::Nothing, 1) => Ok(Check::Fits(new.key)),
        (Noted::Nothing, _) => {
            let Config { shard, .. } = config;
            let first = config.journal(0).stream;
            if find_stream(context, &first).await?.is_some() {
                let why = format!(
                    "the bucket {BUCKET} has no key {shard}, but there is a stream {first}"
                );
                return Ok(Check::Lacks(why));
            }
            // The stream of one shard is looked for the last time after the key is known to be there, and a process of one shard
            // checks again when it has its stream: of two that start at the same time with different numbers, one sees the other.
            note(context, config, new).await?;
            Ok(Check::Again)
        }
        (Noted::Damaged, _) => {
            let why = format!(
                "the key {} of the bucket {BUCKET} is not valid",
                config.shard
            );
            Ok(Check::Lacks(why))
        }
    }
}

/// Returns what the bucket has, asking the server that leads it.
async fn noted(context: &Context, config: &Config) -> Result<Noted, String> {
    let Some(bucket) = find_stream(context, &format!("KV_{BUCKET}")).await? else {
        return Ok(Noted::Nothing);
    };
    let subject = format!("$KV.{BUCKET}.{}", config.shard);
    let value = last_value(&bucket, &subject).await?;
    Ok(value.map_or(Noted::Nothing, |value| {
        Division::parse(&value).map_or(Noted::Damaged, Noted::Division)
    }))
}

/// Returns the value of a key of a bucket, asking the server that leads the stream of the bucket. `None` if there is none.
pub(crate) async fn last_value<I>(
    bucket: &Stream<I>,
    subject: &str,
) -> Result<Option<Bytes>, String> {
    match bucket.get_last_raw_message_by_subject(subject).await {
        // A client of the bucket leaves this message when it deletes a key.
        Ok(message) if message.headers.get("KV-Operation").is_some() => Ok(None),
        Ok(message) => Ok(Some(message.payload)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(text(&error)),
    }
}

/// Writes the number of shards and the key, unless another process has written its own in the meantime.
async fn note(context: &Context, config: &Config, division: Division) -> Result<(), String> {
    let bucket = bucket(context, config).await?;
    match bucket.create(&config.shard, division.text().into()).await {
        Err(error) if error.kind() != CreateErrorKind::AlreadyExists => Err(text(&error)),
        _ => Ok(()),
    }
}

/// Finds the bucket, or makes it.
async fn bucket(context: &Context, config: &Config) -> Result<Store, String> {
    if let Ok(store) = context.get_key_value(BUCKET).await {
        return Ok(store);
    }
    let made = context.create_key_value(kv::Config {
        bucket: BUCKET.to_owned(),
        description: "The numbers of shards of MQTT brokers".to_owned(),
        history: 1,
        num_replicas: config.replicas,
        ..kv::Config::default()
    });
    made.await.map_err(|error| text(&error))
}

/// Returns a stream if there is one of this name.
pub(crate) async fn find_stream(context: &Context, name: &str) -> Result<Option<Stream>, String> {
    use async_nats::jetstream::context::GetStreamErrorKind::JetStream;
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(text(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_division_has_its_numbers() {
        let division = Division {
            shards: 64,
            key: 0xab,
        };
        assert_eq!(division.text(), "64 00000000000000ab");
        assert_eq!(Division::parse(division.text().as_bytes()), Some(division));
        for damaged in [&b""[..], b"3", b"1 0", b"300 0", b"3 x", b"\xff 0", b"-3 0"] {
            assert_eq!(Division::parse(damaged), None, "{damaged:?}");
        }
    }
}
