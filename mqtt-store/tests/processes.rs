//! Tests several processes with one directory. A child is this test program, started with the test `child` alone and its task in
//! the environment.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use mqtt_store::journal::{Kind, Record};
use mqtt_store::{Config, OpenError, Store, Writer};

const KIND: Kind = Kind::new(9);
const DIR: &str = "MQTT_STORE_TEST_DIR";

/// Held while a process is started: until it runs its own program it has the locks of all stores that are open here.
static STARTS: Mutex<()> = Mutex::new(());

/// A directory that is removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("mqtt-store-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(Config::new(dir)).map(Option::unwrap)
}

/// Appends a number and deletes an old one in the same call, so that a kill cannot separate the two.
fn append(writer: &Writer, number: u64, old: Option<u64>) -> u64 {
    let (mut bytes, mut len) = ([0; 512], 0);
    for (number, value) in [(Some(number), Some(&[7; 200][..])), (old, None)] {
        let Some(number) = number else { continue };
        let record = Record {
            kind: KIND,
            key: &number.to_be_bytes(),
            value,
        };
        len += record.write(&mut bytes[len..]).unwrap();
    }
    writer.append(&bytes[..len]);
    u64::try_from(len).unwrap()
}

/// Returns the numbers in the store, in ascending order.
fn numbers(store: &mut Store) -> Vec<u64> {
    let mut numbers = Vec::new();
    store
        .restore(|record| {
            let key: [u8; 8] = record.key.try_into().map_err(|_| "not a number")?;
            numbers.push(u64::from_be_bytes(key));
            Ok::<_, &str>(())
        })
        .unwrap();
    numbers
}

/// Stores numbers, keeps the last 1,000, and prints each number when it is stored.
#[test]
#[ignore = "a child of the other tests"]
fn child() {
    let dir = env::var_os(DIR).unwrap();
    let mut store = match open(Path::new(&dir)) {
        Ok(store) => store,
        Err(error) => return println!("error {error}"),
    };
    let mut next = numbers(&mut store).last().map_or(0, |last| last + 1);
    let (notify, notified) = std::sync::mpsc::channel();
    let writer = store.start(move || notify.send(()).unwrap_or(())).unwrap();
    println!("open {}", std::process::id());
    let (mut appended, mut ends) = (0, std::collections::VecDeque::new());
    loop {
        while ends.len() < 64 {
            appended += append(&writer, next, next.checked_sub(1000));
            ends.push_back((next, appended));
            next += 1;
        }
        notified.recv().unwrap();
        let stored = writer.progress().stored;
        while let Some((number, _)) = ends.pop_front_if(|(_, end)| *end <= stored) {
            println!("stored {number}");
        }
    }
}

fn spawn(dir: &Path) -> (Child, impl Iterator<Item = String> + use<>) {
    let _starts = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map_while(Result::ok))
}

/// Returns the second word of the next line that begins with `first`.
fn next(lines: &mut impl Iterator<Item = String>, first: &str) -> Option<String> {
    lines.find_map(|line| Some(line.split_once(first)?.1.trim().to_owned()))
}

#[test]
fn what_was_told_as_stored_survives_kills() {
    let dir = Temporary::new("kills");
    let (mut told, mut kept) = (None, 0);
    for kill in 0..20_usize {
        let (mut child, mut lines) = spawn(&dir.0);
        next(&mut lines, "open ").expect("the store opens after a kill");
        for _ in 0..(kill * 37) % 400 {
            told = next(&mut lines, "stored ").map(|n| n.parse::<u64>().unwrap());
        }
        child.kill().unwrap();
        // The numbers that the child printed before the kill were reported as well.
        while let Some(number) = next(&mut lines, "stored ") {
            told = Some(number.parse().unwrap());
        }
        child.wait().unwrap();
        let found = numbers(&mut open(&dir.0).unwrap());
        let last = found.last().copied();
        assert!(
            last >= told,
            "kill {kill}: {told:?} was told, {last:?} found"
        );
        // No number is missing between the first and the last one, and older numbers are deleted.
        assert!(found.windows(2).all(|pair| pair[1] == pair[0] + 1));
        let most = last.map_or(0, |last| last + 1).min(1000);
        assert_eq!(u64::try_from(found.len()).unwrap(), most);
        kept = found.len();
    }
    assert!(kept > 100, "the children stored {kept} numbers");
}

