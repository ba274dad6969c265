"""Raw numbers of the benchmark as the tables of docs/benchmarks.md: medians over the rounds, and ratios.

python -m benchmarks.table FILE.json
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

OURS = "search"
NAMES = {
    "search": "this project",
    "ray_tune": "Ray Tune",
    "ray_tune_reuse": "Ray Tune, reused actors",
    "keras_tuner": "KerasTuner",
    "optuna_keras": "Optuna with Keras",
}

Run = dict[str, Any]


def render(numbers: dict[str, Any]) -> str:
    """The tables of one file of raw numbers, as markdown; empty where no run has ended."""
    if not numbers["runs"]:
        return ""
    runs = {tool: [run for run in numbers["runs"] if run["tool"] == tool] for tool in [*NAMES, "floor"]}
    floor = runs.pop("floor")
    runs = {tool: found for tool, found in runs.items() if found}
    if numbers["workload"]["kind"] == "search":
        return "\n".join([*about(numbers), "", *search(runs)])
    return "\n".join([*about(numbers), "", *equal(runs), "", *measures(runs, floor, numbers["machine"]["cores"])])


def about(numbers: dict[str, Any]) -> list[str]:
    """What was measured, on what."""
    given, machine, runs = numbers["workload"], numbers["machine"], numbers["runs"]
    days = sorted({run["started"][:10] for run in runs})
    chosen = "given" if given["kind"] == "equal" else "chosen and stopped early by each tool itself"
    return [
        f"- {given['backbone']} at {given['image_size']} pixels, unfreeze depth "
        f"{', '.join(map(str, given['unfreeze_depths']))}",
        f"- {given['images']['train']} training and {given['images']['val']} validation images",
        f"- {given['trials']} configurations, {chosen}, of at most {given['epochs']} epochs",
        f"- {machine['cores']} cores of {machine['processor']}, before a run at most "
        f"{max(run['busy_before'] for run in runs):.0f} % busy with other things",
        f"- {max(run['round'] for run in runs)} rounds, {' to '.join(dict.fromkeys([days[0], days[-1]]))}",
        f"- Python {machine['python']}, " + ", ".join(" ".join(pair) for pair in numbers["versions"].items()),
    ]


def equal(runs: dict[str, list[Run]]) -> list[str]:
    """The same configurations and epochs: wall time and checkpoints."""
    wall = middle(runs, lambda run: run["wall_s"])
    written = middle(runs, lambda run: run["checkpoint_bytes"] / len(run["trials"]))
    best = middle(runs, accuracy)
    lines = [
        [
            NAMES[tool],
            f"{wall[tool]:.1f}",
            spread([run["wall_s"] for run in found]),
            ratio(wall, tool),
            f"{written[tool] / 1e6:.2f}",
            ratio(written, tool),
            f"{sum(trial['epochs'] for trial in found[-1]['trials'])}",
            f"{best[tool]:.3f}",
        ]
        for tool, found in runs.items()
    ]
    head = ["wall time, s", "all rounds", "ratio", "checkpoints, MB per trial", "ratio", "epochs", "best accuracy"]
    return markdown(["tool", *head], lines)


def measures(runs: dict[str, list[Run]], floor: list[Run], cores: int) -> list[str]:
    """The floor, the distance to it, and how long a user waits for the first epoch."""
    ours, lines = runs.get(OURS, []), []
    if floor:
        seconds = median(run["core_seconds"] for run in floor)
        lines.append(["the floor, core-seconds", f"{seconds:.1f}"])
        for depth in floor[0]["epoch_core_seconds"]:
            each = median(run["epoch_core_seconds"][depth] for run in floor)
            lines.append([f"the floor, core-seconds for an epoch at depth {depth}", f"{each:.3f}"])
        if ours:
            distance = median(run["wall_s"] for run in ours) * cores / seconds
            lines.append(["this project's wall time times cores, over the floor", f"{distance:.2f}"])
    if ours:
        lines.append(["command to first reported epoch, s", f"{median(run['first_epoch_s'] for run in ours):.1f}"])
        second = [run["second"] for run in ours]
        first_epoch = median(run["first_epoch_s"] for run in second)
        lines.append(["second search over the same data: command to first reported epoch, s", f"{first_epoch:.1f}"])
        wall = median(run["wall_s"] for run in second)
        lines.append([f"second search, {second[0]['trials']} configurations: wall time, s", f"{wall:.1f}"])
    return markdown(["measure", "median"], lines) if lines else []


def search(runs: dict[str, list[Run]]) -> list[str]:
    """Whole searches: the time to the best accuracy that every run of every tool reached, and to the end."""
    target = min(accuracy(run) for found in runs.values() for run in found)
    reached = middle(runs, lambda run: next(at for at, value in run["events"] if value >= target))
    wall, best = middle(runs, lambda run: run["wall_s"]), middle(runs, accuracy)
    lines = [
        [
            NAMES[tool],
            f"{reached[tool]:.1f}",
            ratio(reached, tool),
            f"{wall[tool]:.1f}",
            spread([run["wall_s"] for run in found]),
            ratio(wall, tool),
            f"{median(len({json.dumps(trial['configuration']) for trial in run['trials']}) for run in found):g}",
            f"{median(sum(trial['epochs'] for trial in run['trials']) for run in found):g}",
            f"{best[tool]:.3f}",
        ]
        for tool, found in runs.items()
    ]
    head = [f"to accuracy {target:.3f}, s", "ratio", "whole search, s", "all rounds", "ratio"]
    return markdown(["tool", *head, "configurations", "epochs", "best accuracy"], lines)


def accuracy(run: Run) -> float:
    """The best validation accuracy of a run."""
    return max(value for _, value in run["events"])


def middle(runs: dict[str, list[Run]], value: Callable[[Run], float]) -> dict[str, float]:
    """The median of a value over the rounds, for each tool."""
    return {tool: median(value(run) for run in found) for tool, found in runs.items()}


def ratio(values: dict[str, float], tool: str) -> str:
    """A tool's value in multiples of this project's."""
    return f"{values[tool] / values[OURS]:.1f}" if values.get(OURS) else ""


def spread(values: Sequence[float]) -> str:
    """The least and the greatest."""
    return f"{min(values):.1f} to {max(values):.1f}"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines]]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    print(render(json.loads(parser.parse_args().file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
