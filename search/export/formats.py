"""The formats that a model is exported to: one row each.

Keras writes them all by `Model.export`, https://keras.io/api/models/model_saving_apis/export/. Every exported model
takes what `model.keras` takes, float32 pixels in [0, 255], and gives what it gives, also where it is quantized inside.
"""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Predict = Callable[[Array], Array]  # images (n, size, size, 3), float32 in [0, 255] → outputs (n, classes)
Calibrating = Callable[[], Iterable[Array]]  # images (size, size, 3), float32
EXTRA = "pip install 'finetune-search[{}]'"


class Runtime(NamedTuple):
    """An exported model, opened in its own runtime.

    Args:
        predict: runs it, for any number of images.
        about: of the runtime, for the record: its name and version, and what else decides the figures.
    """

    predict: Predict
    about: Mapping[str, str]


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        words: for people: what it is for.
        known_as: Keras's name of it.
        file: the name of what is written: a file, or a folder.
        packages: what must be installed to write and to run it: the names that are imported.
        extra: of this project, which brings the packages; empty if they are there anyway.
        quantized: how it may be quantized, by name: the arguments of `keras.Model.export`, from what reads training
            images to calibrate it by.
        opened: from the file and the number of threads, what runs it.
        readied: changes a model, but not its answers, so that Keras can convert it.
    """

    words: str
    known_as: str
    file: str
    packages: tuple[str, ...]
    extra: str
    quantized: Mapping[str, Callable[[Calibrating], dict[str, Any]]]
    opened: Callable[[Path, int], Runtime]
    readied: Callable[[Any], None] = lambda model: None  # noqa: ARG005

    def missing(self) -> str:
        """What is not installed, with the command that installs it; empty if nothing is missing."""
        gone = [name for name in self.packages if not _installed(name)]
        return f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} not installed: {self.install}" if gone else ""

    @property
    def install(self) -> str:
        """The command that installs the packages."""
        return EXTRA.format(self.extra)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def _savedmodel(path: Path, threads: int) -> Runtime:  # noqa: ARG001 those of this process
    import tensorflow as tf

    model = tf.saved_model.load(str(path))  # its variables live as long as it does
    return Runtime(
        lambda images: np.asarray(model.serve(tf.constant(images))), {"runtime": f"tensorflow {tf.__version__}"}
    )


def _onnx(path: Path, threads: int) -> Runtime:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Runtime(
        lambda images: np.asarray(session.run(None, {name: images})[0]),
        {"runtime": f"onnxruntime {onnxruntime.__version__}"},
    )


def _without_captures(model: Any) -> None:
    """Have all `Normalization` layers hold their constants as arrays, as in EfficientNet.

    tf2onnx takes what a function captures, such as their tensors, for inputs of the model, which nobody could give.
    """
    import keras

    for layer in getattr(model, "layers", ()):
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
        _without_captures(layer)


def _openvino(path: Path, threads: int) -> Runtime:
    openvino = importlib.import_module("openvino")
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": threads})
    precision = model.get_property("INFERENCE_PRECISION_HINT").to_string()
    return Runtime(
        lambda images: np.array(model(images)[0]),
        {"runtime": f"openvino {openvino.__version__.partition('-')[0]}", "computes_in": precision},
    )


def _litert(path: Path, threads: int) -> Runtime:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=threads)
    given, told = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def predict(images: Array) -> Array:
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(given, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given, images)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(told))

    return Runtime(predict, {"runtime": f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"})


def _dynamic(calibrating: Calibrating) -> dict[str, Any]:  # noqa: ARG001
    import tensorflow as tf

    return {"optimizations": [tf.lite.Optimize.DEFAULT]}


def _float16(calibrating: Calibrating) -> dict[str, Any]:
    import tensorflow as tf

    return {**_dynamic(calibrating), "target_spec": {"supported_types": [tf.float16]}}


def _int8(calibrating: Calibrating) -> dict[str, Any]:
    def images() -> Iterator[list[Array]]:
        for image in calibrating():
            yield [image[np.newaxis]]

    return {**_dynamic(calibrating), "representative_dataset": images}


# How LiteRT quantizes: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization
FORMATS: Mapping[str, Format] = {
    "savedmodel": Format(
        "TensorFlow and TensorFlow Serving, and Keras of any version by TFSMLayer",
        "tf_saved_model",
        "model",
        packages=(),
        extra="",
        quantized={},
        opened=_savedmodel,
    ),
    "onnx": Format(
        "ONNX Runtime, and what else reads ONNX",
        "onnx",
        "model.onnx",
        packages=("onnx", "onnxruntime", "tf2onnx"),
        extra="onnx",
        quantized={},
        opened=_onnx,
        readied=_without_captures,
    ),
    "litert": Format(
        "LiteRT (formerly TensorFlow Lite): phones and small devices",
        "litert",
        "model.tflite",
        packages=("ai_edge_litert",),
        extra="litert",
        quantized={"dynamic": _dynamic, "float16": _float16, "int8": _int8},
        opened=_litert,
    ),
    "openvino": Format(
        "OpenVINO: Intel's processors",
        "openvino",
        "model.xml",
        packages=("openvino",),
        extra="openvino",
        quantized={},
        opened=_openvino,
    ),
}


def quantizations() -> list[str]:
    """Every way in which some format can be quantized."""
    return list(dict.fromkeys(name for row in FORMATS.values() for name in row.quantized))
