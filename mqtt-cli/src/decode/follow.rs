//! Parses the YAML of Wireshark's "Follow TCP Stream": base64 below the number of the packet and of the peer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::text::Chunk;

/// Returns the bytes of both peers in the order of the packets, or `None` if this is no such YAML.
pub(super) fn parse(text: &str) -> Option<Vec<Chunk>> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut peer = None;
    let mut in_data = false;
    for line in text.lines().map(str::trim) {
        if let Some((key, value)) = line.split_once(':') {
            // Older versions name the data `peer0_0` and have no key `peer`.
            peer = match (key, value.trim()) {
                ("peer", number) => Some(number == "1"),
                _ if key.starts_with("peer0_") => Some(false),
                _ if key.starts_with("peer1_") => Some(true),
                _ => peer,
            };
            in_data = value.trim_start().starts_with("!!binary");
            if in_data {
                let name = if peer? { "broker" } else { "client" };
                chunks.push(Chunk {
                    name: Some(name.to_owned()),
                    ..Chunk::new("a followed stream in YAML", Vec::new())
                });
            }
        } else if in_data && !line.starts_with('#') {
            // Each line is encoded alone.
            let bytes = STANDARD.decode(line).ok()?;
            let chunk = chunks.last_mut()?;
            chunk.bytes.extend(bytes.into_iter().map(Some));
        }
    }
    (!chunks.is_empty()).then_some(chunks)
}

#[cfg(test)]
mod tests {
    use crate::decode::text;

    const PACKET: &[u8] = b"0\x1f\0\x06pump/7{\"v\":[1,2],\"t\":\"\xc3\xa9|\\\\\"}";

