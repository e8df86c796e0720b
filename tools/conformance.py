#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes docs/conformance.md: every row of docs/conformance/rows.tsv beside the tests that cite its id.

A row is `id <tab> origin <tab> what must hold`, and, where it cannot apply, `<tab> n/a: reason`. A test cites a row by a
tag such as [C-031] in the strings of its TEST_CASE; a file that is a test as a whole (one in tests/compile_fail, a
script) cites it anywhere. Fails if a row has no test, if a test cites an unknown row, or if more than one row in ten
is not applicable.
"""
import re

import common

ID = re.compile(r"\[([A-Z]{1,2}-\d{2,3})\]")
CASE = re.compile(r'TEST_CASE\w*\(\s*((?:"(?:[^"\\]|\\.)*"\s*,?\s*)+)')
ROOMS = {"C": "Context", "G": "Task groups", "L": "Leaks", "V": "Virtual time", "TO": "Timeouts", "CB": "Circuit breaker",
         "RT": "Retries and their budgets", "HG": "Hedging", "RL": "Rate limits", "BH": "Bulkheads",
         "AL": "Adaptive limits", "LS": "Load shedding", "FB": "Fallbacks and caches", "CO": "Composition", "CH": "Chaos",
         "P": "Object pools", "PO": "Pools", "LK": "Leases that leak"}


def citations(root):
    """{id: [the tests that cite it]}, a test being `file: name` or a whole file."""
    found = {}
    for path in sorted((root / "tests").rglob("*")):
        file = path.relative_to(root).as_posix()
        if path.suffix not in {".cpp", ".py"} or file.startswith("tests/tools/"):
            continue
        text = path.read_text()
        if path.name.endswith(".test.cpp"):
            for case in CASE.finditer(text):
                name = re.match(r'"((?:[^"\\]|\\.)*)"', case[1])[1]
                for cited in sorted(set(ID.findall(case[1]))):
                    found.setdefault(cited, []).append(f"`{file}`: {name}")
        else:
            for cited in sorted(set(ID.findall(text))):
                found.setdefault(cited, []).append(f"`{file}`")
    return found


def page(rows, tests):
    """The text of docs/conformance.md."""
    lines = ["# Conformance", "",
             "Behaviours that the test suites of other libraries hold their authors to, told in our own words, and the",
             "tests that hold cordon to them. Written by `tools/conformance.py` from `docs/conformance/rows.tsv`."]
    group = None
    for row, origin, claim, reason in rows:
        if row.split("-")[0] != group:
            group = row.split("-")[0]
            lines += ["", f"## {ROOMS.get(group, group)}", "", "| id | origin | what must hold | tests |", "|---|---|---|---|"]
        where = reason or "<br>".join(tests.get(row, ["none"]))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (row, origin, claim, where)) + " |")
    return "\n".join(lines) + "\n"


def main():
    args = common.arguments(__doc__, check=True)
    rows, findings = [], []
    for number, line in enumerate((args.root / "docs/conformance/rows.tsv").read_text().splitlines(), 1):
        cells = line.split("\t")
        if len(cells) not in (3, 4) or (len(cells) == 4 and not re.match(r"n/a: \S", cells[3])):
            common.finish([f"docs/conformance/rows.tsv:{number}: not `id, origin, claim` with perhaps `n/a: reason`"], "")
        rows.append((*cells, "")[:4])
    known = [row[0] for row in rows]
    findings += [f"{row}: is there twice" for row in sorted({row for row in known if known.count(row) > 1})]

    tests = citations(args.root)
    text, target = page(rows, tests), args.root / "docs/conformance.md"
    if not args.check:
        target.write_text(text)
    elif not target.exists() or target.read_text() != text:
        findings.append("docs/conformance.md: stale; run tools/conformance.py")
    excused = [row[0] for row in rows if row[3]]
    findings += [f"{row}: no test cites it" for row in known if row not in tests and row not in excused]
    findings += [f"{row}: not applicable, but cited by {tests[row][0]}" for row in excused if row in tests]
    findings += [f"{cited}: no such row, but cited by {tests[cited][0]}" for cited in sorted(tests) if cited not in known]
    if len(excused) * 10 > len(rows):
        findings.append(f"{len(excused)} of {len(rows)} rows are not applicable, more than one in ten")
    common.finish(findings, f"conformance: {len(rows)} rows, {len(excused)} of them not applicable, the rest tested")


main()
