"""Backbones: names, faults, weights, preprocessing, cut points and the two halves of a cut."""

import gc
import inspect
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.backbone import backbones, graph, preprocessing, tiny
from search.backbone.backbones import Backbone, Block
from search.errors import BackboneError

keras = pytest.importorskip("keras")

SIZES = (32, 64, 71, 75, 96, 128, 224, 331)
LARGER = {  # than another of their family
    *("ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge", "DenseNet169", "DenseNet201"),
    *(f"EfficientNetB{size}" for size in range(1, 8)),
    *(f"EfficientNetV2{size}" for size in ("B1", "B2", "B3", "M", "L")),
    *("MobileNetV3Large", "NASNetLarge", "ResNet101", "ResNet152", "ResNet101V2", "ResNet152V2", "VGG19"),
}


def pixels(size: int, count: int = 2) -> np.ndarray:
    """Random images (count, size, size, 3), float32 in [0, 255]."""
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("float32")


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """The model's output in inference mode."""
    return np.asarray(model(images, training=False))


@pytest.fixture
def free_memory() -> Iterator[None]:
    """Let the network of one test go before the next is built."""
    yield
    gc.collect()
    keras.utils.clear_session(free_memory=True)


@pytest.fixture(scope="module")
def tiny_backbone() -> Backbone:
    """The built-in backbone with its shipped weights."""
    return backbones.load("tiny", "own", 32)


# names and faults, without Keras


