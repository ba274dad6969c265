"""The real command refuses every wrong request: exit status 2, one clear message, and no trace."""

import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import machine, run
from search.backbone.backbones import Source
from search.request import request
from search.space.settings import SETTINGS
from search.trial.preparation import Preparation

OPTIONS = {
    "--address",
    "--backbone",
    "--cache",
    "--cpus-per-trial",
    "--data",
    "--epochs",
    "--gpus-per-trial",
    "--max-concurrent",
    "--name",
    "--resume",
    "--seed",
    "--set",
    "--space",
    "--storage",
    "--time-budget",
    "--trials",
    "--weights",
}
NUMBERS = {  # option: what it must be, and whether 0 is good
    "--trials": ("a whole number, 1 or more", False),
    "--epochs": ("a whole number, 1 or more", False),
    "--time-budget": ("a number above 0", False),
    "--max-concurrent": ("a whole number, 1 or more", False),
    "--cpus-per-trial": ("a number above 0", False),
    "--gpus-per-trial": ("a number, 0 or more", True),
    "--seed": ("a whole number, 0 or more, at most 4294967295", True),
}
NUMERIC_SETTINGS = [name for name, setting in SETTINGS.items() if isinstance(setting.default, int | float)]
NAMES = "letters, digits, '.', '_' and '-' are allowed, and a letter or digit first"
NEEDED = "a .keras file is needed, or the name of a network"
SPACES = "finetune, imbalanced, linear_probe, smoke"
Refused = Callable[..., list[str]]
Finished = subprocess.CompletedProcess[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder where all that the command might write is seen, on a machine without GPUs."""
    for name in ("work", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def options(arguments: Sequence[str]) -> list[str]:
    """The arguments, behind a storage and a cache of the test's own."""
    return ["--storage", "../storage", "--cache", "../cache", *arguments]


def command(*arguments: str, python: Sequence[str] = ()) -> Finished:
    """Run the real command."""
    whole = [sys.executable, *python, "-m", "search.run", *options(arguments)]
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes | None]:
    """All that lies below a folder; `None` for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def sentences(message: str) -> list[str]:
    """The faults that a message names, line by line."""
    first, *others = message.splitlines()
    counted = re.fullmatch(r"(\d+) faults:", first)
    if not counted:
        return [first, *others]
    assert int(counted[1]) == len([line for line in others if not line.startswith("   ")])
    return [line.removeprefix("  ") for line in others]


@pytest.fixture
def refused(place: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a wrong request, check what holds for all of them, and give its faults.

    With `here`, it runs in this process: for further cases of what the real command has refused already.
    """

    def in_this_process(*arguments: str) -> Finished:
        return Finished([], run.main(options(arguments)), *capfd.readouterr())

    def refuse(*arguments: str, here: bool = False) -> list[str]:
        before = contents(place)
        done = (in_this_process if here else command)(*arguments)
        assert done.returncode == run.WRONG_REQUEST, done.stderr
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
        assert all(line.startswith("scanning images: ") for line in done.stdout.splitlines()), done.stdout
        assert before == contents(place)
        return sentences(done.stderr.removeprefix("error: "))

    return refuse


