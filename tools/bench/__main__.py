# SPDX-License-Identifier: MIT
"""Measures what bench/ holds, prints tables, and with --write puts them into docs/performance.md.

`scripts/bench` builds the programs and calls this. Times are compared within one process, its repetitions interleaved
at random, but for those of other languages, which have their own; instructions are counted by callgrind; headers are
timed by the compiler. No time is ever a reason to fail: the exit code tells whether every row did its work.
"""
import argparse
import json
import pathlib
import re
import sys

import counts
import gateway
import goals
import include_cost
import machine
import page
import times


def arguments():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", action="store_true", help="time the rows (the default)")
    parser.add_argument("--counts", action="store_true", help="count instructions and allocations of one operation")
    parser.add_argument("--include", action="store_true", help="time what it costs to include each header")
    parser.add_argument("--gateway", action="store_true",
                        help="only what the guards cost the gateway; with --write, into docs/performance.md")
    parser.add_argument("--write", action="store_true", help="all but --gateway, and write docs/performance.md")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="REGEX",
                        help="only the figures, works or headers whose name has a match")
    parser.add_argument("--quick", action="store_true", help="few and short repetitions: to see that everything runs")
    parser.add_argument("--from", dest="saved", type=pathlib.Path, metavar="JSON",
                        help="measure nothing; take the results of an earlier run")
    parser.add_argument("--root", type=pathlib.Path, default=root, help="the checkout (default: the one this is in)")
    return parser.parse_args()


def main():
    args = arguments()
    if args.gateway:
        seen = json.loads(args.saved.read_text()) if args.saved else gateway.measure(args.root, args.quick)
        text = gateway.table(seen)
        print(text)
        if args.write:
            page.write(args.root / "docs/performance.md", {"gateway": text})
        return 0
    if args.saved:
        results = json.loads(args.saved.read_text())
    else:
        wanted = {part for part in ("times", "counts", "include") if args.write or getattr(args, part)} or {"times"}
        results = {"machine": machine.describe(args.root)}
        load = machine.Load()
        if "counts" in wanted:
            results["counts"] = counts.measure(args.root, args.only)
        if "include" in wanted:
            results["include"] = include_cost.measure(args.root, args.only, args.quick)
        if "times" in wanted:
            results["times"] = times.measure(args.root, args.only, args.quick)
        results["machine"] |= {"foreign load": f"{load.foreign():.0%} of all processors, used by others meanwhile"}
        saved = args.root / "build/bench/results.json"
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_text(json.dumps(results, indent=1))

    sections = {"machine": machine.table(results["machine"])}
    if results.get("times"):
        sections["times"] = times.tables(results["times"])
    if results.get("counts"):
        sections["counts"] = counts.table(results["counts"])
    if results.get("include"):
        sections["include"] = include_cost.table(results["include"])
    sections["goals"] = goals.table(results)
    print("\n\n".join(sections.values()))
    if args.write:
        page.write(args.root / "docs/performance.md", sections)
    broken = times.broken(results.get("times", {}))
    for row in broken:
        print(f"broken: {row}", file=sys.stderr)
    return 1 if broken else 0


sys.exit(main())
