#!/usr/bin/env python3
"""Writes docs/CONFORMANCE.md: each numbered statement of both standards, the role that it binds, the function that keeps it and the test
that shows it.

With `--check` it writes nothing, and fails if the file is not up to date or a statement that binds a client or a server has
no test or is cited nowhere in the source. Whom a statement binds is said in `scripts/statements.txt`; tests are those in the
tables `statements! { ... }`; a statement is kept by the function that cites it in a comment. Other items that cite it (a constant,
a field, a variant) are listed behind "see also" and do not count."""

import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent

# The files with the tables of tests; the scenarios of a table's module are in a file of that name beside it.
tables = [
    "broker-host/tests/conformance/main.rs",
    "mqtt-session/tests/statements.rs",
    "mqtt-transport/tests/statements.rs",
]

citation = re.compile(r"(?:\b(3\.1\.1|5) |\b(?:and|or|to|,) )?\\?\[?\b(MQTT-\d+\.\d+\.\d+-\d+)\b")
declaration = re.compile(
    r"^\s*(?:pub(?:\([a-z ]+\))? )?(?:const |async |unsafe )*"
    r"(fn|struct|enum|trait|static|const|type|mod|macro_rules!|impl)\b\s*(?:<[^>]*>\s*)?(\w+)"
)
# A variant, a field, a row of a table or an arm: what a comment inside of an item stands before.
inner = re.compile(r"^\s*(?:pub(?:\([a-z ]+\))? )?([A-Za-z_]\w*)\s*(?:[:,({]|=>|=|$)")


def statements():
    for line in (root / "scripts/statements.txt").read_text().splitlines():
        version, statement, role, *reason = line.split(" ", 3)
        yield version, statement, role, "".join(reason)


def tests():
    """(version, statement) to (table, file, scenario)."""
    found = {}
    row = re.compile(r"^ +(?:(\w+)::)?(\w+):\s*\[([^\]]*)\]\s*\[([^\]]*)\];", re.M)
    for path in tables:
        table = (root / path).read_text().split("statements! {", 1)[1]
        for module, scenario, old, new in row.findall(table):
            file = path.replace("main.rs", f"{module}.rs") if module else path
            for version, names in (("3.1.1", old), ("5", new)):
                for name in names.split():
                    parts = name.removeprefix("mqtt_").split("_")
                    statement = "MQTT-" + ".".join(parts[:3]) + "-" + parts[3]
                    if (version, statement) in found:
                        sys.exit(f"{path}: two tests for {version} {statement}")
                    found[version, statement] = (path, file, scenario)
    return found


def command(version, table, _file, scenario):
    """The command that runs a test, and the test's name."""
    path = pathlib.Path(table)
    package = re.search(r'^name = "(.+)"', (root / path.parts[0] / "Cargo.toml").read_text(), re.M).group(1)
    target = path.parent.name if path.name == "main.rs" else path.stem
    module = {"3.1.1": "v3_1_1", "5": "v5"}[version]
    return ["cargo", "test", "--locked", "-p", package, "--test", target], f"{module}::{scenario}"


def indent(line):
    return len(line) - len(line.lstrip())


def item(lines, number):
    """The name of the item that the comment or code in this line belongs to, with that of the item around it, and whether it is a
    function; None if no item does."""
    line, names = number, []
    if lines[number].lstrip().startswith("//"):
        while line < len(lines) - 1 and re.match(r"\s*(//|#\[|$)", lines[line]):
            line += 1
    level = indent(lines[line])
    if found := declaration.match(lines[line]):
        if found.group(1) == "fn":
            return found.group(2), True
        names.append(found.group(2))
    elif lines[number].lstrip().startswith("///") and (found := inner.match(lines[line])):
        names.append(found.group(1))
    for above in range(line - 1, -1, -1):
        text = lines[above]
        if not text.strip() or indent(text) >= level:
            continue
        # The end of a signature or condition over several lines stands where it begins.
        level = indent(text) + (1 if text.lstrip()[0] in ")}]w" and text.rstrip().endswith("{") else 0)
        found = declaration.match(text)
        if found and found.group(1) == "fn":
            return found.group(2), True
        if found and found.group(1) not in ("mod", "impl"):
            names.append(found.group(2))
        if level == 0:
            break
    return ("::".join(reversed(names[:2])), False) if names else None