def photos(root: Path, counts: dict[str, int]) -> Path:
    """A folder of small images, no two alike."""
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("here", "arguments", "start"),
    [
        (
            False,
            ["--space", "finetun"],
            f"unknown space 'finetun'; did you mean 'finetune'? known are {SPACES}; or give a file",
        ),
        (True, ["--epoch", "3"], "unknown option '--epoch'; did you mean '--epochs'? known are --address, "),
        (
            True,
            ["--backbone", "mobilenetv2"],
            "unknown backbone 'mobilenetv2'; did you mean 'MobileNetV2'? known are ConvNeXt",
        ),
        (
            True,
            ["--set", "sampler=tpee"],
            "--set sampler=tpee: sampler: unknown value 'tpee'; did you mean 'tpe'? known are gp, qmc, random, tpe",
        ),
        (
            True,
            ["--set", "batchsize=8"],
            "--set batchsize=8: unknown setting 'batchsize'; did you mean 'batch_size'? known are augmented",
        ),
    ],
    ids=["space", "option", "backbone", "sampler", "setting"],
)
def test_unknown_names(refused: Refused, here: bool, arguments: list[str], start: str) -> None:
    """A misspelt name is taken for a default, ends in a traceback, or leaves the user to find the right one."""
    (fault,) = refused(*arguments, here=here)
    assert fault.startswith(start)


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["--data", "digit"], "unknown data set 'digit'; did you mean 'digits'? known are digits;"),
        (
            ["--weights", "imagenets"],
            "unknown weights 'imagenets'; allowed are 'own', 'none' and a file ending in .weights.h5, .h5 or .keras",
        ),
        (["finetune"], "'finetune' is no option"),
        (["--spice", "x"], "unknown option '--spice'; did you mean '--space'? known are "),
        (["-s", "finetune"], "unknown option '-s'"),
        (
            ["--set", "head_start=prob"],
            "--set head_start=prob: head_start: unknown value 'prob'; did you mean 'probe'? known are probe, random",
        ),
        (["--set", "precision=float16"], "--set precision=float16: precision: unknown value 'float16'; "),
        (["--set", "sampler=gp"], "sampler gp needs PyTorch: pip install 'finetune-search[gp]', or use tpe"),
        (["--set", "stopping=hyperband"], "--set stopping=hyperband: stopping: unknown value 'hyperband'; known are "),
        (
            ["--set", "stopping=trend", "--epochs", "4"],
            "stopping trend would never decide: its first rung comes no earlier than the last epoch, 4; give more",
        ),
        (
            ["--set", "stopping=asha", "--epochs", "1"],
            "stopping asha would never decide: its first rung comes no earlier than the last epoch, 1; give more",
        ),
    ],
)
def test_more_unknown_names(refused: Refused, arguments: list[str], start: str) -> None:
    """One wrong word gives two faults, or none."""
    if "sampler=gp" in arguments and importlib.util.find_spec("torch"):
        pytest.skip("PyTorch is installed")
    (fault,) = refused(*arguments, here=True)
    assert fault.startswith(start)


def test_epochs_for_the_best_are_more_than_those_for_all(refused: Refused) -> None:
    """The best trials would end before the others, or nothing of what was asked would come."""
    (fault,) = refused("--space", "finetune", "--set", "finish_epochs=16", here=True)
    assert fault == "finish_epochs must be 0, or more than the 16 epochs of every trial; got 16"


def test_a_rule_that_a_space_fixes_may_have_nothing_to_decide(refused: Refused) -> None:
    """A short try of a space would be refused for the rule that it names for long ones."""
    (fault,) = refused("--space", "smoke", "--epochs", "1", "--trials", "0")
    assert fault.startswith("--trials must be ")


def test_a_folder_may_be_called_like_a_backbone(tmp_path: Path, refused: Refused) -> None:
    """A folder called `tiny` or `none` in the current directory is taken for the backbone or its weights."""
    for name in ("tiny", "none"):
        (tmp_path / "work" / name).mkdir()
    (fault,) = refused("--backbone", "tiny", "--weights", "none", "--trials", "0", here=True)
    assert fault.startswith("--trials must be ")


