# SPDX-License-Identifier: MIT
"""What it was measured on, and who else was there."""
import datetime
import os
import platform
import re
import subprocess
import time

import peer_rows
import stats


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "not there"


def describe(root):
    with open("/proc/cpuinfo") as file:
        text = file.read()
    model = re.search(r"model name\s*: (.*)", text)
    libc = " ".join(platform.libc_ver())
    revision = first_line("git", "-C", str(root), "describe", "--always", "--dirty")
    return {"date": datetime.date.today().isoformat(), "revision": revision,
            "processor": f"{model[1] if model else platform.machine()}, {os.cpu_count()} of them",
            "system": f"{platform.system()} {platform.release()}, {libc}",
            "compilers": f"{first_line('g++-12', '--version')}; {first_line('clang++-19', '--version')}",
            **peer_rows.versions(root),
            "flags": "-std=c++20 -O3 -DNDEBUG -march=x86-64-v2"}


class Load:
    """The share of all processors that went to others than this process and its children."""

    def __init__(self):
        self.begin = self.look()

    @staticmethod
    def look():
        with open("/proc/stat") as file:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        t = os.times()
        return time.monotonic(), busy, t.user + t.system + t.children_user + t.children_system

    def foreign(self):
        wall, busy, own = (b - a for a, b in zip(self.begin, self.look()))
        return max(0.0, (busy - own) / (wall * (os.cpu_count() or 1))) if wall else 0.0


def table(facts):
    return stats.markdown(("what", "where"), facts.items())
