#!/usr/bin/env bash
# Packs every package that can be published, and compiles each from its archive. Then builds the client of
# the README, with its dependency lines, outside of the workspace with the packed libraries, and runs it with the packed program `mqtt`.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}" CARGO_TERM_COLOR=never
archives="$CARGO_TARGET_DIR/package"
packed="$CARGO_TARGET_DIR/packed"
outside=$(mktemp -d)
broker= client=
cleanup() {
    [ -z "$client" ] || kill "$client" 2>/dev/null || true
    [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
    rm -rf "$outside" "$packed"
}
trap cleanup EXIT

printf '\n== packing\n'
rm -rf "$archives" "$packed"
mkdir -p "$packed"
# The packages are compiled below instead of by `cargo package`, which would use the libraries of an earlier run with the same name and
# version. Files that are not committed are packed as well, so that the script can run before a commit.
cargo package --locked --offline --quiet --workspace --exclude mqtt-testing --allow-dirty --no-verify

# No registry has the packages, so these lines replace them by the unpacked folders.
patch=$'\n[patch.crates-io]\n'
names=()
for archive in "$archives"/*.crate; do
    # With the present time on each file, so that Cargo sees what changed since the last run.
    tar -xzmf "$archive" -C "$packed"
    folder="$packed/$(basename "$archive" .crate)"
    name=$(basename "${folder%-*}")
    for licence in LICENSE-APACHE LICENSE-MIT; do cmp "$licence" "$folder/$licence"; done
    [ -s "$folder/README.md" ] || { echo "$name has no README"; exit 1; }
    names+=("$name")
    patch+="$name = { path = '$folder' }"$'\n'
done

printf '\n== compiling each package from what was packed\n'
printf '[workspace]\nresolver = "3"\nmembers = ["*"]\n%s' "$patch" >"$packed/Cargo.toml"
cp Cargo.lock "$packed/"
# One at a time, so that the features of one do not apply to another.
for name in "${names[@]}"; do
    echo "$name"
    (cd "$packed" && cargo build --quiet --offline -p "$name")
done

printf '\n== the program mqtt, installed from its package\n'
cargo install --quiet --debug --locked --offline --path "$packed"/sansio-mqtt-cli-* --root "$outside/root"
mqtt="$outside/root/bin/mqtt"
"$mqtt" --version

printf '\n== a project outside of the workspace\n'
# Prints the first block of a kind in the README.
block() { awk -v kind="$1" '$0 == "```" kind { on = 1; next } on && /^```/ { exit } on' README.md; }
wait_for() { # TEXT FILE
    for _ in $(seq 300); do
        grep -q "$1" "$2" && return
        sleep 0.1
    done
    cat "$2"
    exit 1
}
"$mqtt" broker --bind 127.0.0.1:0 2>"$outside/log" &
broker=$!
wait_for listening "$outside/log"
port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$outside/log")
mkdir -p "$outside/pump/src"
{
    printf '[package]\nname = "pump"\nversion = "0.0.0"\nedition = "2024"\n\n'
    block toml
    printf '%s' "$patch"
} >"$outside/pump/Cargo.toml"
cp Cargo.lock "$outside/pump/"
block rust,no_run | sed "s/127\.0\.0\.1:1883/127.0.0.1:$port/" >"$outside/pump/src/main.rs"
(cd "$outside/pump" && cargo build --quiet --offline 2>"$outside/warnings") || { cat "$outside/warnings"; exit 1; }
"$CARGO_TARGET_DIR/debug/pump" >"$outside/said" &
client=$!
# Two of its messages arrive, it receives a command, and all its messages are acknowledged at its end.
"$mqtt" sub -p "$port" -t pumps/7/pressure -C 2 -W 30
"$mqtt" pub -p "$port" -t pumps/7/commands -q 1 -m faster
wait_for faster "$outside/said"
kill -INT "$client"
wait "$client"
client=
cat "$outside/said"
grep -q '^0 messages were not acknowledged$' "$outside/said"
kill "$broker"
wait "$broker"
broker=
printf '\nall packages can be published\n'