def test_names_and_faults_need_no_keras() -> None:
    """A misspelt backbone would otherwise cost the seconds that importing TensorFlow takes."""
    code = (
        "import sys; from search.backbone import backbones; "
        "backbones.names(); backbones.check('MobileNetV2', 'imagenet');"
        "print('keras' in sys.modules, 'tensorflow' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert shown.strip() == "False False"


def test_names_are_the_classes_of_keras_applications() -> None:
    """A network of Keras would be missing, or a module be taken for one."""
    classes = {name for name in dir(keras.applications) if name[0].isupper()}

    assert classes | {"tiny"} == set(backbones.names())


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    """The user would have to look the name up."""
    (fault,) = backbones.check("mobilenetv2", "imagenet")

    assert "did you mean 'MobileNetV2'" in fault


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [
        ("tiny", "imagenet", "there are no 'imagenet' weights for backbone 'tiny'"),
        ("VGG16", "own", "there are no 'own' weights for backbone 'VGG16'"),
        ("VGG16", "image-net", "unknown weights 'image-net'"),
        ("VGG16", "absent.weights.h5", "'absent.weights.h5' does not exist"),
        ("absent.keras", "own", "'absent.keras' does not exist"),
        ("text.keras", "own", "it is no zip archive"),
        ("VGG16", "text.h5", "is not an HDF5 file"),
    ],
)
def test_faults_of_a_request(
    name: str, weights: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong request would be found only after Ray has started."""
    monkeypatch.chdir(tmp_path)
    Path("text.keras").write_text("text")
    Path("text.h5").write_text("text")
    (fault,) = backbones.check(name, weights)

    assert reason in fault


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    """The user would mend one and be told the next."""
    assert len(backbones.check(str(tmp_path / "a.keras"), str(tmp_path / "b.weights.h5"))) == 2


@pytest.mark.parametrize("name", ["MobileNetV2", "tiny"])
def test_default_weights_are_accepted(name: str) -> None:
    """A search without `--weights` would be refused."""
    assert backbones.check(name, backbones.default_weights(name)) == []


# weights


def test_loading_leaves_the_callers_random_numbers_alone() -> None:
    """What a trial draws would depend on whether it had to load its backbone."""
    import random

    state = random.getstate()
    backbones.load("tiny", "none", 32)

    assert state == random.getstate()


@pytest.mark.parametrize(
    "suffix", [".weights.h5", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".h5", ".keras"))]
)
def test_weights_file_round_trip(suffix: str, tmp_path: Path) -> None:
    """`--weights FILE` would give other weights than those that were saved."""
    keras.utils.set_random_seed(7)
    network = tiny.build(32)
    file = str(tmp_path / f"saved{suffix}")
    network.save_weights(file) if suffix == ".weights.h5" else network.save(file)
    loaded = backbones.load("tiny", file, 32).network

    for expected, found in zip(network.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, found)


def test_weights_of_another_network_are_refused() -> None:
    """The search would run on a network that is partly random."""
    with pytest.raises(BackboneError, match="does not fit backbone 'VGG16'"):
        backbones.load("VGG16", str(tiny.WEIGHTS), 32)


@pytest.mark.parametrize(("name", "size"), [("VGG16", 16), ("InceptionV3", 32), ("tiny", 8)])
def test_images_that_are_too_small_are_refused(name: str, size: int) -> None:
    """The user would see Keras's traceback."""
    with pytest.raises(BackboneError, match=rf"{size} pixels.*least"):
        backbones.load(name, "none", size)


# preprocessing


def modules() -> list[types.ModuleType]:
    """Those of `keras.applications` that preprocess images."""
    found = (value for value in vars(keras.applications).values() if isinstance(value, types.ModuleType))
    return [module for module in found if hasattr(module, "preprocess_input")]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_preprocessing_is_that_of_keras(module: types.ModuleType, tmp_path: Path) -> None:
    """Pretrained features would be computed from wrong pixels, silently."""
    preprocess = preprocessing.like(module.preprocess_input)
    preprocess.save(tmp_path / "preprocess.keras")
    loaded = keras.models.load_model(tmp_path / "preprocess.keras")
    expected = module.preprocess_input(pixels(5))

    np.testing.assert_allclose(expected, predict(preprocess, pixels(5)), atol=1e-4)
    np.testing.assert_allclose(expected, predict(loaded, pixels(5)), atol=1e-4)


@pytest.mark.parametrize("function", [np.square, lambda x: x[..., [1, 2, 0]], lambda x: x - x.mean()])
def test_preprocessing_of_another_form_is_refused(function: Callable[[np.ndarray], np.ndarray]) -> None:
    """A future network's preprocessing would be imitated wrongly."""
    with pytest.raises(BackboneError, match="not a scale, an offset and an order"):
        preprocessing.like(function)


# blocks


def layers_of(backbone: Backbone) -> list[str]:
    """The names of the layers of all blocks."""
    return [layer for block in backbone.blocks for layer in block.layers]


def layers_in(backbone: Backbone, block: Block) -> list[keras.layers.Layer]:
    """The layers of one block."""
    return [backbone.network.get_layer(name) for name in block.layers]


def halves(backbone: Backbone, unfreeze_depth: int) -> tuple[keras.Model, keras.Model]:
    """What is frozen and what is trained at an unfreeze depth."""
    cut, last = len(backbone.blocks) - unfreeze_depth, len(backbone.blocks)
    return backbones.between(backbone, 0, cut), backbones.between(backbone, cut, last)


def check_cut(backbone: Backbone, unfreeze_depth: int, images: np.ndarray, expected: np.ndarray) -> None:
    """The suffix holds the weights of the unfrozen blocks alone, and gives what the whole network gives."""
    prefix, suffix = halves(backbone, unfreeze_depth)
    unfrozen = backbone.blocks[len(backbone.blocks) - unfreeze_depth :]
    layers = [layer for block in unfrozen for layer in layers_in(backbone, block)]
    found = predict(suffix, predict(prefix, images))

    assert {id(w) for layer in layers for w in layer.trainable_weights} == {id(w) for w in suffix.trainable_weights}
    np.testing.assert_allclose(expected, found, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def mark(name: str) -> Any:
    """When a network is tried: always, with the slow tests, or in a soak."""
    return () if name == "tiny" else pytest.mark.soak if name in LARGER else pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(name, marks=mark(name)) for name in backbones.names()])
