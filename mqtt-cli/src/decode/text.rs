//! Parses bytes from text in the forms that people and tools use.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{From, capture, dump, follow};
use crate::failure::{Failure, fail};
use crate::hex;

/// Bytes of one side.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Chunk {
    /// The side, if the text names it.
    pub(crate) name: Option<String>,
    /// `None` is an unknown byte.
    pub(crate) bytes: Vec<Option<u8>>,
    /// The form, unless it is plain hex.
    pub(crate) form: Option<&'static str>,
    /// A remark, such as a wrong length in the command of a modem.
    pub(crate) remark: Option<String>,
}

impl Chunk {
    pub(crate) fn new(form: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            form: Some(form),
            bytes: bytes.into_iter().map(Some).collect(),
            ..Self::default()
        }
    }
}

/// Returns whether these bytes are text and no packets.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let whole = std::str::from_utf8(bytes).is_ok_and(|text| {
        !text
            .chars()
            .any(|character| character.is_control() && !character.is_whitespace())
    });
    // A character of UTF-8 may be cut at the end.
    whole
        || std::str::from_utf8(bytes)
            .is_err_and(|error| error.error_len().is_none() && bytes.len() > 1000)
}

/// Detects the form, unless it is given.
pub(super) fn parse(text: &str, form: Option<From>) -> Result<Vec<Chunk>, Failure> {
    let (text, claimed) = without_commands(text);
    let text = text.trim();
    let mut chunks = match form {
        Some(From::Hex) => plain(text)?,
        Some(From::Escape) => vec![Chunk::new("an escaped string", escaped(text)?)],
        Some(From::Array) => arrays(text).ok_or_else(|| fail("there is no array of bytes"))?,
        Some(From::Dump) => {
            dump::parse(text).ok_or_else(|| fail("the lines do not begin with offsets"))?
        }
        Some(From::Base64) => vec![base64(text)?],
        Some(From::Raw | From::Capture) => {
            return Err(fail(
                "this form can be read only from a file or standard input",
            ));
        }
        None => guess(text)?,
    };
    for chunk in &mut chunks {
        unwrap_frame(chunk);
    }
    let total: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    if let (Some(claimed), Some(first)) = (claimed, chunks.first_mut())
        && claimed != total
    {
        let why = if claimed == 2 * total {
            "; it counts bytes, not hex digits"
        } else {
            ""
        };
        first.remark = Some(format!(
            "the modem's command says {claimed} bytes, but {total} follow{why}"
        ));
    }
    Ok(chunks)
}

fn guess(text: &str) -> Result<Vec<Chunk>, Failure> {
    if let Some(chunks) = dump::parse(text).or_else(|| follow::parse(text)) {
        return Ok(chunks);
    }
    // The characters of a string may look like an array, such as those of JSON.
    if is_string(text) {
        return Ok(vec![Chunk::new("an escaped string", escaped(text)?)]);
    }
    if let Some(chunks) = arrays(text) {
        return Ok(chunks);
    }
    let error = match plain(text) {
        Ok(chunks) => return Ok(chunks),
        Err(error) => error,
    };
    // Four letters may be a word; the message about hex is more useful then.
    if (text.len() > 4 || text.ends_with('='))
        && let Ok(chunk) = base64(text)
    {
        return Ok(vec![chunk]);
    }
    let digits = text.chars().filter(char::is_ascii_hexdigit).count();
    if text.len() > 4 && digits * 2 < text.chars().count() {
        return Err(fail(format!(
            "{error}; a packet that was copied as text has lost the bytes that are no characters: copy it as hex"
        )));
    }
    Err(error)
}

fn plain(text: &str) -> Result<Vec<Chunk>, Failure> {
    let text = text.trim_matches(['"', '\'']);
    Ok(vec![Chunk {
        bytes: hex::parse_unknown(text)?,
        ..Chunk::default()
    }])
}

fn base64(text: &str) -> Result<Chunk, Failure> {
    let joined: String = text.split_whitespace().collect();
    let bytes = STANDARD
        .decode(joined)
        .map_err(|error| fail(format!("base64: {error}")))?;
    Ok(Chunk::new("base64", bytes))
}

