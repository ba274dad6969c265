"""The CPUs and GPUs that a search may use, and those that each trial gets."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from search import machine
from search.request.options import Numbers


@dataclass(frozen=True)
class Resources:
    """What a search may use, and what each trial gets.

    Args:
        cpus: of this machine, for a local Ray.
        gpus: of this machine, for a local Ray.
        cpus_per_trial: fractions allowed.
        gpus_per_trial: fractions allowed.
        max_concurrent: trials at a time; `None`: as many as there is room for.
        address: of a Ray cluster; `None`: a local Ray.
    """

    cpus: int
    gpus: int
    cpus_per_trial: float
    gpus_per_trial: float
    max_concurrent: int | None = None
    address: str | None = None

    @property
    def bundle(self) -> dict[str, float]:
        """What a trial gets, with Ray's names of resources."""
        return {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial}

    def room(self, node: Mapping[str, float]) -> int:
        """How many trials fit on a node with these Ray resources; a fraction of a GPU must be on a single GPU."""
        places = int(node.get("CPU", 0) / self.cpus_per_trial)
        if not self.gpus_per_trial:
            return places
        gpus, share = node.get("GPU", 0), self.gpus_per_trial
        return min(places, int(gpus) * int(1 / share) if share < 1 else int(gpus / share))


def read(options: argparse.Namespace, numbers: Numbers, faults: list[str]) -> Resources:
    """Read the options; by default a trial gets one GPU and its share of the CPUs, or one CPU without GPUs.

    Args:
        faults: faults that are not about reading a number are added here.
    """
    cpus, gpus = machine.cpus(), machine.gpus()
    cpus_per_trial, gpus_per_trial = numbers.amount("cpus_per_trial"), numbers.amount("gpus_per_trial", zero=True)
    if not options.address:
        for kind, wanted, there in (("cpus", cpus_per_trial, cpus), ("gpus", gpus_per_trial, gpus)):
            if wanted and wanted > there:
                faults.append(f"--{kind}-per-trial {wanted:g}: this machine has {there}")
    if gpus_per_trial is None:
        gpus_per_trial = min(1, gpus)
    share = int(cpus * gpus_per_trial / gpus) if gpus else 1
    return Resources(
        cpus=cpus,
        gpus=gpus,
        cpus_per_trial=cpus_per_trial or max(1, share),
        gpus_per_trial=gpus_per_trial,
        max_concurrent=numbers.whole("max_concurrent", 1),
        address=options.address,
    )