@pytest.mark.usefixtures("free_memory")
def test_every_network_can_be_cut(name: str) -> None:
    """Some network could not be searched over, or a cut would change what it computes or what is trained."""
    backbone = smallest(name)
    size = backbone.network.input_shape[1]
    images = predict(backbone.preprocess, pixels(size, 1))
    expected = predict(backbone.network, images)
    depth = len(backbone.blocks)

    assert sorted(layer.name for layer in backbone.network.layers) == sorted(layers_of(backbone))
    assert 2 <= depth <= 20
    assert all(backbones.graph.parameters(layers_in(backbone, block)) > 0 for block in backbone.blocks)
    for unfreeze_depth in sorted({0, 1, depth // 2, depth}):
        check_cut(backbone, unfreeze_depth, images, expected)


def smallest(name: str) -> Backbone:
    """With random weights, at the smallest image size that the network accepts."""
    for size in SIZES:
        try:
            return backbones.load(name, "none", size)
        except BackboneError:
            continue
    raise AssertionError(f"{name} takes no image of {SIZES} pixels")


@pytest.mark.slow
def test_blocks_of_known_networks() -> None:
    """The unfreeze depth would count something that nobody who knows the network expects."""
    mobilenet = [block.name for block in backbones.load("MobileNetV2", "none", 96).blocks]

    assert [f"block_{n}_{'project_BN' if n in {1, 3, 6, 10, 13, 16} else 'add'}" for n in range(1, 17)] == mobilenet[
        1:-1
    ]
    assert [mobilenet[0], mobilenet[-1]] == ["expanded_conv_project_BN", "out_relu"]
    assert mobilenet == [block.name for block in backbones.load("MobileNetV2", "none", 32).blocks]


def test_tiny_has_a_block_for_each_residual_branch(tiny_backbone: Backbone) -> None:
    """The built-in search would have too few depths to choose from."""
    assert ["stem_relu", *(f"block{n}_out" for n in range(1, 7))] == [block.name for block in tiny_backbone.blocks]


def residual(x: keras.KerasTensor) -> keras.KerasTensor:
    """A convolution, a shortcut and an activation."""
    y = keras.layers.Conv2D(x.shape[-1], 3, padding="same")(x)
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


def ends(output: Callable[[keras.KerasTensor], keras.KerasTensor]) -> list[str]:
    """The names of the blocks of a network that is made by a function of its input."""
    images = keras.Input((32, 32, 3))
    network, calls, _ = graph.flatten(keras.Model(images, output(images)), 32)
    return [block.name for block in backbones.blocks.name(network, calls, backbones.blocks.find(calls))]


def test_a_block_ends_after_the_activation_of_a_branch() -> None:
    """Features would be cached before an activation that costs nothing."""
    assert ends(lambda x: residual(residual(keras.layers.Conv2D(8, 3)(x)))) == ["conv2d", "re_lu", "re_lu_1"]


def test_a_network_without_branches_has_a_block_for_each_kernel() -> None:
    """A plain network could only be unfrozen as a whole."""
    layers = [
        keras.layers.Conv2D(8, 3, name="a"),
        keras.layers.BatchNormalization(name="a_norm"),
        keras.layers.MaxPooling2D(name="a_pool"),
        keras.layers.Conv2D(8, 3, name="b"),
        keras.layers.Flatten(name="b_flat"),
        keras.layers.Dense(5, name="c"),
    ]

    assert ends(keras.Sequential(layers)) == ["a_pool", "b_flat", "c"]


def test_a_gate_is_not_a_branch() -> None:
    """Every squeeze-and-excitation would cut its residual block in two."""

    def gated(x: keras.KerasTensor) -> keras.KerasTensor:
        x = residual(keras.layers.Conv2D(8, 3, name="first")(x))
        x = keras.layers.Conv2D(32, 3, strides=2, padding="same", name="widen")(x)
        gate = keras.layers.Dense(32, "sigmoid", name="gate")(keras.layers.GlobalAveragePooling2D(keepdims=True)(x))
        x = keras.layers.Multiply(name="gated")([x, gate])
        return residual(keras.layers.Conv2D(8, 1, name="narrow")(x))

    assert ends(gated) == ["first", "re_lu", "narrow", "re_lu_1"]


def test_no_cut_between_the_calls_of_a_layer_with_weights() -> None:
    """One half of the network would train the weights that the other takes for frozen."""
    shared, relu = keras.layers.Conv2D(3, 3, name="shared"), keras.layers.ReLU(name="relu")

    assert ends(lambda x: keras.layers.Conv2D(3, 3, name="last")(relu(shared(relu(shared(x)))))) == ["relu", "last"]


def test_bare_operations_are_carried_along() -> None:
    """A network with `keras.ops` in it could not be cut."""
    convolution = keras.layers.Conv2D(8, 3, padding="same", name="first")

    def network(x: keras.KerasTensor) -> keras.KerasTensor:
        x = keras.ops.relu(convolution(x))
        y = keras.layers.Conv2D(8, 3, padding="same", name="second")(x)
        return keras.ops.relu(x + y)

    assert ends(network) == ["first", "second"]


def test_at_most_twenty_blocks() -> None:
    """The space would have more depths than trials."""
    deep = keras.Sequential([keras.layers.Conv2D(4, 1, name=f"layer{number}") for number in range(30)])
    names = ends(deep)

    assert len(names) == 20
    assert names[-1] == "layer29"


@pytest.mark.parametrize(("start", "end"), [(-1, 7), (0, 8), (3, 2)])
def test_cuts_outside_the_blocks_are_refused(tiny_backbone: Backbone, start: int, end: int) -> None:
    """A negative cut would count from the other end."""
    with pytest.raises(ValueError, match=f"{start} and {end} are not two of the cuts 0 to 7, in order"):
        backbones.between(tiny_backbone, start, end)


@pytest.mark.parametrize("cuts", [[2, 5, 7], [4], [7]])
def test_one_pass_gives_what_is_at_every_cut(tiny_backbone: Backbone, cuts: list[int]) -> None:
    """Features would be those of another cut, of pixels that were not preprocessed, or maps where vectors are read."""
    images = pixels(32).astype("uint8")
    found = keras.tree.flatten(backbones.prefix(tiny_backbone, cuts)(images, training=False))
    prepared = predict(tiny_backbone.preprocess, images.astype("float32"))

    assert len(found) == len(cuts)
    for cut, values in zip(cuts, found, strict=True):
        expected = predict(backbones.between(tiny_backbone, 0, cut), prepared)
        expected = expected.mean(axis=(1, 2)) if cut == 7 else expected
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


class Trained(keras.Model):
    """A suffix in inference mode, and a head."""

    def __init__(self, suffix: keras.Model) -> None:
        super().__init__()
        self.suffix = suffix
        self.head = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])

    def call(self, features: np.ndarray) -> np.ndarray:
        """Features to two numbers."""
        return self.head(self.suffix(features, training=False))


