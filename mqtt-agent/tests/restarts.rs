//! Checks a client that is killed and restarts from its records. A failing case is shrunk and printed; `survives(&[..], version)`
//! replays it.

use mqtt_agent::proto::Version;
use mqtt_testing::laws::restarts::survives;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_program_survives_crashes_in_3_1_1(choices in vec(any::<u8>(), 0..400)) {
        survives(&choices, Version::V311);
    }

    #[test]
    fn a_program_survives_crashes_in_5(choices in vec(any::<u8>(), 0..400)) {
        survives(&choices, Version::V5);
    }
}
