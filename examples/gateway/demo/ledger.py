# SPDX-License-Identifier: MIT
"""The client that keeps a ledger, and what its rows say."""

import json
import pathlib
import subprocess
import sys

from common import CannotRun

CLIENT = pathlib.Path(__file__).resolve().parent / "ledger_client.py"
CONNECTIONS = 64


def start_client(stage, gateway, name, rate, *more):
    return stage.start(
        name, sys.executable, CLIENT, "--port", gateway.port, "--rate", rate,
        "--connections", CONNECTIONS, "--requests-per-connection", 4, "--prefix", name,
        "--ids", stage.work / f"{name}.tsv", "--stop-file", stage.work / f"{name}.stop", *more)  # fmt: skip


def finish_client(stage, name, client):
    """Returns: the client's summary and its ledger."""
    (stage.work / f"{name}.stop").touch()
    try:
        client.wait(10)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{name}: the ledger client did not end") from None
    if client.returncode != 0:
        raise CannotRun(f"{name}: the ledger client ended with code {client.returncode}")
    names, *lines = [line.split("\t") for line in (stage.work / f"{name}.tsv").read_text().splitlines()]
    return json.loads(stage.output(name)), [dict(zip(names, line)) for line in lines]


def add_row(stage, act, summary, rows, seen):
    outcomes = summary["outcomes"]
    stage.row(act, summary["requests"], outcomes.get("ok", 0), sum(map(turned_away, rows)), outcomes.get("http_504", 0),
              summary["p50_ms"], summary["p99_ms"], seen)  # fmt: skip


def answered(row):
    return row["outcome"] == "ok" or row["outcome"].startswith("http_")


def turned_away(row):
    """Complete answers, but not what a request already in flight is owed. (A 504 is: its deadline passed.)"""
    return row["outcome"] in ("http_502", "http_503")


def sent_before(moment, row):
    return row["sent_at"] != "-" and float(row["sent_at"]) <= moment


def some(rows):
    shown = ", ".join(f"{row['id']} {row['outcome']}" for row in rows[:5])
    return shown + (", ..." if len(rows) > 5 else "")
