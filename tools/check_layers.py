#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails on every include that the table of rooms in docs/layers.md does not allow, and on expensive std headers."""
import re

import common

EXPENSIVE = {"functional", "iostream", "ranges", "format", "regex"}


def complaint(table, room, include):
    """Why a header of `room` may not have the line `#include <include>`; None if it may."""
    if include.startswith('"'):
        return "include it with angle brackets, so that this check can judge it"
    include = include.strip("<>")
    if include in EXPENSIVE:
        return "costs every user too much compile time"
    parts = include.split("/")
    if parts[0] != "cordon":
        outside = include.endswith(".hpp")
        return "only interop may use an outside library" if outside and room != "interop" else None
    if len(parts) == 2:
        return None if include == "cordon/version.hpp" else "an umbrella; include the header that is needed"
    other, shared = parts[1], include.startswith("cordon/core/detail/")
    if other == room:
        return None
    if other not in table:
        return f"{other} is not a room of docs/layers.md"
    if parts[2] == "detail" and not shared:
        return f"{other}/detail belongs to {other} alone"
    if not shared and table[room] is not None and other not in table[room]:
        return f"{room} may include {', '.join(sorted(table[room])) or 'std'} only"
    return None


def main():
    root = common.arguments(__doc__).root
    table = common.rooms(root)
    findings, edges = [], 0
    files = [path for path in sorted((root / "include/cordon").glob("*/**/*")) if path.is_file()]
    for path in files:
        room = path.relative_to(root / "include/cordon").parts[0]
        if room not in table:
            findings.append(f"{path.relative_to(root)}:1: {room} is not a room of docs/layers.md")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if include := re.match(r'\s*#\s*include\s*(<[^>]*>|"[^"]*")', line):
                edges += 1
                if why := complaint(table, room, include[1]):
                    findings.append(f"{path.relative_to(root)}:{number}: #include {include[1]}: {why}")
    common.finish(findings, f"layers: {edges} includes in {len(files)} headers, all allowed")


main()
