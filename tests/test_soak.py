"""A search of 40 trials whose processes are killed at random moments, 15 times: `make soak`, some ten minutes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from searches import PATIENCE_S, accuracy_of_the_model, command, rows, study, workers

from search.components.stopping.rule import Curve
from search.components.stopping.trend import Trend
from search.record import record, states
from search.space import Budget, Objective

pytestmark = pytest.mark.soak

KILLS, TRIALS = 15, 40
SPACE = f"""
from search.space import Budget, Depth, Float, Space

space = Space(
    search={{"unfreeze_depth": Depth(2, 4), "learning_rate": Float(1e-4, 1e-1, log=True)}},
    fixed={{"batch_size": 32}},
    budget=Budget(trials={TRIALS}, epochs=27, first_rung=3, reduction_factor=3),
)
"""


def begun(folder: Path, said: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command, which writes what it says into a file."""
    with said.open("ab") as out:
        return subprocess.Popen(command(folder, *options), stdout=out, stderr=out)


def test_soak(tmp_path: Path) -> None:
    """Something is lost, or told twice, at a moment that nobody has thought of."""
    seed = int(os.environ.get("SOAK_SEED", str(time.time_ns() % 10**6)))
    print(f"SOAK_SEED={seed}", file=sys.stderr)
    chance, said, search = random.Random(seed), tmp_path / "said", tmp_path / "results" / "soak"  # noqa: S311
    (tmp_path / "soak.py").write_text(SPACE)
    options = ["--space", str(tmp_path / "soak.py"), "--name", "soak"]
    kills = 0
    process = begun(tmp_path, said, *options)
    while kills < KILLS:
        try:
            process.wait(chance.uniform(1, 18))
        except subprocess.TimeoutExpired:
            trials = workers(process)  # type: ignore[arg-type]
            if trials and chance.random() < 0.5:
                os.kill(chance.choice(trials), signal.SIGKILL)
                kills += 1
                continue
            process.kill()
            process.wait()
            kills += 1
        else:
            break
        process = begun(tmp_path, said, *(["--resume", "soak"] if (search / "search.json").exists() else options))
    status = process.wait(3 * PATIENCE_S)

    assert status in (0, 3), said.read_text()
    assert kills == KILLS, f"the search was over after {kills} kills"
    found = rows(search)
    assert [row["trial"] for row in found] == [f"{number:04d}" for number in range(TRIALS)]
    assert {row["state"] for row in found} <= {"completed", "stopped", "failed"}
    assert all(trial.state.is_finished() for trial in study(search).trials)
    assert len(study(search).trials) == TRIALS
    demand_consistent(search)
    metrics = json.loads((search / "best" / "metrics.json").read_text())
    assert metrics["val_accuracy"] == max(float(row["val_accuracy"]) for row in found if row["state"] != "failed")
    assert accuracy_of_the_model(search) == pytest.approx(metrics["test_accuracy"])


def demand_consistent(search: Path) -> None:
    """Check that every decision of the rule follows from the curves, in the order in which they were recorded."""
    known, rule = record.Record(search), Trend(Budget(**record.read_search(search)["space"]["budget"]), Objective())
    decisions = 0
    for event in record.History(search / "history.jsonl").read()[0]:
        trial, metrics = event.get("trial", ""), event.get("metrics", {})
        curve, epoch = known.curves.get(trial, {}), metrics.get("epoch")
        if epoch in rule.rungs and epoch not in curve and not metrics["ending"]:
            now = record.Point(metrics["objective"], metrics["last_val_loss"])
            others = [
                Curve(points, known.rows[other].state in (states.COMPLETED, states.DIVERGED))
                for other, points in known.curves.items()
                if other != trial
            ]
            assert bool(event.get("rung")) == rule.stops(Curve({**curve, epoch: now}), others), event
            decisions += 1
        else:
            assert "rung" not in event, event
        known._apply(event)
    assert decisions >= TRIALS / 2
