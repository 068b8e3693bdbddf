//! `--store`: keeps the messages that `mqtt pub` accepted and `mqtt sub` printed over a crash.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::future::{Future, pending, ready};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use clap::Args;
use mqtt_tokio::proto::QoS;
use mqtt_tokio::{Error, Handle, Options, Ticket};

use crate::failure::{Failure, fail};
use crate::printing::print;

#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    /// Directory of a store that survives a crash. It belongs to the client identifier (-i)
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl StoreArgs {
    /// Returns whether there is a store.
    pub(crate) const fn is_given(&self) -> bool {
        self.store.is_some()
    }

    /// Returns whether an earlier process made the store.
    pub(crate) fn exists(&self) -> bool {
        let file = self.store.as_ref().map(|dir| dir.join("journal.redb"));
        file.is_some_and(|file| file.exists())
    }

    /// Opens the file of printed messages, if there is one. With `is_new` the store is new, and has no note for an existing file.
    pub(crate) fn open_output(
        &self,
        path: Option<&Path>,
        note: Option<&[u8]>,
        is_new: bool,
    ) -> Result<Option<Output>, Failure> {
        let (Some(path), Some(store)) = (path, &self.store) else {
            return Ok(None);
        };
        let wrong = |path: &Path, error| fail(format!("{}: {error}", path.display()));
        let absolute = std::path::absolute(path).map_err(|error| wrong(path, error))?;
        let absolute = absolute.as_os_str().as_encoded_bytes();
        let mark = store.join("output");
        // Lines may be there before the first note is. Without a note, only the mark shows that they are of this store.
        let is_ours = !is_new && std::fs::read(&mark).is_ok_and(|known| known == absolute);
        let output = Output::open(path, note, is_ours)?;
        if !is_ours {
            write_mark(&mark, absolute).map_err(|error| wrong(&mark, error))?;
        }
        Ok(Some(output))
    }

    pub(crate) fn apply(&self, options: &mut Options, qos: QoS) -> Result<(), Failure> {
        let Some(dir) = &self.store else {
            return Ok(());
        };
        if options.client_id.is_empty() {
            return Err(fail("a store needs a client identifier: give -i"));
        }
        if qos == QoS::AtMostOnce {
            return Err(fail("a store needs QoS 1 or 2: give -q"));
        }
        let dir = dir
            .to_str()
            .ok_or_else(|| fail("the directory of the store is not UTF-8"))?;
        options.store(dir);
        Ok(())
    }
}

/// Returns the reason if a client has already stopped, for example because another process uses the store.
pub(crate) async fn check(handle: &Handle) -> Result<(), Error> {
    tokio::select! {
        biased;
        done = handle.connected() => done,
        () = ready(()) => Ok(()),
    }
}

type Stored = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// The messages of `mqtt pub` that are not stored yet. Prints the number of stored ones.
pub(crate) struct Accepted {
    is_on: bool,
    waiting: VecDeque<Stored>,
    count: u64,
}

impl Accepted {
    pub(crate) const fn new(is_on: bool) -> Self {
        Self {
            is_on,
            waiting: VecDeque::new(),
            count: 0,
        }
    }

    pub(crate) fn push(&mut self, ticket: &Ticket) {
        if self.is_on {
            self.waiting.push_back(Box::pin(ticket.stored()));
        }
    }

    /// Waits until the first one is stored, or for ever if none waits. Cancel-safe.
    pub(crate) async fn first(&mut self) -> Result<(), Failure> {
        match self.waiting.front_mut() {
            Some(first) => first.as_mut().await?,
            None => pending().await,
        }
        self.waiting.pop_front();
        self.count += 1;
        print(format!("{}\n", self.count).as_bytes()).map(drop)
    }

    /// Waits for `work`, and prints stored messages meanwhile.
    pub(crate) async fn meanwhile<F: Future + Unpin>(
        &mut self,
        mut work: F,
    ) -> Result<F::Output, Failure> {
        loop {
            tokio::select! {
                biased;
                stored = self.first() => stored?,
                done = &mut work => return Ok(done),
            }
        }
    }

    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            self.first().await?;
        }
        Ok(())
    }
}

/// Writes the mark to the disk, before lines are there that only the mark shows to be of this store.
fn write_mark(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A file of printed messages. Its length is the note that is stored with each acknowledgement, so a restart removes lines that
/// were printed but not acknowledged: these messages come again. Messages at QoS 0 have no acknowledgement, so that those behind the
/// last note are removed as well.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    len: u64,
    path: PathBuf,
}

impl Output {
    /// Opens the file. `is_ours` says that an earlier process with this store has opened it: then lines behind the note are removed.
    /// A file of another program is refused if there is anything to remove.
    fn open(path: &Path, note: Option<&[u8]>, is_ours: bool) -> Result<Self, Failure> {
        let wrong = |error| fail(format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(wrong)?;
        let there = file.metadata().map_err(wrong)?.len();
        let len = match note.map(<[u8; 8]>::try_from) {
            None => 0,
            Some(Ok(note)) => u64::from_be_bytes(note),
            Some(Err(_)) => return Err(fail("another program used the store")),
        };
        if there < len || (there > len && !is_ours) {
            let path = path.display();
            return Err(fail(format!(
                "{path} does not belong to the store: it has {there} bytes, and the store has printed {len} to its file"
            )));
        }
        file.set_len(len).map_err(wrong)?;
        file.seek(SeekFrom::Start(len)).map_err(wrong)?;
        let path = path.to_owned();
        Ok(Self { file, len, path })
    }

    /// Writes a line. Returns the note to store with its acknowledgement, if there is one: the line is on the disk then, because a
    /// note for lines that a power cut removed would not fit the file any more.
    pub(crate) fn write(&mut self, line: &[u8], is_noted: bool) -> Result<[u8; 8], Failure> {
        let mut written = self.file.write_all(line);
        if is_noted {
            written = written.and_then(|()| self.file.sync_data());
        }
        written.map_err(|error| fail(format!("{}: {error}", self.path.display())))?;
        self.len += u64::try_from(line.len()).unwrap_or(0);
        Ok(self.len.to_be_bytes())
    }
}