#[test]
fn a_store_in_use_is_refused_by_name() {
    let dir = Temporary::new("in-use");
    let (mut child, mut lines) = spawn(&dir.0);
    let process = next(&mut lines, "open ").unwrap();
    let refused = open(&dir.0).unwrap_err().to_string();
    let program = env::current_exe().unwrap();
    let program = program.file_name().unwrap().to_string_lossy();
    assert_eq!(
        refused,
        format!(
            "the store {} is in use by {program} (process {process})",
            dir.0.display()
        )
    );
    assert!(matches!(
        Store::move_aside(&Config::new(&dir.0)),
        Err(OpenError::InUse { .. })
    ));
    child.kill().unwrap();
    child.wait().unwrap();
    open(&dir.0).unwrap();
}

/// Reading a store that needs a repair changes none of its files, also beside another reader. A process that writes waits for neither.
#[test]
fn reading_changes_nothing() {
    let dir = Temporary::new("reading");
    let read = || Store::open_to_read(Config::new(&dir.0));
    assert!(matches!(read(), Err(OpenError::Io { .. })));
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
    let (mut child, mut lines) = spawn(&dir.0);
    // Long enough that the table has some of them.
    for _ in 0..60_000 {
        next(&mut lines, "stored ").unwrap();
    }
    assert!(matches!(read(), Err(OpenError::InUse { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    let files = ["journal.redb", "journal.log", "lock", "reserve"];
    let content = || files.map(|name| fs::read(dir.0.join(name)).ok());
    let before = content();
    let _none_starts = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut first, mut second) = (read().unwrap(), read().unwrap());
    let found = numbers(&mut first);
    assert_eq!(found.len(), 1_000);
    assert_eq!(numbers(&mut second), found);
    let refused = open(&dir.0).unwrap_err().to_string();
    assert!(
        refused.ends_with("is in use by a program that reads it"),
        "{refused}"
    );
    drop(second);
    assert!(first.start(|| {}).is_err());
    assert!(content() == before);
    assert_eq!(numbers(&mut open(&dir.0).unwrap()), found);
}

#[test]
fn a_damaged_store_names_its_file_and_can_be_moved_aside() {
    // It opens the store again at once.
    let _none_starts = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = Temporary::new("damaged");
    let writer = open(&dir.0).unwrap().start(|| {}).unwrap();
    for number in 0..100 {
        append(&writer, number, None);
    }
    writer.close().unwrap();
    let file = dir.0.join("journal.redb");
    let mut bytes = fs::read(&file).unwrap();
    let value = bytes.windows(200).position(|part| part == [7; 200]);
    bytes[value.unwrap()] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let refused = open(&dir.0).unwrap_err();
    let OpenError::Damaged { place, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(place, "journal.redb");
    for name in ["damaged-1.redb", "damaged-2.redb"] {
        let moved = Store::move_aside(&Config::new(&dir.0)).unwrap();
        assert_eq!(moved, dir.0.join(name));
        assert_eq!(numbers(&mut open(&dir.0).unwrap()), []);
    }
    assert_eq!(fs::read(dir.0.join("damaged-1.redb")).unwrap(), bytes);
}

#[test]
fn a_store_that_is_off_touches_nothing() {
    let dir = Temporary::new("off");
    let mut config = Config::new(dir.0.join("store"));
    config.durability = "off".parse().unwrap();
    assert!(Store::open(config).unwrap().is_none());
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
}

/// Files of other programs are neither called damaged nor changed.
#[test]
fn a_file_of_another_program_is_named() {
    use redb::{Database, TableDefinition};
    let text: &[u8] = b"# a file that only has the name of a store";
    let dir = Temporary::new("foreign");
    let file = dir.0.join("journal.redb");
    fs::write(&file, text).unwrap();
    let refused = open(&dir.0).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("journal.redb is not a file of redb")
    );
    assert_eq!(fs::read(&file).unwrap(), text);

    fs::remove_file(&file).unwrap();
    let others = Database::create(&file).unwrap();
    let transaction = others.begin_write().unwrap();
    let table: TableDefinition<'_, &str, u64> = TableDefinition::new("wallet");
    transaction
        .open_table(table)
        .unwrap()
        .insert("a", 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(others);
    let refused = open(&dir.0).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    assert!(refused.to_string().contains("(wallet)"), "{refused}");

    // An empty file is a store that lost its content.
    fs::write(&file, []).unwrap();
    let refused = open(&dir.0).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert!(
        refused.to_string().ends_with("the file is empty"),
        "{refused}"
    );
}