@pytest.mark.parametrize("unfreeze_depth", [0, 1, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (4, 7))])
def test_training_changes_the_unfrozen_blocks_alone(unfreeze_depth: int) -> None:
    """A frozen weight or a moving average would drift, and cached features be wrong."""
    backbone = backbones.load("tiny", "own", 32)
    prefix, suffix = halves(backbone, unfreeze_depth)
    features = predict(prefix, predict(backbone.preprocess, pixels(32)))
    model = Trained(suffix)
    model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
    before = backbone.network.get_weights()
    model.fit(features, np.ones((2, 2)), verbose=0)
    after = backbone.network.get_weights()
    changed = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
    trained = {id(weight) for weight in suffix.trainable_weights}

    assert [id(weight) in trained for weight in backbone.network.weights] == changed


def test_describe_counts_the_trainable_parameters(tiny_backbone: Backbone) -> None:
    """The report would show a wrong size for each depth."""
    described = backbones.describe(tiny_backbone)

    assert [block.name for block in tiny_backbone.blocks] == described["blocks"]
    assert sum(w.size for w in map(np.asarray, tiny_backbone.network.trainable_weights)) == sum(described["parameters"])


@pytest.mark.parametrize(
    ("layer", "size", "expected"),
    [
        (keras.layers.Conv2D(8, 3, strides=2, padding="same"), (32, 32, 3), 3 * 3 * 3 * 8 * 16 * 16),
        (keras.layers.DepthwiseConv2D(3, padding="same"), (8, 8, 5), 3 * 3 * 5 * 8 * 8),
        (keras.layers.Dense(7), (5,), 5 * 7),
        (keras.layers.BatchNormalization(), (8, 8, 5), 0),
        (keras.layers.ReLU(), (8, 8, 5), 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_multiplications(layer: keras.layers.Layer, size: tuple[int, ...], expected: int) -> None:
    """Features would be kept that cost less to compute than to read, or be computed anew where they cost most."""
    layer(keras.Input(size))

    assert graph.multiplications(layer) == expected


def test_describe_tells_the_cuts(tiny_backbone: Backbone) -> None:
    """The cache would hold arrays of another shape than the network gives, or keep the wrong ones."""
    described = backbones.describe(tiny_backbone)
    shapes = [between.output_shape[1:] for cut in range(1, 8) for between in [backbones.between(tiny_backbone, 0, cut)]]

    assert described["shapes"] == [*map(list, shapes[:-1]), [shapes[-1][-1]]]
    assert described["multiplications"] == [
        sum(graph.multiplications(layer) for layer in layers_in(tiny_backbone, block)) for block in tiny_backbone.blocks
    ]
    assert described["image_size"] == 32


def test_the_identity_is_that_of_all_that_decides_the_features(tiny_backbone: Backbone) -> None:
    """Features of another network, of other weights, or of pixels prepared in another way would be taken for these."""
    build = [("tiny", "own", 32), ("tiny", "none", 32), ("tiny", "own", 48)]
    own, *others = (backbones.describe(backbones.load(*asked))["identity"] for asked in build)
    images = keras.Input((32, 32, 3))
    shifted = replace(tiny_backbone, preprocess=keras.Model(images, tiny_backbone.preprocess(images + 1)))

    assert own == backbones.describe(tiny_backbone)["identity"]
    assert len({own, *others, backbones.describe(shifted)["identity"]}) == 4


# a user's own model


def saved(model: keras.Model, tmp_path: Path) -> str:
    """The file to which a model was saved."""
    model.save(tmp_path / "own.keras")
    return str(tmp_path / "own.keras")


@pytest.mark.slow
def test_own_model_with_models_inside(tmp_path: Path) -> None:
    """A fine-tuned network that was built the usual way would be a single block."""
    inner = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    images = keras.Input((32, 32, 3))
    x = inner(keras.layers.Rescaling(1 / 127.5, -1)(images), training=False)
    features = keras.layers.GlobalAveragePooling2D()(x)
    outer = keras.Sequential([keras.Model(images, features), keras.layers.Dense(3, activation="softmax")])
    backbone = backbones.load(saved(outer, tmp_path), "own", 32)
    layers = [layer.name for layer in backbone.network.layers]

    assert len(backbone.blocks) == 18
    assert sorted(layers) == sorted(layers_of(backbone))
    expected = predict(keras.Model(images, features), pixels(32))
    np.testing.assert_allclose(expected, predict(backbone.network, predict(backbone.preprocess, pixels(32))), rtol=1e-5)
    for depth in (0, 1, 9, 18):
        check_cut(backbone, depth, pixels(32), expected)


@pytest.mark.parametrize(
    ("ending", "kept"),
    [
        ([keras.layers.Dense(3, activation="softmax")], 4),
        ([keras.layers.Dense(1, activation="sigmoid")], 4),
        ([keras.layers.Dense(3), keras.layers.Activation("softmax")], 4),
        ([keras.layers.Dense(3), keras.layers.Softmax()], 4),
        ([keras.layers.Dense(3)], 3),
        ([keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3, activation="softmax")], 5),
    ],
)
def test_own_models_classifier_is_left_off(ending: list[keras.layers.Layer], kept: int, tmp_path: Path) -> None:
    """The new head would see the probabilities of the old classes."""
    layers = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers, *ending])
    backbone = backbones.load(saved(model, tmp_path), "own", 32)

    assert (None, kept) == backbone.network.output_shape


