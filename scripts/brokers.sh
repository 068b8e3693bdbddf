#!/usr/bin/env bash
# Makes the table of brokers in docs/BENCHMARKS.md: `mqtt broker`, Mosquitto, rumqttd and a relay that parses nothing, under the same load.
# Arguments: parts of the names of rows to run, `--seconds N` of each run (2), `--rounds N` (3), `--only BROKER`.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || scripts/setup.sh mosquitto
PATH="$PATH:/usr/sbin"
cargo build --locked --quiet --release -p sansio-mqtt-cli
(cd benches && cargo build --locked --quiet --release --features brokers --bin brokers --bin rumqttd_peer)
MQTT="$PWD/target/release/mqtt" exec benches/target/release/brokers "$@"
