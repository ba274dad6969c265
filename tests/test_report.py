"""What a report finds in a record, and the pages it makes: whole, true to the record, and nobody's but their own."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from PIL import Image
from scipy.stats import binomtest

from search.record import record, states
from search.record.record import Record
from search.report import __main__ as report
from search.report import analysis, charts, comparison, conclusion, page, parts
from search.report.analysis import Findings
from search.task.objective import Objective

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "unfreeze_depth": IntDistribution(0, 2),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "momentum": FloatDistribution(0.8, 0.98),
}
BUDGET = {"trials": 8, "epochs": 9, "time_s": None, "first_rung": 1, "reduction_factor": 3}
ABOUT: dict[str, Any] = {
    "status": "running",
    "space": {
        "name": "toy",
        "search": {name: str(distribution) for name, distribution in DISTRIBUTIONS.items()},
        "when": {"momentum": ["optimizer", "sgd"]},
        "start": [],
        "objective": "val_accuracy",
        "budget": BUDGET,
    },
    "settings": {"backbone": "tiny", "weights": "own", "image_size": 32, "batch_size": 32},
    "seed": 0,
    "data": {
        "fingerprint": "f" * 64,
        "classes": ["<cat>", "dog"],
        "images": {"train": 200, "val": 100, "test": 15},
        "skipped": [["cat/<b>.png", "no image & no hope"]],
        "notes": [],
    },
    "trained_parameters": {"0": 100, "1": 1_000, "2": 10_000},
    "blocks": 2,
    "resources": {"cpus": 2},
    "command": "python -m search.run --data '<photos>'",
    "versions": {"keras": "3.15.1"},
    "started": "2026-11-23T06:00:00Z",
}
METRICS = {
    "trial": "0000",
    "parameters": {},
    "classes": ["<cat>", "dog"],
    "confusion_matrix": [[5, 1], [2, 7]],
    "test_accuracy": 0.8,
    "val_accuracy": 0.75,
    "model_bytes": 2 << 20,
    "latency_ms": 12.5,
    "latency_on": "CPU",
}

Parameters = Mapping[str, Any]


class Made:
    """A record that is written as a search writes it."""

    def __init__(self, folder: Path, **about: Any) -> None:
        folder.mkdir(parents=True)
        self.record = Record(folder)
        record.write_json(self.record.files.search, {**ABOUT, **about})
        self._storage = JournalStorage(JournalFileBackend(str(self.record.files.journal)))
        self._study = self._storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "toy")
        self._at = 0.0

    def trial(self, parameters: Parameters, values: Sequence[float], ending: str = "", rung: int | None = None) -> str:
        """A trial with the values of its epochs, and how it ends: by itself, by ASHA at a rung, or not yet."""
        number = f"{len(self.record.rows):04d}"
        self._note("started", number, parameters=dict(parameters))
        for epoch, value in enumerate(values, 1):
            best = max(values[:epoch])
            figures = {"best_epoch": values.index(best) + 1, "val_accuracy": best, "val_loss": 1 - best}
            last = {"last_val_accuracy": value, "last_val_loss": 1 - value, "seconds": float(epoch)}
            over = epoch == len(values)
            metrics = {"epoch": epoch, "objective": best, **figures, **last, "ending": ending if over else ""}
            self._note("epoch", number, metrics=metrics, rung=rung if over else None)
        self._tell(parameters, values, ending, rung)
        return number

    def failed(self, parameters: Parameters, reason: str) -> str:
        """A trial that fails before its first epoch."""
        number = f"{len(self.record.rows):04d}"
        self._note("started", number, parameters=dict(parameters))
        self._note("ended", number, state=states.FAILED, reason=reason)
        return number

    def won(self, **changes: Any) -> None:
        """The export is there."""
        self.record.files.best.mkdir()
        record.write_json(self.record.files.best / "metrics.json", {**METRICS, **changes})

    def found(self) -> Findings:
        """What a report finds."""
        self.record.write_trials()
        return analysis.find(record.read(self.record.folder))

    def _note(self, event: str, number: str, **facts: Any) -> None:
        self._at += 1.0
        self.record.note({"event": event, "trial": number, "at": self._at, **facts})

    def _tell(self, parameters: Parameters, values: Sequence[float], ending: str, rung: int | None) -> None:
        state = TrialState.PRUNED if rung else TrialState.COMPLETE if ending else TrialState.RUNNING
        state = TrialState.FAIL if ending.startswith("diverged") else state
        told: FrozenTrial = create_trial(
            state=state,
            value=max(values) if state == TrialState.COMPLETE else None,
            params=dict(parameters),
            distributions={name: DISTRIBUTIONS[name] for name in parameters},
            intermediate_values=dict(enumerate(values, 1)),
        )
        self._storage.create_new_trial(self._study, told)


def adam(depth: int, rate: float) -> Parameters:
    """A configuration without a momentum."""
    return {"unfreeze_depth": depth, "learning_rate": rate, "optimizer": "adam"}


def sgd(depth: int, rate: float) -> Parameters:
    """One with."""
    return {"unfreeze_depth": depth, "learning_rate": rate, "optimizer": "sgd", "momentum": 0.9}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A search with every kind of trial."""
    made = Made(tmp_path / "photos")
    made.trial(adam(2, 1e-3), [0.5, 0.75, 0.7], "converged")
    made.trial(sgd(0, 1e-2), [0.6], rung=1)
    made.trial(adam(1, 5e-4), [0.5, 0.6, 0.65], rung=3)
    made.trial(adam(2, 1e-4), [0.7, 0.72, 0.74], "converged")
    made.trial(adam(1, 2e-3), [0.1], "diverged: loss is nan in epoch 1")
    made.failed(sgd(1, 1e-1), 'OSError: a "quoted" <script>alert(1)</script>')
    made.trial(adam(0, 1e-3), [0.4, 0.45])
    return made


