"""What every process sets that imports Keras, whatever its user has set for other work.

Where Keras keeps downloaded weights stays as it is.
"""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def importing_keras(cpus: float) -> Iterator[None]:
    """Import Keras, and what needs it, within: as a search needs it, and in half the time.

    The garbage collector rests, for what is made then stays. Packages that Keras would import for its wrappers and
    plots, which a search has no use for, count as missing meanwhile.

    Args:
        cpus: how many this process may use; TensorFlow reads it when it is imported.
    """
    threads = str(max(1, int(cpus)))
    os.environ.update(
        KERAS_BACKEND="tensorflow",
        TF_CPP_MIN_LOG_LEVEL="2",
        TF_NUM_INTRAOP_THREADS=threads,
        TF_NUM_INTEROP_THREADS=threads,
        TF_FORCE_GPU_ALLOW_GROWTH="true",
    )
    for limit in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
        os.environ.pop(limit, None)
    hidden = [name for name in ("matplotlib", "sklearn") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    gc.disable()
    try:
        with _no_settings_of_the_user():
            import keras  # noqa: F401
        yield
    finally:
        gc.enable()
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _no_settings_of_the_user() -> Iterator[None]:
    """Keras reads no `keras.json` when it is imported within, not even one that it would refuse, and writes none."""
    given = os.environ.get("KERAS_HOME")
    os.environ["KERAS_HOME"] = os.devnull
    try:
        yield
    finally:
        del os.environ["KERAS_HOME"]
        if given is not None:
            os.environ["KERAS_HOME"] = given
    from search.internals.of_keras import keep_downloads_in

    keep_downloads_in(keras_folder())


def keras_folder() -> Path:
    """Where Keras keeps downloaded weights."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 it never raises
    writable = home if os.access(home, os.W_OK) else Path(tempfile.gettempdir())
    return Path(os.environ.get("KERAS_HOME", writable / ".keras"))
