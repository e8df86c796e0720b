# SPDX-License-Identifier: MIT
"""What the checks of this folder share: their arguments, the rooms, and how a finding is told."""
import argparse
import pathlib
import re
import sys


def arguments(doc, write=None, check=False):
    """The command line of a check: its root, and --write or --check for one that also generates."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent,
                        help="the checkout to look at (default: the one that this tool is in)")
    if write:
        parser.add_argument("--write", action="store_true", help=write)
    if check:
        parser.add_argument("--check", action="store_true", help="write nothing; fail where something is wrong")
    return parser.parse_args()


def finish(findings, fine):
    """Prints the findings, or that all is fine, and exits with 1 or 0."""
    for finding in findings:
        print(finding, file=sys.stderr)
    if not findings:
        print(fine)
    sys.exit(1 if findings else 0)


def rooms(root):
    """The table of docs/layers.md: {room: the other rooms it may include, or None for all of them}."""
    table = {}
    for line in (root / "docs/layers.md").read_text().splitlines():
        if row := re.match(r"\|\s*\d+\s*\|\s*(\w+)\s*\|[^|]*\|\s*([^|]*?)\s*\|", line):
            room, allowed = row.groups()
            special = {"std only": set(), "any public header": None}
            table[room] = special[allowed] if allowed in special else set(re.split(r"\s*,\s*", allowed))
    if not table:
        sys.exit("docs/layers.md has no table of rooms")
    return table


def public_headers(root):
    """Every include/cordon/<room>/<noun>.hpp, sorted; what is in a detail/ folder is not public."""
    return sorted((root / "include/cordon").glob("*/*.hpp"))
