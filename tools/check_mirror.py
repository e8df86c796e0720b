#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails unless every public header include/cordon/<room>/<noun>.hpp has a test tests/<room>/<noun>.test.cpp with at
least one TEST_CASE in it, that includes the header before all others if at all, so that the header is seen to stand
alone; and no test has a name with a semicolon, at which CMake would cut it in two."""
import re

import common


def main():
    root = common.arguments(__doc__).root
    findings = []
    headers = common.public_headers(root)
    for header in headers:
        test = root / "tests" / header.parent.name / f"{header.stem}.test.cpp"
        if not test.exists():
            findings.append(f"{header.relative_to(root)}: has no {test.relative_to(root)}")
            continue
        text = test.read_text()
        if "TEST_CASE" not in text:
            findings.append(f"{test.relative_to(root)}: has no TEST_CASE")
        includes = re.findall(r"^#include [<\"](.*)[>\"]", text, re.M)
        name = str(header.relative_to(root / "include"))
        if name in includes[1:]:
            findings.append(f"{test.relative_to(root)}: {name} is not its first include")
    for test in sorted(root.glob("tests/*/*.[ch]pp")):
        for name in re.findall(r'TEST_CASE\(\s*"([^"]*;[^"]*)"', test.read_text()):
            findings.append(f"{test.relative_to(root)}: a test's name holds a semicolon: {name}")
    common.finish(findings, f"mirror: {len(headers)} public headers, each with its test")


main()
