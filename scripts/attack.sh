#!/usr/bin/env bash
# Measures how long the messages of one pair of clients take while other clients attack the broker: `mqtt broker`, and Mosquitto
# where it is installed, on 127.0.0.1 only. Arguments: `--seconds N` for each attack (3), `--only NAME`, `--limit N` to fail if the
# 99th percentile under an attack is more than N times that without one, for `mqtt broker` only; `--memory N` to fail if it takes more
# than N MB. `--quick` leaves Mosquitto out, `--debug` takes the programs that the tests have built. That `mqtt broker` survives
# each attack and serves a pair after it is checked in any case.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin"
quick=
profile=release
limit=()
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 ;;
    --debug) profile=debug ;;
    --limit | --memory) limit+=("$1" "$2") && shift ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
if [ $profile = release ]; then
    cargo build --locked --quiet --release -p sansio-mqtt-cli
    cargo build --locked --quiet --release -p mqtt-testing --example attack
else
    # With the features of the tests, so that nothing is built twice.
    cargo build --locked --quiet --workspace --bin mqtt --example attack
fi
target=${CARGO_TARGET_DIR:-target}/$profile
status=0
printf '\n`mqtt broker`\n\n'
"$target/examples/attack" "${limit[@]}" "${arguments[@]}" "$target/mqtt" broker --bind 127.0.0.1:PORT || status=$?
if [ -z "$quick" ] && command -v mosquitto >/dev/null; then
    printf '\nMosquitto\n\n'
    "$target/examples/attack" "${arguments[@]}" mosquitto -p PORT
fi
exit $status
