#!/usr/bin/env bash
# The table of brokers in docs/BENCHMARKS.md: `mqtt broker`, Mosquitto, rumqttd and a relay that reads nothing, under the same load.
# Arguments: rows by a part of their name, `--seconds N` of each run (2), `--rounds N` (3), `--only BROKER`.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || scripts/setup.sh mosquitto
PATH="$PATH:/usr/sbin"
cargo build --locked --quiet --release -p sansio-mqtt-cli
(cd benches && cargo build --locked --quiet --release --features brokers --bin brokers --bin rumqttd_peer)
MQTT="$PWD/target/release/mqtt" exec benches/target/release/brokers "$@"