def test_space_with_several_faults(tmp_path: Path, refused: Refused) -> None:
    """The faults of a space are met one after the other, run after run."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from search.space import Budget, Choice, Float, Space\n"
        "space = Space(\n"
        "    search={'learnin_rate': Float(0.1, 1), 'dropout': Float(0.1, 2), 'optimizer': Choice(['adam', 'sgd'])},\n"
        "    fixed={'batch_size': 0, 'dropout': 0.1},\n"
        "    when={'dropout': ('optimiser', 'sgd')},\n"
        "    start=[{'optimizer': 'lamb'}],\n"
        "    budget=Budget(trials=0, epochs=5),\n"
        ")\n"
    )
    head, *faults = refused("--space", str(path), here=True)
    assert f"{path} has 7 faults:" == head
    starts = [
        "search: unknown parameter 'learnin_rate'; did you mean 'learning_rate'? known are batch_size, ",
        "search: dropout must be a number, at least 0 and at most 0.95; got 2.0",
        "fixed: batch_size must be a whole number, at least 1 and at most 65536; got 0",
        "fixed: 'dropout' is under search as well; keep one of them",
        "when['dropout']: unknown parameter 'optimiser'; did you mean 'optimizer'? known are dropout, ",
        "start[0]: optimizer: unknown value 'lamb'; did you mean 'adam'? known are adam, ",
        "budget: trials must be a whole number, 1 or more; got 0",
    ]
    assert len(starts) == len(faults)
    for start, fault in zip(starts, faults, strict=True):
        assert fault.strip().startswith(start)


@pytest.mark.parametrize(
    ("here", "text", "told"),
    [
        (False, "\n1 / 0\n", "does not run: line 2: ZeroDivisionError: division by zero"),
        (True, "space = Space(\n", "does not run: SyntaxError: '(' was never closed (mine.py, line 1)"),
        (True, "import sys\nsys.exit(0)\n", "does not run: line 2: SystemExit: 0"),
        (True, "spaces = 3\n", "must make a Space and call it 'space'; found NoneType"),
        (True, None, "--space {path}: no such file"),
    ],
    ids=["raises", "syntax", "exits", "no space", "missing"],
)
def test_space_that_does_not_run(tmp_path: Path, refused: Refused, here: bool, text: str | None, told: str) -> None:
    """A broken space file ends in a traceback of this package, or in exit status 0."""
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
        told = f"{path}: {told}"
    assert [told.format(path=path)] == refused("--space", str(path), here=here)


def describe(place: Path) -> None:
    """Put a description of the default backbone into the cache, so that no process is started to make one."""
    with Preparation(Source("tiny", "own", 0), place / "cache") as preparation:
        preparation._kept.parent.mkdir(parents=True)
        preparation._kept.write_text("{}")


@pytest.mark.parametrize(
    ("here", "make", "told"),
    [
        (True, lambda root: None, "{root}: there is no such folder"),  # noqa: ARG005
        (
            True,
            lambda root: root.mkdir(),
            "{root}: no images in it; expected DIR/<class>/* or DIR/{{train,val,test}}/<class>/*",
        ),
        (
            False,
            lambda root: photos(root, {"cat": 4}),
            "{root}: only one class, 'cat', holds usable images; at least two are needed",
        ),
        (
            True,
            lambda root: photos(root, {"cat": 2, "dog": 4}),
            "{root}: class 'cat' has too few images for a split: 2 in all, none in train; "
            "each of train, val, test needs at least one of every class",
        ),
    ],
    ids=["missing", "empty", "one class", "few images"],
)
def test_unusable_data(place: Path, refused: Refused, here: bool, make: Callable[[Path], object], told: str) -> None:
    """A folder that cannot be trained on is found out by a trial, or without a word on what is wrong."""
    root = place / "photos"
    make(root)
    if here:
        describe(place)
    assert [told.format(root=root)] == refused("--data", str(root), here=here)


def test_file_for_data(tmp_path: Path, refused: Refused) -> None:
    """A file given as data is called an empty folder."""
    (tmp_path / "photos.zip").write_text("a file")
    (tmp_path / "photo.png").write_text("a file")
    told = f"{tmp_path}/photos.zip: no .zip archive, or one that is cut off; fetch it again"
    assert [told] == refused("--data", f"{tmp_path}/photos.zip", here=True)
    (fault,) = refused("--data", f"{tmp_path}/photo.png", here=True)
    assert fault.startswith(f"{tmp_path}/photo.png: no folder, no table (.csv, .tsv, .jsonl, .parquet) and no archive")


def test_only_bad_files(place: Path, refused: Refused) -> None:
    """A folder of files that are no images is called empty, or none of them is named."""
    describe(place)
    root = photos(place / "photos", {"cat": 0, "dog": 0})
    for name in ("cat/1.png", "dog/2.jpg"):
        (root / name).write_text("no image")
    head, *listed = refused("--data", str(root), here=True)
    assert f"{root}: none of its image files can be used, 2 in all:" == head
    alien = "not a PNG, JPEG, GIF, BMP, WebP, TIFF, PPM, AVIF or HEIC image"
    assert [f"    cat/1.png: {alien}", f"    dog/2.jpg: {alien}"] == listed


def test_space_file_of_any_name(place: Path, refused: Refused) -> None:
    """The search's own default name, made from the file's, is refused."""
    path = place / "my first spaçe!.py"
    path.write_text("from search.space import *\nspace = Space({'dropout': Float(0, 0.5)}, Budget(1, 1))\n")
    (fault,) = refused("--space", str(path), "--trials", "0", here=True)
    assert fault.startswith("--trials must be ")


def test_name_that_exists(tmp_path: Path, refused: Refused) -> None:
    """A search writes over another one."""
    old = tmp_path / "storage" / "old"
    old.mkdir(parents=True)
    (old / "trials.csv").write_text("precious")
    told = "--name old: ../storage/old exists already; take another name, or --resume old"
    assert [told] == refused("--name", "old", here=True)


@pytest.mark.parametrize(("name", "here"), [("../x", False), ("a/b", True), ("/x", False), ("", True)])
def test_name_that_leaves_the_storage(tmp_path: Path, refused: Refused, name: str, here: bool) -> None:
    """A search is written outside its storage."""
    (tmp_path / "storage").mkdir()
    assert [f"--name {name!r}: {NAMES}"] == refused(f"--name={name}", here=here)


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a b", "ä", "a\n", "a" * 101])
def test_name_that_is_no_plain_name(refused: Refused, name: str) -> None:
    """A search is written under a name that shells and tools cannot handle."""
    assert [f"--name {name!r}: {NAMES}"] == refused(f"--name={name}", here=True)


@pytest.mark.parametrize(
    ("here", "storage", "told"),
    [
        (False, "file/below/it", "{storage}: {folder}/file is not a folder"),
        (True, "/proc/searches", "/proc/searches: no folder can be made there: "),
    ],
)
def test_unwritable_storage(tmp_path: Path, refused: Refused, here: bool, storage: str, told: str) -> None:
    """A storage that cannot be written is found out after the images were read, or by a trial."""
    (tmp_path / "file").write_text("a file")
    given = str(tmp_path / storage)
    (fault,) = refused("--storage", given, here=here)
    assert fault.startswith(f"--storage {told.format(storage=given, folder=tmp_path)}")


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ("text", "text: {work}/text is not a folder"),
        (
            "nowhere://bucket/a",
            "nowhere://bucket/a: cannot be written: Unrecognized filesystem type in URI: nowhere://",
        ),
        ("", "must not be empty"),
    ],
)
def test_storage_that_is_no_folder(place: Path, refused: Refused, storage: str, told: str) -> None:
    """An address of a store, or a file, is taken for a folder's name."""
    (place / "work" / "text").write_text("a file")
    (fault,) = refused("--storage", storage, here=True)
    assert fault.startswith(f"--storage {told.format(work=place / 'work')}")


