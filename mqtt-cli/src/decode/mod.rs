//! `mqtt decode`: reads bytes in many forms and prints their fields.

mod advice;
mod capture;
mod dump;
mod explain;
mod follow;
pub(crate) mod reader;
pub(crate) mod show;
mod text;
mod unknown;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc;

use clap::{Args, ValueEnum};
use mqtt_tokio::proto::Version;

use self::reader::{Assumed, Reader};
use self::show::Show;
use crate::args::version;
use crate::failure::{Failure, fail};

/// Prints the fields of packets beside their bytes.
///
/// Reads hex with or without separators, \x escapes, arrays of C, Rust and Python, the output of xxd, hexdump and od, what
/// Wireshark copies, base64, bytes as they come from a pipe, and pcap and pcapng files. ?? stands for a byte that is not
/// known. Exits with 1 if a packet is malformed or cut short.
///
/// Examples:
///
///   mqtt decode 30 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19
///
///   mqtt decode '{0x20, 0x02, 0x00, 0x00}'
///
///   mqtt decode --explain 10 ?? 00 04 4d 51 54 54 04 02 00 3c 00 01 61
///
///   xxd dump.bin | mqtt decode
///
///   mqtt decode -f capture.pcapng
///
///   nc -l 1883 | mqtt decode --binary
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Decode {
    /// The bytes; several packets may follow each other. Without it, standard input is read
    bytes: Vec<String>,
    /// Read from this file
    #[arg(short, long, value_name = "FILE", conflicts_with = "bytes")]
    file: Option<PathBuf>,
    /// A file with the raw bytes that the client sent; may be a pipe
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bytes", "file"])]
    client: Option<PathBuf>,
    /// A file with the raw bytes that the broker sent; may be a pipe
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bytes", "file"])]
    broker: Option<PathBuf>,
    /// Read raw bytes from the file or standard input, and print packets as they arrive
    #[arg(short, long, conflicts_with_all = ["bytes", "from"])]
    binary: bool,
    /// The form of the input, if it should not be detected
    #[arg(long, value_name = "FORM", value_enum)]
    from: Option<From>,
    /// The version to decode by, until a CONNECT sets another one [default: 3.1.1, or 5 if the bytes are valid in 5 only]
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = version)]
    version: Option<Version>,
    /// Explain each byte
    #[arg(short, long)]
    explain: bool,
    /// Print one JSON object for each packet; mqtt encode --json reads it
    #[arg(long, conflicts_with = "explain")]
    json: bool,
}

/// A form of the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum From {
    /// Digits, with or without separators
    Hex,
    /// \x escapes
    Escape,
    /// An array of C, Rust, Go or Python
    Array,
    /// The output of xxd, hexdump, od or Wireshark, with offsets
    Dump,
    Base64,
    /// The bytes themselves
    Raw,
    /// A pcap or pcapng file
    Capture,
}

