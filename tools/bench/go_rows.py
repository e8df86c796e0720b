# SPDX-License-Identifier: MIT
"""Rows that are written in Go, bench/peers/go/rows_test.go. scripts/bench builds them where /usr/bin/go is installed."""
import os
import re
import subprocess

NAME = "go_rows"
LINE = re.compile(r"^BenchmarkRows/\w+/(?P<row>\w+)\s+\d+\s+(?P<ns>[\d.]+) ns/op\s+(?P<items>[\d.]+) items/op$", re.M)


def programs(root):
    """The one program, or none."""
    program = root / "build/bench" / NAME
    return [program] if os.access(program, os.X_OK) else []


def said_by(program):
    return subprocess.run([program, "-test.run=^TestRows$"], capture_output=True, text=True, check=True).stdout.split()


def listed(program):
    """figure/row of each."""
    return [word for word in said_by(program) if "/" in word]


def version(root):
    """Of the compiler; or that there is none."""
    for program in programs(root):
        return next(word for word in said_by(program) if word.startswith("go1."))
    return "not there (no /usr/bin/go): its rows are left out"


def command(program, figure, row, repetitions, min_time):
    """With a row, each repetition does the work once, as the rows of C++ that run alone do."""
    pattern = f"^BenchmarkRows$/^{figure}$" + (f"/^{row}$" if row else "")
    return [str(program), "-test.run=^$", f"-test.bench={pattern}", f"-test.count={repetitions}",
            f"-test.benchtime={'1x' if row else f'{min_time}s'}", "-test.cpu=1"]


def run(line, drop):
    """{row: {"ns": [...]}} of one process, without the first `drop` repetitions of each."""
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if done.returncode != 0:
        return {" ".join(line): {"error": f"exit code {done.returncode}: {done.stdout.strip()[-200:]}"}}
    rows = {}
    for found in LINE.finditer(done.stdout):
        rows.setdefault(found["row"], {"ns": []})["ns"].append(float(found["ns"]) / float(found["items"]))
    for row in rows.values():
        del row["ns"][:drop]
    return rows
