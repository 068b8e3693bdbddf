//! Parses dumps with an offset at the front of each line: xxd, hexdump, od, tcpdump and Wireshark.

use super::text::Chunk;

/// Consecutive lines of one side.
struct Run {
    indented: bool,
    bytes: Vec<u8>,
}

/// The digits of the offset of a line, and its bytes.
struct Line<'a> {
    indented: bool,
    offset: &'a str,
    tokens: Vec<&'a str>,
    /// Whether a colon follows the offset: the groups are bytes in order then.
    colon: bool,
}

/// Returns the bytes of each side, or `None` if this is no such dump.
pub(super) fn parse(text: &str) -> Option<Vec<Chunk>> {
    let mut dump = Dump::default();
    let mut repeat = false;
    for text in text.lines().filter(|line| !line.trim().is_empty()) {
        if text.trim() == "*" {
            repeat = true;
        } else if let Some(line) = line(text) {
            dump.add(&line, std::mem::take(&mut repeat))?;
        } else if dump.runs.is_empty() && !text.contains("IP") {
            // The line of tcpdump before the bytes has the protocol.
            return None;
        }
    }
    let runs = dump.runs;
    let two_sides = runs.iter().any(|run| run.indented) && runs.iter().any(|run| !run.indented);
    let chunks: Vec<_> = runs
        .into_iter()
        .map(|run| Chunk {
            name: two_sides.then(|| if run.indented { "broker" } else { "client" }.to_owned()),
            ..Chunk::new("a dump with offsets", run.bytes)
        })
        .collect();
    (!chunks.is_empty()).then_some(chunks)
}

/// The lines so far.
#[derive(Default)]
struct Dump {
    runs: Vec<Run>,
    /// Bytes of each side: each side of a followed stream has its own offsets.
    seen: [usize; 2],
}

impl Dump {
    /// Adds a line, after those that repeat the one before it. `None` if the offsets or the bytes are not those of a dump.
    fn add(&mut self, line: &Line<'_>, repeat: bool) -> Option<()> {
        let side = usize::from(line.indented);
        let offset = usize::from_str_radix(line.offset, 16).ok()?;
        // od has octal offsets unless `-A` says something else.
        let may_be = [16, 8, 10].map(|radix| usize::from_str_radix(line.offset, radix).ok());
        if repeat {
            let run = self.runs.last_mut()?;
            fill(run, offset);
            self.seen[side] = run.bytes.len();
        }
        if line.tokens.is_empty() {
            // The last line has the length; words are padded to two bytes.
            let run = self.runs.last_mut()?;
            if may_be.contains(&self.seen[side].checked_sub(1)) {
                run.bytes.pop();
            }
            return Some(());
        }
        // The next packet of tcpdump or Wireshark.
        let is_next = offset == 0 && self.seen[side] > 0 && !line.indented;
        if is_next {
            self.seen = [0, 0];
        }
        if !may_be.contains(&Some(self.seen[side])) {
            return None;
        }
        let bytes = line.bytes()?;
        self.seen[side] += bytes.len();
        match self.runs.last_mut() {
            Some(run) if run.indented == line.indented && !is_next => run.bytes.extend(bytes),
            _ => self.runs.push(Run {
                indented: line.indented,
                bytes,
            }),
        }
        Some(())
    }
}

/// Repeats the last line up to `offset`.
fn fill(run: &mut Run, offset: usize) {
    let last = run.bytes.len().saturating_sub(16);
    let line = run.bytes.get(last..).unwrap_or_default().to_vec();
    // Does not expand a dump of a gigabyte of zeros.
    while !line.is_empty() && run.bytes.len() < offset.min(1 << 24) {
        run.bytes.extend_from_slice(&line);
    }
}

fn line(text: &str) -> Option<Line<'_>> {
    let indented = text.starts_with("    ");
    let text = text.trim_start();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits = text
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(text.len());
    if !(4..=8).contains(&digits) {
        return None;
    }
    let (offset, rest) = text.split_at(digits);
    let colon = rest.starts_with(':');
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
        return None;
    }
    let rest = rest.trim_start();
    // The text beside the bytes is behind a bar, `>` (od), two spaces (xxd, tcpdump) or three.
    let end = [
        rest.find(['|', '>']),
        rest.find(if colon { "  " } else { "   " }),
        rest.find('\t'),
    ];
    let end = end.into_iter().flatten().min().unwrap_or(rest.len());
    let tokens: Vec<_> = rest.get(..end)?.split_whitespace().collect();
    let hex = |token: &&str| {
        token.len().is_multiple_of(2) && token.chars().all(|c| c.is_ascii_hexdigit())
    };
    // Wireshark has two spaces only between the last byte of sixteen and the text.
    let count = tokens
        .iter()
        .take(16)
        .take_while(|token| hex(token))
        .count();
    if count < tokens.len().min(16) {
        return None;
    }
    Some(Line {
        indented,
        offset,
        tokens: tokens.into_iter().take(count).collect(),
        colon,
    })
}

impl Line<'_> {
    fn bytes(&self) -> Option<Vec<u8>> {
        // hexdump and od -x print 16-bit words of the machine, low byte first.
        let swapped = !self.colon && self.tokens.iter().all(|token| token.len() == 4);
        if !self.colon && self.tokens.iter().all(|token| token.len() == 6) {
            return self.octal_words();
        }
        let mut bytes = Vec::new();
        for token in &self.tokens {
            let from = bytes.len();
            for at in (0..token.len()).step_by(2) {
                bytes.push(u8::from_str_radix(token.get(at..at + 2)?, 16).ok()?);
            }
            if swapped {
                bytes.get_mut(from..)?.reverse();
            }
        }
        Some(bytes)
    }

    /// Parses the words of od without options.
    fn octal_words(&self) -> Option<Vec<u8>> {
        let word = |token: &&str| u16::from_str_radix(token, 8).ok().map(u16::to_le_bytes);
        let words: Option<Vec<_>> = self.tokens.iter().map(word).collect();
        Some(words?.concat())
    }
}