@pytest.mark.slow
def test_own_model_can_be_searched_from_random_weights(tmp_path: Path) -> None:
    """`--weights none` would silently keep the weights of the file."""
    file = saved(tiny.build(32), tmp_path)
    loaded = (backbones.load(file, weights, 32) for weights in ("own", "none", "none"))
    own, first, second = (backbones.describe(backbone)["identity"] for backbone in loaded)

    assert own != first == second


NEEDED = {  # what a layer cannot be made without
    **dict.fromkeys(("CenterCrop", "RandomCrop", "Resizing"), (24, 24)),
    **dict.fromkeys(("RandomBrightness", "RandomContrast", "RandomHue", "RandomRotation", "RandomSaturation"), (0.2,)),
    **dict.fromkeys(("RandomSharpness", "RandomZoom", "RandomColorDegeneration"), (0.2,)),
    **dict.fromkeys(("RandomShear", "RandomTranslation"), (0.2, 0.2)),
    "RandomPosterization": (4,),
}
OF_SEVERAL_TENSORS = {"CutMix", "MixUp", "MaxNumBoundingBoxes"}


def random_layers() -> list[str]:
    """The layers of Keras that draw random numbers unless they are told not to."""
    found = []
    for name, layer in vars(keras.layers).items():
        if isinstance(layer, type) and issubclass(layer, keras.layers.Layer) and name not in OF_SEVERAL_TENSORS:
            mode = inspect.signature(layer.call).parameters.get("training")
            if mode and mode.default is True and "seed" in inspect.signature(layer).parameters:
                found.append(name)
    return sorted(found)


