//! Hashes texts for what outlives a process or is told to another process: which shard has the session of a client, and the names of shared
//! subscriptions and topics. The standard library has the same hash, SipHash-1-3, but may change it, and then another build of the program
//! would look for the sessions of clients in other shards.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// Returns the hash of a text. `key` is [`crate::Config::hash_key`], or 0 if the hash is no secret.
pub(super) fn stable_hash(text: &[u8], key: u64) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(&key.to_le_bytes());
    hasher.write(text);
    // The standard library ends a text so.
    hasher.write(&[0xFF]);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;
    use crate::router::Keyed;
    use crate::shard_of;

    /// Computed from the definition of SipHash by another program, which gives the published values of SipHash-2-4.
    const KNOWN: [(&str, u64, u64); 5] = [
        ("", 0, 0x8316_B05A_82FD_61E3),
        ("sensor-7", 0, 0xB299_3C4C_34BF_F35F),
        ("sensor-7", 5, 0x0047_F1E4_E022_875D),
        (
            "a client with a longer name",
            0x0123_4567_89AB_CDEF,
            0x4385_329B_1294_DBE9,
        ),
        ("Größe", u64::MAX, 0x7CAE_CBCE_8896_61E3),
    ];

    #[test]
    fn clients_stay_in_their_shards() {
        for (text, key, hash) in KNOWN {
            assert_eq!(stable_hash(text.as_bytes(), key), hash, "{text}");
        }
        let shards = KNOWN.map(|(text, key, _)| shard_of(text, 3, key));
        assert_eq!(shards, [2, 2, 0, 0, 2]);
    }

    /// Journals were divided by the hash of the standard library. If a newer Rust has another hash, this test is of no use any more, and
    /// the one before decides.
    #[test]
    fn the_hash_is_that_of_earlier_journals() {
        for len in 0..100 {
            for key in [0, 5, u64::MAX] {
                let text = "client/".repeat(15)[..len].to_owned();
                let expected = Keyed(key).hash_one(&text[..]);
                assert_eq!(stable_hash(text.as_bytes(), key), expected);
            }
        }
    }
}
