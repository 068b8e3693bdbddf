//! Finds likely mistakes in packets written by hand. Each mistake has a correction, and only corrections that decode are
//! reported.

use mqtt_tokio::proto::num::to_u16;
use mqtt_tokio::proto::{FixedHeader, MAX_PACKET, PacketType, Version};

use super::reader::all_decode;
use crate::packet::defect::varint;

/// A likely cause and the corrected packet.
#[derive(Debug)]
pub(crate) struct Advice {
    pub(crate) cause: String,
    pub(crate) corrected: Vec<u8>,
}

/// Larger inputs were not written by hand.
const LARGEST: usize = 16_384;

/// First byte, remaining length and body, as far as they exist.
struct Parts<'a> {
    first: u8,
    kind: PacketType,
    body: &'a [u8],
    input: &'a [u8],
    version: Version,
}

type Guess = (String, Vec<u8>);

impl Advice {
    /// Returns the most likely mistake in the packet at the front of `input`.
    pub(crate) fn on(input: &[u8], version: Version) -> Option<Self> {
        if input.len() > LARGEST {
            return None;
        }
        let found = foreign(input, version).or_else(|| {
            let (flags, fixed) = flags(input)?;
            let parts = Parts::of(&fixed, version)?;
            if flags.is_some() && all_decode(&fixed, version) {
                return Some((flags?, fixed.clone()));
            }
            let (cause, corrected) = parts.guess()?;
            let cause = match flags {
                Some(flags) => format!("{flags}; {cause}"),
                None => cause,
            };
            Some((cause, corrected))
        });
        let (cause, corrected) = found?;
        Some(Self { cause, corrected })
    }
}

/// Finds bytes that are not part of the packet.
fn foreign(input: &[u8], version: Version) -> Option<Guess> {
    let line_end = input
        .iter()
        .take_while(|byte| b"\r\n".contains(byte))
        .count();
    let rest = input.get(line_end..)?;
    if line_end > 0 && all_decode(rest, version) {
        let cause = "a line end (CR, LF) that a terminal or a program added; packets have none";
        return Some((cause.to_owned(), rest.to_vec()));
    }
    let text = std::str::from_utf8(input).ok()?;
    let bytes = crate::hex::parse(text).ok()?;
    (input.len() >= 4 && all_decode(&bytes, version)).then(|| {
        let cause = "these bytes are the characters of hex digits: send the bytes themselves, or switch the sender to hex";
        (cause.to_owned(), bytes)
    })
}

/// Returns the packet with the flags of its type, and the mistake if they differ.
fn flags(input: &[u8]) -> Option<(Option<String>, Vec<u8>)> {
    let first = *input.first()?;
    let kind = PacketType::new(first >> 4)?;
    let mut fixed = input.to_vec();
    let wanted = match kind {
        PacketType::Publish => return Some((None, fixed)),
        PacketType::Subscribe | PacketType::Unsubscribe | PacketType::PubRel => 2,
        _ => 0,
    };
    let right = first & 0xF0 | wanted;
    if right == first {
        return Some((None, fixed));
    }
    *fixed.first_mut()? = right;
    let cause =
        format!("{kind} begins with {right:02x}: its flags are fixed, and {first:02x} has others");
    Some((Some(cause), fixed))
}

/// Returns a string with its length before it.
fn string(text: &[u8]) -> Vec<u8> {
    let len = to_u16(text.len());
    [&len.to_be_bytes()[..], text].concat()
}

fn is_text(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| (0x20..0x7F).contains(byte))
}

impl<'a> Parts<'a> {
    fn of(input: &'a [u8], version: Version) -> Option<Self> {
        let first = *input.first()?;
        let field = input
            .iter()
            .skip(1)
            .take_while(|byte| **byte & 0x80 != 0)
            .count()
            + 1;
        Some(Self {
            first,
            kind: PacketType::new(first >> 4)?,
            body: input.get(1 + field..)?,
            input,
            version,
        })
    }