@pytest.mark.parametrize("name", random_layers())
def test_no_layer_that_augments_is_left(name: str) -> None:
    """A model that was exported with one answers differently each time it is called."""
    layer = getattr(keras.layers, name)(*NEEDED.get(name, ()))
    layers = [keras.Input((32, 32, 3)), layer, keras.layers.Conv2D(2, 3)]
    network, calls, left_off = graph.flatten(keras.Sequential(layers), 32)

    assert left_off == [layer.name]
    assert [type(call.operation).__name__ for call in calls] == ["Conv2D"]
    np.testing.assert_array_equal(np.asarray(network(pixels(32))), np.asarray(layers[-1](pixels(32))))


def test_own_model_with_augmentation_inside(tmp_path: Path) -> None:
    """Tutorials build augmentation in, nested and not; what is no augmentation goes with it, or the mode is fixed."""
    tutorial = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.2), keras.layers.Rescaling(0.1)]
    piped = [keras.layers.RandomContrast(0.3), keras.layers.CenterCrop(24, 24)]
    normal = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
    images = keras.Input((32, 32, 3))
    x = keras.layers.Resizing(28, 28)(keras.Sequential(tutorial, name="augmentation")(images))
    x = keras.layers.GaussianNoise(0.5)(normal(keras.layers.Pipeline(piped)(x)))
    x = keras.layers.RandomZoom(0.2)(keras.layers.Conv2D(4, 3, name="convolution")(x), training=True)
    x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(x, training=True), training=False)
    plain = keras.Model(images, x)
    backbone = backbones.load(saved(plain, tmp_path), "own", 32)
    kinds = [type(layer).__name__ for layer in backbone.network.layers]
    twice = [np.asarray(backbone.network(pixels(32))) for _ in range(2)]

    assert [name.rstrip("_0123456789") for name in backbones.describe(backbone)["left_off"]] == [
        "random_zoom",
        "random_flip",
        "random_rotation",
        "random_contrast",
    ]
    kept = "InputLayer Rescaling Resizing CenterCrop Normalization GaussianNoise Conv2D Dropout BatchNormalization"
    assert sorted(kinds) == sorted(kept.split())
    np.testing.assert_array_equal(*twice)
    np.testing.assert_allclose(twice[0], predict(plain, pixels(32)), rtol=1e-5, atol=1e-5)


@keras.saving.register_keras_serializable(package="birds")
class Gate(keras.layers.Layer):
    """A layer of the user's own."""

    def call(self, x: Any) -> Any:
        """The same, twice as large."""
        return 2 * x


@keras.saving.register_keras_serializable(package="birds")
def swoop(x: Any) -> Any:
    """A function of the user's own."""
    return x


def own_code() -> keras.Model:
    """A model that only its author's code can load."""
    images = keras.Input((32, 32, 3))
    return keras.Model(images, keras.layers.Conv2D(2, 3, activation=swoop)(Gate()(images)))


def test_every_class_that_is_missing_is_named_before_keras_is_imported(tmp_path: Path) -> None:
    """Keras names one class in the middle of a traceback, after seconds; or what a model is compiled with is missed."""
    model = own_code()
    model.compile(loss=swoop)
    (fault,) = backbones.check(saved(model, tmp_path), "own")
    where = "(registered under package 'birds')"

    assert f"holds what Keras does not have: class Gate {where}, function swoop {where}. " in fault
    assert "keras.Model(model.inputs, model.get_layer(NAME).output).save(FILE)" in fault
    plain = tiny.build(32)
    plain.compile(loss=swoop)
    assert backbones.check(saved(plain, tmp_path), "own") == []


@pytest.mark.slow
def test_a_model_in_the_old_format_is_served_by_two_lines(tmp_path: Path) -> None:
    """A file that tutorials and older versions write is called an unknown backbone."""
    network = tiny.build(32)
    network.save(tmp_path / "old.h5")
    (fault,) = backbones.check(str(tmp_path / "old.h5"), "own")
    told, *lines = fault.splitlines()
    assert "is in Keras's old format" in told
    exec("\n".join(line.strip() for line in lines), {})  # noqa: S102
    loaded = backbones.load(str(tmp_path / "old.keras"), "own", 32)

    np.testing.assert_allclose(predict(network, pixels(32)), predict(loaded.network, pixels(32)), rtol=1e-5)


