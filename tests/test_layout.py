"""The layout: imports point down one list, light modules stay light, and the README's links lead somewhere."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HEAVY = ("keras", "tensorflow", "ray")


def tree() -> tuple[str, ...]:
    """Every module and package of `search/`, the highest first, as the README lists them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = text.partition("    search/ ")[2].partition("\n\n")[0].partition("\n")[2]
    found, above = [], {4: ""}
    for indent, name, package in re.findall(r"^( +)(\w+)(?:\.py|(/)) {2}", listed, re.MULTILINE):
        above[len(indent)] = f"{above[len(indent) - 2]}{name}." if package else above[len(indent) - 2]
        found.append(f"{above[len(indent) - 2]}{name}")
    return tuple(found)


# Each may import only what stands after it, and a package's modules as well.
ORDER = tree()


def modules(folder: str) -> dict[str, Path]:
    """Name → file of a package's modules; a package inside has the name of its folder."""
    paths = [path.relative_to(ROOT / folder) for path in sorted((ROOT / folder).rglob("*.py"))]
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / folder / path for path in paths}
    return {name: path for name, path in names.items() if name != "__init__"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it: `from search import a` counts as `search.a`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: a relative import"
            folder = ROOT.joinpath(*str(node.module).split("."))
            for alias in node.names:
                inside = (folder / alias.name).is_dir() or (folder / f"{alias.name}.py").exists()
                found.add(f"{node.module}.{alias.name}" if inside else str(node.module))
    return found


def packages(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.partition(".")[0] for name in imports(path)}


def test_the_readme_lists_every_module() -> None:
    """A reader would look for a module that is gone, or miss a new one, and that one would be outside the rule."""
    assert len(set(ORDER)) == len(ORDER)
    assert set(modules("search")) == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_down(name: str) -> None:
    """Modules would depend on each other in a circle, and none could be understood, tested or replaced alone."""
    below = {f"search.{other}" for other in ORDER[ORDER.index(name) + 1 :]}
    inside = {module for module in imports(modules("search")[name]) if module.partition(".")[0] == "search"}

    assert inside <= below


def test_what_is_imported_is_installed() -> None:
    """Who installs the project without what its tests need meets a module that is missing, at the end of a search."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [Requirement(text) for text in project["dependencies"]]
    brought = [Requirement(text) for text in metadata.requires("ray") or []]  # with ray[tune]
    asked += [one for one in brought if not one.marker or one.marker.evaluate({"extra": "tune"})]
    declared = {canonicalize_name(one.name) for one in asked}
    owners = metadata.packages_distributions()
    found = {name for path in modules("search").values() for name in packages(path)} - {"search", "spaces"}
    missing = {
        name
        for name in found - sys.stdlib_module_names
        if not declared.intersection(canonicalize_name(owner) for owner in owners[name])
    }

    assert missing == set()


def test_every_package_is_installed() -> None:
    """Who installs the project, and does not work on it, misses a module, at the end of a search."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    there = [path.parent for folder in ("search", "spaces") for path in (ROOT / folder).rglob("__init__.py")]

    assert sorted(listed) == sorted(".".join(path.relative_to(ROOT).parts) for path in there)


def test_packages_themselves_import_nothing() -> None:
    """Importing any module would import others first, unseen by the rule; but for what a space file imports."""
    packages = {*(ROOT / "search").rglob("__init__.py"), ROOT / "spaces" / "__init__.py"}
    importing = {str(path.parent.relative_to(ROOT)) for path in packages if imports(path)}

    assert importing == {"search/space", "search/components/stopping"}


@pytest.mark.parametrize("name", modules("spaces"))
def test_a_space_imports_only_what_declares_it(name: str) -> None:
    """A space would be a program, not data: its bounds could no longer be checked before anything starts."""
    assert imports(modules("spaces")[name]) == {"search.space"}


def test_only_space_knows_the_spaces_folder() -> None:
    """The mechanism would know a space by name."""
    knowing = {name for name, path in modules("search").items() if "spaces" in packages(path)}

    assert knowing == {"space.spacefile"}


def test_only_these_modules_know_ray() -> None:
    """A trial could not be tested, nor a report be printed, without Ray."""
    knowing = {name for name, path in modules("search").items() if "ray" in packages(path)}

    driver = {name for name in ORDER if name.startswith("driver.")} - {
        "driver.search",
        "driver.outcome",
        "driver.resume",
        "driver.card",
    }
    assert knowing == driver | {"cluster.nodes", "cluster.connection", "spot", "internals.of_ray"}


def test_tensorflow_stays_at_the_edges() -> None:
    """Another Keras backend would no longer be possible; these modules must be written anew for it."""
    knowing = {name for name, path in modules("search").items() if packages(path) & {"tensorflow", "torch", "jax"}}

    assert knowing == {"trial.batches", "components.scheduled", "export.formats"}


def test_checking_and_reporting_import_nothing_heavy() -> None:
    """`--help`, checking a request and printing a report would take the seconds that TensorFlow and Ray take."""
    light = ("run", "report.__main__", "predict", "export.__main__", "request.request", "data.store")
    modules = ", ".join(f"search.{name}" for name in light)
    code = f"import sys, {modules}; print([*{{*{HEAVY}}} & {{*sys.modules}}])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout

    assert said.strip() == "[]"


def links() -> list[str]:
    """The targets of the README's relative links and pictures."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    return [link for link in found if not re.match(r"[a-z]+:|#", link)]


def test_the_links_of_the_readme_lead_somewhere() -> None:
    """A reader would meet a dead link."""
    found = links()

    assert found
    assert [link for link in found if not (ROOT / link.partition("#")[0]).exists()] == []


def test_the_architecture_names_what_is_there() -> None:
    """A newcomer would look for a module that is gone."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b([a-z_]+)(?:\.py\b|/)", text))

    assert len(named) > 30
    assert named <= {part for name in ORDER for part in name.split(".")} | {"search", "decisions"}


@pytest.mark.parametrize("name", ORDER)
def test_no_module_keeps_anything(name: str) -> None:
    """What one search or one test leaves behind would change the next one in the same process."""
    tree = ast.parse(modules("search")[name].read_text(encoding="utf-8"))
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    names = [target.id for target in targets if isinstance(target, ast.Name) and not target.id.startswith("__")]
    kept = [name for name in names if name.lstrip("_")[:1].islower()]

    assert kept == []
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]


def test_every_module_is_used() -> None:
    """A module that nothing imports any more would stay and be maintained for nothing."""
    used = {module for path in modules("search").values() for module in imports(path)}
    started = {"run", "report.__main__", "predict", "export.__main__", "clusterfile", "spot"}  # by `python -m`
    packages = {name.rpartition(".")[0] for name in ORDER}

    assert [name for name in ORDER if f"search.{name}" not in used and name not in started | packages] == []


@pytest.mark.slow
def test_importing_keras_brings_only_what_a_search_uses() -> None:
    """Every process of a search would take seconds more, or whoever needs scikit-learn would be told there is none."""
    code = (
        "import sys; from search.process import importing_keras\n"
        "with importing_keras(1): import keras\n"
        "print([*{'sklearn', 'matplotlib'} & {*sys.modules}]); import sklearn"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout

    assert said.strip() == "[]"
