#!/usr/bin/env python3
"""Checks that each name of public types in several crates is in the table of names with different meanings in docs/ARCHITECTURE.md.

The adapters count as one crate, because their types of the same name have the same meaning."""

import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
UNPUBLISHED = ("mqtt-testing", "benches", "fuzz", "firmware")
TYPE = re.compile(r"^\s*pub (?:struct|enum|trait|type) (\w+)", re.M)

crates = {}
for path in root.glob("*/src/**/*.rs"):
    crate = path.relative_to(root).parts[0]
    if crate not in UNPUBLISHED and "tests" not in path.with_suffix("").parts:
        for name in TYPE.findall(path.read_text()):
            crates.setdefault(name, set()).add(crate.partition("-")[0] if crate.startswith("adapter") else crate)
_, _, table = (root / "docs/ARCHITECTURE.md").read_text().partition("Some names have different meanings")
explained = {name for row in re.findall(r"^\| ([^|]*) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
missing = {name: owners for name, owners in crates.items() if len(owners) > 1 and name not in explained}
for name, owners in sorted(missing.items()):
    print(f"`{name}` is a public type of {', '.join(sorted(owners))}; the table in docs/ARCHITECTURE.md does not have it")
print(f"{len(crates)} names of public types, {len(missing)} to be explained")
sys.exit(1 if missing else 0)
