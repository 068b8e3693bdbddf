//! The order in which the servers of a domain are tried.

use super::message::Record;

/// Orders records: by priority, and by chance within a priority, where a record is as likely to be the next one as its weight is large
/// (RFC 2782, "Weight"). `random(most)` returns a number from 0 to `most`.
pub(super) fn order(mut records: Vec<Record>, random: impl Fn(u32) -> u32) -> Vec<Record> {
    // Records without weight come first, so that the number 0 selects one of them.
    records.sort_by_key(|record| (record.priority, record.weight > 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let same = records.partition_point(|record| record.priority == priority);
        let group = records.get(..same).unwrap_or_default();
        let sum = group.iter().map(|record| u32::from(record.weight)).sum();
        let number = random(sum);
        let mut running = 0_u32;
        let at = group.iter().position(|record| {
            running += u32::from(record.weight);
            running >= number
        });
        ordered.push(records.remove(at.unwrap_or_default()));
    }
    ordered
}

/// Returns a random number from 0 to `most`.
pub(super) fn random(most: u32) -> u32 {
    let scaled = (u64::from(crate::clock::random()) * (u64::from(most) + 1)) >> u32::BITS;
    u32::try_from(scaled).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(all: &[(u16, u16)]) -> Vec<Record> {
        let numbered = (1..).zip(all);
        numbered
            .map(|(port, &(priority, weight))| Record {
                priority,
                weight,
                port,
                target: "a".to_owned(),
            })
            .collect()
    }

    fn ports(ordered: &[Record]) -> Vec<u16> {
        ordered.iter().map(|record| record.port).collect()
    }

    #[test]
    fn a_smaller_priority_goes_first() {
        let ordered = order(records(&[(20, 0), (10, 9), (30, 1), (10, 0)]), |most| most);
        assert_eq!(ports(&ordered), [2, 4, 1, 3]);
    }

    #[test]
    fn the_number_selects_by_weight() {
        // Of the weights 1, 3 and 0, the numbers 0, 1 and 2 to 4 select the third, the first and the second record.
        let all = || records(&[(1, 1), (1, 3), (1, 0)]);
        let first = |number: u32| ports(&order(all(), |most| number.min(most)))[0];
        assert_eq!([0, 1, 2, 3, 4].map(first), [3, 1, 2, 2, 2]);
    }

    #[test]
    fn random_numbers_stay_in_their_range_and_differ() {
        let numbers: Vec<_> = (0..100).map(|_| random(u32::from(u16::MAX))).collect();
        assert!(numbers.iter().all(|number| *number <= u32::from(u16::MAX)));
        assert!(numbers.iter().any(|number| *number != numbers[0]));
        assert_eq!(random(0), 0);
    }
}
