//! Random calls of an agent. A failing case is shrunk and printed; `withstands(&[..], version)` replays it. The fuzz target
//! `agent` uses the same law.

use mqtt_agent::proto::Version;
use mqtt_testing::laws::agent::withstands;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_agent_withstands_any_order_of_calls_in_3_1_1(choices in vec(any::<u8>(), 0..1_000)) {
        withstands(&choices, Version::V311);
    }

    #[test]
    fn an_agent_withstands_any_order_of_calls_in_5(choices in vec(any::<u8>(), 0..1_000)) {
        withstands(&choices, Version::V5);
    }
}