# what is found


def test_a_resumed_trial_tells_an_epoch_once(tmp_path: Path) -> None:
    """The curve of a trial that was interrupted would go back, and its epochs count twice."""
    made = Made(tmp_path / "resumed")
    number = made.trial(adam(0, 1e-3), [0.5, 0.6])
    again = {"epoch": 2, "objective": 0.6, "best_epoch": 2, "val_accuracy": 0.6, "val_loss": 0.4, "seconds": 9.0}
    again |= {"last_val_accuracy": 0.6, "last_val_loss": 0.4, "ending": ""}
    made.record.note({"event": "epoch", "trial": number, "at": 99.0, "metrics": again, "rung": None})
    (curve,) = made.found().curves.values()

    assert [(epoch.epoch, epoch.value, epoch.seconds) for epoch in curve] == [(1, 0.5, 1.0), (2, 0.6, 2.0)]


def test_progress_counts_the_epochs_of_all_trials(made: Made) -> None:
    """A search would seem faster than it was."""
    steps = analysis.progress(made.found())

    assert [(step.trial, step.epochs, step.value) for step in steps] == [
        *(("0000", 1, 0.5), ("0000", 2, 0.75)),
        ("0000", 13, 0.75),
    ]
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)


def test_progress_of_a_loss_goes_down(tmp_path: Path) -> None:
    """The worst trial would be shown as the best."""
    made = Made(tmp_path / "loss", space={**ABOUT["space"], "objective": "val_loss"})
    made.trial(adam(0, 1e-3), [0.5, 0.25, 0.75], "converged")

    assert [step.value for step in analysis.progress(made.found())][:-1] == [0.5, 0.25]


def test_rungs_name_who_came_and_who_was_stopped(made: Made) -> None:
    """What early stopping did would be told wrong."""
    one, three = analysis.rungs(made.found())

    assert (one.epoch, three.epoch) == (1, 3)
    assert one.stopped == ["0001"]
    assert one.reached == ["0000", "0001", "0002", "0003", "0004", "0006"]
    assert (three.reached, three.stopped) == (["0000", "0002", "0003"], ["0002"])


def test_saved_counts_what_asha_spared(made: Made) -> None:
    """Trials that ended by themselves would be counted as stopped."""
    assert analysis.saved(made.found()) == (13, (9 - 1) + (9 - 3))


def test_importance_rests_on_complete_trials(tmp_path: Path) -> None:
    """A parameter that decides everything would not be found, or the number of trials be wrong."""
    made = Made(tmp_path / "clear")
    for index in range(30):
        rate = 10 ** -(1.2 + 2.6 * ((7 * index) % 30) / 30)
        made.trial(adam(index % 3, rate), [1 - abs(-2.5 - math.log10(rate)) / 3], "converged")
    made.trial(sgd(0, 1e-3), [0.1], rung=1)
    shares, count = analysis.importance(made.found())

    assert count == 30
    assert max(shares, key=lambda name: shares[name]) == "learning_rate"
    assert "momentum" not in shares