def refused() -> dict[str, tuple[keras.Model, str]]:
    """Models that are no backbones for images of 32 by 32 pixels, and the reason that is to be named."""
    images, vector = keras.Input((32, 32, 3)), keras.Input((5,))
    convolved = keras.layers.Conv2D(2, 3)(images)
    return {
        "another size": (tiny.build(24), "24 by 24 .* not 32 by 32"),
        "grey images": (
            keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Conv2D(2, 3)]),
            "one tensor of images",
        ),
        "two inputs": (
            keras.Model([images, vector], [keras.layers.Dense(2)(vector), convolved]),
            "one tensor of images",
        ),
        "two outputs": (keras.Model(images, [convolved, keras.layers.ReLU()(convolved)]), "one feature map"),
        "a sequence": (keras.Model(images, keras.layers.Reshape((-1, 2))(convolved)), "one feature map"),
        "code inside": (keras.Model(images, keras.layers.Lambda(lambda x: x + 1)(images)), "Lambda layers .lambda"),
        "own code": (own_code(), "holds what Keras does not have"),
        "never built": (keras.Sequential([keras.layers.Conv2D(2, 3)]), "saved before it knew the size of its images"),
    }


@pytest.mark.parametrize(
    "fault",
    [
        "another size",
        "grey images",
        "two inputs",
        "two outputs",
        "a sequence",
        "code inside",
        "own code",
        "never built",
    ],
)
@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_own_models_that_cannot_serve(fault: str, tmp_path: Path) -> None:
    """The search would fail in every trial, or run code that came with the file."""
    model, reason = refused()[fault]
    with pytest.raises(BackboneError, match=reason):
        backbones.load(saved(model, tmp_path), "own", 32)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """The user would see a traceback of zipfile."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme", "no model")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        backbones.load(str(tmp_path / "other.keras"), "own", 32)


def test_a_backbone_can_be_saved_with_its_preprocessing(tmp_path: Path) -> None:
    """The exported model would not load in plain Keras."""
    backbone = backbones.load("VGG16", "none", 32)
    images = keras.Input((32, 32, 3))
    whole = keras.Model(images, backbone.network(backbone.preprocess(images)))
    loaded = keras.models.load_model(saved(whole, tmp_path))

    np.testing.assert_allclose(predict(whole, pixels(32)), predict(loaded, pixels(32)), rtol=1e-5)


# another process

DESCRIBE = """
import json, sys
from search import errors
from search.backbone import backbones
for request in sys.argv[1:]:
    name, weights, image_size = request.split()
    try:
        answer = backbones.describe(backbones.load(name, weights, int(image_size)))
    except errors.BackboneError as error:
        answer = {"faults": error.faults}
    print(json.dumps(answer))
"""


@pytest.fixture(scope="module", autouse=True)
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Keras's folder, and a process without network, that describes two backbones while other tests run."""
    folder, closed, pipe = tmp_path_factory.mktemp("keras"), "http://127.0.0.1:9", subprocess.PIPE
    environment = {**os.environ, "KERAS_HOME": str(folder), "https_proxy": closed, "HTTPS_PROXY": closed}
    command = [sys.executable, "-c", DESCRIBE, "MobileNetV3Small none 32", "MobileNetV2 imagenet 96"]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        yield folder, process
        process.kill()


@pytest.fixture(scope="module")
def other_process(started: tuple[Path, subprocess.Popen[str]]) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Keras's folder, and what the process says of random and of downloaded weights."""
    folder, process = started
    shown, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    random, downloaded = (json.loads(line) for line in shown.splitlines())
    return folder, random, downloaded


def test_a_failed_download_names_file_folder_and_option(other_process: tuple[Path, Any, dict[str, Any]]) -> None:
    """Without network the user would see a traceback of urllib."""
    folder, _, downloaded = other_process
    (fault,) = downloaded["faults"]

    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5" in fault
    assert "https://" in fault
    assert str(folder / "models") in fault
    assert "--weights FILE" in fault


def test_random_weights_and_names_are_the_same_in_every_process(
    other_process: tuple[Path, dict[str, Any], Any],
) -> None:
    """Features that one process computed would not fit the network of another."""
    keras.layers.ReLU(), keras.layers.Multiply()

    assert backbones.describe(backbones.load("MobileNetV3Small", "none", 32)) == other_process[1]
