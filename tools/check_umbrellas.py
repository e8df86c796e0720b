#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails unless every <cordon/<room>.hpp> includes exactly the public headers of its room, and <cordon/cordon.hpp>
every room but testing and interop."""
import common

LICENSE = "// SPDX-License-Identifier: MIT\n#pragma once\n\n"


def umbrella(first, includes):
    return f"{LICENSE}// {first}\n" + "".join(f"#include <cordon/{name}>\n" for name in includes)


def wanted(root):
    """What each umbrella has to contain: {path: text}."""
    headers = {}
    for path in common.public_headers(root):
        headers.setdefault(path.parent.name, []).append(f"{path.parent.name}/{path.name}")
    headers.pop("interop", None)
    base = root / "include/cordon"
    texts = {base / f"{room}.hpp": umbrella(f"The whole room {room}.", names) for room, names in headers.items()}
    everything = [f"{room}.hpp" for room in common.rooms(root) if room in headers and room != "testing"]
    texts[base / "cordon.hpp"] = umbrella("Everything but testing and interop.", [*everything, "version.hpp"])
    return texts


def main():
    args = common.arguments(__doc__, write="write the umbrellas as they should be")
    findings = []
    texts = wanted(args.root)
    for path, text in texts.items():
        if args.write:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            have = set(path.read_text().splitlines()) if path.exists() else set()
            differ = sorted(line for line in have ^ set(text.splitlines()) if line.startswith("#include"))
            findings.append(f"{path.relative_to(args.root)}: differs in {', '.join(differ) or 'its text'}; "
                            "run tools/check_umbrellas.py --write")
    for path in sorted((args.root / "include/cordon").glob("*.hpp")):
        if path not in texts and path.name != "version.hpp":
            findings.append(f"{path.relative_to(args.root)}: is the umbrella of no room")
    common.finish(findings, f"umbrellas: {len(texts)} hold what they should")


main()
