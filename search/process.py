"""What every process sets before it imports Keras; the user's own Keras settings are ignored.

Only the folder where Keras keeps downloaded weights stays as the user set it.
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
    """A context in which to import Keras and the modules that need it: with a search's settings, in half the time.

    The garbage collector is off meanwhile, because the objects that imports create are not garbage. Packages that Keras
    would import only for its wrappers and plots, which a search does not use, count as missing meanwhile.

    Args:
        cpus: how many CPUs this process may use; TensorFlow reads this when it is imported.
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
    """A context in which importing Keras neither reads nor writes `keras.json`, so that an invalid one does no harm."""
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
