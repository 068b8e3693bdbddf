#!/usr/bin/env python3
"""Breaks rules one at a time, and shows that the test of each turns red: the one that docs/CONFORMANCE.md names for a statement of
the standards, or the one that the row names.

`scripts/mutations.toml` holds the changes: a statement, or a rule and its test; a file, a piece of its text that occurs once, and what
replaces it.
The script works in a copy of the tree. It first runs each named test unbroken, then once for each change.

    scripts/mutations.py [--sample N] [--only TEXT] [--list]

`--sample N` takes each N-th change, `--only` those whose statement, rule, test or file contains TEXT. A change whose test stays green, or
whose tree does not compile, is an error."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import conformance

root = conformance.root


def changes():
    """The rows of mutations.toml, each with its name and its test."""
    shown = conformance.tests()
    for row in tomllib.loads((root / "scripts/mutations.toml").read_text())["mutation"]:
        name = row.get("statement") or row["rule"]
        if (root / row["file"]).read_text().count(row["from"]) != 1:
            sys.exit(f"{name}: its text does not occur exactly once in {row['file']}")
        if "test" in row:
            package, target, test = row["test"].split(" ")
            features = ["--features", "journal"] if package == "sansio-mqtt-session" else []
            command = ["cargo", "test", "--locked", "-p", package, *features, "--test", target], test
        else:
            version, statement = name.split(" ")
            test = shown.get((version, statement))
            if test is None:
                sys.exit(f"{name}: no test is named for it")
            command = conformance.command(version, *test)
        yield name, row, command


def run(command, tree):
    """Whether the test passes: True or False, or None if it does not compile or does not run."""
    build = subprocess.run([*command[0], "--no-run"], cwd=tree, capture_output=True, text=True)
    if build.returncode != 0:
        print(build.stderr[-2000:])
        return None
    done = subprocess.run([*command[0], "--", "--exact", command[1]], cwd=tree, capture_output=True, text=True)
    if "1 passed" in done.stdout:
        return True
    return False if "1 failed" in done.stdout else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    rows = [change for change in changes() if options.only in f"{change[0]} {change[1]['file']} {change[2][1]} {change[2][0]}"]
    rows = rows[:: options.sample]
    if options.list:
        for name, row, command in rows:
            print(name, row["file"], command[1], sep="  ")
        return
    os.environ.setdefault("CARGO_TARGET_DIR", str(root / "target/mutations"))
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="mutations") as folder:
        tree = pathlib.Path(folder) / "tree"
        # With the present time on each file, or Cargo would take what the last run broke for up to date.
        shutil.copytree(root, tree, copy_function=shutil.copy, ignore=shutil.ignore_patterns("target", ".git", "corpus", "artifacts"))
        sound = {}
        for rule, row, command in rows:
            name = (tuple(command[0]), command[1])
            if name not in sound:
                sound[name] = run(command, tree)
            file = tree / row["file"]
            before = file.read_text()
            file.write_text(before.replace(row["from"], row["to"]))
            broken = run(command, tree)
            file.write_text(before)
            verdict = {(True, False): "red, as it must be"}.get((sound[name], broken))
            if verdict is None:
                wrong += 1
                verdict = f"WRONG: unbroken {sound[name]}, broken {broken}"
            print(f"{rule:20} {row['file']}: {command[1]}: {verdict}", flush=True)
    print(f"{len(rows)} rules broken, {wrong} tests that did not turn red")
    sys.exit(1 if wrong else 0)


main()
