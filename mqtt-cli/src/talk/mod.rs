//! `mqtt talk`: sends typed packets, and explains the answers.

mod line;
mod transcript;
mod wire;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use clap::Args;
use mqtt_tokio::proto::Version;

use self::line::Line;
use self::wire::Wire;
use crate::args::{seconds, version};
use crate::decode::reader::{Assumed, Reader};
use crate::decode::show::Show;
use crate::failure::{Failure, fail};
use crate::hex;
use crate::printing::print_error;
use crate::review::From;

/// Sends packets that are typed or pasted, and explains each answer.
///
/// A line is a packet in hex (or any other form that mqtt decode reads), or a command of mqtt encode. It is sent unchanged,
/// valid or not. Lines of a file or pipe wait for the answers to the packets before them. Exits with 1 if the broker broke a
/// rule, did not answer or closed the connection before the end.
///
/// Examples:
///
///   mqtt talk test.example
///
///     connect -i pump
///
///     subscribe -t pumps/7/#
///
///     30 05 00 01 61 68 69
///
///   mqtt talk --serial /dev/ttyUSB0 --baud 9600 --ping
///
///   mqtt talk localhost --transcript ok.txt < packets.txt && mqtt talk localhost --replay ok.txt
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Talk {
    /// Host name or address, with :PORT if it is not 1883
    #[arg(required_unless_present = "serial")]
    address: Option<String>,
    /// Port of the broker [default: 1883]
    #[arg(short, long, value_name = "PORT", conflicts_with = "serial")]
    port: Option<u16>,
    /// Use this serial device instead of TCP
    #[arg(long, value_name = "DEVICE", conflicts_with = "address")]
    serial: Option<PathBuf>,
    /// Bits per second of the serial device
    #[arg(long, value_name = "NUMBER", default_value_t = 115_200)]
    baud: u32,
    /// The version of commands and answers, until a CONNECT sets another one
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = version)]
    version: Option<Version>,
    /// Send PINGREQ before the keep-alive of the sent CONNECT ends
    #[arg(long)]
    ping: bool,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    wait: Duration,
    /// Write the sent and received packets to this file
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// Send the packets of this transcript, and compare the answers with those in it
    #[arg(long, value_name = "FILE", conflicts_with = "transcript")]
    replay: Option<PathBuf>,
    /// Explain each byte
    #[arg(short, long)]
    explain: bool,
}

/// An event during the conversation.
enum Input {
    Line(String),
    /// There are no more lines.
    LinesEnd,
    Bytes(Vec<u8>),
    /// The other side closed the connection.
    Closed(Option<std::io::Error>),
}

/// A connection, and the packets on it.
struct Conversation {
    wire: Wire,
    inputs: Receiver<Input>,
    assumed: Assumed,
    sent: Reader,
    received: Reader,
    show: Show,
    transcript: Option<File>,
    ping: bool,
    last_sent: Instant,
    wait: Duration,
    lines: VecDeque<String>,
    lines_end: bool,
    /// Whether bytes arrived that are not MQTT.
    is_lost: bool,
    is_closed: bool,
}

impl Talk {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (sender, inputs) = mpsc::channel();
        let wire = match (&self.serial, &self.address) {
            (Some(device), _) => Wire::serial(device, self.baud, sender.clone())?,
            (None, address) => {
                let address = address.as_deref().unwrap_or_default();
                Wire::tcp(address, self.port, sender.clone())?
            }
        };
        let show = Show {
            json: false,
            explain: self.explain,
        };
        let transcript = self.transcript.as_ref().map(File::create).transpose();
        let mut conversation = Conversation {
            wire,
            inputs,
            assumed: Assumed::new(self.version),
            sent: Reader::of(From::Client, "sent".to_owned(), show),
            received: Reader::of(From::Broker, "received".to_owned(), show).keeping_packets(),
            show,
            transcript: transcript.map_err(|error| fail(format!("the transcript: {error}")))?,
            ping: self.ping,
            last_sent: Instant::now(),
            wait: self.wait,
            lines: VecDeque::new(),
            lines_end: false,
            is_lost: false,
            is_closed: false,
        };
        match &self.replay {
            Some(path) => transcript::replay(path, &mut conversation),
            None => {
                std::thread::spawn(move || read_lines(&sender));
                conversation.talk(std::io::stdin().is_terminal())
            }
        }
    }
}

fn read_lines(sender: &Sender<Input>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else {
            break;
        };
        if sender.send(Input::Line(line)).is_err() {
            return;
        }
    }
    let _ = sender.send(Input::LinesEnd);
}

