"""Checks, before the first trial, whether trials can run on every node of a cluster as they can on this machine.

A Ray task on each node does the check. A node that joins later is checked by the first trial that starts there.
"""

import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search import machine
from search.data.settings import DataSettings
from search.errors import NodeError, RequestError
from search.record.files import Files
from search.record.objects import Objects, joined
from search.request.request import Request
from search.request.requirements import MARK, Answer, Question, digest, look, stored

PATIENCE_S = 120.0
NFS_PATIENCE_S = 15.0  # a shared folder may show a new file late


def demand_ready(request: Request) -> Question:
    """Check that every node of the cluster that has room for a trial can run one.

    Args:
        request: complete.

    Returns:
        The question that the nodes answered, with the ids of the fit nodes; see `later`.

    Raises:
        RequestError: names every fault of every node.
    """
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    asked = {node: about for node, about in nodes.items() if request.resources.room(about["Resources"])}
    if not asked:
        has = [f"{_name(node)} has {_resources(node['Resources'])}" for node in nodes.values()]
        wanted = (
            f"a trial wants {request.resources.cpus_per_trial:g} CPUs and {request.resources.gpus_per_trial:g} GPUs"
        )
        raise RequestError([f"{wanted}, and no node has room for it: {'; '.join(has)}"])
    with _mark(request) as (mark, uri):
        question = _question(request, mark, uri)
        answers = _ask(list(asked), question)
        faults = []
        for node, answer in answers.items():
            wrong = list(answer.faults)
            if answer.stored and not _seen(mark.with_name(node), uri):
                wrong.append(f"storage {request.storage} is one of its own there, not the one that is shared")
            faults += [f"{_name(nodes[node])}: {fault}" for fault in wrong]
    if faults:
        raise RequestError(faults, "the cluster")
    return replace(question, fit=frozenset(asked))


def later(question: Question, request: Request) -> Question:
    """The question for nodes that join while the search runs; its mark is kept in the search's folder."""
    folder = Files(request.folder).ray
    if request.uri:
        uri = joined(request.uri, folder.name)
        Objects(uri).write(MARK, MARK.encode())
        return replace(question, mark=folder / MARK, uri=uri)
    folder.mkdir(exist_ok=True)
    (folder / MARK).write_text(MARK, "utf-8")
    return replace(question, mark=folder / MARK)


def demand_fit(question: Question, fit: set[str]) -> None:
    """Check that the node of this process can run trials.

    The full check runs once per process, and not at all on a node that passed it before the first trial. The storage is
    checked every time.

    Args:
        fit: the ids of the nodes that this process knows to be fit; this node's id is added.

    Raises:
        NodeError: names every fault.
    """
    node = ray.get_runtime_context().get_node_id()
    if node in question.fit or node in fit:
        faults = stored(question, node)
    else:
        (about,) = [about for about in ray.nodes() if about["NodeID"] == node]
        faults = look(question, node, about["Resources"].get("GPU", 0)).faults
    if faults:
        raise NodeError(node, this_node(), faults)
    fit.add(node)


def this_node() -> str:
    """The host name and address of the node of this process."""
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"


@contextmanager
def _mark(request: Request) -> Iterator[tuple[Path, str]]:
    """A file or object in the storage that every node must find: its path, and the URI of the folder of objects."""
    storage = request.folder.parent
    if request.uri:
        uri = joined(request.storage, f".nodes-{uuid.uuid4()}")
        objects = Objects(uri)
        objects.write(MARK, MARK.encode())
        try:
            yield storage / MARK, uri
        finally:
            objects.clear()
        return
    storage.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".nodes-", dir=storage, ignore_cleanup_errors=True) as folder:
        mark = Path(folder) / MARK
        mark.write_text(mark.name, "utf-8")
        yield mark, ""


def _seen(path: Path, uri: str) -> bool:
    if uri:
        return path.name in Objects(uri).names()
    until = time.monotonic() + NFS_PATIENCE_S
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _question(request: Request, mark: Path, uri: str) -> Question:
    settings, place = request.space.settings, request.workload.place
    images = sum(len(items) for items in place.dataset.items.values()) * 3 * request.image_size**2
    named = [name for name in (settings.text("backbone"), request.weights) if Path(name).is_file()]
    return Question(
        mark=mark,
        uri=uri,
        source=settings.text("data"),
        seed=request.seed,
        max_bad_files=settings.number("max_bad_files"),
        settings=DataSettings.of(settings, request.cache),
        fingerprint=place.dataset.scanned or place.dataset.fingerprint,
        files={name: digest(Path(name)) for name in named},
        cache=request.cache,
        bytes=images + sum(place.bytes(cut) for cut in request.workload.cuts),
        gpus=request.resources.gpus_per_trial > 0,
        versions=machine.versions(),
    )


def _ask(nodes: list[str], question: Question) -> dict[str, Answer]:
    """The answer of each node; not answering, or failing to run the check, is a fault too."""
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    gpus = {node["NodeID"]: node["Resources"].get("GPU", 0) for node in ray.nodes()}
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            question, node, gpus[node]
        ): node
        for node in nodes
    }
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE_S)
    answers = {}
    for reference, node in asked.items():
        if reference not in done:
            answers[node] = Answer([f"gave no answer within {PATIENCE_S:g} s"], stored=False)
            continue
        try:
            answers[node] = ray.get(reference)
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[-1]
            answers[node] = Answer([f"cannot run this project's code: {said}"], stored=False)
    return answers


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _resources(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
