"""Checks a user's own model file, or a weights file, without importing Keras."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CONFIG = "config.json"
_KERAS_PACKAGES = ("keras", "keras_hub", "keras_cv", "keras_nlp")  # Keras finds the classes of these by itself
_KINDS = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".safetensors", ".ckpt"), "holds a model of PyTorch or its weights"),
    ".onnx": "holds an ONNX model",
    ".tflite": "holds a TFLite model",
    ".pb": "holds a TensorFlow graph",
}
_CONVERTED = """backbone file '{name}' is in Keras's old format; save it in the new one, and give that:
    import keras
    keras.models.load_model({name!r}, compile=False).save({new!r})"""


def faults(kind: str, path: Path) -> list[str]:
    """What is wrong with a `.keras` or HDF5 file.

    Args:
        kind: what the file is for, for the messages: `backbone` or `weights`.
    """
    if not path.is_file():
        return [f"{kind} file '{path}' does not exist"]
    if path.suffix == ".keras":
        if not zipfile.is_zipfile(path):
            return [f"{kind} file '{path}' is not a Keras model: it is no zip archive"]
        return [f"{kind} file '{path}' {fault}" for fault in _code_faults(_config(path))]
    with path.open("rb") as file:
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    return [] if is_hdf5 else [f"{kind} file '{path}' is not an HDF5 file"]


def other_kind(name: str) -> str:
    """Why a path cannot be used as a backbone, and what to do; empty if it is not the path of a model at all.

    Args:
        name: the backbone that was given; it does not end in `.keras`.
    """
    path = Path(name)
    if path.is_dir():
        what = "is a SavedModel" if (path / "saved_model.pb").exists() else "is a folder"
        return f"backbone '{name}' {what}; a .keras file is needed, from model.save(FILE), or the name of a network"
    if path.suffix in _KINDS:
        return f"backbone file '{name}' {_KINDS[path.suffix]}; a .keras file is needed, or the name of a network"
    if path.suffix in {".h5", ".hdf5"} and not path.is_file():
        return f"backbone file '{name}' does not exist"
    if name.endswith(".weights.h5"):
        return f"backbone file '{name}' holds weights alone; name the network with --backbone, the file with --weights"
    if path.suffix in {".h5", ".hdf5"}:
        return _CONVERTED.format(name=name, new=str(path.with_suffix(".keras")))
    return f"backbone file '{name}' is no .keras file" if path.is_file() else ""


def _config(path: Path) -> Any:
    """The model's configuration as Keras wrote it; `None` if it cannot be read: Keras then reports that on loading."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(_CONFIG))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        return None


def _code_faults(config: Any) -> list[str]:
    """Faults of a model that cannot be built from only Keras's own classes."""
    found = list(_objects(config))
    names = [made["config"]["name"] for made in found if _holds_code(made)]
    foreign = dict.fromkeys(told for made in found if (told := _foreign(made)))
    faults = []
    if names:
        faults.append(
            f"holds Python code in Lambda layers ({', '.join(names)}), which loading it would run; "
            "take operations of keras.ops in their place, and save it again"
        )
    if foreign:
        faults.append(
            f"holds what Keras does not have: {', '.join(foreign)}. A search does not run the code of other packages: "
            "make the network of Keras's own layers and of keras.ops, or save the part that is, with "
            "keras.Model(model.inputs, model.get_layer(NAME).output).save(FILE)"
        )
    return faults


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every object that Keras would build, except those of `compile`, which a search does not load."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for key, value in config.items():
            if key != "compile_config":
                yield from _objects(value)
    elif isinstance(config, list):
        for value in config:
            yield from _objects(value)


def _holds_code(made: dict[str, Any]) -> bool:
    function = made["config"]["function"] if made["class_name"] == "Lambda" else None
    return isinstance(function, dict) and function["class_name"] == "__lambda__"


def _foreign(made: dict[str, Any]) -> str:
    """Name and package of a class or function that is not Keras's own; empty if it is, or may be."""
    module, registered = made.get("module"), made.get("registered_name")
    if made["class_name"] == "function":
        package, known, name = str(made["config"]).rpartition(">")
        return f"function {name} (registered under package '{package}')" if known else ""
    if registered is None or (module and module.partition(".")[0] in _KERAS_PACKAGES):
        return ""
    package, known, name = registered.rpartition(">")
    return f"class {name} (" + (f"registered under package '{package}')" if known else "not registered)")
