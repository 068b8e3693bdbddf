//! Replays a transcript as a test: the program sends `>` lines, and `<` lines must arrive. Between two sent packets, answers may
//! come in any order.

use std::path::Path;
use std::time::Instant;

use super::{Conversation, Input};
use crate::failure::{Failure, fail};
use crate::hex;

/// A packet to send, and the answers that must arrive before the next one.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    sent: Vec<u8>,
    /// `None` stands for any byte.
    answers: Vec<Vec<Option<u8>>>,
}

/// Sends the packets of the transcript and compares the answers.
pub(super) fn replay(path: &Path, conversation: &mut Conversation) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| fail(format!("{}: {error}", path.display())))?;
    let steps = parse(&text)?;
    let (mut sent, mut answered) = (0, 0);
    for mut step in steps {
        if !step.sent.is_empty() {
            conversation.send(&step.sent)?;
            sent += 1;
        }
        answered += step.answers.len();
        let deadline = Instant::now() + conversation.wait;
        while !step.answers.is_empty() {
            let span = deadline.saturating_duration_since(Instant::now());
            match conversation.inputs.recv_timeout(span) {
                Ok(Input::Bytes(bytes)) => {
                    conversation.feed_received(&bytes);
                    for packet in conversation.received.take_packets() {
                        step.take(&packet)?;
                    }
                }
                Ok(Input::Line(_) | Input::LinesEnd) => {}
                Ok(Input::Closed(_)) | Err(_) => return Err(step.missing()),
            }
        }
    }
    conversation.show.note(&format!(
        "replayed: {sent} times sent, {answered} packets received as in the transcript"
    ));
    conversation.result(false)
}

fn parse(text: &str) -> Result<Vec<Step>, Failure> {
    let mut steps: Vec<Step> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        // A comment may follow the bytes.
        let line = line.split('#').next().unwrap_or_default().trim();
        let wrong = |why: String| fail(format!("line {}: {why}", n + 1));
        if let Some(digits) = line.strip_prefix('>') {
            steps.push(Step {
                line: n + 1,
                sent: hex::parse(digits).map_err(|error| wrong(error.to_string()))?,
                answers: Vec::new(),
            });
        } else if let Some(digits) = line.strip_prefix('<') {
            let bytes = hex::parse_unknown(digits).map_err(|error| wrong(error.to_string()))?;
            if steps.is_empty() {
                steps.push(Step::default());
            }
            if let Some(step) = steps.last_mut() {
                step.answers.push(bytes);
            }
        } else if !line.is_empty() {
            return Err(wrong("it begins neither with > nor with <".to_owned()));
        }
    }
    Ok(steps)
}

impl Step {
    /// Removes the expected answer that matches this packet.
    fn take(&mut self, packet: &[u8]) -> Result<(), Failure> {
        let is_it = |answer: &Vec<Option<u8>>| {
            answer.len() == packet.len()
                && answer
                    .iter()
                    .zip(packet)
                    .all(|(answer, byte)| answer.is_none_or(|answer| answer == *byte))
        };
        match self.answers.iter().position(is_it) {
            Some(place) => {
                self.answers.remove(place);
                Ok(())
            }
            None => Err(fail(format!(
                "{} came, which the transcript does not have after line {}; it has {}",
                hex::spaced(packet),
                self.line,
                self.expected()
            ))),
        }
    }

    fn missing(&self) -> Failure {
        fail(format!(
            "after line {} of the transcript this did not come: {}",
            self.line,
            self.expected()
        ))
    }

    fn expected(&self) -> String {
        let answers: Vec<_> = self
            .answers
            .iter()
            .map(|answer| {
                let bytes: Vec<_> = answer
                    .iter()
                    .map(|byte| byte.map_or_else(|| "??".to_owned(), |byte| format!("{byte:02x}")))
                    .collect();
                bytes.join(" ")
            })
            .collect();
        answers.join(", ")
    }
}
