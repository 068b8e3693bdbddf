//! Decoding and encoding packets of every type allocates nothing.

use mqtt_proto::{Encode, MAX_PACKET, Packet};
use mqtt_testing::choices::Choices;
use mqtt_testing::packets::generated::{VERSIONS, types, with_packet};

#[test]
fn decode_and_encode_of_every_packet_type_allocate_nothing() {
    let choices: Vec<u8> = (0..=255_u8).cycle().step_by(7).take(400).collect();
    for version in VERSIONS {
        for packet_type in types(version) {
            for start in 0..50 {
                with_packet(
                    packet_type,
                    version,
                    &mut Choices::new(&choices[start..]),
                    |packet| {
                        let mut buffer = [0; 4096];
                        let allocations = allocation_counter::measure(|| {
                            let len = packet.encode(version, &mut buffer).unwrap();
                            let decoded = Packet::decode(&buffer[..len], version, MAX_PACKET);
                            assert!(decoded.is_ok());
                        });
                        assert_eq!(allocations.count_total, 0, "{packet:?}");
                    },
                );
            }
        }
    }
}