def citations(wrong):
    """(version, statement) to the places that cite it: (file, item, whether it is a function). `mqtt-cli` cites statements that other
    programs break."""
    found = {}
    for path in sorted(root.glob("*/src/**/*.rs")):
        if path.parts[len(root.parts)] in ("mqtt-testing", "mqtt-cli", "benches"):
            continue
        lines, name = path.read_text().splitlines(), path.relative_to(root)
        for number, line in enumerate(lines):
            version, end = None, 0
            for match in citation.finditer(line):
                version = match.group(1) or (version if match.start() - end <= 3 else None)
                end = match.end()
                if not version or line.lstrip().startswith("//!"):
                    continue
                place = item(lines, number)
                if place is None:
                    wrong.append(f"{name}:{number + 1}: {match.group(2)} is cited outside of any item")
                    continue
                found.setdefault((version, match.group(2)), {})[str(name), *place] = None
    return found


def table_of(version, shown, cited, wrong):
    """The rows for one version, and the number of statements for each role."""
    rows, count = [], {}
    for own, statement, role, reason in statements():
        if own != version:
            continue
        count[role] = count.get(role, 0) + 1
        test = shown.get((version, statement))
        places = list(cited.get((version, statement), {}))
        if role != "none" and not any(function for _, _, function in places):
            wrong.append(f"{version} {statement} is cited in no function of the source")
        if role != "none" and not test:
            wrong.append(f"{version} {statement} binds us and has no test")
        if role == "none" and not reason:
            wrong.append(f"{version} {statement} has neither a test nor a reason")
        kept, also = ([f"`{name}` in [{file}](../{file})" for file, name, function in places if function == wanted] for wanted in (True, False))
        kept = "; see also ".join(", ".join(names) for names in (kept, also) if names)
        how = f"`{test[2]}` in [{pathlib.Path(test[1]).name}](../{test[1]})" if test else f"none: {reason}"
        rows.append(f"| {statement} | {role if role != 'none' else '-'} | {kept or '-'} | {how} |")
    return rows, count


def main():
    wrong = []
    shown, cited = tests(), citations(wrong)
    known = {(version, statement) for version, statement, _, _ in statements()}
    wrong += [f"a test for {version} {statement}, which there is not" for version, statement in shown.keys() - known]
    scenarios = {(version, *test) for (version, _), test in shown.items()}
    out = [
        "# Conformance",
        "",
        "These tables have, for each numbered statement of the standards, the functions that keep it and the test that shows it.",
        "`scripts/conformance.py` writes this file. CI checks that it is up to date, and that each statement that binds a client or a",
        "server has both. A function keeps a statement if a comment on it or in it cites the statement; behind \"see also\" are other",
        "items that cite it. The tests for a server run the broker over TCP on loopback, those for a client run the machine that all",
        f"adapters drive, and those for WebSocket run the stages that both use. {len(shown)} statements have {len(scenarios)} tests; several",
        "statements may have the same one. `scripts/mutations.py` breaks some of the rules and checks that the named tests fail.",
    ]
    for version in ("3.1.1", "5"):
        rows, count = table_of(version, shown, cited, wrong)
        total = ", ".join(f"{count[role]} {role}" for role in ("server", "client", "both", "none") if role in count)
        out += ["", f"## MQTT {version}", "", f"{len(rows)} statements: {total}.", ""]
        out += ["| statement | binds | kept by | test |", "| --- | --- | --- | --- |", *rows]
    text = "\n".join(out) + "\n"
    path = root / "docs/CONFORMANCE.md"
    if "--check" not in sys.argv:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        wrong.append("docs/CONFORMANCE.md is not up to date: run scripts/conformance.py")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(known)} statements, {len(shown)} with a test, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
