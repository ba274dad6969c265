"""What every process sets that imports Keras, whatever its user has set for other work.

Where Keras keeps downloaded weights stays as it is.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

FLOAT, EPSILON, IMAGES = "float32", 1e-7, "channels_last"


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
    hidden = [name for name in ("matplotlib", "sklearn") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    gc.disable()
    try:
        import keras

        keras.config.set_floatx(FLOAT)
        keras.config.set_epsilon(EPSILON)
        keras.config.set_image_data_format(IMAGES)
        keras.config.set_max_epochs(None)
        keras.config.set_max_steps_per_epoch(None)
        yield
    finally:
        gc.enable()
        for name in hidden:
            del sys.modules[name]
