"""The settings: every name that a space may fix and `--set` may change, with its meaning, default and range.

A space may also search the settings that are marked searchable. The tables list the components and their parameters.
"""

from collections.abc import Mapping, Sequence

from search.components.tables import TABLES, Tables
from search.errors import unknown
from search.setting import Setting, Value
from search.task.tasks import TASKS

GENERAL: Mapping[str, Setting] = {
    "data": Setting("a folder, a table or an archive of images, or the name of a built-in set", "digits"),
    "backbone": Setting("a keras.applications name, tiny, or a .keras file", "tiny"),
    "weights": Setting("imagenet, none or a file; nothing: the backbone's own", None),
    "image_size": Setting("side of the images, in pixels; 0: what the backbone was made for", 0, low=0, high=4096),
    "max_bad_files": Setting("share of unreadable image files that is skipped; more is an error", 0.01, low=0, high=1),
    "folders": Setting(
        "what the folders of the data are; auto: classes, or splits where they are called so",
        "auto",
        choices=("auto", "classes"),
    ),
    "task": Setting("what is predicted of each image", "classification", choices=tuple(TASKS)),
    "path_column": Setting("column of a table with the images' paths; nothing: found by its name", None),
    "label_column": Setting(
        "column of a table with each image's label, or several, with commas between; nothing: found by its name", None
    ),
    "label_separator": Setting("what stands between the labels of an image; nothing: found", None),
    "split_column": Setting("column of a table with each image's split; nothing: found by its name, if any", None),
    "group_column": Setting(
        "column of a table that says which images stay in one split; nothing: found by its name, if any", None
    ),
    "near_duplicates": Setting(
        "images that look nearly the same in two splits: tell of them, or skip those of the training images",
        "tell",
        choices=("tell", "skip"),
    ),
    "augmented_views": Setting(
        "views of each training image, taken in turn by epoch: itself, and fixed random transforms", 1, low=1, high=1000
    ),
    "precision": Setting("of the network; mixed_float16 is for GPUs", "float32", choices=("float32", "mixed_float16")),
    "head_start": Setting("what the head starts from", "probe", choices=("probe", "random")),
    "cache_gib": Setting("GiB of features kept on a node, at most half of its free disk", 50.0, low=0, high=1e6),
    "max_failures": Setting("times that a trial whose process dies goes on from its checkpoint", 3, low=0, high=100),
    "confirm": Setting(
        "best configurations that are run again with other seeds at the end; 0: none", 0, low=0, high=100
    ),
    "calibrate": Setting(
        "whether the model's probabilities are scaled by a temperature that is fitted on the validation images",
        "false",
        choices=("false", "true"),
    ),
    "soup": Setting(
        "best trials of whose weights the model may be the mean, where that is better; 0: the winner's alone",
        0,
        low=0,
        high=100,
    ),
    "finish_epochs": Setting(
        "epochs that the best trials may run in all while they get better; 0: as many as all others", 0, low=0, high=1e6
    ),
    "unfreeze_depth": Setting("blocks trained, counted from the top; 0: the head alone", 0, low=0, searchable=True),
    "learning_rate": Setting("the optimizer's first rate", 1e-3, low=0, high=100, above=True, searchable=True),
    "warmup_epochs": Setting(
        "epochs over which the rate rises to its first value", 0.0, low=0, high=1000, searchable=True
    ),
    "weight_decay": Setting("decoupled, per step and unit of rate; kernels only", 0.0, low=0, high=1, searchable=True),
    "dropout": Setting("share of features dropped before the head", 0.0, low=0, high=0.95, searchable=True),
    "layer_decay": Setting(
        "what the rate is multiplied by for each block further down, from the head",
        1.0,
        low=0,
        high=1,
        above=True,
        searchable=True,
    ),
    "mixup": Setting(
        "parameter of the beta distribution by whose shares features of two images are mixed; 0: none",
        0.0,
        low=0,
        high=10,
        searchable=True,
    ),
    "class_weight_exponent": Setting(
        "how much more images of rare classes count: this power of their rareness; 1: all classes count the same",
        0.0,
        low=0,
        high=1,
        searchable=True,
    ),
    "batch_size": Setting("images per step", 32, low=1, high=65536, searchable=True),
    "stop_patience": Setting(
        "epochs without a better objective, of those after the warm-up, until the trial ends", 7, low=1, searchable=True
    ),
}

# The settings that name a component → (meaning, default, whether it may be searched).
NAMING: Mapping[str, tuple[str, str, bool]] = {
    "sampler": ("who proposes configurations", "tpe", False),
    "stopping": ("which trials stop for the sake of others", "trend", False),
    "head": ("what lies between the backbone and the output layer", "linear", True),
    "loss": ("what training makes small", "cross_entropy", True),
    "optimizer": ("what takes the steps", "adam", True),
    "schedule": ("how the rate changes from step to step", "plateau", True),
}


def known(tables: Tables) -> dict[str, Setting]:
    """Every setting, including the parameters of the components in the tables."""
    found = dict(GENERAL)
    for name, (meaning, default, searchable) in NAMING.items():
        found[name] = Setting(meaning, default, choices=tuple(tables[name]), searchable=searchable)
        for component in tables[name].values():
            found |= component.parameters
    return found


SETTINGS: Mapping[str, Setting] = known(TABLES)


def read_assignments(assignments: Sequence[str], known: Mapping[str, Setting]) -> tuple[dict[str, Value], list[str]]:
    """The settings that `KEY=VALUE` texts set, and one sentence for each text that is wrong.

    Args:
        known: every setting, by name.
    """
    values: dict[str, Value] = {}
    faults = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            faults.append(f"--set {assignment}: write KEY=VALUE")
        elif name not in known:
            faults.append(f"--set {assignment}: {unknown('setting', name, known)}")
        elif fault := known[name].fault(name, known[name].read(text)):
            faults.append(f"--set {assignment}: {fault}")
        else:
            values[name] = known[name].read(text)
    return values, faults
