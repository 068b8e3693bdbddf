//! The law of the machines on random input. A failing case is shrunk and printed; `withstands(&[..], role, version)` replays it.
//! The fuzz targets `client` and `server` search for more cases.

use mqtt_proto::Version;
use mqtt_testing::laws::machine::withstands;
use mqtt_testing::machines::Role;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_withstands_anything_in_3_1_1(choices in vec(any::<u8>(), 0..600)) {
        withstands(&choices, Role::Client, Version::V311);
    }

    #[test]
    fn a_client_withstands_anything_in_5(choices in vec(any::<u8>(), 0..600)) {
        withstands(&choices, Role::Client, Version::V5);
    }

    #[test]
    fn a_server_withstands_anything_in_3_1_1(choices in vec(any::<u8>(), 0..600)) {
        withstands(&choices, Role::Server, Version::V311);
    }

    #[test]
    fn a_server_withstands_anything_in_5(choices in vec(any::<u8>(), 0..600)) {
        withstands(&choices, Role::Server, Version::V5);
    }
}
