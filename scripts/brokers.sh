#!/usr/bin/env bash
# Makes the table of brokers in docs/BENCHMARKS.md: `mqtt broker`, Mosquitto, rumqttd and a relay that parses nothing, under the same load.
# Arguments: parts of the names of rows to run, `--seconds N` of each run (2), `--rounds N` (3), `--only BROKER`. With `--store` it
# compares `mqtt broker` and Mosquitto with and without a store, and measures a start with 10,000 sessions. With `--engine` it compares
# `mqtt broker` in memory, with a store, and with a journal on one and three servers of NATS, measures how long a broker in reserve
# takes until it serves (row "take over"), and what a client costs that is at another process than its shard (rows "relayed", "divided").
# With `--threads N` as the first two arguments `mqtt broker` has so many threads, and one otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || scripts/setup.sh mosquitto
PATH="$PATH:/usr/sbin"
features=()
case " $* " in
    *" --engine "*)
        [ -x .venv/bin/nats-server ] || command -v nats-server >/dev/null || scripts/setup.sh
        features=(--features nats)
        ;;
esac
cargo build --locked --quiet --release -p sansio-mqtt-cli "${features[@]}"
case " $* " in
    *" --store "* | *" --engine "*) (cd benches && cargo build --locked --quiet --release --features brokers --bin brokers) ;;
    *) (cd benches && cargo build --locked --quiet --release --features brokers,rumqttd --bin brokers --bin rumqttd_peer) ;;
esac
export MQTT="$PWD/target/release/mqtt"
threads=1
if [ "${1:-}" = --threads ]; then
    threads=$2
    shift 2
fi
printf '#!/bin/sh\nexec "%s" "$@" --threads %d\n' "$MQTT" "$threads" >"$MQTT-threads"
chmod +x "$MQTT-threads"
MQTT="$MQTT-threads"
exec benches/target/release/brokers "$@"
