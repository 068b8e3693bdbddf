//! Decodes one direction of a connection and prints its packets.

use mqtt_tokio::proto::{Decoded, MAX_PACKET, Packet, Version};

use super::advice::Advice;
use super::show::{Show, Shown, Unreadable};
use crate::anatomy;
use crate::failure::{Failure, fail};
use crate::review::{From, Review};

/// The version to decode by, and the state that both directions share.
#[derive(Debug)]
pub(crate) struct Assumed {
    pub(crate) version: Version,
    /// The reason for the version.
    pub(crate) why: &'static str,
    /// Whether the version must not change because the bytes are valid in another one.
    pub(crate) certain: bool,
    pub(crate) review: Review,
}

impl Assumed {
    /// The version before any byte.
    pub(crate) fn new(given: Option<Version>) -> Self {
        Self {
            version: given.unwrap_or(Version::V311),
            why: if given.is_some() {
                "-V says so"
            } else {
                "no CONNECT says which; -V chooses"
            },
            certain: given.is_some(),
            review: Review::default(),
        }
    }

    /// Chooses the version in which these bytes are valid.
    pub(crate) fn by(given: Option<Version>, whole: &[&[Option<u8>]]) -> Self {
        let mut assumed = Self::new(given);
        if given.is_some() {
            return assumed;
        }
        let fits = |version| {
            whole.iter().all(|bytes| {
                let known: Vec<u8> = bytes.iter().copied().map_while(|byte| byte).collect();
                known.len() == bytes.len() && all_decode(&known, version)
            })
        };
        let connect = whole
            .iter()
            .any(|bytes| bytes.first().is_some_and(|first| *first == Some(0x10)));
        if connect {
            assumed.why = "CONNECT says so";
        } else if fits(Version::V311) {
            assumed.why = if fits(Version::V5) {
                "no CONNECT says which, and the bytes fit 5 as well; -V chooses"
            } else {
                "no CONNECT says which; the bytes do not fit 5"
            };
        } else if fits(Version::V5) {
            assumed.version = Version::V5;
            assumed.why = "no CONNECT says which; the bytes do not fit 3.1.1";
        }
        assumed
    }
}

/// Returns whether the bytes are whole packets.
pub(crate) fn all_decode(mut bytes: &[u8], mut version: Version) -> bool {
    while !bytes.is_empty() {
        match Packet::decode(bytes, version, MAX_PACKET) {
            Ok(Decoded::Packet { packet, consumed }) => {
                if let Packet::Connect(connect) = packet {
                    version = connect.version;
                }
                bytes = bytes.get(consumed..).unwrap_or_default();
            }
            _ => return false,
        }
    }
    true
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Reader {
    name: Option<String>,
    from: Option<From>,
    show: Show,
    /// Bytes that are not decoded yet.
    buffer: Vec<u8>,
    /// How many bytes were decoded.
    at: usize,
    /// Packets since the last [`Self::take_packets`], if they are kept.
    packets: Option<Vec<Vec<u8>>>,
}

impl Reader {
    pub(crate) const fn new(name: Option<String>, show: Show) -> Self {
        Self {
            name,
            from: None,
            show,
            buffer: Vec::new(),
            at: 0,
            packets: None,
        }
    }

    /// Makes a reader for one side of a connection.
    pub(crate) fn of(from: From, name: String, show: Show) -> Self {
        Self {
            from: Some(from),
            ..Self::new(Some(name), show)
        }
    }

    /// Keeps the packets for [`Self::take_packets`].
    pub(crate) fn keeping_packets(self) -> Self {
        Self {
            packets: Some(Vec::new()),
            ..self
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Prints all packets that are whole now.
    pub(crate) fn feed(&mut self, bytes: &[u8], assumed: &mut Assumed) -> Result<(), Failure> {
        self.buffer.extend_from_slice(bytes);
        let mut done = 0;
        let result = loop {
            let input = self.buffer.get(done..).unwrap_or_default();
            match self.packet(self.at + done, input, assumed) {
                Ok(0) => break Ok(()),
                Ok(consumed) => {
                    if let Some(packets) = &mut self.packets {
                        packets.push(input.get(..consumed).unwrap_or_default().to_vec());
                    }
                    done += consumed;
                }
                Err(failure) => break Err(failure),
            }
        };
        self.buffer.drain(..done);
        self.at += done;
        result
    }

    /// Prints the packet at the front and returns its length; 0 if it is not whole.
    fn packet(&self, at: usize, input: &[u8], assumed: &mut Assumed) -> Result<usize, Failure> {
        if input.is_empty() {
            return Ok(0);
        }
        let mut decoded = Packet::decode(input, assumed.version, MAX_PACKET);
        if decoded.is_err() && !assumed.certain && !assumed.version.is_v5() {
            let other = Packet::decode(input, Version::V5, MAX_PACKET);
            if let Ok(Decoded::Packet { .. }) = other {
                decoded = other;
                assumed.version = Version::V5;
                assumed.why = "this packet does not fit 3.1.1";
                self.show.assumed(assumed);
            }
        }
        match decoded {
            Ok(Decoded::Packet { packet, consumed }) => {
                if let Packet::Connect(connect) = packet {
                    assumed.version = connect.version;
                    assumed.why = "CONNECT says so";
                    assumed.certain = true;
                }
                let bytes = input.get(..consumed).unwrap_or_default();
                let rows = anatomy::rows(bytes, &packet, assumed.version);
                let notes = assumed.review.packet(&packet, assumed.version, self.from);
                self.show.packet(&Shown {
                    name: self.name(),
                    at,
                    assumed,
                    packet: &packet,
                    rows: &rows,
                    notes: &notes,
                })?;
                Ok(consumed)
            }
            Ok(Decoded::Needs(_)) => Ok(0),
            Err(error) => {
                let advice = Advice::on(input, assumed.version);
                let unreadable = Unreadable {
                    name: self.name(),
                    at,
                    bytes: input,
                    advice: advice.as_ref(),
                };
                self.show.malformed(&unreadable, &error);
                Err(fail(format!("malformed packet at byte {at}: {error}")))
            }
        }
    }

    /// Returns the packets since the last call, if they are kept.
    pub(crate) fn take_packets(&mut self) -> Vec<Vec<u8>> {
        self.packets
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Prints the incomplete packet that is left, which more bytes may complete.
    pub(crate) fn show_rest(&self, assumed: &Assumed) {
        if let Ok(Decoded::Needs(needed)) =
            Packet::decode(&self.buffer, assumed.version, MAX_PACKET)
            && !self.buffer.is_empty()
        {
            self.show_cut_short(needed, assumed);
        }
    }

    fn show_cut_short(&self, needed: usize, assumed: &Assumed) {
        let advice = Advice::on(&self.buffer, assumed.version);
        let unreadable = Unreadable {
            name: self.name(),
            at: self.at,
            bytes: &self.buffer,
            advice: advice.as_ref(),
        };
        self.show.cut_short(&unreadable, needed);
    }

    /// Reports an incomplete packet that is left at the end.
    pub(crate) fn finish(self, assumed: &Assumed) -> Result<(), Failure> {
        let Some(first) = self.buffer.first() else {
            return Ok(());
        };
        let needed = match Packet::decode(&self.buffer, assumed.version, MAX_PACKET) {
            Ok(Decoded::Needs(needed)) => needed,
            _ => self.buffer.len(),
        };
        let name = anatomy::type_name(*first);
        self.show_cut_short(needed, assumed);
        Err(fail(format!(
            "the {name} at byte {} is cut short: it has {} bytes and needs {needed} at least",
            self.at,
            self.buffer.len()
        )))
    }
}
