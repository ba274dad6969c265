"""What people look at, in a real browser: the report without a network, and TensorBoard's pages."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boards import TensorBoard, answer, optuna_dashboard, tensorboard
from searches import PATIENCE_S, in_the_middle, rows, run, running, uneven_space, wait_for, workers

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium: apt-get install chromium"),
]

TRIALS = 8
WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
PATIENCE_MS = 90_000
DESKTOP, PHONE = (1500, 900), (390, 844)
DRAWN = """
charts => charts.map(chart => ({
    marks: chart.querySelectorAll('.scatterlayer .trace, .barlayer .point, .heatmaplayer image').length,
    titles: [...chart.querySelectorAll('.xtitle, .ytitle')].map(title => title.textContent),
    width: chart.getBoundingClientRect().width,
}))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A whole search with a report."""
    folder = tmp_path_factory.mktemp("browsed")
    (folder / "cache").symlink_to(shared_cache)
    done = run(folder, "--space", "finetune", "--name", "whole", "--trials", str(TRIALS), "--epochs", "4")
    assert done.returncode == 0, done.stderr
    return folder / "results" / "whole"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, which draws in software."""
    with playwright.sync_playwright() as started:
        program = shutil.which("chromium")
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox", *WEBGL])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, size: tuple[int, int], offline: bool = False) -> Iterator[tuple[Any, list[str]]]:
    """A page, and what went wrong on it."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=offline)
    context.set_default_timeout(PATIENCE_MS)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    yield page, wrong
    context.close()


def charts_of_report(browser: Any, path: Path, size: tuple[int, int]) -> int:
    """How many charts a page has; check that each is drawn, and that nothing is wider than the page."""
    with opened(browser, size, offline=True) as (page, wrong):
        page.goto(path.as_uri())
        page.wait_for_function(
            "[...document.querySelectorAll('.plotly-graph-div')].every(c => c.querySelector('.main-svg'))"
        )
        drawn = page.locator(".plotly-graph-div").evaluate_all(DRAWN)
        assert [chart for chart in drawn if not (chart["marks"] and chart["titles"])] == []
        assert [chart for chart in drawn if not 200 < chart["width"] <= size[0]] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.locator("img").evaluate_all("images => images.filter(image => !image.naturalWidth).length") == 0
        assert wrong == []
        return len(drawn)


def report(search: Path, *others: str) -> Path:
    """Have the report made by its command; give its path."""
    command = [sys.executable, "-m", "search.report", search.name, *others, "--storage", str(search.parent)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Path(said.strip().rpartition("report: ")[2])


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_report_of_a_finished_search(finished: Path, browser: Any, size: tuple[int, int]) -> None:
    """A chart is empty, needs the network, or does not fit on a phone."""
    path = report(finished)

    assert path.stat().st_size < 10 << 20
    assert (finished / "best" / "mistakes.json").exists()
    assert charts_of_report(browser, path, size) == 9


@pytest.fixture(scope="module")
def board(finished: Path) -> Iterator[TensorBoard]:
    """TensorBoard on the whole search."""
    with tensorboard(finished / "tensorboard") as board:
        wait_for(board.listens, board.process)
        wait_for(lambda: len(board.session_groups() or []) == TRIALS or None, board.process)
        yield board


@contextmanager
def opened_tab(browser: Any, board: TensorBoard, tab: str) -> Iterator[Any]:
    """One of its pages, on which nothing may go wrong."""
    with opened(browser, DESKTOP) as (page, wrong):
        page.goto(f"{board.address}/#{tab}")
        yield page
        assert wrong == []


def test_hparams(browser: Any, board: TensorBoard) -> None:
    """A trial has no row, or the other views are empty."""
    with opened_tab(browser, board, "hparams") as page:
        for number in range(TRIALS):
            page.get_by_text(f"{number:04d} whole", exact=True).first.wait_for()
        for column in ("unfreeze_depth", "learning_rate", "best validation accuracy"):
            page.get_by_text(column).first.wait_for()
        page.get_by_text("Parallel Coordinates View").click()
        page.get_by_text("momentum", exact=True).first.click()
        page.locator(".foreground path").nth(TRIALS - 1).wait_for(state="attached")  # those with every ticked column
        page.get_by_text("Scatter Plot Matrix View").click()
        page.locator("tf-hparams-scatter-plot-matrix-plot circle").nth(TRIALS - 1).wait_for(state="attached")


@dataclass(frozen=True)
class Live:
    """A search in the middle, whose trials stand still so that it can be looked at; and TensorBoard on it."""

    process: subprocess.Popen[str]
    search: Path
    board: TensorBoard

    def trials(self, number: signal.Signals) -> None:
        """Have them stand still, or go on."""
        for pid in workers(self.process):
            os.kill(pid, number)


@pytest.fixture(scope="module")
def live(finished: Path) -> Iterator[Live]:
    """A search that runs, beside the finished one, with three trials; who goes on with it comes last."""
    folder = finished.parents[1]
    search = folder / "results" / "live"
    with (
        tensorboard(search / "tensorboard") as board,
        running(folder, "--space", uneven_space(folder, trials=4), "--name", "live") as process,
    ):
        wait_for(lambda: in_the_middle(search), process)
        wait_for(lambda: len(rows(search)) >= 3 or None, process)
        live = Live(process, search, board)
        live.trials(signal.SIGSTOP)
        try:
            yield live
        finally:
            live.trials(signal.SIGCONT)  # those that stand still would not notice the end of the search


def test_the_report_of_a_running_search_and_a_comparison(live: Live, finished: Path, browser: Any) -> None:
    """People would have to wait for the end, or compare by eye."""
    path = report(live.search)
    both = report(finished, "live")
    assert charts_of_report(browser, path, DESKTOP) >= 5, "the importance of parameters comes with more trials"
    assert charts_of_report(browser, both, DESKTOP) == 1


def test_searches_side_by_side(browser: Any, finished: Path, live: Live) -> None:
    """Trials of one number are mixed up, or nobody knows of which search a curve is."""
    with tensorboard(finished.parent) as board:
        wait_for(board.listens, board.process)
        wait_for(lambda: len(board.session_groups() or []) == TRIALS + len(rows(live.search)) or None, board.process)
        with opened_tab(browser, board, "hparams") as page:
            for row in ("0000 whole", "0000 live"):
                page.get_by_text(row, exact=True).first.wait_for()
        with opened_tab(browser, board, "timeseries") as page:
            for run_name in ("whole/tensorboard/0000_", "live/tensorboard/0000_"):
                page.get_by_text(run_name).first.wait_for()


def test_a_search_that_runs_and_one_that_was_resumed(live: Live, browser: Any) -> None:
    """Trials are missing while they run, or shown twice once they went on."""
    wait_for(live.board.listens, live.board.process)
    wait_for(lambda: len(live.board.session_groups() or []) >= 3 or None, live.process)
    demand_trials(browser, live.board, 3)
    with optuna_dashboard(live.search / "optuna.journal") as address:
        demand_study(browser, address)
    assert live.process.poll() is None, "the search was over before the pages were seen"
    live.process.send_signal(signal.SIGINT)
    live.trials(signal.SIGCONT)
    assert live.process.wait(PATIENCE_S) == 130
    assert run(live.search.parents[1], "--resume", "live").returncode == 0
    wait_for(lambda: statuses(live.board) == {"STATUS_SUCCESS"} or None, live.board.process)
    demand_trials(browser, live.board, 4)


def demand_study(browser: Any, address: str) -> None:
    """Check that optuna-dashboard shows the study, with trials that run and one that has ended."""
    (summary,) = wait_for(lambda: answer(f"{address}/api/studies"))["study_summaries"]
    trials = answer(f"{address}/api/studies/{summary['study_id']}?after=0")["trials"]
    assert {"Running", "Complete"} <= {trial["state"] for trial in trials}
    with opened(browser, DESKTOP) as (page, wrong):
        page.goto(f"{address}/dashboard/studies/{summary['study_id']}/analytics")
        page.get_by_text("Objective").first.wait_for()
        assert wrong == []


def statuses(board: TensorBoard) -> set[str]:
    """How the trials stand, as the HParams page tells it."""
    return {session["status"] for group in board.session_groups() or [] for session in group["sessions"]}


def demand_trials(browser: Any, board: TensorBoard, count: int) -> None:
    """Check that the HParams table has a row for each trial, and that Time Series draws their curves."""
    with opened_tab(browser, board, "hparams") as page:
        for number in range(count):
            page.get_by_text(f"{number:04d} live", exact=True).first.wait_for()
            assert page.get_by_text(f"{number:04d} live", exact=True).count() == 1
    with opened_tab(browser, board, "timeseries") as page:
        page.get_by_text("epoch_learning_rate", exact=True).first.wait_for()
        page.locator("line-chart").first.wait_for()


def test_time_series(browser: Any, board: TensorBoard, finished: Path) -> None:
    """Training and validation are not side by side, the rate is not shown, or nobody knows which trial a curve is."""
    (first,) = (finished / "tensorboard").glob("0000_*")
    with opened_tab(browser, board, "timeseries") as page:
        for tag in ("epoch_accuracy", "epoch_loss", "epoch_learning_rate", "best/val_accuracy"):
            page.get_by_text(tag, exact=True).first.wait_for()
        for part in ("train", "validation"):
            page.get_by_text(f"{first.name}/{part}").first.wait_for()
        page.locator("line-chart").first.wait_for()


def test_images(browser: Any, board: TensorBoard) -> None:
    """Where the model fails cannot be seen."""
    with opened_tab(browser, board, "images") as page:
        page.get_by_text("confusion matrix, test images").first.wait_for()
        page.get_by_text("confusion matrix, validation images").first.wait_for()
        page.get_by_text("worst mistakes, test images").first.wait_for()
        image = page.locator("tf-image-loader img").first
        image.wait_for()
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def test_histograms(browser: Any, board: TensorBoard) -> None:
    """What the training did to the weights cannot be seen."""
    with opened_tab(browser, board, "histograms") as page:
        page.get_by_text("weights").first.wait_for()


def test_projector(browser: Any, board: TensorBoard) -> None:
    """The projector has no points, or they have no labels."""
    with opened_tab(browser, board, "projector") as page:
        inner = page.frame_locator("iframe").frame_locator("iframe")
        inner.locator(".numDataPoints", has_text="359").wait_for()
        asked = f"{board.address}/data/plugin/projector"
        runs = page.request.get(f"{asked}/runs").json()
        assert len(runs) == 3
        run = runs[0]
        (shown,) = page.request.get(f"{asked}/info", params={"run": run}).json()["embeddings"]
        named = {"run": run, "name": shown["tensorName"]}
        assert run.endswith("/best")
        assert (
            page.request.get(f"{asked}/metadata", params=named).text().startswith("class\tpredicted\tcorrect\timage\n")
        )
        assert len(page.request.get(f"{asked}/tensor", params=named).body()) == 359 * 64 * 4
        assert page.request.get(f"{asked}/sprite_image", params=named).headers["content-type"] == "image/png"