def test_unwritable_cache(tmp_path: Path, refused: Refused) -> None:
    """A cache that cannot be written is found out after the images were read."""
    (tmp_path / "file").write_text("a file")
    cache = tmp_path / "file" / "cache"
    assert [f"--cache {cache}: {tmp_path}/file is not a folder"] == refused("--cache", str(cache), here=True)


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("0", False),
        *((text, True) for text in ("-1", "many", "-0.5", "nan", "inf", "1e999", "", "½")),
    ],
)
def test_numbers(refused: Refused, text: str, here: bool) -> None:
    """A number that makes no sense starts a search, or is met as a traceback."""
    wrong = [option for option, (_, zero) in NUMBERS.items() if text != "0" or not zero]
    expected = {f"{option} must be {NUMBERS[option][0]}; got '{text}'" for option in wrong}
    faults = refused(*(f"{option}={text}" for option in NUMBERS), here=here)
    assert (expected, len(expected)) == (set(faults), len(faults))


def test_numbers_that_are_nearly_good(refused: Refused) -> None:
    """Half a trial is rounded, or a seed that NumPy does not take ends in a traceback."""
    given = {"--trials": "1.5", "--epochs": "2.0", "--max-concurrent": "1e1", "--seed": str(2**32)}
    expected = {f"{option} must be {NUMBERS[option][0]}; got '{text}'" for option, text in given.items()}
    assert expected == set(refused(*(f"{option}={text}" for option, text in given.items()), here=True))


@pytest.mark.parametrize("text", ["-1", "many", "nan", "1e999", "", "True"])
def test_numeric_settings(refused: Refused, text: str) -> None:
    """A setting that makes no sense is met by the trials, or ignored."""
    faults = refused(*(f"--set={name}={text}" for name in NUMERIC_SETTINGS), here=True)
    assert len(NUMERIC_SETTINGS) == len(faults)
    for name, fault in zip(NUMERIC_SETTINGS, faults, strict=True):
        assert fault.startswith(f"--set {name}={text}: {name} must be {SETTINGS[name].allowed()}; got ")


def test_zero_where_a_setting_needs_more(refused: Refused) -> None:
    """A batch of no images, or a rate of zero, is accepted."""
    names = ["learning_rate", "batch_size", "plateau_patience", "plateau_factor", "stop_patience"]
    faults = refused(*(f"--set={name}=0" for name in names), here=True)
    for name, fault in zip(names, faults, strict=True):
        assert fault.startswith(f"--set {name}=0: {name} must be ")