    fn guess(&self) -> Option<Guess> {
        // A length of 0 before more bytes is most likely a missing length.
        let no_length = self.input.get(1) == Some(&0) && !self.body.is_empty();
        let lengths = self.length().into_iter();
        let guesses: Vec<_> = if no_length {
            lengths
                .chain(self.other_lengths())
                .chain(self.fields())
                .collect()
        } else {
            lengths
                .chain(self.fields())
                .chain(self.other_lengths())
                .collect()
        };
        guesses
            .into_iter()
            .find(|(_, bytes)| all_decode(bytes, self.version))
    }

    fn packet(&self, body: &[u8]) -> Vec<u8> {
        [&[self.first][..], &varint(body.len()), body].concat()
    }

    /// Corrects the remaining length, if everything after it is valid.
    fn length(&self) -> Option<Guess> {
        let header = FixedHeader::decode(self.input, self.version, MAX_PACKET).ok()??;
        let said = usize::try_from(header.remaining_length).ok()?;
        let real = self.body.len();
        let why = if said == real {
            return None;
        } else if said == 2 * real {
            format!("the remaining length counts bytes, not hex digits: {real}, not {said}")
        } else if said == 2 * self.input.len() {
            format!(
                "the remaining length counts bytes behind it, not the hex digits of the packet: {real}, not {said}"
            )
        } else if said == self.input.len() {
            format!("the remaining length does not count the fixed header: {real}, not {said}")
        } else {
            format!("the remaining length is {said}, but {real} bytes follow")
        };
        Some((why, self.packet(self.body)))
    }

    /// Corrects a remaining length with a wrong number of bytes.
    fn other_lengths(&self) -> Vec<Guess> {
        let mut guesses = Vec::new();
        for field in [1, 2, 0, 3, 4] {
            let Some(body) = self.input.get(1 + field..) else {
                continue;
            };
            let number = varint(body.len());
            let digits = crate::hex::spaced(&number);
            let real = body.len();
            let why = if field == 0 {
                format!("the remaining length is missing: {digits}")
            } else if number.len() > field {
                format!(
                    "a remaining length of {real} takes {} bytes: {digits}",
                    number.len()
                )
            } else {
                format!(
                    "the remaining length has seven bits a byte, the low ones first: {real} is {digits}"
                )
            };
            guesses.push((why, self.packet(body)));
        }
        guesses
    }

    fn fields(&self) -> Vec<Guess> {
        match self.kind {
            PacketType::Subscribe => self.subscribe(true),
            PacketType::Unsubscribe => self.subscribe(false),
            PacketType::Publish => self.publish(),
            PacketType::Connect => self.connect(),
            _ => Vec::new(),
        }
    }

    /// Packet identifier, topic filter and, in SUBSCRIBE, QoS.
    fn subscribe(&self, with_qos: bool) -> Vec<Guess> {
        let mut guesses = Vec::new();
        let body = self.body;
        let mut add = |why: &str, body: Vec<u8>| guesses.push((why.to_owned(), self.packet(&body)));
        if with_qos {
            add(
                "a byte with the QoS follows each topic filter of SUBSCRIBE",
                [body, &[0]].concat(),
            );
        }
        add(
            "the packet identifier is missing: two bytes before the topic filter",
            [&[0, 1], body].concat(),
        );
        let Some((id, rest)) = body.split_at_checked(2) else {
            return guesses;
        };
        let prefix = "a string begins with its length in two bytes";
        if with_qos
            && let Some((qos @ 0..=2, text)) = rest.split_last()
            && is_text(text)
        {
            add(prefix, [id, &string(text), &[*qos]].concat());
        }
        if is_text(rest) {
            let qos: &[u8] = if with_qos { &[0] } else { &[] };
            let why = if with_qos {
                "a string begins with its length in two bytes, and a byte with the QoS follows it"
            } else {
                prefix
            };
            add(why, [id, &string(rest), qos].concat());
        }
        add(
            "the length of a string takes two bytes",
            [id, &[0], rest].concat(),
        );
        if let Some((length, text)) = rest.split_first_chunk::<2>() {
            let said = usize::from(u16::from_be_bytes(*length));
            let (text, qos) = text.split_at(text.len().saturating_sub(usize::from(with_qos)));
            let why = wrong_length("topic filter", said, text.len());
            if is_text(text) {
                add(&why, [id, &string(text), qos].concat());
            }
        }
        guesses
    }