def test_no_importance_without_trials(tmp_path: Path) -> None:
    """A report on a search that has just begun would fail."""
    assert analysis.importance(Made(tmp_path / "new").found()) == ({}, 0)


@pytest.mark.parametrize(
    ("rates", "depth", "expected"),
    [
        ([1.05e-4, 1.1e-4], 1, [("learning_rate", "low", 1e-4)]),
        ([0.09, 0.099], 1, [("learning_rate", "high", 0.1)]),
        ([1e-3, 2e-3], 1, []),
        ([1e-3, 2e-3], 0, []),
        ([1e-3, 2e-3], 2, []),
    ],
)
def test_best_values_at_a_bound_are_told(
    tmp_path: Path, rates: list[float], depth: int, expected: list[tuple[str, str, float]]
) -> None:
    """People would not learn that they searched in the wrong place; or be told so of what cannot be otherwise."""
    made = Made(tmp_path / "bound")
    for rate in rates:
        made.trial(adam(depth, rate), [0.9], "converged")
    for index in range(15):
        made.trial(adam(index % 3, 0.005), [0.5], "converged")

    assert [(bound.parameter, bound.end, bound.bound) for bound in analysis.at_bounds(made.found())] == expected


def test_a_range_of_depths_that_could_be_wider(tmp_path: Path) -> None:
    """Deeper might be better, and nobody says so."""
    made = Made(tmp_path / "deeper", blocks=7)
    made.trial(adam(2, 1e-3), [0.9], "converged")

    assert [(bound.parameter, bound.end) for bound in analysis.at_bounds(made.found())] == [("unfreeze_depth", "high")]


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    """A costly trial would be recommended that a cheap one equals."""
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.5), (2.5, 0.8), (4.0, 0.7), (1.0, 0.4)]

    assert analysis.front(points, up=True) == [(1.0, 0.5), (2.5, 0.8), (3.0, 0.9)]
    assert analysis.front(points, up=False) == [(1.0, 0.4)]


def test_figures_of_each_class() -> None:
    """Precision and recall would be exchanged."""
    first, second, third = analysis.per_class([[8, 2, 0], [0, 5, 0], [0, 0, 0]])

    assert first == pytest.approx((1.0, 0.8, 16 / 18, 10))
    assert second == pytest.approx((5 / 7, 1.0, 10 / 12, 5))
    assert third == (None, None, None, 0)


def test_the_margin_is_the_binomial_one() -> None:
    """A difference that is chance would be taken for a finding."""
    assert analysis.margin(0.9, 100) == pytest.approx(0.03)
    assert analysis.margin(1.0, 100) == 0


@pytest.mark.parametrize(("part", "whole"), [(0, 4), (5, 7), (90, 100), (20, 20)])
def test_where_a_share_lies(part: int, whole: int) -> None:
    """Of a class of four images a recall of 1 would look as sure as of one of four hundred."""
    found = binomtest(part, whole).proportion_ci(0.95, "wilson")
    assert analysis.interval(part, whole) == pytest.approx((found.low, found.high), abs=1e-3)


def test_a_damaged_journal_is_no_journal(made: Made) -> None:
    """The whole report would fail for one of its files."""
    made.record.files.journal.write_text("{}\n{}\n")

    assert made.found().study is None
    assert "Which trial won" in page.page(made.found())


def test_no_journal_is_made(made: Made) -> None:
    """Reading a search would change it."""
    made.record.files.journal.unlink()
    made.found()

    assert not made.record.files.journal.exists()


# the page


class Page(HTMLParser):
    """What a page says and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text, self.scripts = "", ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note the tag and what it refers to."""
        self._script = tag == "script"
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        """Text follows."""
        self._script = False

    def handle_data(self, data: str) -> None:
        """Note the text."""
        if self._script:
            self.scripts += data
        else:
            self.text += data + "\n"


QUESTIONS = (
    "Which trial won",
    "How did the trials learn?",
    "How fast was the best one found?",
    "Would more trials help?",
    "Which parameter mattered?",
    "Where are the good values?",
    "How deep should one unfreeze?",
    "What did early stopping cost, and save?",
    "What does a better model cost?",
    "How did the search go?",
    "How is it run again?",
)