impl Conversation {
    fn talk(&mut self, by_hand: bool) -> Result<(), Failure> {
        loop {
            while !self.is_closed && (by_hand || !self.is_waiting()) {
                let Some(line) = self.lines.pop_front() else {
                    break;
                };
                if let Err(failure) = self.line(&line) {
                    // A person can type again; a script ends here.
                    if !by_hand {
                        return Err(failure);
                    }
                    print_error(&format!("mqtt: {failure}"));
                }
            }
            if self.is_closed {
                return self
                    .result(!self.lines.is_empty() || self.assumed.review.has_missing_answer());
            }
            if self.lines_end && self.lines.is_empty() && !self.is_waiting() {
                return self.result(false);
            }
            self.input()?;
        }
    }

    /// Handles one event, or the end of a wait.
    fn input(&mut self) -> Result<(), Failure> {
        let deadlines = [
            self.is_waiting().then(|| self.last_sent + self.wait),
            self.next_ping(),
        ];
        let input = match deadlines.into_iter().flatten().min() {
            Some(deadline) => {
                let span = deadline.saturating_duration_since(Instant::now());
                self.inputs.recv_timeout(span)
            }
            None => self
                .inputs
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
        };
        match input {
            Ok(Input::Line(line)) => self.lines.push_back(line),
            Ok(Input::LinesEnd) => self.lines_end = true,
            Ok(Input::Bytes(bytes)) => self.receive(&bytes)?,
            Ok(Input::Closed(error)) => {
                let why = error.map_or_else(String::new, |error| format!(": {error}"));
                self.show
                    .note(&format!("the other side closed the connection{why}"));
                self.is_closed = true;
            }
            Err(RecvTimeoutError::Timeout) => {
                if self.next_ping().is_some_and(|at| at <= Instant::now()) {
                    self.send(&[0xC0, 0])?;
                } else {
                    let span = self.wait.as_secs_f32();
                    return Err(fail(format!("no answer came within {span} s")));
                }
            }
            Err(RecvTimeoutError::Disconnected) => self.is_closed = true,
        }
        Ok(())
    }

    fn is_waiting(&self) -> bool {
        !self.is_lost && self.assumed.review.has_missing_answer()
    }

    /// Returns the time at three quarters of the keep-alive after the last packet.
    fn next_ping(&self) -> Option<Instant> {
        let keep_alive = self.assumed.review.keep_alive.filter(|span| *span > 0)?;
        let span = Duration::from_secs(u64::from(keep_alive)) * 3 / 4;
        (self.ping && !self.is_closed).then(|| self.last_sent + span)
    }

    fn line(&mut self, line: &str) -> Result<(), Failure> {
        match line::parse(line, self.assumed.version)? {
            Line::Nothing => Ok(()),
            Line::Quit => {
                self.lines.clear();
                self.lines_end = true;
                Ok(())
            }
            Line::Packets(bytes) => self.send(&bytes),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.note_down('>', bytes)?;
        // Done before the bytes are sent, so that the answer is awaited when it arrives.
        if self.sent.feed(bytes, &mut self.assumed).is_err() {
            // The next packet is checked by a new reader.
            self.sent = Reader::of(From::Client, "sent".to_owned(), self.show);
        } else {
            self.sent.show_rest(&self.assumed);
        }
        self.last_sent = Instant::now();
        self.wire
            .write(bytes)
            .map_err(|error| fail(format!("cannot send: {error}")))
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_lost {
            self.show.note(&format!("received: {}", hex::spaced(bytes)));
            return Ok(());
        }
        self.feed_received(bytes);
        for packet in self.received.take_packets() {
            self.note_down('<', &packet)?;
        }
        Ok(())
    }

    fn feed_received(&mut self, bytes: &[u8]) {
        if let Err(failure) = self.received.feed(bytes, &mut self.assumed) {
            self.show.note(&failure.to_string());
            self.is_lost = true;
        }
    }

    fn note_down(&mut self, sign: char, bytes: &[u8]) -> Result<(), Failure> {
        let Some(file) = &mut self.transcript else {
            return Ok(());
        };
        writeln!(file, "{sign} {}", hex::spaced(bytes))
            .map_err(|error| fail(format!("the transcript: {error}")))
    }

    /// Returns the result of the conversation.
    fn result(&self, too_early: bool) -> Result<(), Failure> {
        if self.is_lost {
            return Err(fail("the broker sent a malformed packet"));
        }
        if self.assumed.review.is_broken {
            return Err(fail("the broker broke a rule; the note says which"));
        }
        if too_early {
            return Err(fail("the connection was closed before the end"));
        }
        Ok(())
    }
}
