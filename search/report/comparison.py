"""Several searches side by side: what was asked differently, and what came of it, on one page."""

from collections.abc import Sequence

from rich.table import Table

from search.report import analysis, charts, failures, parts
from search.report.analysis import Findings
from search.report.page import counted

MISSING = "none"


def page(searches: Sequence[Findings]) -> str:
    """The page of two searches or more."""
    names = [found.record.folder.name for found in searches]
    faster = [charts.compared(_of(searches, metric)) for metric in dict.fromkeys(found.metric for found in searches)]
    return parts.render(
        "comparison.html",
        " and ".join(names),
        results=parts.Table(["", *names], results(searches)),
        charts=[chart for figure in faster for chart in parts.chart(figure)],
        differences=parts.Table(["", *names], differences(searches)),
        commands=[parts.Code(found.about["command"]) for found in searches],
    )


def _of(searches: Sequence[Findings], metric: str) -> list[Findings]:
    return [found for found in searches if found.metric == metric]


def shown(searches: Sequence[Findings]) -> Table:
    """The results for a terminal."""
    made = Table(title="Comparison", title_justify="left")
    for column in ("", *(found.record.folder.name for found in searches)):
        made.add_column(column, overflow="fold")
    for row in results(searches):
        made.add_row(*map(str, row))
    return made


def results(searches: Sequence[Findings]) -> list[tuple[str, ...]]:
    """A row for each figure, a column for each search."""
    columns = []
    for found in searches:
        best = found.best[:1]
        spent, spared = analysis.saved(found)
        columns.append(
            {
                "status": str(found.about["status"]),
                "trials": counted(found.rows),
                "objective": found.objective.words,
                "best": f"{found.value(best[0]):.4f} (trial {best[0].trial})" if best else MISSING,
                **dict(failures.keys(found)),
                "seconds": f"{found.record.seconds:.0f}",
                "epochs trained": str(spent),
                "epochs that stopped trials were spared": f"at most {spared}",
            }
        )
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, MISSING) for column in columns)) for name in names]


def differences(searches: Sequence[Findings]) -> list[tuple[str, ...]]:
    """What was not asked alike: settings, ranges, budgets, seeds, images, versions."""
    asked = [_asked(found) for found in searches]
    names = dict.fromkeys(name for one in asked for name in one)
    rows = [(name, *(one.get(name, MISSING) for one in asked)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _asked(found: Findings) -> dict[str, str]:
    about = found.about
    space, data = about["space"], about["data"]
    facts = {"space": space["name"], "objective": space["objective"], "seed": about["seed"]}
    facts |= {f"{name} may be": text for name, text in space["search"].items()}
    facts |= {f"{name} only where": f"{parent} is {value}" for name, (parent, value) in space["when"].items()}
    facts |= {f"budget: {name}": value for name, value in space["budget"].items()}
    facts |= about["settings"]
    facts |= {"images (fingerprint)": data["fingerprint"][:12], found.objective.task.outputs: len(data["classes"])}
    facts |= {f"version of {name}": version for name, version in about["versions"].items()}
    facts |= {name.replace("_", " "): value for name, value in about["resources"].items()}
    return {name: str(value) for name, value in facts.items()}
