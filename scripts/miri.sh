#!/usr/bin/env bash
# Runs the tests of the pure crates under Miri, which finds undefined behaviour; also for a big-endian and a 32-bit target, which Miri
# emulates. Leaves out the laws on random input, which would take hours.
set -euo pipefail
cd "$(dirname "$0")/.."
export MIRIFLAGS="-Zmiri-disable-isolation" RUST_BACKTRACE=0
for target in "$(rustc -vV | sed -n 's/^host: //p')" s390x-unknown-linux-gnu i686-unknown-linux-gnu; do
    printf '\n%s\n' "$target"
    miri="cargo +nightly miri test --locked --quiet --target-dir target/miri --target $target"
    $miri -p sansio-mqtt-proto --lib --test malformed --test vectors
    $miri -p sansio-mqtt-journal --test format
    $miri -p sansio-mqtt-session --lib --test statements
done