def test_the_page_of_a_running_search_answers_every_question(made: Made) -> None:
    """The page would need the search to be over, or leave out trials without a model."""
    shown = Page(page.page(made.found()))

    assert "running: 2 completed, 2 stopped, 1 running, 1 diverged, 1 failed" in shown.text
    for question in QUESTIONS:
        assert question in shown.text
    for row in made.record.rows.values():
        assert row.trial in shown.text
        assert row.reason in shown.text
    assert re.search(r"0000.*0003.*0002.*0001", shown.text, re.DOTALL), "not best first"
    assert "2 trials are few" in shown.text
    assert "14 more" in shown.text


def test_the_page_of_a_finished_search_shows_the_test(made: Made) -> None:
    """The one figure that counts would be missing."""
    made.won()
    shown = Page(page.page(made.found()))

    assert "Trial 0000 on 15 test images that no trial has seen: accuracy 0.8000 ± 0.1033" in shown.text
    assert "2.0 MiB" in shown.text
    assert "12.5 ms" in shown.text
    figures = r"<cat>\n0\.7143 \(0\.36 to 0\.92\)\n0\.8333 \(0\.44 to 0\.97\)\n0\.7692\n6\n"
    assert re.search(figures, shown.text), "the figures of the class are not there"


def test_a_mean_of_trials_is_told_with_its_best_one(made: Made) -> None:
    """The reader would take the figures of several trials' mean for those of one, or not see what the mean gained."""
    figures = {
        "val_accuracy": 0.9,
        "soup": {"trials": ["0000", "0003"], "alone": {"val_accuracy": 0.85, "test_accuracy": 0.7}},
    }
    made.won(**figures)
    shown = " ".join(Page(page.page(made.found())).text.split())
    gain = "validation accuracy 0.9000 (trial 0000 alone: 0.8500, on the test images 0.7000)"
    told = conclusion.tested(
        {**METRICS, "recall": [1.0], "balanced_accuracy": 0.8, "classes": ["cat"], **figures}, Objective()
    )

    assert told == f"test accuracy of the mean of trials 0000, 0003: 0.8000, balanced over the classes 0.8000; {gain}"
    assert "The mean of trials 0000, 0003 on 15 test images" in shown
    assert f"The model is a mean of weights, with {gain}." in shown


def test_another_objective_is_shown_first(tmp_path: Path) -> None:
    """The trials would be in the order of a figure that is not there, or its value for the test images be missing."""
    made = Made(tmp_path / "f1", space={**ABOUT["space"], "objective": "val_macro_f1"})
    for rate, f1 in ((1e-3, 0.25), (1e-2, 0.75)):
        number = f"{len(made.record.rows):04d}"
        made._note("started", number, parameters=adam(1, rate))
        figures = {"val_accuracy": 1 - f1, "val_loss": 0.5, "val_macro_f1": f1, "val_auc": 0.625}
        last = {f"last_{name}": value for name, value in figures.items()}
        ended = {
            "epoch": 1,
            "best_epoch": 1,
            "objective": f1,
            "seconds": 1.0,
            "ending": "completed",
            "reason": "all epochs",
        }
        made._note("epoch", number, metrics={**figures, **last, **ended})
    shown = " ".join(Page(page.page(made.found())).text.split())
    found = {"objective": "val_macro_f1", "test_macro_f1": 0.625, "recall": [1.0], "classes": ["cat"]}

    assert "trial state val_macro_f1 val_accuracy val_loss best epoch" in shown
    assert re.search(r"1 0001 completed: all epochs 0\.75(00)? 0\.25(00)? ", shown)
    assert "val_auc" in shown
    assert "balanced over the classes 0.8000, test macro F1 0.6250" in conclusion.tested(
        {**METRICS, "balanced_accuracy": 0.8, **found}, Objective("val_macro_f1")
    )


def test_a_class_that_is_never_found_is_named(made: Made) -> None:
    """With 194 images of one class and 6 of another, 0.97 is told of a model that knows one class alone."""
    counts = [[29, 0], [1, 0]]
    recalls = [recall for _, recall, _, _ in analysis.per_class(counts)]
    told = conclusion.tested(
        {**METRICS, "test_accuracy": 29 / 30, "recall": recalls, "balanced_accuracy": 0.5}, Objective()
    )
    made.won(confusion_matrix=counts, test_accuracy=29 / 30)
    shown = Page(page.page(made.found())).text

    assert analysis.balanced(counts) == 0.5
    assert analysis.balanced([[3, 1], [0, 0]]) == 0.75
    assert told == "test accuracy of trial 0000: 0.9667, balanced over the classes 0.5000; it never finds dog"
    assert "balanced over the classes 0.5000" in " ".join(shown.split())
    assert "With 30 test images, it never finds dog." in shown
    assert conclusion.missed("abcdefg", [0.0, None, *[0.0] * 5]) == "it never finds a, c, d, e, f and 1 more"
    assert conclusion.missed(["a"], [0.1]) == ""


