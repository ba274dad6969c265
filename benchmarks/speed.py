"""How long this project and what people use now take for the same work, side by side on one machine.

    make bench
    python -m benchmarks.speed --workload search --backbone ResNet50 --rounds 5

Every tool runs in a process and an empty folder of its own, one tool at a time, all of them once before any of them
again, and each round begins with another one. The raw numbers are written as each run ends; the same command goes on
where an interrupted one was. At the end it prints the table, which is pasted into docs/benchmarks.md.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import table, workload
from benchmarks.rivals.log import versions
from search.record.record import now, write_json

ROOT = Path(__file__).absolute().parents[1]
TOOLS = {
    "search": "benchmarks.ours",
    "ray_tune": "benchmarks.rivals.ray_tune",
    "ray_tune_reuse": "benchmarks.rivals.ray_tune_reuse",
    "keras_tuner": "benchmarks.rivals.keras_tuner",
    "optuna_keras": "benchmarks.rivals.optuna_keras",
    "floor": "benchmarks.rivals.floor",
}


class ToolError(Exception):
    """A tool failed."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    workload.add_options(parser)
    parser.add_argument("--tools", help=f"of {','.join(TOOLS)} (default: all that do this workload)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool runs (default: 3)")
    parser.add_argument("--out", type=Path, help="the raw numbers (default: below results/bench)")
    options = parser.parse_args()
    able = [tool for tool in TOOLS if options.workload == "equal" or tool != "floor"]
    options.tools = options.tools.split(",") if options.tools else able
    if wrong := [tool for tool in options.tools if tool not in able]:
        parser.error(f"--tools: {', '.join(wrong)}: choose from {', '.join(able)}")
    if options.depth is not None and options.workload == "search":
        parser.error("--depth is for --workload equal")
    parts = [options.workload, options.backbone]
    parts += [f"depth{options.depth}"] * (options.depth is not None) + ["small"] * options.small
    options.out = (options.out or Path("results", "bench", "-".join(parts) + ".json")).absolute()
    return options


def known(out: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The numbers that an earlier command wrote, if they are of this workload, machine and software; else none."""
    about = {"workload": described, "machine": machine(), "versions": versions(), "runs": []}
    if not out.exists():
        return about
    found = json.loads(out.read_text(encoding="utf-8"))
    if other := [name for name in ("workload", "machine", "versions") if found[name] != about[name]]:
        sys.exit(f"{out} was made with another {' and '.join(other)}: name another file with --out, or remove it")
    return found


def machine() -> dict[str, Any]:
    """The processor's name and how many of its cores may be used."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": names[0] if names else "unknown", "cores": workload.cpus(), "python": sys.version.split()[0]}


def prepare(folder: Path, options: argparse.Namespace, described: dict[str, Any]) -> Path:
    """Make the workload in this folder, unless it is there; give the path of its description."""
    path = folder / "workload.json"
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not (described.items() <= there.items() and Path(there["data"]).exists()):
        print(f"making the workload in {folder}", flush=True)
        asked = [f"--workload={options.workload}", f"--backbone={options.backbone}", f"--seed={options.seed}"]
        asked += [f"--depth={options.depth}"] * (options.depth is not None) + ["--small"] * options.small
        subprocess.run([sys.executable, "-m", "benchmarks.workload", folder, *asked], check=True, env=environment())
    return path


def environment() -> dict[str, str]:
    """What every process gets."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}


def run(tool: str, given: Path) -> dict[str, Any]:
    """Run a tool once.

    Raises:
        ToolError: holds the end of what it said.
    """
    busy = psutil.cpu_percent(interval=1)
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        out, log, work = (Path(folder, name) for name in ("out.json", "log", "work"))
        work.mkdir()
        command = [sys.executable, "-m", TOOLS[tool], str(given), str(out)]
        with log.open("wb") as said:
            started = time.monotonic()
            process = subprocess.Popen(
                command, cwd=work, env=environment(), stdout=said, stderr=said, start_new_session=True
            )
            try:
                status = process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
            wall = time.monotonic() - started
        if status:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
            raise ToolError(f"{shlex.join(command)} ended with status {status}:\n{end}")
        return {"wall_s": wall, "busy_before": busy, **json.loads(out.read_text(encoding="utf-8"))}


def main() -> int:
    """Run what is missing, then print the table; give the exit status."""
    options = parse()
    described = workload.describe(options)
    numbers = known(options.out, described)
    given = prepare(options.out.with_suffix(""), options, described)
    failed = False
    for turn in range(options.rounds):
        first = turn % len(options.tools)
        for tool in options.tools[first:] + options.tools[:first]:
            if any((one["tool"], one["round"]) == (tool, turn + 1) for one in numbers["runs"]):
                continue
            print(f"round {turn + 1} of {options.rounds}: {tool} …", end=" ", flush=True)
            try:
                found = {"tool": tool, "round": turn + 1, "started": now(), **run(tool, given)}
            except ToolError as error:
                print(f"failed\n{error}", flush=True)
                failed = True
                continue
            print(f"{found['wall_s']:.1f} s", flush=True)
            numbers["runs"].append(found)
            write_json(options.out, numbers)
    print(f"\nraw numbers: {options.out}\n")
    print(table.render(numbers))
    return int(failed)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on")
