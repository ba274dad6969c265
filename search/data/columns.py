"""Decides which columns of a table hold the images' paths, their classes, their splits and their groups."""

from collections.abc import Sequence

from search.data.folders import printable
from search.data.settings import DataSettings
from search.errors import unknown

# Names by which a column is known, in lower case, with "_" for spaces, dots and dashes.
KNOWN = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path"),
        *("image", "image_path", "image_file", "image_filename", "image_name", "img", "img_path"),
    ),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "subset", "partition"),
    "group": ("group", "group_id"),
}
NEEDED = ("path", "label")
# Columns that are often groups; they are mentioned, not taken.
GROUPING = ("patient", "patient_id", "subject", "subject_id", "case_id", "scene", "video", "lesion_id", "session_id")


def find(
    names: Sequence[str], settings: DataSettings, needed: Sequence[str] = NEEDED
) -> dict[str, tuple[str, ...]] | list[str]:
    """The column for each role (`path`, `label`, `split`, `group`), or one sentence for each fault.

    A label may be in several columns.

    Args:
        names: all columns of the table.
        settings: they may name columns.
        needed: the roles that must have a column.
    """
    found: dict[str, tuple[str, ...]] = {}
    faults = []
    for role, known in KNOWN.items():
        setting = f"{role}_column"
        asked = settings.columns.get(setting)
        given = _given(role, asked, names) if asked else []
        fitting = given or list(dict.fromkeys(name for name in names if one_form(name) in known))
        if missing := [name for name in given if name not in names]:
            faults += [f"{setting}={asked}: {unknown('column', name, names)}" for name in missing]
        elif len(given) > 1 and settings.task == "classification":
            faults.append(
                f"{setting}={asked}: one class for each image is in one column; several columns are for "
                "--set task=multilabel, or --set task=regression"
            )
        elif len(fitting) > 1 and not given:
            which = " and ".join(f"'{printable(name)}'" for name in fitting)
            faults.append(f"the columns {which} could each be the {role}: say which with --set {setting}=NAME")
        elif twice := [name for name in fitting if names.count(name) > 1]:
            faults += [f"{names.count(name)} columns are called '{printable(name)}': rename them" for name in twice]
        elif fitting:
            found[role] = tuple(fitting)
        elif role in needed:
            tried = f"none is called {', '.join(known[:-1])} or {known[-1]}"
            faults.append(f"no column is known to be the {role}: {tried}; say which it is with --set {setting}=NAME")
    for name in dict.fromkeys(name for several in found.values() for name in several):
        roles = [role for role, several in found.items() for one in several if one == name]
        if len(roles) > 1:
            faults.append(f"the column '{printable(name)}' cannot be {' and '.join(roles)} at once")
    if faults:
        faults[-1] += f"\n    its columns are {', '.join(map(printable, names))}"
        return faults
    return found


def _given(role: str, asked: str, names: Sequence[str]) -> list[str]:
    """The columns that are asked for; several only of a label, with commas between."""
    several = role == "label" and asked not in names
    return [name.strip() for name in asked.split(",") if name.strip()] if several else [asked]


def note(names: Sequence[str], found: dict[str, tuple[str, ...]]) -> str:
    """Which column is used for what, and which one may be a group."""
    told = {role: " and ".join(f"'{printable(name)}'" for name in several) for role, several in found.items()}
    used = ", ".join(f"{role} is {columns}" for role, columns in told.items())
    taken = [name for several in found.values() for name in several]
    may = [name for name in names if one_form(name) in GROUPING and name not in taken]
    if may and not found.keys() & {"split", "group"}:
        column = printable(may[0])
        used += f"; --set group_column={column} would keep all images of one {column} in one split"
    return f"columns of the table: {used}"


def one_form(name: str) -> str:
    """The name in lower case, with "_" for spaces, dots and dashes."""
    return name.strip().lower().replace(" ", "_").replace(".", "_").replace("-", "_")
