# SPDX-License-Identifier: MIT
"""Rows that are written with Google Benchmark: the programs that CMake builds of bench/."""
import json
import os
import subprocess
import sys
import tempfile


def programs(root):
    folder = root / "build/bench/bench"
    found = sorted(path for path in folder.glob("bench_*")
                   if path.is_file() and os.access(path, os.X_OK) and path.name != "bench_counts")
    if not found:
        sys.exit(f"no benchmarks in {folder}: run scripts/bench")
    return found


def listed(program):
    """figure/row of each, maybe with more behind it."""
    done = subprocess.run([program, "--benchmark_list_tests=true"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def command(program, figure, row, repetitions, min_time):
    pattern = f"^{figure}/" if row is None else f"^{figure}/{row}(/|$)"
    return [str(program), f"--benchmark_filter={pattern}", f"--benchmark_repetitions={repetitions}",
            f"--benchmark_min_time={min_time}", "--benchmark_enable_random_interleaving=true"]


def run(line, drop):
    """{row: {"ns": [...], counters}} of one process, without its first `drop` repetitions."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run([*line, f"--benchmark_out={out.name}", "--benchmark_out_format=json"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300)
        if done.returncode != 0:
            return {" ".join(line): {"error": f"exit code {done.returncode}: {done.stderr.strip()[-200:]}"}}
        report = json.load(open(out.name))
    rows = {}
    for entry in report["benchmarks"]:
        if entry["run_type"] != "iteration":
            continue
        row = rows.setdefault(entry["run_name"].split("/")[1], {"ns": []})
        if entry.get("error_occurred"):
            row["error"] = entry["error_message"]
        elif entry["repetition_index"] >= drop:
            row["ns"].append(nanoseconds(entry))
            if "bytes" in entry:
                row["bytes"] = entry["bytes"]
    return rows


def nanoseconds(entry):
    """For each operation: real time where threads meet or the row measures for itself, else that of the processor."""
    if "items_per_second" in entry:
        return 1e9 / entry["items_per_second"]
    real = "/real_time" in entry["name"] or "/manual_time" in entry["name"]
    return entry["real_time" if real else "cpu_time"] * {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}[entry["time_unit"]]
