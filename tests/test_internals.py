"""What is private to Ray, Optuna and Keras is there, and nobody else touches it."""

import ast
from pathlib import Path

import keras
import numpy as np
import optuna
import pytest

from search.internals import of_keras, of_optuna
from search.parameters import Choice, Float, Int

ROOT = Path(__file__).parents[1] / "search"
OTHERS = {"_mmap", "_actions", "_replace"}  # of NumPy, of argparse; promised by named tuples


def touched(path: Path) -> set[str]:
    """The private names that a file reads from elsewhere: not its own, not its classes'."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    found = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            found |= {node.attr} - own
        if isinstance(node, ast.ImportFrom):
            parts = str(node.module).split(".") + [alias.name for alias in node.names]
            found |= {part for part in parts if part.startswith("_") or part in ("experimental", "src")}
    return found - {"__future__", "__main__"}


@pytest.mark.parametrize("path", [path for path in sorted(ROOT.rglob("*.py")) if path.parent.name != "internals"])
def test_nobody_else_touches_what_is_private(path: Path) -> None:
    """A new version of Ray, Optuna or Keras would break a search somewhere, and nobody would know where to look."""
    assert touched(path) <= OTHERS


def test_private_names_are_seen() -> None:
    """The test above would hold whatever is written."""
    assert {"_private", "_internal_kv_put", "_tune_controller"} <= touched(ROOT / "internals" / "of_ray.py")
    assert {"_storage", "_trial_id", "_contains"} <= touched(ROOT / "internals" / "of_optuna.py")
    assert {"_keras_history", "_momentums", "_writers"} <= touched(ROOT / "internals" / "of_keras.py")


def test_ray_has_what_is_private() -> None:
    """A new version of Ray would end searches where nobody expects it: at a process's death, at a rung."""
    from ray._private import node, worker
    from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.autoscaler._private.util import prepare_config, validate_config
    from ray.experimental import internal_kv
    from ray.tune import tune
    from ray.tune.execution.tune_controller import TrialRunnerWrapper, TuneController

    known = {*TuneController.__init__.__code__.co_names}
    assert {"_actor_manager", "_pending_trials", "_trial_to_actor", "_reuse_actors"} <= known
    assert "_tune_controller" in TrialRunnerWrapper.__init__.__code__.co_names
    assert callable(RayActorManager._actor_task_failed)
    assert callable(RayActorManager.is_actor_started)
    assert callable(tune._setup_signal_catching)
    assert hasattr(worker, "_global_node")
    assert "all_processes" in node.Node.__init__.__code__.co_names
    assert callable(AuthenticationTokenLoader.instance().reset_cache)
    assert callable(prepare_config)
    assert callable(validate_config)
    names = ("put", "get", "del", "list", "initialized")
    assert all(callable(getattr(internal_kv, f"_internal_kv_{name}")) for name in names)


def test_optuna_has_what_is_private() -> None:
    """A trial's end would be told of another one, or any value be taken for one of the range."""
    study = optuna.create_study()
    trial = study.ask()
    trial.report(0.5, 1)

    assert of_optuna.frozen(study, trial).intermediate_values == {1: 0.5}
    for distribution, inside, outside in (
        (Float(1e-4, 1e-1, log=True), 1e-2, 1.0),
        (Int(0, 8, step=2), 4, 9),
        (Choice(["adam", "sgd"]), "sgd", "lion"),
        (Float(0, 1), 0.5, "a"),
    ):
        assert of_optuna.contains(distribution, inside)
        assert not of_optuna.contains(distribution, outside)


def test_keras_has_what_is_private() -> None:
    """Adam would move a variable by another one's gradients, or a trial's pictures show another layer."""
    pixels = keras.Input((4, 4, 3))
    layer = keras.layers.GlobalAveragePooling2D()
    variables = [keras.Variable(np.ones(2)), keras.Variable(np.ones(3))]
    adam = keras.optimizers.Adam()
    adam.build(variables)

    assert of_keras.origin(layer(pixels)) is layer
    assert [of_keras.index(adam, variable) for variable in variables] == [0, 1]
    assert [each.shape for each in of_keras.moments(adam, 1)] == [(3,), (3,)]
    assert keras.config.backend() == "tensorflow"
    assert hasattr(of_keras.config, "_KERAS_DIR")
