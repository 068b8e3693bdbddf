//! Decodes the TCP connections of pcap and pcapng files.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mqtt_tokio::proto::Version;
use mqtt_tokio::proto::num::{to_u32, to_usize};
use pcap_parser::data::{PacketData, get_packetdata};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::reader::{Assumed, Reader};
use super::show::Show;
use crate::failure::{Failure, fail};
use crate::review::From;

/// The port of MQTT without TLS. Its connections are decoded whatever their first bytes are.
const PORT: u16 = 1883;
/// How many bytes of one direction wait for bytes before them. The rest of the direction is not shown beyond this limit.
const MOST_EARLY: usize = 16 << 20;

/// Recognises a file by its first bytes.
pub(super) fn is_capture(head: &[u8]) -> bool {
    matches!(
        head.first_chunk(),
        Some(
            [0x0A, 0x0D, 0x0D, 0x0A]
                | [0xA1, 0xB2, 0xC3 | 0x3C, 0xD4 | 0x4D]
                | [0xD4 | 0x4D, 0xC3 | 0x3C, 0xB2, 0xA1]
        )
    )
}

/// A TCP segment.
struct Segment<'a> {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    syn: bool,
    ack: bool,
    payload: &'a [u8],
}

/// One direction of a connection.
struct Side {
    address: SocketAddr,
    /// The sequence number of the next byte.
    next: Option<u32>,
    /// Segments that arrived out of order.
    early: BTreeMap<u32, Vec<u8>>,
    early_bytes: usize,
    /// How many bytes are missing before those that were given up.
    missing: Option<u32>,
    reader: Reader,
    /// Whether bytes are missing, so that the rest cannot be decoded.
    is_over: bool,
}

struct Connection {
    sides: [Side; 2],
    assumed: Assumed,
    /// Whether it is MQTT; unknown before the first byte.
    is_mqtt: Option<bool>,
}

struct Capture {
    connections: Vec<Connection>,
    known: HashMap<(SocketAddr, SocketAddr), usize>,
    version: Option<Version>,
    show: Show,
    shown: usize,
    other: usize,
    failure: Option<Failure>,
}

/// Returns the bytes after the headers of a whole frame.
pub(super) fn payload(frame: &[u8]) -> Option<&[u8]> {
    let ethernet = SlicedPacket::from_ethernet(frame).ok();
    let tcp = ethernet.filter(|packet| packet.net.is_some());
    let packet = tcp.or_else(|| SlicedPacket::from_ip(frame).ok())?;
    match packet.transport? {
        TransportSlice::Tcp(tcp) => Some(tcp.payload()),
        _ => None,
    }
}