/// Removes commands and answers of a modem, and returns the length in the send command.
fn without_commands(text: &str) -> (String, Option<usize>) {
    let mut claimed = None;
    let mut rest = String::new();
    for line in text.lines() {
        let word = line.trim_start_matches(['>', ' ']);
        if word.starts_with("AT+") || word.starts_with("at+") {
            let number = word.rsplit(['=', ',']).next().unwrap_or_default();
            claimed = number.trim().parse().ok().or(claimed);
        } else if !matches!(word.trim(), "OK" | "SEND OK" | "ERROR") {
            rest.push_str(word);
            rest.push('\n');
        }
    }
    if claimed.is_none() {
        // Without commands the indentation of a dump is kept.
        return (text.to_owned(), None);
    }
    (rest, claimed)
}

/// Removes the headers of Ethernet, IP and TCP of a whole frame.
fn unwrap_frame(chunk: &mut Chunk) {
    let known: Option<Vec<u8>> = chunk.bytes.iter().copied().collect();
    if let Some(payload) = known.as_deref().and_then(capture::payload) {
        chunk.bytes = payload.iter().copied().map(Some).collect();
        chunk.form = Some("a frame with its Ethernet, IP and TCP headers");
    }
}

/// Returns whether this is a string with escapes: in quotes, with or without a declaration before it, or without quotes.
fn is_string(text: &str) -> bool {
    let (before, inside) = text.split_once(['"', '\'']).unwrap_or((text, ""));
    // The brackets of `char packet[] = "` are no array.
    let declared = !before.contains(['{', '[']) || before.trim_end().ends_with('=');
    has_escape(before) || declared && inside.contains('\\')
}

/// Returns whether `\x` or a backslash with three octal digits is in the text. `od -c` prints others.
fn has_escape(text: &str) -> bool {
    text.split('\\').skip(1).any(|rest| {
        let mut digits = rest.chars();
        rest.starts_with('x') || (0..3).all(|_| digits.next().is_some_and(|c| c.is_digit(8)))
    })
}

/// Parses escapes and characters; only text within quotes, if there are quotes before the first escape.
fn escaped(text: &str) -> Result<Vec<u8>, Failure> {
    let quote = text.chars().find(|c| matches!(c, '"' | '\'' | '\\'));
    let quote = quote.filter(|character| *character != '\\');
    let mut inside = quote.is_none();
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if Some(character) == quote {
            inside = !inside;
        } else if !inside {
            continue;
        } else if character == '\\' {
            bytes.extend(escape(&mut rest)?);
        } else if quote.is_some() || !character.is_whitespace() {
            bytes.extend(character.encode_utf8(&mut [0; 4]).bytes());
        }
    }
    Ok(bytes)
}

fn escape(rest: &mut std::str::Chars<'_>) -> Result<Option<u8>, Failure> {
    let octal: String = rest
        .clone()
        .take(3)
        .take_while(|digit| digit.is_digit(8))
        .collect();
    if !octal.is_empty() {
        rest.by_ref().take(octal.len()).for_each(drop);
        return u8::from_str_radix(&octal, 8)
            .map(Some)
            .map_err(|_| fail(format!("\\{octal} is no byte: the largest is \\377")));
    }
    Ok(Some(match rest.next() {
        Some('x') => {
            let digits: String = rest.take(2).collect();
            u8::from_str_radix(&digits, 16)
                .map_err(|_| fail(format!("\\x{digits}: \\x has two hex digits")))?
        }
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('a') => 7,
        Some('b') => 8,
        Some('v') => 11,
        Some('f') => 12,
        Some('e') => 27,
        Some(c @ ('\\' | '"' | '\'')) => c as u8,
        // A line that continues.
        Some('\n') | None => return Ok(None),
        Some(other) => return Err(fail(format!("\\{other} is not an escape sequence"))),
    }))
}

/// Parses all arrays of numbers. Wireshark names those of a stream `peer0_0`, `peer1_0` and so on.
fn arrays(text: &str) -> Option<Vec<Chunk>> {
    let text = without_comments(text);
    let mut chunks = Vec::new();
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find(['{', '[']) {
        let open = from + found;
        let closer = if text.get(open..)?.starts_with('{') {
            '}'
        } else {
            ']'
        };
        let Some(len) = text.get(open..)?.find(closer) else {
            break;
        };
        let content = text.get(open + 1..open + len)?;
        from = open + 1;
        // The size in `packet[16] = {`.
        let is_size = closer == ']' && text.get(open + len + 1..)?.trim_start().starts_with('=');
        if is_size || content.trim().is_empty() {
            continue;
        }
        if let Some(bytes) = numbers(content) {
            let before = text.get(..open)?;
            let name =
                if before.contains("peer1_") && before.rfind("peer1_") > before.rfind("peer0_") {
                    Some("broker")
                } else if before.contains("peer0_") {
                    Some("client")
                } else {
                    None
                };
            chunks.push(Chunk {
                name: name.map(str::to_owned),
                ..Chunk::new("an array", bytes)
            });
            from = open + len;
        }
    }
    (!chunks.is_empty()).then_some(chunks)
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some(at) = rest.find("/*").or_else(|| rest.find("//")) {
        let (before, comment) = rest.split_at(at);
        kept.push_str(before);
        let end = if comment.starts_with("/*") {
            comment.find("*/").map(|end| end + 2)
        } else {
            comment.find('\n')
        };
        rest = comment
            .get(end.unwrap_or(comment.len())..)
            .unwrap_or_default();
    }
    kept.push_str(rest);
    kept
}

