//! Checks the law of the broker with random input. A failing case is shrunk and printed; `withstands(&[..])` replays it, and the
//! fuzz target `broker` uses the same law.

use mqtt_testing::laws::broker::withstands;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_broker_withstands_anything(choices in vec(any::<u8>(), 0..900)) {
        withstands(&choices);
    }
}
