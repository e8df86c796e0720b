# SPDX-License-Identifier: MIT
"""What a file that includes one header costs to compile: seconds of the processor and lines after the preprocessor."""
import os
import random
import subprocess
import tempfile
import time

import stats

STD = "coroutine stop_token thread atomic chrono mutex memory vector"
OTHERS = ("asio.hpp", "boost/asio.hpp")
COMPILE = ("g++-12", "-std=c++20", "-O0", "-fsyntax-only")
PREPROCESS = ("g++-12", "-std=c++20", "-E", "-P")


def sources(root):
    """{name: text of the file}."""
    rooms = sorted(path.name for path in (root / "include/cordon").glob("*.hpp") if path.name != "version.hpp")
    found = {f"std: {STD}": "".join(f"#include <{name}>\n" for name in STD.split())}
    found |= {f"cordon/{name}": f"#include <cordon/{name}>\n" for name in sorted(rooms, key="cordon.hpp".__ne__)}
    found |= {"cordon/interop/asio.hpp": "#include <cordon/interop/asio.hpp>\n"}
    return found | {name: f"#include <{name}>\n" for name in OTHERS}


def seconds(*command):
    begin = os.times()
    subprocess.run(command, check=True, capture_output=True)
    end = os.times()
    return end.children_user - begin.children_user + end.children_system - begin.children_system


def measure(root, only, quick):
    """{name: {"seconds": [...], "lines": n}}; headers that are not installed are left out."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, text in sources(root).items():
            if not only.search(name):
                continue
            path = os.path.join(folder, f"{len(files)}.cpp")
            with open(path, "w") as file:
                file.write(text)
            flags = ("-I", str(root / "include"), path)
            lines = subprocess.run([*PREPROCESS, *flags], capture_output=True)
            if lines.returncode == 0:
                files[name] = flags
                results[name] = {"seconds": [], "lines": lines.stdout.count(b"\n")}
        for _ in range(1 if quick else 3):
            for name in random.sample(list(files), len(files)):
                results[name]["seconds"].append(seconds(*COMPILE, *files[name]))
    return results


def table(results):
    base = next(iter(results.values()))["seconds"]
    rows = [[name, stats.spread(found["seconds"]), stats.spread(stats.ratios(found["seconds"], base)),
             str(found["lines"])] for name, found in results.items()]
    commands = [f"    {' '.join(COMPILE)} -I include one_include.cpp",
                f"    {' '.join(PREPROCESS)} -I include one_include.cpp | wc -l"]
    return "\n".join(commands) + "\n\n" + stats.markdown(("header", "seconds", "to std", "lines"), rows)