def test_settings_that_no_assignment_makes(refused: Refused) -> None:
    """`--set` without a value is ignored, or one that the space searches is silently fixed."""
    assert [
        "--set trials: write KEY=VALUE",
        "--set =3: unknown setting ''; known are " + ", ".join(sorted(SETTINGS)),
        "--set dropout: this space searches 'dropout'; change its range in a space file of your own",
    ] == refused("--set", "trials", "--set", "=3", "--set", "dropout=0.5", here=True)


def test_more_than_the_machine_has(refused: Refused) -> None:
    """The search waits for ever for CPUs or GPUs that do not exist."""
    cpus, gpus = refused("--cpus-per-trial", "9999", "--gpus-per-trial", "0.5", here=True)
    assert re.fullmatch(r"--cpus-per-trial 9999: this machine has [1-9]\d*", cpus)
    assert gpus == "--gpus-per-trial 0.5: this machine has 0"


def test_more_gpus_than_may_be_used(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs that the environment hides are counted on."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert refused("--gpus-per-trial", "3", here=True) == ["--gpus-per-trial 3: this machine has 2"]
    assert refused("--gpus-per-trial", "2", "--name", "..", here=True) == [f"--name '..': {NAMES}"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("given", "gets"), [([], (1, 8, 2)), (["0.25"], (0.25, 2, 8)), (["2"], (2, 16, 1)), (["0"], (0, 1, 16))]
)
def test_a_trial_gets_the_share_of_the_cpus_that_it_has_of_the_gpus(
    monkeypatch: pytest.MonkeyPatch, given: list[str], gets: tuple[float, float, int]
) -> None:
    """Four trials on one GPU would run one after the other, for each of them waits for all of its CPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(machine, "cpus", lambda: 16)
    asked = request.check(run.parser().parse_args(options([f"--gpus-per-trial={number}" for number in given])))
    at_a_time = asked.resources.room({"CPU": 16, "GPU": 2})
    assert (asked.resources.gpus_per_trial, asked.resources.cpus_per_trial, at_a_time) == gets


def test_faults_of_every_kind_at_once(tmp_path: Path, refused: Refused) -> None:
    """A request with several faults is corrected one run at a time."""
    (tmp_path / "mine.py").write_text("1 / 0\n")
    starts = [
        "--trials must be",
        "--seed must be",
        "--set batchsize=8: unknown setting 'batchsize'",
        f"{tmp_path}/mine.py: does not run: line 1: ZeroDivisionError",
        "unknown backbone 'ResNet50V3'; did you mean 'ResNet50V2'?",
        "nowhere/photos: there is no such folder",
        "--gpus-per-trial 9: this machine has 0",
        "--storage /proc/searches: no folder can be made there",
        "--name '../x': letters",
    ]
    given = {"trials": "0", "seed": "x", "set": "batchsize=8", "space": tmp_path / "mine.py", "backbone": "ResNet50V3"}
    given |= {"data": "nowhere/photos", "gpus-per-trial": "9", "storage": "/proc/searches", "name": "../x"}
    faults = refused(*(f"--{option}={text}" for option, text in given.items()))
    assert len(starts) == len(faults)
    for start, fault in zip(starts, faults, strict=True):
        assert fault.startswith(start)


def test_empty_values(refused: Refused) -> None:
    """An unset variable in a script, as in `--data "$PHOTOS"`, silently means the current folder or a default."""
    told = "must be text, and not empty; got ''"
    assert [
        f"--set data=: data {told}",
        *(f"--{option} {told}" for option in ("data", "backbone", "weights")),
    ] == refused("--data", "", "--backbone", "", "--weights", "", "--set", "data=", here=True)


def test_options_without_a_value(refused: Refused) -> None:
    """An option that lacks its value swallows the next one."""
    assert refused("--trials", "--epochs", "3", here=True) == ["argument --trials: expected one argument; see --help"]


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_needs_a_value(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One of the options does something when its value is forgotten."""
    assert run.main([option]) == run.WRONG_REQUEST
    assert capsys.readouterr() == ("", f"error: argument {option}: expected one argument; see --help\n")


@pytest.mark.parametrize(
    ("here", "arguments", "told"),
    [
        (False, ["--weights", "nowhere.h5"], "weights file 'nowhere.h5' does not exist"),
        (True, ["--weights", "text.h5"], "weights file '{work}/text.h5' is not an HDF5 file"),
        (
            True,
            ["--backbone", "tiny", "--weights", "imagenet"],
            "there are no 'imagenet' weights for backbone 'tiny'; "
            "allowed are 'own', 'none' and a file ending in .weights.h5, .h5 or .keras",
        ),
        (True, ["--backbone", "nowhere.keras"], "backbone file 'nowhere.keras' does not exist"),
        (
            True,
            ["--backbone", "text.keras"],
            "backbone file '{work}/text.keras' is not a Keras model: it is no zip archive",
        ),
        (True, ["--backbone", "nowhere.h5"], "backbone file 'nowhere.h5' does not exist"),
        (
            True,
            ["--backbone", "text.weights.h5"],
            "backbone file '{work}/text.weights.h5' holds weights alone; "
            "name the network with --backbone, the file with --weights",
        ),
        *(
            (True, ["--backbone", name], f"backbone file '{{work}}/{name}' holds {what}; {NEEDED}")
            for name, what in (
                ("model.pt", "a model of PyTorch or its weights"),
                ("model.safetensors", "a model of PyTorch or its weights"),
                ("model.onnx", "an ONNX model"),
                ("model.tflite", "a TFLite model"),
            )
        ),
        (
            True,
            ["--backbone", "exported"],
            "backbone '{work}/exported' is a SavedModel; "
            "a .keras file is needed, from model.save(FILE), or the name of a network",
        ),
        (True, ["--backbone", "text.txt"], "backbone file '{work}/text.txt' is no .keras file"),
    ],
)
def test_unusable_backbone(place: Path, refused: Refused, here: bool, arguments: list[str], told: str) -> None:
    """Weights or a model that cannot be loaded are found out by every trial in turn."""
    models = ("model.pt", "model.safetensors", "model.onnx", "model.tflite")
    for name in ("text.h5", "text.keras", "text.weights.h5", "text.txt", *models):
        (place / "work" / name).write_text("some text")
    (place / "work" / "exported").mkdir()
    (place / "work" / "exported" / "saved_model.pb").write_text("some text")
    assert [told.format(work=place / "work")] == refused(*arguments, here=here)


@pytest.mark.slow
def test_zip_that_is_no_model(tmp_path: Path, refused: Refused) -> None:
    """A `.keras` file that only Keras can tell to be no model ends in a traceback."""
    path = tmp_path / "photos.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat.txt", "a cat")
    (fault,) = refused("--backbone", str(path))
    assert fault.startswith(f"backbone file '{path}' cannot be loaded: ")