/// Shows the packets of all MQTT connections in the order of the file.
pub(super) fn decode(
    input: Box<dyn Read + Send>,
    version: Option<Version>,
    show: Show,
) -> Result<(), Failure> {
    let wrong = |error: PcapError<&[u8]>| fail(format!("the capture: {error:?}"));
    let mut reader = create_reader(1 << 20, input).map_err(wrong)?;
    let mut links: Vec<Linktype> = Vec::new();
    let mut capture = Capture {
        connections: Vec::new(),
        known: HashMap::new(),
        version,
        show,
        shown: 0,
        other: 0,
        failure: None,
    };
    loop {
        let offset = match reader.next() {
            Ok((offset, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links.push(header.network),
                    PcapBlockOwned::Legacy(frame) => capture.frame(links.first(), frame.data),
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                        links.push(interface.linktype);
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(frame)) => {
                        let link = usize::try_from(frame.if_id).ok();
                        capture.frame(link.and_then(|id| links.get(id)), frame.packet_data());
                    }
                    PcapBlockOwned::NG(Block::SimplePacket(frame)) => {
                        capture.frame(links.first(), frame.packet_data());
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                offset
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(wrong)?;
                continue;
            }
            Err(PcapError::UnexpectedEof) => {
                show.note("the capture ends in the middle of a frame");
                break;
            }
            Err(error) => return Err(wrong(error)),
        };
        reader.consume(offset);
    }
    capture.finish()
}

impl Capture {
    fn frame(&mut self, link: Option<&Linktype>, data: &[u8]) {
        let Some(link) = link else {
            return;
        };
        let packet = match get_packetdata(data, *link, data.len()) {
            Some(PacketData::L2(frame)) => SlicedPacket::from_ethernet(frame),
            Some(PacketData::L3(_, packet)) => SlicedPacket::from_ip(packet),
            _ => return,
        };
        let Some((from, to, tcp)) = packet.ok().and_then(addresses) else {
            return;
        };
        let TransportSlice::Tcp(tcp) = tcp else {
            return;
        };
        self.segment(&Segment {
            from: SocketAddr::new(from, tcp.source_port()),
            to: SocketAddr::new(to, tcp.destination_port()),
            sequence: tcp.sequence_number(),
            syn: tcp.syn(),
            ack: tcp.ack(),
            payload: tcp.payload(),
        });
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        // A SYN begins a new connection, even if there was one with the same ports.
        let is_new = segment.syn && !segment.ack;
        let key = (segment.from, segment.to);
        let known = self
            .known
            .get(&key)
            .or_else(|| self.known.get(&(key.1, key.0)));
        let at = match known {
            Some(at) if !is_new => *at,
            _ => self.begin(segment, is_new),
        };
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let side = usize::from(connection.sides[0].address != segment.from);
        let bytes = connection.sides[side].take(segment);
        if bytes.is_empty() {
            return;
        }
        if connection.is_mqtt.is_none() {
            connection.is_mqtt = Some(connection.looks_like_mqtt(&bytes));
            if connection.is_mqtt == Some(true) {
                self.shown += 1;
                let [client, broker] = &mut connection.sides;
                let number = self.shown;
                self.show.note(&format!(
                    "connection {number}: client {}, broker {}",
                    client.address, broker.address
                ));
                client.reader = Reader::of(From::Client, format!("client {number}"), self.show);
                broker.reader = Reader::of(From::Broker, format!("broker {number}"), self.show);
                if bytes.first() != Some(&0x10) {
                    self.show.assumed(&connection.assumed);
                }
            } else {
                self.other += 1;
            }
        }
        if connection.is_mqtt == Some(true)
            && let Err(failure) = connection.sides[side]
                .reader
                .feed(&bytes, &mut connection.assumed)
        {
            connection.sides[side].end();
            self.failure.get_or_insert(failure);
        }
    }

    fn begin(&mut self, segment: &Segment<'_>, is_new: bool) -> usize {
        // The client sent the first SYN; without one, it is the side with the other port.
        let from_client = is_new || (!segment.syn && segment.to.port() <= segment.from.port());
        let (client, broker) = if from_client {
            (segment.from, segment.to)
        } else {
            (segment.to, segment.from)
        };
        let side = |address| Side {
            address,
            next: None,
            early: BTreeMap::new(),
            early_bytes: 0,
            missing: None,
            reader: Reader::new(None, self.show),
            is_over: false,
        };
        let at = self.connections.len();
        self.connections.push(Connection {
            sides: [side(client), side(broker)],
            assumed: Assumed::new(self.version),
            is_mqtt: None,
        });
        self.known.remove(&(broker, client));
        self.known.insert((client, broker), at);
        at
    }

    fn finish(self) -> Result<(), Failure> {
        let mut failure = self.failure;
        for connection in self.connections {
            for side in connection.sides {
                if connection.is_mqtt != Some(true) {
                    continue;
                }
                if let Some(missing) = side.missing.or_else(|| side.gap()) {
                    self.show.note(&format!(
                        "{} sent {missing} bytes that are not in the capture; what follows them is not shown",
                        side.address
                    ));
                }
                if side.is_over {
                    continue;
                }
                if let Err(error) = side.reader.finish(&connection.assumed) {
                    failure.get_or_insert(error);
                }
            }
        }
        if self.other > 0 {
            self.show.note(&format!(
                "{} other TCP connections were skipped",
                self.other
            ));
        }
        if self.shown == 0 && failure.is_none() {
            return Err(fail("there is no MQTT connection in the capture"));
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Connection {
    fn looks_like_mqtt(&self, bytes: &[u8]) -> bool {
        let begins = bytes.get(..12).unwrap_or(bytes);
        let connect = bytes.first() == Some(&0x10)
            && (begins
                .windows(4)
                .any(|name| name == b"MQTT" || name == b"MQIs"));
        connect || self.sides.iter().any(|side| side.address.port() == PORT)
    }
}

impl Side {
    /// Returns the bytes that continue the stream, including segments that arrived earlier.
    fn take(&mut self, segment: &Segment<'_>) -> Vec<u8> {
        if segment.syn {
            self.next = Some(segment.sequence.wrapping_add(1));
        }
        if segment.payload.is_empty() || self.is_over {
            return Vec::new();
        }
        self.next.get_or_insert(segment.sequence);
        self.keep(segment);
        let mut bytes = Vec::new();
        while let Some((next, sequence)) = self.next.zip(self.continuing()) {
            let kept = self.early.remove(&sequence).unwrap_or_default();
            self.early_bytes -= kept.len();
            let known = to_usize(next.wrapping_sub(sequence));
            let new = kept.get(known..).unwrap_or_default();
            bytes.extend_from_slice(new);
            let count = to_u32(new.len());
            self.next = Some(next.wrapping_add(count));
        }
        if self.early_bytes > MOST_EARLY {
            self.missing = self.gap();
            self.end();
        }
        bytes
    }

    /// Keeps the bytes of a segment; the longer ones, if there is another one with the same number.
    fn keep(&mut self, segment: &Segment<'_>) {
        let kept = self.early.entry(segment.sequence).or_default();
        if kept.len() < segment.payload.len() {
            self.early_bytes += segment.payload.len() - kept.len();
            *kept = segment.payload.to_vec();
        }
    }

    /// Returns the number of a segment that begins at the next byte or before it. A number that wrapped is far away.
    fn continuing(&self) -> Option<u32> {
        let next = self.next?;
        let before = self.early.range(..=next).next_back();
        let (sequence, _) = before.or_else(|| self.early.last_key_value())?;
        (next.wrapping_sub(*sequence) < 1 << 31).then_some(*sequence)
    }

    /// Returns how many bytes are missing before the first segment that waits.
    fn gap(&self) -> Option<u32> {
        let next = self.next?;
        let missing = self.early.keys().map(|first| first.wrapping_sub(next));
        missing.min()
    }

    /// Drops what waits; the rest of this direction is not decoded.
    fn end(&mut self) {
        self.is_over = true;
        self.early.clear();
        self.early_bytes = 0;
    }
}

fn addresses(packet: SlicedPacket<'_>) -> Option<(IpAddr, IpAddr, TransportSlice<'_>)> {
    let (from, to) = match packet.net? {
        NetSlice::Ipv4(ip) => (
            IpAddr::V4(ip.header().source_addr()),
            IpAddr::V4(ip.header().destination_addr()),
        ),
        NetSlice::Ipv6(ip) => (
            IpAddr::V6(ip.header().source_addr()),
            IpAddr::V6(ip.header().destination_addr()),
        ),
        NetSlice::Arp(_) => return None,
    };
    Some((from, to, packet.transport?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    fn side(next: u32) -> Side {
        let show = Show {
            json: false,
            explain: false,
        };
        Side {
            address: ADDRESS,
            next: Some(next),
            early: BTreeMap::new(),
            early_bytes: 0,
            missing: None,
            reader: Reader::new(None, show),
            is_over: false,
        }
    }

    fn segment(sequence: u32, payload: &[u8]) -> Segment<'_> {
        Segment {
            from: ADDRESS,
            to: ADDRESS,
            sequence,
            syn: false,
            ack: true,
            payload,
        }
    }

    #[test]
    fn segments_are_joined_where_the_sequence_number_wraps() {
        let mut side = side(u32::MAX - 1);
        assert_eq!(side.take(&segment(1, b"de")), b"");
        // It begins before the next byte, as one that is sent again does.
        assert_eq!(side.take(&segment(u32::MAX - 2, b"_abc")), b"abcde");
        assert_eq!((side.next, side.early_bytes), (Some(3), 0));
    }

    #[test]
    fn what_follows_a_gap_is_kept_up_to_a_limit() {
        let mut side = side(0);
        let payload = vec![0; 1 << 20];
        for number in 0_u32..17 {
            assert!(!side.is_over, "{number}");
            assert_eq!(side.take(&segment(5 + (number << 20), &payload)), b"");
        }
        assert_eq!((side.is_over, side.missing), (true, Some(5)));
        assert!(side.early.is_empty());
    }
}
