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


def find(names: Sequence[str], settings: DataSettings, needed: Sequence[str] = NEEDED) -> dict[str, str] | list[str]:
    """The column for each role (`path`, `label`, `split`, `group`), or one sentence for each fault.

    Args:
        names: all columns of the table.
        settings: they may name columns.
        needed: the roles that must have a column.
    """
    found: dict[str, str] = {}
    faults = []
    for role, known in KNOWN.items():
        setting = f"{role}_column"
        asked = settings.columns.get(setting)
        fitting = [asked] if asked else list(dict.fromkeys(name for name in names if one_form(name) in known))
        if asked and asked not in names:
            faults.append(f"{setting}={asked}: {unknown('column', asked, names)}")
        elif len(fitting) > 1:
            which = " and ".join(f"'{printable(name)}'" for name in fitting)
            faults.append(f"the columns {which} could each be the {role}: say which with --set {setting}=NAME")
        elif fitting and names.count(fitting[0]) > 1:
            faults.append(f"{names.count(fitting[0])} columns are called '{printable(fitting[0])}': rename them")
        elif fitting:
            found[role] = fitting[0]
        elif role in needed:
            tried = f"none is called {', '.join(known[:-1])} or {known[-1]}"
            faults.append(f"no column is known to be the {role}: {tried}; say which it is with --set {setting}=NAME")
    for name in dict.fromkeys(found.values()):
        roles = [role for role, one in found.items() if one == name]
        if len(roles) > 1:
            faults.append(f"the column '{printable(name)}' cannot be {' and '.join(roles)} at once")
    if faults:
        faults[-1] += f"\n    its columns are {', '.join(map(printable, names))}"
        return faults
    return found


def note(names: Sequence[str], found: dict[str, str]) -> str:
    """Which column is used for what, and which one may be a group."""
    used = ", ".join(f"{role} is '{printable(name)}'" for role, name in found.items())
    may = [name for name in names if one_form(name) in GROUPING and name not in found.values()]
    if may and not found.keys() & {"split", "group"}:
        column = printable(may[0])
        used += f"; --set group_column={column} would keep all images of one {column} in one split"
    return f"columns of the table: {used}"


def one_form(name: str) -> str:
    """The name in lower case, with "_" for spaces, dots and dashes."""
    return name.strip().lower().replace(" ", "_").replace(".", "_").replace("-", "_")
