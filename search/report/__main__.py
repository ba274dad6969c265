"""A finished or running search → its leaderboard and one page. Reads JSON, CSV and the journal only, never a pickle."""

import argparse
import sys
from collections.abc import Sequence

from search.errors import SearchError
from search.record import files
from search.record.record import keep_others_out, write_text
from search.record.stored import opened
from search.report.conclusion import leaderboard
from search.report.console import complain, console, steady

PICTURED = (files.JOURNAL, f"{files.BEST}/{files.METRICS}", f"{files.BEST}/{files.PICTURES}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a search's leaderboard and write its `report.html`; or compare several. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m search.report",
        description="One search: print its leaderboard and write its report.html. Several: print what came of each, "
        "and write comparison.html beside them. Also while they run.",
    )
    parser.add_argument("names", metavar="NAME", nargs="+", help="a search's folder under --storage")
    parser.add_argument("--storage", default="results", metavar="DIR|URI", help="where searches are kept")
    options = parser.parse_args(arguments)
    keep_others_out()
    from search.report import analysis, comparison, page

    shown = console()
    try:
        searches = [analysis.find(record) for record in opened(options.storage, options.names, *PICTURED)]
        if len(searches) == 1:
            found = searches[0]
            path = found.record.files.report
            write_text(path, page.page(found))
            shown.print(leaderboard(found.best, found.rows, found.objective))
            shown.print(f"{found.about['status']}: {page.counted(found.rows)}", highlight=False)
        else:
            path = searches[0].record.files.comparison
            write_text(path, comparison.page(searches))
            shown.print(comparison.shown(searches))
    except SearchError as error:
        complain(f"error: {error}")
        return 2
    shown.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    steady()
    sys.exit(main())