    /// Each entry of the menu "Copy" of the bytes of a packet. "...as MIME Data" is the bytes themselves.
    #[test]
    fn each_form_that_wireshark_copies_is_read() {
        for (form, text) in [
            (
                "Copy Bytes as Hex + ASCII Dump",
                "\
0000   30 1f 00 06 70 75 6d 70 2f 37 7b 22 76 22 3a 5b   0...pump/7{\"v\":[
0010   31 2c 32 5d 2c 22 74 22 3a 22 c3 a9 7c 5c 5c 22   1,2],\"t\":\"..|\\\\\"
0020   7d                                                }
",
            ),
            (
                "...as Hex Dump",
                "\
0000   30 1f 00 06 70 75 6d 70 2f 37 7b 22 76 22 3a 5b
0010   31 2c 32 5d 2c 22 74 22 3a 22 c3 a9 7c 5c 5c 22
0020   7d
",
            ),
            (
                "...as a Hex Stream",
                "301f000670756d702f377b2276223a5b312c325d2c2274223a22c3a97c5c5c227d",
            ),
            (
                "...as a Base64 String",
                "MB8ABnB1bXAvN3sidiI6WzEsMl0sInQiOiLDqXxcXCJ9",
            ),
            (
                "...as C String",
                r#""0\037\000\006pump/7{\"v\":[1,2],\"t\":\"\303\251|\\\\\"}""#,
            ),
            (
                "the same without its quotes, which a shell takes away",
                r#"0\037\000\006pump/7{"v":[1,2],"t":"\303\251|\\\\"}"#,
            ),
            (
                "...as Escaped String, in version 3",
                r#""\x30\x1f\x00\x06\x70\x75\x6d\x70\x2f\x37\x7b\x22\x76\x22\x3a\x5b" \
"\x31\x2c\x32\x5d\x2c\x22\x74\x22\x3a\x22\xc3\xa9\x7c\x5c\x5c\x22" \
"\x7d""#,
            ),
            (
                "...as Go literal",
                "[]byte{0x30, 0x1f, 0x0, 0x6, 0x70, 0x75, 0x6d, 0x70, 0x2f, 0x37, 0x7b, 0x22, 0x76, 0x22, 0x3a, 0x5b, 0x31, 0x2c, \
                 0x32, 0x5d, 0x2c, 0x22, 0x74, 0x22, 0x3a, 0x22, 0xc3, 0xa9, 0x7c, 0x5c, 0x5c, 0x22, 0x7d}",
            ),
            (
                "...as C Array",
                "unsigned char bytes[] = {0x30, 0x1f, 0x0, 0x6, 0x70, 0x75, 0x6d, 0x70, 0x2f, 0x37, 0x7b, 0x22, 0x76, 0x22, 0x3a, \
                 0x5b, 0x31, 0x2c, 0x32, 0x5d, 0x2c, 0x22, 0x74, 0x22, 0x3a, 0x22, 0xc3, 0xa9, 0x7c, 0x5c, 0x5c, 0x22, 0x7d};",
            ),
        ] {
            let chunks = text::parse(text, None).unwrap();
            let bytes: Vec<u8> = chunks.into_iter().flat_map(|c| c.bytes).flatten().collect();
            assert_eq!(bytes, PACKET, "{form}");
        }
    }

    /// "...as UTF-8 Text" and "...as ASCII Text" leave out what is no character.
    #[test]
    fn text_without_its_other_bytes_is_refused_with_the_reason() {
        for text in ["0pump/7{\"t\":\"\u{e9}\"}", "MQTT<pump-7"] {
            let failure = text::parse(text, None).unwrap_err().to_string();
            assert!(failure.ends_with("copy it as hex"), "{text}: {failure}");
        }
    }

    /// Checks a conversation of CONNECT, CONNACK, PINGREQ and PINGRESP.
    fn followed(text: &str) {
        let chunks = text::parse(text, None).unwrap();
        let seen: Vec<(&str, Vec<u8>)> = chunks
            .iter()
            .map(|chunk| {
                let bytes = chunk.bytes.iter().copied().flatten().collect();
                (chunk.name.as_deref().unwrap(), bytes)
            })
            .collect();
        let connect = b"\x10\x0f\0\x04MQTT\x04\x02\0\x3c\0\x03abc".to_vec();
        let expected = [
            ("client", connect),
            ("broker", vec![0x20, 2, 0, 0]),
            ("client", vec![0xC0, 0]),
            ("broker", vec![0xD0, 0]),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_followed_stream_is_read_as_hex_dump() {
        followed(
            "\
00000000  10 0f 00 04 4d 51 54 54  04 02 00 3c 00 03 61 62   ....MQTT ...<..ab
00000010  63                                                 c
    00000000  20 02 00 00                                         ...
00000011  c0 00                                              ..
    00000004  d0 00                                              ..
",
        );
    }

    #[test]
    fn a_followed_stream_is_read_as_c_arrays() {
        followed(
            "\
char peer0_0[] = { /* Packet 4 */
0x10, 0x0f, 0x00, 0x04, 0x4d, 0x51, 0x54, 0x54, 
0x04, 0x02, 0x00, 0x3c, 0x00, 0x03, 0x61, 0x62, 
0x63 };
char peer1_0[] = { /* Packet 6 */
0x20, 0x02, 0x00, 0x00 };
char peer0_1[] = { /* Packet 8 */
0xc0, 0x00 };
char peer1_1[] = { /* Packet 9 */
0xd0, 0x00 };
",
        );
    }

    #[test]
    fn a_followed_stream_is_read_as_yaml() {
        followed(
            "\
peers:
  - peer: 0
    host: 127.0.0.1
    port: 40318
  - peer: 1
    host: 127.0.0.1
    port: 1883
packets:
  - packet: 4
    peer: 0
    index: 0
    timestamp: 1700000000.000000000
    data: !!binary |
      EA8ABE1RVFQEAgA8AANhYmM=
  - packet: 6
    peer: 1
    index: 0
    timestamp: 1700000000.100000000
    data: !!binary |
      IAIAAA==
  - packet: 8
    peer: 0
    index: 1
    timestamp: 1700000000.200000000
    data: !!binary |
      wAA=
  - packet: 9
    peer: 1
    index: 1
    timestamp: 1700000000.300000000
    data: !!binary |
      0AA=
",
        );
    }

    #[test]
    fn a_followed_stream_is_read_as_yaml_of_older_versions() {
        followed(
            "\
# Packet 4
peer0_0: !!binary |
  EA8ABE1RVFQEAgA8
  AANhYmM=
# Packet 6
peer1_0: !!binary |
  IAIAAA==
# Packet 8
peer0_1: !!binary |
  wAA=
# Packet 9
peer1_1: !!binary |
  0AA=
",
        );
    }

    /// "Raw" has the bytes of both sides in the order of the packets.
    #[test]
    fn a_followed_stream_is_read_as_raw() {
        let raw = "100f00044d5154540402003c0003616263\n20020000\nc000\nd000\n";
        assert_eq!(text::parse(raw, None).unwrap()[0].bytes.len(), 25);
    }
}
