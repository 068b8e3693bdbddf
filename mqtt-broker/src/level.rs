//! Divides a limit among many holders: a holder with little keeps all it has, and the rest is divided among those with more.

use mqtt_session::proto::num::to_usize;

/// The content of all queues.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    pub(crate) messages: u64,
    pub(crate) bytes: usize,
    /// The size of each queue.
    pub(crate) levels: Shares,
}

impl Total {
    pub(crate) const fn add(&mut self, size: usize) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size);
    }

    pub(crate) const fn remove(&mut self, size: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
    }
}

/// The bytes of many holders that have a limit together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shared {
    bytes: usize,
    shares: Shares,
}

impl Shared {
    /// Returns the bytes of all holders.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the bytes of one holder.
    pub(crate) fn moves(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        self.shares.moves(before, after);
    }

    /// Returns whether a holder of `before` bytes may have `after` bytes: if all holders stay within `limit`, or if it has no
    /// more than its share of it. Together they have at most twice `limit` while there are at most `holders` of them.
    pub(crate) fn allows(&self, before: usize, after: usize, limit: usize, holders: usize) -> bool {
        let all = self.bytes.saturating_sub(before).saturating_add(after);
        let share = if all > limit.saturating_add(limit / 2) {
            (limit / 2).checked_div(holders).unwrap_or(0)
        } else {
            self.shares.share(limit)
        };
        all <= limit || after <= share
    }
}

/// The number of holders and their amounts, grouped by the number of binary digits of an amount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    classes: [Class; CLASSES],
    holders: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    holders: usize,
    amount: usize,
}

/// The last class also has all larger amounts.
const CLASSES: usize = 48;

impl Default for Shares {
    fn default() -> Self {
        Self {
            classes: [Class::default(); CLASSES],
            holders: 0,
        }
    }
}

impl Shares {
    /// Changes the amount of one holder from `before` to `after`; 0 is no amount.
    pub(crate) fn moves(&mut self, before: usize, after: usize) {
        if before > 0
            && let Some(class) = self.class(before)
        {
            class.holders = class.holders.saturating_sub(1);
            class.amount = class.amount.saturating_sub(before);
            self.holders = self.holders.saturating_sub(1);
        }
        if after > 0
            && let Some(class) = self.class(after)
        {
            class.holders = class.holders.saturating_add(1);
            class.amount = class.amount.saturating_add(after);
            self.holders = self.holders.saturating_add(1);
        }
    }

    fn class(&mut self, amount: usize) -> Option<&mut Class> {
        self.classes.get_mut(digits(amount).min(CLASSES - 1))
    }

    /// Returns the share of each holder, so that all of them and one more have at most `total`.
    pub(crate) fn share(&self, total: usize) -> usize {
        let (mut left, mut holders) = (total, self.holders.saturating_add(1));
        for (digits, class) in (0..).zip(&self.classes) {
            let (rest, others) = (
                left.saturating_sub(class.amount),
                holders.saturating_sub(class.holders),
            );
            let share = rest.checked_div(others).unwrap_or(0);
            let largest = 1_usize.checked_shl(digits).unwrap_or(usize::MAX);
            if share < largest {
                break;
            }
            (left, holders) = (rest, others);
        }
        left.checked_div(holders).unwrap_or(0)
    }
}

fn digits(amount: usize) -> usize {
    to_usize(usize::BITS.saturating_sub(amount.leading_zeros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(amounts: &[usize]) -> Shares {
        let mut levels = Shares::default();
        for amount in amounts {
            levels.moves(0, *amount);
        }
        levels
    }

    #[test]
    fn who_has_little_leaves_the_rest_to_others() {
        assert_eq!(levels(&[]).share(1_000), 1_000);
        assert_eq!(levels(&[700, 300]).share(900), 300);
        // A thousand holders have ten each: three others share the rest.
        let mut many = vec![10; 1_000];
        many.extend([400_000, 500_000]);
        assert_eq!(levels(&many).share(910_000), 300_000);
        // All holders have the same amount: each gets an equal part.
        assert_eq!(levels(&[100; 9]).share(500), 50);
    }

    /// Each new holder takes as much as it may get.
    #[test]
    fn holders_have_at_most_twice_the_limit_together() {
        const LIMIT: usize = 4_000;
        const HOLDERS: usize = 500;
        let mut shared = Shared::default();
        for _ in 0..HOLDERS {
            let may_have = |bytes: &usize| shared.allows(0, *bytes, LIMIT, HOLDERS);
            let most = (1..=LIMIT).rev().find(may_have);
            shared.moves(0, most.expect("each holder gets something"));
        }
        assert!(
            (LIMIT..=2 * LIMIT).contains(&shared.bytes),
            "{}",
            shared.bytes
        );
    }

    #[test]
    fn what_moves_is_forgotten_where_it_was() {
        let mut levels = levels(&[10, 20]);
        levels.moves(10, 5_000);
        levels.moves(5_000, 0);
        levels.moves(20, 0);
        assert_eq!(levels.share(70), 70);
        assert!(levels.classes.iter().all(|class| class.amount == 0));
    }
}