def test_the_page_of_a_search_whose_parameters_depend_on_one(tmp_path: Path) -> None:
    """A report would end in a KeyError where a trial does not have what another one has."""
    when = {name: ["optimizer", "sgd"] for name in DISTRIBUTIONS if name != "optimizer"}
    search = Made(tmp_path / "when", space={**ABOUT["space"], "when": when})
    search.trial({"optimizer": "adam"}, [0.5, 0.6], "all epochs")
    search.trial(sgd(2, 0.01), [0.4, 0.7], "all epochs")
    search.trial(sgd(1, 0.02), [0.3], rung=1)
    found = search.found()
    levels = charts.depths(found).data[-1]  # type: ignore[union-attr]

    assert [found.depth(row) for row in found.rows] == [0, 2, 1]
    assert dict(zip(levels.x, levels.y, strict=True)) == {0: 0.6, 1: 0.3, 2: 0.7}
    assert "How deep should one unfreeze?" in page.page(found)
    assert (found.record.folder / "trials.csv").read_text().splitlines()[1].endswith(",adam,,,")


def test_the_page_of_a_search_without_a_trial(tmp_path: Path) -> None:
    """A report right after the start would fail."""
    assert "no trial yet" in Page(page.page(Made(tmp_path / "new").found())).text


def test_mistakes_are_shown_with_their_pictures(made: Made) -> None:
    """One could not see where the model fails."""
    made.won()
    (made.record.files.best / "mistakes").mkdir()
    Image.new("RGB", (4, 2)).save(made.record.files.best / "mistakes" / "00.png")
    mistake = {"image": "a/<x>.png", "picture": "00.png", "true": "<cat>", "predicted": "dog", "confidence": 0.991}
    record.write_json(made.record.files.best / "mistakes.json", [mistake])
    shown = Page(page.page(made.found()))

    assert "<cat> taken for dog (99%)" in shown.text
    assert "a/<x>.png" in shown.text
    assert [link for link in shown.links if not link.startswith("data:image/png;base64,")] == []
    assert len(shown.links) == 1


def test_text_from_outside_stays_text(made: Made) -> None:
    """A file name, a class or an error message would be taken for markup and run in the reader's browser."""
    made.won()
    plain = Made(made.record.folder.parent / "plain")
    shown, other = Page(page.page(made.found())), Page(page.page(plain.found()))

    assert not {*shown.tags} & {"photos", "cat"}
    for text in ("<script>alert(1)</script>", "cat/<b>.png", "no image & no hope", "'<photos>'", "<cat>"):
        assert text in shown.text
    own = shown.scripts.replace(other.scripts, "")
    assert "<cat>" not in own
    assert "<script>" not in own


HOSTILE = """"'></p></script><script>alert(1)</script>&lt;"""


def pages(folder: Path, text: str) -> list[str]:
    """Both pages of a search that has `text` wherever a text can come from outside, and one with it in every part."""
    made = Made(
        folder / "photos",
        settings={**ABOUT["settings"], "backbone": text, text: text},
        data={**ABOUT["data"], "classes": [text, "dog"], "skipped": [[text, text]], "notes": [text]},
        versions={text: text},
        command=text,
        started=text,
    )
    made.trial(adam(2, 1e-3), [0.5, 0.75], "converged")
    made.failed({**adam(1, 1e-3), "optimizer": text}, text)
    made.won(classes=[text, "dog"], latency_on=text)
    (made.record.files.best / "mistakes").mkdir()
    Image.new("RGB", (4, 2)).save(made.record.files.best / "mistakes" / "00.png")
    mistake = {"image": text, "picture": "00.png", "true": text, "predicted": "dog", "confidence": 0.5}
    record.write_json(made.record.files.best / "mistakes.json", [mistake])
    other = Made(folder / "other", command=text)
    table = parts.Table([text], [[text]])
    every = [
        parts.Paragraph(text),
        parts.Paragraph(text, warning=True),
        parts.Key([(text, text)]),
        parts.Chart(go.Figure(layout={"title": text, "height": 240}), text),
        table,
        parts.Details(text, [table]),
        parts.Pictures([parts.Picture("", text, text)]),
        parts.Code(text),
    ]
    return [
        page.page(made.found()),
        comparison.page([made.found(), other.found()]),
        parts.render("page.html", text, sections=[(text, every)]),
    ]


