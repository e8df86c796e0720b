# SPDX-License-Identifier: MIT
"""Puts generated text between its two markers in a page; everything else of the page is written by hand."""
import re


def write(path, sections):
    text = path.read_text()
    for name, body in sections.items():
        pattern = re.compile(rf"(<!-- bench: {name} -->\n).*?(<!-- /bench -->)", re.S)
        if not pattern.search(text):
            raise SystemExit(f"{path}: has no place for {name}: <!-- bench: {name} --> ... <!-- /bench -->")
        text = pattern.sub(lambda found, body=body: found[1] + "\n" + body + "\n\n" + found[2], text)
    path.write_text(text)
