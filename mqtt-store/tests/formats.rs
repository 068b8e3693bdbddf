//! Opens the store of each version that is read, from the files in `mqtt-testing/formats`: its table and its log together have
//! the records of `broker.journal`. `MQTT_WRITE_FORMATS=1 cargo test --test formats` writes those of a new version.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mqtt_store::journal::{Records, VERSION};
use mqtt_store::{Config, Store};

/// The files of a store.
const FILES: [&str; 2] = ["journal.redb", "journal.log"];

/// Kind and key of an entry, and its value.
type Entries = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

fn formats(version: u8) -> PathBuf {
    let formats = concat!(env!("CARGO_MANIFEST_DIR"), "/../mqtt-testing/formats");
    Path::new(formats).join(version.to_string())
}

/// The last value of each key.
fn entries(journal: &[u8]) -> Entries {
    let mut entries = Entries::new();
    for record in Records::new(journal).map(Result::unwrap) {
        let key = (record.kind.byte(), record.key.to_vec());
        match record.value {
            Some(value) => entries.insert(key, value.to_vec()),
            None => entries.remove(&key),
        };
    }
    entries
}

fn config(dir: &Path, log: u64) -> Config {
    let mut config = Config::new(dir);
    (config.log, config.reserve) = (log, 4096);
    config
}

/// Bytes of the smallest log.
const LOG: u64 = 2 * 4096;

fn temporary(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("mqtt-store-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Makes a store: the first half of a journal is in its table, the second one in its log.
fn make(journal: &[u8], to: &Path) {
    let dir = temporary("made");
    let records: Vec<_> = Records::new(journal).map(Result::unwrap).collect();
    let (table, log) = records.split_at(records.len() / 2);
    for (records, log) in [(table, 0), (log, LOG)] {
        let store = Store::open(config(&dir, log)).unwrap().unwrap();
        let writer = store.start(|| {}).unwrap();
        let mut stored = 0;
        for record in records {
            let mut bytes = vec![0; record.encoded_len().unwrap()];
            record.write(&mut bytes).unwrap();
            stored += u64::try_from(bytes.len()).unwrap();
            writer.append(&bytes);
            writer.wait(stored).unwrap();
        }
        // A process that is killed leaves the last changes in the log.
        for file in FILES.into_iter().filter(|_| log > 0) {
            fs::copy(dir.join(file), to.join(file)).unwrap();
        }
        writer.close().unwrap();
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn each_version_that_is_read_is_opened() {
    if std::env::var_os("MQTT_WRITE_FORMATS").is_some() {
        let dir = formats(VERSION);
        make(&fs::read(dir.join("broker.journal")).unwrap(), &dir);
    }
    for version in 1..=VERSION {
        let from = formats(version);
        let dir = temporary("format");
        for file in FILES {
            fs::copy(from.join(file), dir.join(file)).unwrap();
        }
        // Both files are needed: a client that is only in the table, and a topic that is only in the log.
        for (file, text) in FILES.into_iter().zip(["away", "kept/little"]) {
            let bytes = fs::read(dir.join(file)).unwrap();
            let has = |text: &str| {
                bytes
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            };
            let other = if text == "away" {
                "kept/little"
            } else {
                "away"
            };
            assert!(has(text) && !has(other), "version {version}: {file}");
        }
        let expected = entries(&fs::read(from.join("broker.journal")).unwrap());
        let mut found = Entries::new();
        let mut store = Store::open(config(&dir, LOG)).unwrap().unwrap();
        let read = store.restore(|record| {
            let key = (record.kind.byte(), record.key.to_vec());
            found.insert(key, record.value.unwrap().to_vec());
            Ok::<_, std::fmt::Error>(())
        });
        read.unwrap();
        drop(store);
        assert_eq!(found, expected, "version {version}");
        fs::remove_dir_all(dir).unwrap();
    }
}
