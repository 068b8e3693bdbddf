//! Limits the log: the texts of a client are cut and escaped, and its lines are counted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How many characters of a client's text are logged.
const CHARACTERS: usize = 120;
/// The time over which the lines of a client are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// How many lines of one client are logged in a window.
const LINES: u32 = 20;
/// How many clients are counted separately in a window; all further ones are counted together.
const CLIENTS: usize = 1_000;

/// Cuts a long text of a client. `tracing` gets the result as text, which it quotes and escapes.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(CHARACTERS) {
        None => Cow::Borrowed(text),
        Some((end, _)) => {
            let shown = text.get(..end).unwrap_or_default();
            Cow::Owned(format!("{shown}... ({} bytes)", text.len()))
        }
    }
}

/// Counts the lines of each client.
#[derive(Debug)]
pub(crate) struct Quota {
    since: Instant,
    lines: HashMap<Box<str>, u32>,
    others: u32,
    suppressed: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            lines: HashMap::new(),
            others: 0,
            suppressed: 0,
        }
    }
}

impl Quota {
    /// Returns whether another line of a client may be logged, like [`Self::allows`], and logs how many were suppressed.
    pub(crate) fn allows_line(&mut self, client: Option<&str>, now: Instant) -> bool {
        let (allowed, suppressed) = self.allows(client, now);
        if let Some(lines) = suppressed {
            tracing::warn!(lines, "of clients with many lines not all were logged");
        }
        allowed
    }

    /// Returns whether another line of a client may be logged (without a name, of all clients without one), and how many lines
    /// were suppressed in earlier windows, if that was not yet reported.
    fn allows(&mut self, client: Option<&str>, now: Instant) -> (bool, Option<u64>) {
        let mut told = None;
        if now.duration_since(self.since) >= WINDOW {
            told = Some(std::mem::take(&mut self.suppressed)).filter(|lines| *lines > 0);
            self.since = now;
            self.lines.clear();
            self.others = 0;
        }
        let has_room = self.lines.len() < CLIENTS;
        let lines = match client {
            Some(client) if self.lines.contains_key(client) => self.lines.get_mut(client),
            Some(client) if has_room => Some(self.lines.entry(client.into()).or_default()),
            _ => None,
        };
        let lines = lines.unwrap_or(&mut self.others);
        *lines = lines.saturating_add(1);
        let allowed = *lines <= LINES;
        self.suppressed += u64::from(!allowed);
        (allowed, told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let long = "ä".repeat(30_000);
        assert!(cut(&long).ends_with("ä... (60000 bytes)"));
        assert_eq!(cut(&long).chars().count(), CHARACTERS + 17);
        assert_eq!(cut("short"), "short");
    }

    #[tokio::test(start_paused = true)]
    async fn who_logs_much_is_silenced_and_counted() {
        let mut quota = Quota::default();
        let now = Instant::now();
        let logged = (0..100)
            .filter(|_| quota.allows(Some("flood"), now).0)
            .count();
        assert_eq!(logged, LINES as usize);
        assert!(quota.allows(Some("quiet"), now).0);
        // A client can invent any number of names.
        let invented = (0..100_000).map(|n| format!("invented-{n}"));
        let logged = invented
            .filter(|name| quota.allows(Some(name), now).0)
            .count();
        assert!(logged < CLIENTS + LINES as usize, "{logged}");
        let (allowed, told) = quota.allows(Some("flood"), now + WINDOW);
        assert_eq!((allowed, told), (true, Some(80 + 100_000 - logged as u64)));
    }
}
