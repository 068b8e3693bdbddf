#!/usr/bin/env bash
# Measures how long the messages of one pair of clients take while other clients attack the broker: `mqtt broker`, and Mosquitto
# where it is installed, on 127.0.0.1 only. Arguments: `--seconds N` for each attack (3), `--only NAME`, `--limit N` to fail if the
# 99th percentile under an attack is more than N times that without one, for `mqtt broker` only. `--quick` leaves Mosquitto out.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin"
quick=
limit=()
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 ;;
    --limit) limit=(--limit "$2") && shift ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
cargo build --locked --quiet --release -p sansio-mqtt-cli
cargo build --locked --quiet --release -p mqtt-testing --example attack
target=${CARGO_TARGET_DIR:-target}/release
status=0
printf '\n`mqtt broker`\n\n'
"$target/examples/attack" "${limit[@]}" "${arguments[@]}" "$target/mqtt" broker --bind 127.0.0.1:PORT || status=$?
if [ -z "$quick" ] && command -v mosquitto >/dev/null; then
    printf '\nMosquitto\n\n'
    "$target/examples/attack" "${arguments[@]}" mosquitto -p PORT
fi
exit $status
