//! Measures how long storing takes, and compares it with appending the same bytes to a file and flushing the file.
//!
//! ```sh
//! cargo run --release -p sansio-mqtt-store --example speed [DIR]
//! ```

use std::env;
use std::error::Error;
use std::fmt::Error as Never;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use mqtt_store::journal::{Kind, Record};
use mqtt_store::{Config, Store, Writer};

const VALUE: [u8; 200] = [7; 200];
const ROUNDS: u64 = 200;

/// The kind of a broker's messages, which are put once.
const KIND: Kind = Kind::new(21);

fn record(number: u64, value: Option<&[u8]>) -> Vec<u8> {
    let key = &number.to_be_bytes();
    let record = Record {
        kind: KIND,
        key,
        value,
    };
    let mut bytes = vec![0; 256];
    let len = record.write(&mut bytes).unwrap_or_default();
    bytes.truncate(len);
    bytes
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn records(round: u64, at_once: u64) -> Vec<u8> {
    let keys = round * at_once..(round + 1) * at_once;
    keys.flat_map(|key| record(key, Some(&VALUE))).collect()
}

/// Appends `at_once` records to a plain file and flushes it in each round. Returns the median time of a round.
fn floor(dir: &Path, at_once: u64) -> Result<Duration, Box<dyn Error>> {
    let path = dir.join("floor");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let bytes = records(round, at_once);
        let start = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    fs::remove_file(path)?;
    Ok(median(times))
}

/// Stores `at_once` records and waits until they are durable in each round. Returns the median time of a round.
fn store(writer: &Writer, at_once: u64, total: &mut u64) -> Result<Duration, Box<dyn Error>> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let bytes = records(round, at_once);
        *total += u64::try_from(bytes.len())?;
        let start = Instant::now();
        writer.append(&bytes);
        writer.wait(*total)?;
        times.push(start.elapsed());
    }
    Ok(median(times))
}

/// How far [`behind`] lets the thread of the store be behind.
const BEHIND: u64 = 20_000;

/// Gives the store the records of many messages together, as when its thread waited for the disk: each message, and the end of the
/// one that was given that long before. Returns the median times in which a file and the store have them, for each message.
fn behind(dir: &Path, log: u64) -> Result<(Duration, Duration), Box<dyn Error>> {
    let (mut file, each) = (File::create(dir.join("floor"))?, u32::try_from(BEHIND)?);
    let mut config = Config::new(dir.join(format!("behind-{log}")));
    config.log = log;
    let store = Store::open(config)?.ok_or("off")?;
    let writer = store.start(|| {})?;
    let (mut total, mut floors, mut times) = (0, Vec::new(), Vec::new());
    for round in 0..20 {
        let numbers = round * BEHIND..(round + 1) * BEHIND;
        let bytes: Vec<u8> = numbers
            .flat_map(|number| {
                let end = number.checked_sub(BEHIND).map(|old| record(old, None));
                [record(number, Some(&VALUE)), end.unwrap_or_default()].concat()
            })
            .collect();
        let start = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        floors.push(start.elapsed());
        total += u64::try_from(bytes.len())?;
        let start = Instant::now();
        writer.append(&bytes);
        writer.wait(total)?;
        times.push(start.elapsed());
    }
    writer.close()?;
    fs::remove_file(dir.join("floor"))?;
    Ok((median(floors) / each, median(times) / each))
}

/// Stores messages and deletes each one after 1,000 others; at most 64 wait for the disk. Returns the messages per second.
fn churn(dir: &Path, messages: u64) -> Result<f64, Box<dyn Error>> {
    let Some(store) = Store::open(Config::new(dir.join("churn")))? else {
        return Err("off".into());
    };
    let (notify, notified) = channel();
    let writer = store.start(move || notify.send(()).unwrap_or(()))?;
    let (mut appended, mut ends) = (0, std::collections::VecDeque::new());
    let start = Instant::now();
    for number in 0..messages {
        let mut bytes = record(number, Some(&VALUE));
        if let Some(old) = number.checked_sub(1000) {
            bytes.extend(record(old, None));
        }
        writer.append(&bytes);
        appended += u64::try_from(bytes.len())?;
        ends.push_back(appended);
        while ends.len() >= 64 {
            notified.recv()?;
            let stored = writer.progress().stored;
            while ends.front().is_some_and(|end| *end <= stored) {
                ends.pop_front();
            }
        }
    }
    writer.wait(appended)?;
    let time = start.elapsed();
    writer.close()?;
    #[allow(clippy::cast_precision_loss, reason = "a few million at most")]
    Ok(messages as f64 / time.as_secs_f64())
}

/// Opens a store with `messages` messages.
fn open(dir: &Path, messages: u64) -> Result<(Duration, u64, u64), Box<dyn Error>> {
    let dir = dir.join("open");
    let fill = Store::open(Config::new(&dir))?.ok_or("off")?;
    let writer = fill.start(|| {})?;
    for number in 0..messages {
        writer.append(&record(number, Some(&VALUE)));
    }
    writer.close()?;
    let start = Instant::now();
    let mut store = Store::open(Config::new(&dir))?.ok_or("off")?;
    let mut found = 0;
    store.restore(|_| {
        found += 1;
        Ok::<_, Never>(())
    })?;
    let time = start.elapsed();
    Ok((time, found, fs::metadata(dir.join("journal.redb"))?.len()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = env::args_os().nth(1).map_or_else(env::temp_dir, Into::into);
    let dir = dir.join(format!("mqtt-store-speed-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let kept = Store::open(Config::new(dir.join("store")))?.ok_or("off")?;
    let writer = kept.start(|| {})?;
    let mut total = 0;
    for at_once in [1, 64, 1024] {
        let floor = floor(&dir, at_once)?;
        let stored = store(&writer, at_once, &mut total)?;
        let ratio = stored.as_secs_f64() / floor.as_secs_f64();
        println!(
            "{at_once:5} records at once: floor {floor:8.1?}, stored {stored:8.1?}, {ratio:.2} times"
        );
    }
    writer.close()?;
    for (log, name) in [(16 << 20, "with the log"), (0, "without it")] {
        let (floor, stored) = behind(&dir, log)?;
        println!(
            "{BEHIND} messages behind, {name}: floor {floor:.2?}, stored {stored:.2?} a message"
        );
    }
    println!(
        "churn with 64 waiting: {:.0} messages a second",
        churn(&dir, 200_000)?
    );
    let (time, found, size) = open(&dir, 100_000)?;
    println!("opening {found} messages of 200 bytes: {time:.1?}, {size} bytes of file");
    fs::remove_dir_all(dir)?;
    Ok(())
}
