#!/usr/bin/env bash
# Does what the READMEs tell a newcomer, with an empty home and an empty Cargo home: installs the program `mqtt`, and makes a project of each
# program with its dependency lines, builds and runs it as it stands; a warning is an error. The packages come from a directory in the place of
# the registry: those that scripts/package.sh has made, and what Cargo.lock says of others. Only the port of the broker is replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
target="${CARGO_TARGET_DIR:-$root/target}"
archives="$target/package"
fresh=$(mktemp -d)
shelf="$fresh/shelf"
broker= client=
cleanup() {
    [ -z "$client" ] || kill "$client" 2>/dev/null || true
    [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
    rm -rf "$fresh"
}
trap cleanup EXIT

printf '\n== packages in the place of the registry\n'
cargo vendor --locked --quiet "$shelf" >/dev/null
for archive in "$archives"/*.crate; do
    tar -xzmf "$archive" -C "$shelf"
    printf '{"files":{},"package":"%s"}' "$(sha256sum "$archive" | cut -d' ' -f1)" \
        >"$shelf/$(basename "$archive" .crate)/.cargo-checksum.json"
done

# From here on, nothing of this user is used but the toolchain.
rustup_home="${RUSTUP_HOME:-$HOME/.rustup}"
mkdir -p "$fresh/home/.cargo"
cat >"$fresh/home/.cargo/config.toml" <<END
[source.crates-io]
replace-with = "shelf"
[source.shelf]
directory = "$shelf"
END
newcomer=(env -i "PATH=$fresh/home/.cargo/bin:$PATH" "HOME=$fresh/home" "CARGO_HOME=$fresh/home/.cargo" "RUSTUP_HOME=$rustup_home"
    "CARGO_TARGET_DIR=$fresh/target" CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_TERM_COLOR=never)
cd "$fresh"

printf '\n== cargo install sansio-mqtt-cli\n'
"${newcomer[@]}" cargo install --quiet --debug --locked sansio-mqtt-cli
"${newcomer[@]}" mqtt --version

wait_for() { # TEXT FILE
    for _ in $(seq 300); do
        grep -q "$1" "$2" && return
        sleep 0.1
    done
    cat "$2"
    exit 1
}
: >"$fresh/log"
"${newcomer[@]}" mqtt broker --bind 127.0.0.1:0 2>"$fresh/log" &
broker=$!
wait_for listening "$fresh/log"
port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$fresh/log")

# Writes the programs of a README as projects PREFIX-1, PREFIX-2, ... A block counts if it has a `fn main`. Its dependencies are the last block
# of TOML before it, or the packages of the last `cargo add` in the text.
projects() { # README PREFIX
    awk -v prefix="$2" '
        /^```/ && on { finish(); on = 0; next }
        /^```/ { on = 1; kind = substr($0, 4); text = ""; next }
        on { text = text $0 "\n"; next }
        match($0, /`cargo add [^`]*`/) { adds = substr($0, RSTART + 11, RLENGTH - 12); lines = "" }
        function finish(folder) {
            if (kind == "toml") { lines = text; adds = "" }
            if (kind !~ /no_run/ || text !~ /(^|\n)(async )?fn main/) return
            folder = prefix "-" ++count
            system("mkdir -p " folder "/src")
            printf "[package]\nname = \"%s\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n%s", folder, lines > (folder "/Cargo.toml")
            printf "%s", text > (folder "/src/main.rs")
            printf "%s", adds > (folder "/adds")
            print folder
        }' "$1"
}

# Builds a project, after `cargo add` if the README says so.
build() { # PROJECT
    local adds
    adds=$(cat "$1/adds")
    # shellcheck disable=SC2086 # Several packages.
    [ -z "$adds" ] || (cd "$1" && "${newcomer[@]}" cargo add --quiet $adds)
    (cd "$1" && "${newcomer[@]}" cargo build --quiet 2>"$fresh/warnings") || { cat "$fresh/warnings"; exit 1; }
    [ ! -s "$fresh/warnings" ] || { cat "$fresh/warnings"; exit 1; }
}

# Runs a program: what it publishes arrives, it receives a command, and if it ends with Ctrl-C, all is acknowledged then.
run() { # PROJECT
    local said="$fresh/said" topic
    topic=$(grep -o 'pumps/7/[ps][a-z]*' "$1/src/main.rs" | head -1)
    "${newcomer[@]}" "$fresh/target/debug/$1" >"$said" &
    client=$!
    "${newcomer[@]}" mqtt sub -p "$port" -t "$topic" -C 1 -W 30
    for _ in $(seq 300); do
        "${newcomer[@]}" mqtt pub -p "$port" -t pumps/7/commands -q 1 -m faster
        ! grep -q faster "$said" || break
        sleep 0.1
    done
    grep faster "$said" | head -1
    if grep -q ctrl "$1/src/main.rs"; then
        kill -INT "$client"
        wait "$client"
        grep '^0 messages were not acknowledged$' "$said"
    else
        kill "$client"
        wait "$client" || true
    fi
    client=
}

count=0
for readme in README.md adapter-tokio/README.md adapter-std/README.md adapter-smol/README.md; do
    prefix=$(dirname "$readme" | tr -cd 'a-z-')
    for project in $(projects "$root/$readme" "${prefix:-root}"); do
        printf '\n== %s: %s\n' "$readme" "$project"
        sed -i "s/127\.0\.0\.1:1883/127.0.0.1:$port/" "$project/src/main.rs"
        build "$project"
        run "$project"
        count=$((count + 1))
    done
done
[ "$count" = 6 ] || { echo "$count programs were found"; exit 1; }
kill "$broker"
wait "$broker"
broker=

# The broker of the library, at the port of the one that has ended.
project=$(projects "$root/broker-host/README.md" broker-host)
printf '\n== broker-host/README.md: %s\n' "$project"
build "$project"
printf 'bind = ["127.0.0.1:%s"]\n' "$port" >"$project/broker.toml"
(cd "$project" && exec "${newcomer[@]}" "$fresh/target/debug/$project") &
broker=$!
for _ in $(seq 300); do
    ! "${newcomer[@]}" mqtt pub -p "$port" -t library -m works -r -q 1 2>"$fresh/log" || break
    sleep 0.1
done
"${newcomer[@]}" mqtt sub -p "$port" -t library -C 1 -W 30
kill "$broker"
wait "$broker"
broker=
printf '\na newcomer succeeds: the program and %s projects\n' "$((count + 1))"
