//! The laws of the stages, on random bytes.
#![cfg(all(feature = "proxy", feature = "tls", feature = "websocket"))]

use mqtt_testing::laws::transport::{split_invariant, withstands};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_bytes(choices in proptest::collection::vec(any::<u8>(), 0..256)) {
        split_invariant(&choices);
    }

    #[test]
    fn any_bytes_are_withstood(choices in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        withstands(&choices);
    }
}
