//! Writes the seed corpora of the fuzz targets: `cargo run -p mqtt-testing --example seeds`.

use std::path::Path;

use mqtt_proto::Version;
use mqtt_testing::choices::Choices;
use mqtt_testing::laws::{journal, restarts};
use mqtt_testing::packets::encode;
use mqtt_testing::packets::generated::{types, with_packet};
use mqtt_testing::packets::vectors;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for target in ["decode", "reencode", "split"] {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for vector in vectors::all() {
            // All vectors are in 3.1.1.
            std::fs::write(folder.join(vector.name), [&[0], &vector.bytes[..]].concat())?;
        }
        for (first, version) in [(0, Version::V311), (1, Version::V5)] {
            for packet_type in types(version) {
                for sample in 1..=3_u8 {
                    let choices: Vec<u8> = (0..=255).map(|n: u8| n.wrapping_mul(sample)).collect();
                    let bytes = with_packet(
                        packet_type,
                        version,
                        &mut Choices::new(&choices),
                        |packet| encode(packet, version),
                    );
                    let name = format!("{packet_type}_{version}_{sample}").to_ascii_lowercase();
                    std::fs::write(folder.join(name), [&[first], &bytes[..]].concat())?;
                }
            }
        }
    }
    for target in [
        "client",
        "server",
        "delivery",
        "broker",
        "agent",
        "transport",
    ] {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for seed in 0..8_u32 {
            let mut random = seed;
            let choices: Vec<u8> = (0..400)
                .map(|_| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    random.to_be_bytes()[0]
                })
                .collect();
            std::fs::write(
                folder.join(format!("random_{seed}")),
                [&[u8::from(seed % 2 == 1)], &choices[..]].concat(),
            )?;
        }
    }
    let folder = corpus.join("restore");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("agent"), restarts::sample())?;
    std::fs::write(folder.join("sample"), journal::sample())
}
