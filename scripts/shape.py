#!/usr/bin/env python3
"""Checks that no Rust file, function or list of parameters is longer than the limits below.

A file counts with all its lines. A function counts from the line of `fn` to its closing brace; `self` is no parameter. EXCEPTIONS
lists the files that may exceed limits for now. An exception that is not needed any more is an error as well."""

import pathlib
import re
import subprocess
import sys

FILE, FUNCTION, PARAMETERS = 600, 60, 5
# Path to the limits that it may exceed.
EXCEPTIONS = {
}

root = pathlib.Path(__file__).resolve().parent.parent
# Comments, string and character literals, which may hold braces; a lifetime is no literal.
LITERAL = re.compile(
    r"//[^\n]*|/\*.*?\*/|b?r(#*)\".*?\"\1|b?\"(?:\\.|[^\"\\])*\"|b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\\n])'", re.S
)
FUNCTION_NAME = re.compile(r"\bfn\s+(\w+)\s*")


def blank(match):
    """Replaces a literal by spaces, so that offsets and lines stay."""
    return re.sub(r"[^\n]", " ", match.group())


def closing(text, start, pairs):
    """The offset behind the bracket that closes the one at `start`."""
    depth = 0
    for offset in range(start, len(text)):
        if text[offset] in pairs[0]:
            depth += 1
        elif text[offset] in pairs[1] and not (text[offset] == ">" and text[offset - 1] in "-="):
            depth -= 1
            if depth == 0:
                return offset + 1
    return len(text)


def parameters(text):
    """How many parameters a list in parentheses has, without `self`."""
    depth, parts, part = 0, [], ""
    for offset, character in enumerate(text[1:-1], 1):
        if character in "([{<":
            depth += 1
        elif character in ")]}" or (character == ">" and text[offset - 1] not in "-="):
            depth -= 1
        if character == "," and depth == 0:
            parts, part = [*parts, part], ""
        else:
            part += character
    parts = [part for part in [*parts, part] if part.strip()]
    return len([part for part in parts if not re.match(r"\s*(&\s*('\w+\s+)?)?(mut\s+)?self\b", part)])


def functions(text):
    """Name, line, length and number of parameters of each function that has a body."""
    for match in FUNCTION_NAME.finditer(text):
        at = match.end()
        if text[at : at + 1] == "<":
            at = closing(text, at, ("<", ">"))
        if text[at : at + 1] != "(":
            continue
        end = closing(text, at, ("(", ")"))
        body = re.compile(r"[{;]").search(text, end)
        # An array type in the signature has a semicolon of its own.
        while body and body.group() == ";" and text.count("[", end, body.start()) > text.count("]", end, body.start()):
            body = re.compile(r"[{;]").search(text, body.end())
        if not body or body.group() == ";":
            continue
        last = closing(text, body.start(), ("{", "}"))
        line = text.count("\n", 0, match.start()) + 1
        yield match.group(1), line, text.count("\n", match.start(), last) + 1, parameters(text[at:end])


def check(path):
    """What is too long in a file: the kind of limit, and a sentence."""
    text = (root / path).read_text()
    lines = len(text.splitlines())
    if lines > FILE:
        yield "file", f"{path}: {lines} lines, at most {FILE}"
    for name, line, length, count in functions(LITERAL.sub(blank, text)):
        if length > FUNCTION:
            yield "function", f"{path}:{line}: `{name}` has {length} lines, at most {FUNCTION}"
        if count > PARAMETERS:
            yield "parameters", f"{path}:{line}: `{name}` has {count} parameters, at most {PARAMETERS}"


listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.rs"], cwd=root, capture_output=True, text=True, check=True)
wrong, used = [], set()
files = [path for path in listed.stdout.splitlines() if (root / path).exists()]
for path in files:
    for kind, sentence in check(path):
        if kind in EXCEPTIONS.get(path, ()):
            used.add((path, kind))
        else:
            wrong.append(sentence)
for path, kinds in EXCEPTIONS.items():
    wrong += [f"{path}: the exception for its {kind} is not needed" for kind in kinds if (path, kind) not in used]
print(*wrong, sep="\n")
print(f"{len(files)} files, {len(wrong)} of their parts too long")
sys.exit(1 if wrong else 0)