/// Parses decimal numbers, numbers with `0x`, and characters in quotes; as hex if one is no decimal number.
fn numbers(content: &str) -> Option<Vec<u8>> {
    let tokens: Vec<&str> = content
        .split([',', ' ', '\n', '\r', '\t'])
        .filter(|token| !token.is_empty())
        .collect();
    let number = |token: &&str| {
        let token = token.trim_end_matches("u8").trim_end_matches(['u', 'U']);
        match token
            .strip_prefix("0x")
            .or_else(|| token.strip_prefix("0X"))
        {
            Some(digits) => u8::from_str_radix(digits, 16).ok(),
            None => token.parse().ok().or_else(|| {
                let character = token.strip_prefix('\'')?.strip_suffix('\'')?;
                u8::try_from(character.chars().next()?).ok()
            }),
        }
    };
    let as_numbers: Option<Vec<u8>> = tokens.iter().map(number).collect();
    as_numbers.or_else(|| hex::parse(content).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<Vec<u8>> {
        let chunks = parse(text, None).unwrap();
        chunks
            .into_iter()
            .map(|chunk| chunk.bytes.into_iter().flatten().collect())
            .collect()
    }

    /// The output of each named program for the same packet.
    const FORMS: [(&str, &str); 20] = [
        ("hex", "300e000b74656d706572617475726519"),
        (
            "hex with 0x",
            "0x30 0x0e 0x00 0x0b 0x74 0x65 0x6d 0x70 0x65 0x72 0x61 0x74 0x75 0x72 0x65 0x19",
        ),
        ("dashes", "30-0e-00-0b-74-65-6d-70-65-72-61-74-75-72-65-19"),
        (
            "xxd",
            "00000000: 300e 000b 7465 6d70 6572 6174 7572 6519  0...temperature.",
        ),
        (
            "hexdump -C",
            "00000000  30 0e 00 0b 74 65 6d 70  65 72 61 74 75 72 65 19  |0...temperature.|\n00000010",
        ),
        (
            "hexdump",
            "0000000 0e30 0b00 6574 706d 7265 7461 7275 1965\n0000010",
        ),
        (
            "od -t x1",
            "0000000 30 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19\n0000020",
        ),
        (
            "od",
            "0000000 007060 005400 062564 070155 071145 072141 071165 014545\n0000020",
        ),
        (
            "od -A d -t x1z",
            "0000000 30 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19  >0...temperature.<\n0000016",
        ),
        (
            "od -A x -t x1",
            "000000 30 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19\n000010",
        ),
        (
            "Wireshark, hex dump",
            "0000   30 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19   0...temperature.",
        ),
        (
            "Wireshark, escaped string",
            "\"\\x30\\x0e\\x00\\x0b\\x74\\x65\\x6d\\x70\" \\\n\"\\x65\\x72\\x61\\x74\\x75\\x72\\x65\\x19\"",
        ),
        (
            "Wireshark, C array",
            "char peer0_0[] = { /* Packet 4 */\n0x30, 0x0e, 0x00, 0x0b, 0x74, 0x65, 0x6d, 0x70, \n\
             0x65, 0x72, 0x61, 0x74, 0x75, 0x72, 0x65, 0x19 };",
        ),
        (
            "C",
            "const unsigned char packet[16] = {\n    0x30, 0x0e, 0x00, 0x0b, 0x74, 0x65, 0x6d, 0x70,\n\
             \x20   0x65, 0x72, 0x61, 0x74, 0x75, 0x72, 0x65, 0x19,\n};",
        ),
        (
            "Rust",
            "const PACKET: [u8; 16] = [\n0x30, 0x0e, 0x00, 0x0b, 0x74, 0x65, 0x6d, 0x70, 0x65, 0x72, 0x61, 0x74, 0x75, 0x72, 0x65, 0x19];",
        ),
        (
            "Python list",
            "[48, 14, 0, 11, 116, 101, 109, 112, 101, 114, 97, 116, 117, 114, 101, 25]",
        ),
        ("Python bytes", "b'0\\x0e\\x00\\x0btemperature\\x19'"),
        (
            "braces with hex",
            "{30 0e 00 0b 74 65 6d 70 65 72 61 74 75 72 65 19}",
        ),
        ("base64", "MA4AC3RlbXBlcmF0dXJlGQ=="),
        (
            "a modem's log",
            "AT+CIPSEND=16\n> 30 0E 00 0B 74 65 6D 70 65 72 61 74 75 72 65 19\nSEND OK",
        ),
    ];

    #[test]
    fn each_form_is_recognised() {
        let packet = b"\x30\x0e\x00\x0btemperature\x19".to_vec();
        for (form, text) in FORMS {
            assert_eq!(bytes(text), std::slice::from_ref(&packet), "{form}");
        }
    }

    #[test]
    fn dumps_of_several_lines_and_of_odd_lengths_are_put_together() {
        let expected: Vec<u8> = (0..21).collect();
        for text in [
            "00000000: 0001 0203 0405 0607 0809 0a0b 0c0d 0e0f  ................\n00000010: 1011 1213 14                             .....",
            "00000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  |................|\n\
             00000010  10 11 12 13 14                                    |.....|\n00000015",
            "0000000 0100 0302 0504 0706 0908 0b0a 0d0c 0f0e\n0000010 1110 1312 0014                         \n0000015",
            "0000000 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f\n0000020 10 11 12 13 14\n0000025",
            "0000000 000400 001402 002404 003406 004410 005412 006414 007416\n0000020 010420 011422 000024\n0000025",
            "0000000 0100 0302 0504 0706 0908 0b0a 0d0c 0f0e\n0000016 1110 1312 0014\n0000021",
            "0000   00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f   ................\n\
             0010   10 11 12 13 14                                    .....",
        ] {
            assert_eq!(bytes(text), std::slice::from_ref(&expected), "{text}");
        }
        let zeros = "00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n*\n\
                     00000030  01                                                |.|\n00000031";
        let bytes = bytes(zeros);
        assert_eq!(bytes[0].len(), 49);
    }

    #[test]
    fn both_sides_of_a_followed_stream_are_named() {
        for text in [
            "00000000  10 0d 00 04 4d 51 54 54  04 02 00 3c 00 01 61      ....MQTT ...<..a\n\
             \x20   00000000  20 02 00 00                                        ...\n\
             0000000F  c0 00                                              ..\n    00000004  d0 00      ..",
            "char peer0_0[] = { /* Packet 4 */\n0x10, 0x0d, 0x00, 0x04, 0x4d, 0x51, 0x54, 0x54, 4, 2, 0, 0x3c, 0, 1, 'a' };\n\
             char peer1_0[] = { /* Packet 6 */\n0x20, 0x02, 0x00, 0x00 };\nchar peer0_1[] = { 0xc0, 0 };\nchar peer1_1[] = { 0xd0, 0 };",
        ] {
            let chunks = parse(text, None).unwrap();
            let seen: Vec<_> = chunks
                .iter()
                .map(|chunk| (chunk.name.as_deref().unwrap(), chunk.bytes.len()))
                .collect();
            assert_eq!(
                seen,
                [("client", 15), ("broker", 4), ("client", 2), ("broker", 2)],
                "{text}"
            );
        }
    }

    #[test]
    fn text_in_no_known_form_is_reported_as_bad_hex() {
        for text in [
            "zz",
            "c",
            "30 0",
            "\\xq0",
            "ping",
            "0000000   0 003  \\0 001   a",
        ] {
            assert!(parse(text, None).is_err(), "{text}");
        }
        let ping = parse("wAA=", None).unwrap();
        assert_eq!(ping[0].bytes, [Some(0xC0), Some(0)]);
        let chunks = parse("AT+CIPSEND=32\n30 0E", None).unwrap();
        assert!(
            chunks[0]
                .remark
                .as_ref()
                .unwrap()
                .contains("32 bytes, but 2")
        );
        let chunks = parse("10 ?? 00", None).unwrap();
        assert_eq!(chunks[0].bytes, [Some(0x10), None, Some(0)]);
    }
}