def test_every_value_is_escaped(tmp_path: Path) -> None:
    """One value that was forgotten would be markup: a class, a setting, a note, in a table, a caption or a chart."""
    hostile, plain = (map(Page, pages(tmp_path / name, text)) for name, text in (("a", HOSTILE), ("b", "harmless")))

    for shown, harmless in zip(hostile, plain, strict=True):
        assert shown.tags == harmless.tags
        assert shown.text.count(HOSTILE) == harmless.text.count("harmless") > 0
        assert shown.text.replace(HOSTILE, "harmless") == harmless.text


def test_only_plotlys_script_is_not_escaped() -> None:
    """A template would mark as safe what comes from outside."""
    folder = Path(parts.__file__).parent
    templates = "".join(path.read_text("utf-8") for path in folder.glob("*.html"))

    assert re.findall(r"\S*\bsafe\b", templates) == ["plotly|safe"]
    assert "autoescape" not in templates
    assert [path.name for path in folder.glob("*.py") if "Markup" in path.read_text("utf-8")] == []


def test_the_page_loads_nothing(made: Made) -> None:
    """The page would not be self-contained: it could not be mailed, and would tell others who reads it."""
    made.won()
    shown = Page(page.page(made.found()))

    assert shown.links == []
    assert not {*shown.tags} & {"link", "iframe", "img", "object"}


# several searches


def test_a_comparison_names_only_what_differs(made: Made, tmp_path: Path) -> None:
    """One would look for the difference between two searches by eye."""
    settings = {**ABOUT["settings"], "batch_size": 64}
    budget = {**BUDGET, "trials": 9}
    other = Made(tmp_path / "other", settings=settings, space={**ABOUT["space"], "budget": budget}, seed=1)
    other.trial(adam(0, 1e-3), [0.9], "converged")
    searches = [made.found(), other.found()]

    assert sorted(comparison.differences(searches)) == [
        ("batch_size", "32", "64"),
        ("budget: trials", "8", "9"),
        ("seed", "0", "1"),
    ]
    results = {name: columns for name, *columns in comparison.results(searches)}
    assert results["best"] == ["0.7500 (trial 0000)", "0.9000 (trial 0000)"]
    assert results["epochs trained"] == ["13", "1"]
    shown = Page(comparison.page(searches))
    assert "batch_size" in shown.text
    assert "image_size" not in shown.text


# the command


def test_the_command_prints_and_writes(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m search.report NAME` would not do what the contract says."""
    made.found()
    status = report.main(["photos", "--storage", str(made.record.folder.parent)])
    shown = capsys.readouterr().out

    assert status == 0
    assert "0000" in shown
    assert "running: 2 completed" in shown
    assert "Which trial won" in made.record.files.report.read_text(encoding="utf-8")


def test_the_command_speaks_to_nobody(tmp_path: Path) -> None:
    """The page is told as a failure, for what is printed beside it cannot be: its letters, or nothing at all."""
    small = Made(tmp_path / "猫" / "photos")
    small.trial(adam(2, 1e-3), [0.5], "converged")
    command = [sys.executable, "-m", "search.report", "photos", "--storage", str(tmp_path / "猫")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, stdout=full, stderr=full, check=False
        )

    assert done.returncode == 0
    assert small.record.files.report.exists()


def test_the_command_compares(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m search.report A B` would show one of them."""
    made.found()
    Made(tmp_path / "other").found()
    status = report.main(["photos", "other", "--storage", str(tmp_path)])

    assert status == 0
    assert "photos" in capsys.readouterr().out
    assert "Which was faster?" in (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert not made.record.files.report.exists()


def test_unknown_searches_are_all_named(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name would end in a traceback, and the next one after it."""
    status = report.main(["photo", "../x", "--storage", str(made.record.folder.parent)])
    told = capsys.readouterr().err

    assert status == 2
    assert "unknown search 'photo'; did you mean 'photos'?" in told
    assert "'../x'" in told


def test_a_search_that_is_not_whole_is_told(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged record would end in a traceback."""
    made.found()
    made.record.files.search.write_text("{")

    assert report.main(["photos", "--storage", str(made.record.folder.parent)]) == 2
    assert json.dumps(str(made.record.files.search))[1:-1] in capsys.readouterr().err.replace("\n", "")
