# SPDX-License-Identifier: MIT
"""Rows in other languages: the programs that bench/peers/build builds, one for each toolchain that it finds. Each knows

    --list                                                   says its rows, a figure/row in each line
    --run FIGURE[/ROW] --repetitions N --min-time SECONDS    prints `row nanoseconds` for each repetition of each row

where a nanosecond is that of one operation, and a repetition of no time does the work once.
"""
import os
import subprocess

# In the order of the page.
LANGUAGES = {"go": "Go", "go_modules": "Go, with modules", "rust": "Rust", "java": "Java"}


def folder(root):
    return root / "build/bench/peers"


def programs(root):
    return [folder(root) / name for name in LANGUAGES if os.access(folder(root) / name, os.X_OK)]


def versions(root):
    """{language: what built its program, or why there is none}."""
    said = {name: folder(root) / f"{name}.txt" for name in LANGUAGES}
    return {language: said[name].read_text().strip() if said[name].exists() else "left out: bench/peers/build has not run"
            for name, language in LANGUAGES.items()}


def left_out(root):
    """A sentence for each language, or for what a program would have had, that has no rows."""
    return [f"{language}: {text}" for language, text in versions(root).items() if "left out" in text]


def listed(program):
    """figure/row of each."""
    return subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()


def command(program, figure, row, repetitions, min_time):
    """With a row, each repetition does the work once, as the rows of C++ that run alone do."""
    return [str(program), "--run", f"{figure}/{row}" if row else figure, "--repetitions", str(repetitions),
            "--min-time", str(0 if row else min_time)]


def run(line, drop):
    """{row: {"ns": [...]}} of one process, without the first `drop` repetitions of each."""
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        return {" ".join(line): {"error": f"exit code {done.returncode}: {done.stderr.strip()[-200:]}"}}
    rows = {}
    for said in done.stdout.splitlines():
        row, ns = said.split()
        rows.setdefault(row, {"ns": []})["ns"].append(float(ns))
    for row in rows.values():
        del row["ns"][:drop]
    return rows
