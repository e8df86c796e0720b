#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails unless every block of C++ in README.md, docs/*.md and docs/rooms/*.md is a piece of a compiled example.

A block is tied to its source by the line above it:

    <!-- snippet: examples/01_context.cpp#name -->
    ```cpp
    the text between the lines `// [name]` and `// [/name]` of that file, dedented
    ```

A block that is not meant to be compiled is not tagged cpp.
"""
import re
import textwrap

import common

MARKER = re.compile(r"<!-- snippet: (\S+)#(\S+) -->$")
EDGE = re.compile(r"\s*// \[/?[\w.-]+\]$")


def region(root, file, name):
    """The lines of a region, or a complaint about it."""
    path = root / file
    if not path.is_file():
        return None, f"{file} does not exist"
    lines = path.read_text().splitlines()
    first = [i for i, line in enumerate(lines) if line.strip() == f"// [{name}]"]
    last = [i for i, line in enumerate(lines) if line.strip() == f"// [/{name}]"]
    if len(first) != 1 or len(last) != 1 or last[0] < first[0]:
        return None, f"{file} needs exactly one `// [{name}]` and below it one `// [/{name}]`"
    inside = [line for line in lines[first[0] + 1:last[0]] if not EDGE.match(line)]
    return textwrap.dedent("\n".join(inside)).strip("\n").splitlines(), None


def splice(root, text, findings, where):
    """The page with each snippet as it should be; what cannot be spliced is added to the findings."""
    lines, result, i, count = text.splitlines(), [], 0, 0
    while i < len(lines):
        line = lines[i]
        result.append(line)
        i += 1
        marker = MARKER.match(line)
        if not marker:
            if line.startswith("```"):
                if line == "```cpp":
                    findings.append(f"{where}:{i}: a block of C++ without a snippet marker")
                end = lines.index("```", i) if "```" in lines[i:] else len(lines) - 1
                result += lines[i:end + 1]
                i = end + 1
            continue
        count += 1
        body, wrong = region(root, *marker.groups())
        if wrong or i == len(lines) or lines[i] != "```cpp" or "```" not in lines[i:]:
            findings.append(f"{where}:{i}: {wrong or 'a snippet marker without a block ```cpp below it'}")
            continue
        result += ["```cpp", *body, "```"]
        i = lines.index("```", i) + 1
    return "\n".join(result) + "\n", count


def main():
    args = common.arguments(__doc__, write="splice the snippets into the pages")
    findings, total = [], 0
    pages = [args.root / "README.md", *sorted(args.root.glob("docs/*.md")), *sorted(args.root.glob("docs/rooms/*.md"))]
    for page in pages:
        text, where = page.read_text(), page.relative_to(args.root)
        spliced, count = splice(args.root, text, findings, where)
        total += count
        if spliced == text:
            continue
        if args.write:
            page.write_text(spliced)
        else:
            line = next(n for n, (a, b) in enumerate(zip(text.split("\n"), spliced.split("\n")), 1) if a != b)
            findings.append(f"{where}:{line}: is not what the example says; run tools/check_snippets.py --write")
    common.finish(findings, f"snippets: {total} in {len(pages)} pages, all from examples")


main()