    /// Topic name, then the payload.
    fn publish(&self) -> Vec<Guess> {
        let mut guesses = Vec::new();
        let body = self.body;
        let mut add = |why: &str, body: Vec<u8>| guesses.push((why.to_owned(), self.packet(&body)));
        // A topic of printable characters; JSON begins the payload.
        let name = |text: &[u8]| {
            text.iter()
                .take_while(|byte| (0x21..0x7F).contains(*byte) && !b"{[\"".contains(byte))
                .count()
        };
        if let Some((length, text)) = body.split_first_chunk::<2>() {
            let said = usize::from(u16::from_be_bytes(*length));
            let half = said / 2;
            if said % 2 == 0 && said > text.len() && text.get(..half).is_some_and(is_text) {
                let why = wrong_length("topic", said, half);
                let (topic, payload) = text.split_at(half);
                add(&why, [&string(topic)[..], payload].concat());
            }
            let swapped = usize::from(u16::from_le_bytes(*length));
            if swapped < said && text.get(..swapped).is_some_and(is_text) {
                let (topic, payload) = text.split_at(swapped);
                add(
                    "the high byte of a string's length comes first",
                    [&string(topic)[..], payload].concat(),
                );
            }
            let count = name(text);
            if length[0] == 0 && count > 0 {
                let (topic, payload) = text.split_at(count);
                add(
                    &wrong_length("topic", said, count),
                    [&string(topic)[..], payload].concat(),
                );
            }
        }
        add(
            "the length of a string takes two bytes",
            [&[0], body].concat(),
        );
        let count = name(body);
        if count > 0 {
            let (topic, payload) = body.split_at(count);
            add(
                "the topic begins with its length in two bytes",
                [&string(topic)[..], payload].concat(),
            );
        }
        guesses
    }

    /// Protocol name, level, flags, keep-alive and the fields that the flags say.
    fn connect(&self) -> Vec<Guess> {
        let mut guesses = Vec::new();
        let body = self.body;
        let mut add = |why: &str, body: Vec<u8>| guesses.push((why.to_owned(), self.packet(&body)));
        for name in [&b"MQTT"[..], b"MQIsdp"] {
            if let Some(rest) = body.strip_prefix(name) {
                add(
                    "the protocol name begins with its length in two bytes",
                    [&string(name)[..], rest].concat(),
                );
            }
        }
        add(
            "the length of a string takes two bytes",
            [&[0], body].concat(),
        );
        let Some(rest) = body.strip_prefix(b"\0\x04MQTT") else {
            return guesses;
        };
        let Some(([level, flags, high, low], fields)) = rest.split_first_chunk::<4>() else {
            return guesses;
        };
        let head =
            |level: u8, flags: u8| [&b"\0\x04MQTT"[..], &[level, flags, *high, *low]].concat();
        if !matches!(level, 4 | 5) {
            add(
                "the protocol level of MQTT 3.1.1 is 4, that of MQTT 5 is 5",
                [&head(4, *flags)[..], fields].concat(),
            );
        }
        for (bits, what) in [
            (0x00, "neither user name nor password"),
            (0x80, "a user name"),
            (0xC0, "user name and password"),
        ] {
            let right = flags & 0b0011_1110 | bits;
            if right != *flags {
                let why = format!(
                    "the fields have {what}: the connect flags are {right:02x}, not {flags:02x}"
                );
                add(&why, [&head(*level, right)[..], fields].concat());
            }
        }
        if is_text(fields) {
            add(
                "the client identifier begins with its length in two bytes",
                [&head(*level, flags & 0x3E)[..], &string(fields)].concat(),
            );
        }
        guesses
    }
}

fn wrong_length(what: &str, said: usize, real: usize) -> String {
    if said == 2 * real {
        format!("the length of the {what} counts bytes, not hex digits: {real}, not {said}")
    } else {
        format!("the length of the {what} is {said}, but it has {real} bytes")
    }
}