@pytest.mark.parametrize("name", ["old", "../x", ""])
def test_resume_of_nothing(refused: Refused, name: str) -> None:
    """Going on with a search that does not exist starts a new one."""
    (fault,) = refused("--resume", name, here=True)
    assert fault.startswith(f"--resume: there is no search '{name}' in ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--space", "finetun", "--backbone", "VGG15", "--trials", "0", "--name", "../x", "--data", "nowhere/photos"],
        ["--weights", "nowhere.h5", "--set", "sampler=gp", "--set", "batch_size=0", "--storage", "/proc/searches"],
    ],
)
@pytest.mark.usefixtures("place")
def test_wrong_requests_load_neither_keras_nor_ray(arguments: list[str]) -> None:
    """The user waits many seconds to be told of a typing error."""
    done = command(*arguments, python=["-X", "importtime"])
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"search", "optuna"} <= imported
    assert not {"keras", "tensorflow", "ray", "sklearn", "torch"} & imported


@pytest.mark.usefixtures("place")
def test_the_options_are_those_of_the_contract() -> None:
    """An option comes or goes unnoticed, or the help does not tell what the exit statuses mean."""
    declared = {name for action in run.parser()._actions for name in action.option_strings}
    assert OPTIONS | {"-h", "--help"} == declared
    done = command("--help")
    assert (done.returncode, done.stderr) == (run.DONE, "")
    assert OPTIONS | {"--help"} == set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", done.stdout, re.MULTILINE))
    statuses = "0 done; 1 the search failed; 2 the request is wrong; 3 done, but some trials failed; 130 interrupted"
    assert f"Exit status: {statuses}." in " ".join(done.stdout.split())