impl Decode {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let show = Show {
            json: self.json,
            explain: self.explain,
        };
        if self.client.is_some() || self.broker.is_some() {
            return self.both(show);
        }
        if !self.bytes.is_empty() {
            return self.text(&self.bytes.join(" "), show);
        }
        let mut input: Box<dyn Read + Send> = match &self.file {
            Some(path) => Box::new(open(path)?),
            None => Box::new(std::io::stdin()),
        };
        let mut head = vec![0; 4096];
        let read = |input: &mut dyn Read, into: &mut [u8]| {
            input
                .read(into)
                .map_err(|error| fail(format!("the input: {error}")))
        };
        let len = read(&mut input, &mut head)?;
        head.truncate(len);
        if self.from == Some(From::Capture) || self.guesses() && capture::is_capture(&head) {
            return capture::decode(Box::new(head_and(head, input)), self.version, show);
        }
        let raw = self.binary || self.from == Some(From::Raw);
        if raw || self.guesses() && !text::is_text(&head) {
            return self.stream(&head, &mut input, show);
        }
        let mut rest = Vec::new();
        head_and(head, input)
            .read_to_end(&mut rest)
            .map_err(|error| fail(format!("the input: {error}")))?;
        let text = String::from_utf8(rest).map_err(|_| fail("the input is not text"))?;
        self.text(&text, show)
    }

    fn guesses(&self) -> bool {
        self.from.is_none() && !self.binary
    }

    /// Prints packets as soon as they are whole.
    fn stream(&self, head: &[u8], input: &mut dyn Read, show: Show) -> Result<(), Failure> {
        if head.is_empty() {
            return Err(nothing());
        }
        let mut assumed = Assumed::new(self.version);
        if head.first() != Some(&0x10) {
            show.assumed(&assumed);
        }
        let mut reader = Reader::new(None, show);
        reader.feed(head, &mut assumed)?;
        let mut more = vec![0; 4096];
        loop {
            let len = input
                .read(&mut more)
                .map_err(|error| fail(format!("the input: {error}")))?;
            if len == 0 {
                return reader.finish(&assumed);
            }
            reader.feed(more.get(..len).unwrap_or_default(), &mut assumed)?;
        }
    }

    /// All bytes are known, so the version is chosen by all of them.
    fn text(&self, text: &str, show: Show) -> Result<(), Failure> {
        let chunks = text::parse(text, self.from)?;
        if chunks.iter().all(|chunk| chunk.bytes.is_empty()) {
            return Err(nothing());
        }
        let whole: Vec<&[Option<u8>]> = chunks.iter().map(|chunk| &chunk.bytes[..]).collect();
        let mut assumed = Assumed::by(self.version, &whole);
        if let Some(form) = chunks.iter().find_map(|chunk| chunk.form) {
            show.note(&format!("read as {form}"));
        }
        for remark in chunks.iter().filter_map(|chunk| chunk.remark.as_ref()) {
            show.note(remark);
        }
        show.assumed(&assumed);
        // Each side has a reader. The chunks are in the order in which they were sent.
        let mut readers: Vec<Reader> = Vec::new();
        for chunk in &chunks {
            let known = readers
                .iter()
                .position(|reader| reader.name() == chunk.name.as_deref());
            let at = known.unwrap_or_else(|| {
                readers.push(Reader::new(chunk.name.clone(), show));
                readers.len() - 1
            });
            let Some(reader) = readers.get_mut(at) else {
                continue;
            };
            if chunk.bytes.contains(&None) {
                unknown::decode(&chunk.bytes, &assumed, show)?;
            } else {
                let bytes: Vec<u8> = chunk.bytes.iter().copied().flatten().collect();
                reader.feed(&bytes, &mut assumed)?;
            }
        }
        readers
            .into_iter()
            .try_for_each(|reader| reader.finish(&assumed))
    }

    /// Reads both files at once and prints packets in the order in which they arrive.
    fn both(&self, show: Show) -> Result<(), Failure> {
        let (sender, receiver) = mpsc::channel();
        let mut readers = Vec::new();
        for (name, path) in [("client", &self.client), ("broker", &self.broker)] {
            let Some(path) = path.clone() else {
                continue;
            };
            let (side, sender) = (readers.len(), sender.clone());
            readers.push(Reader::new(Some(name.to_owned()), show));
            std::thread::spawn(move || {
                let read = || -> Result<(), Failure> {
                    let mut file = open(&path)?;
                    let mut chunk = vec![0; 4096];
                    loop {
                        let len = file.read(&mut chunk).map_err(fail)?;
                        let bytes = chunk.get(..len).unwrap_or_default().to_vec();
                        if len == 0 || sender.send((side, Ok(bytes))).is_err() {
                            return Ok(());
                        }
                    }
                };
                if let Err(failure) = read() {
                    let _ = sender.send((side, Err(failure)));
                }
            });
        }
        drop(sender);
        let mut assumed = Assumed::new(self.version);
        for (side, bytes) in receiver {
            let bytes = bytes?;
            if let Some(reader) = readers.get_mut(side) {
                reader.feed(&bytes, &mut assumed)?;
            }
        }
        readers
            .into_iter()
            .try_for_each(|reader| reader.finish(&assumed))
    }
}

/// Parses bytes from a text in any form.
pub(crate) fn bytes_of(text: &str) -> Result<Vec<u8>, Failure> {
    let chunks = text::parse(text, None)?;
    let bytes: Option<Vec<u8>> = chunks.into_iter().flat_map(|chunk| chunk.bytes).collect();
    bytes.ok_or_else(|| fail("?? cannot be sent"))
}

fn nothing() -> Failure {
    fail("there are no bytes to decode")
}

fn open(path: &std::path::Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| fail(format!("{}: {error}", path.display())))
}

fn head_and(head: Vec<u8>, rest: Box<dyn Read + Send>) -> impl Read + Send {
    std::io::Cursor::new(head).chain(rest)
}
