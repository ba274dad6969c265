"""When a trial stops for the sake of others: the rules by name, one file each."""

from collections.abc import Mapping

from search.stopping.asha import Asha
from search.stopping.none import Never
from search.stopping.rule import Rule
from search.stopping.trend import Trend

RULES: Mapping[str, type[Rule]] = {"trend": Trend, "asha": Asha, "none": Never}
