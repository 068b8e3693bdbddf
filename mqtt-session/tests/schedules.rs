//! The law of delivery on 10,000 random schedules in each version. A failing one is shrunk and printed as bytes;
//! `delivery::delivers(&[..], version)` replays it.

use mqtt_proto::Version;
use mqtt_testing::laws::delivery::delivers;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_delivers_in_3_1_1(choices in vec(any::<u8>(), 0..400)) {
        delivers(&choices, Version::V311);
    }

    #[test]
    fn every_schedule_delivers_in_5(choices in vec(any::<u8>(), 0..400)) {
        delivers(&choices, Version::V5);
    }
}
