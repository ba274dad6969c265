"""Checks a file for `ray up` before it is used: by Ray's own schema, and for faults that Ray does not find.

python -m search.clusterfile cluster.yaml
"""

import re
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from search.errors import RequestError, unknown
from search.internals import of_ray
from search.report.console import steady

PROVIDERS = {
    "local": {"type", "head_ip", "worker_ips", "external_head_ip", "coordinator_address"},
    "aws": {
        "type",
        "region",
        "availability_zone",
        "cache_stopped_nodes",
        "key_pair",
        "security_group",
        "use_internal_ips",
        "cloudwatch",
    },
    "gcp": {"type", "region", "availability_zone", "project_id", "cache_stopped_nodes", "use_internal_ips"},
}
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
LOCK = Path(__file__).parent.parent / "requirements.lock"
TOKEN = "auth_token"  # noqa: S105 the name of its file


def demand_sound(path: Path) -> None:
    """Check a cluster file.

    Raises:
        RequestError: names every fault.
    """
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RequestError([str(error)], str(path)) from error
    if not isinstance(config, dict):
        raise RequestError(["it must be a mapping, as cluster.yaml is"], str(path))
    faults = [*_schema(config), *_provider(config), *_files(config), *_security(config), *_versions(config)]
    if faults:
        raise RequestError(faults, str(path))


def _schema(config: dict[str, Any]) -> Iterator[str]:
    """The fault that Ray itself finds, if any."""
    import click
    import jsonschema

    try:
        of_ray.check_cluster_file(config)
    except (click.ClickException, jsonschema.ValidationError, RuntimeError, TypeError, ValueError, KeyError) as error:
        lines = [line for line in str(getattr(error, "message", error)).splitlines() if line.strip()]
        yield f"Ray refuses it: {lines[0] if lines else type(error).__name__}"


def _provider(config: Mapping[str, Any]) -> Iterator[str]:
    """Unknown provider types, and unknown keys of the provider, which Ray accepts whatever their name."""
    provider = config.get("provider") or {}
    known = PROVIDERS.get(str(provider.get("type")), set())
    if not known:
        yield unknown("provider type", str(provider.get("type")), PROVIDERS)
    elif others := provider.keys() - known:
        yield from (f"provider: {unknown('key', name, known)}" for name in sorted(others))


def _files(config: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the files of this machine that the cluster file copies or uses."""
    mounts = config.get("file_mounts") or {}
    for there, here in mounts.items():
        if not Path(here).expanduser().exists():
            yield f"file_mounts: {here}, for {there}, is not there"
    copied = [Path(here).expanduser() for here in mounts.values()]
    if not any((path / TOKEN).exists() or path.name == TOKEN for path in copied):
        yield f"file_mounts: no {TOKEN} is copied; make one with: ray get-auth-token --generate, and mount ~/.ray"
    key = (config.get("auth") or {}).get("ssh_private_key")
    if key:
        path = Path(key).expanduser()
        if not path.is_file():
            yield f"auth: the key {key} is not there"
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield f"auth: others may read the key {key}; chmod 600 {key}"


def _security(config: Mapping[str, Any]) -> Iterator[str]:
    """Commands that leave Ray open to others, who could then run any code on the cluster."""
    for name, command in _commands(config):
        if "ray start" in command and "RAY_AUTH_MODE=token" not in command:
            yield f"{name}: ray start without RAY_AUTH_MODE=token lets everybody in"
        for host in re.findall(r"--dashboard-host[= ](\S+)", command):
            if host not in ("127.0.0.1", "localhost", "::1"):
                yield f"{name}: --dashboard-host={host} is open to others; use 127.0.0.1, and a tunnel"


def _versions(config: Mapping[str, Any]) -> Iterator[str]:
    """Versions in commands and Docker images that differ from those of the lock file."""
    locked = dict(re.findall(r"^([\w-]+)==([^\s;]+)", LOCK.read_text("utf-8"), re.MULTILINE)) if LOCK.exists() else {}
    for name, command in _commands(config):
        for package, version in re.findall(r"\b([\w-]+)(?:\[[\w,-]*\])?==([\w.]+)", command):
            if locked.get(package, version) != version:
                yield f"{name}: {package}=={version}; requirements.lock has {locked[package]}"
    docker = config.get("docker") or {}
    for image in {str(docker.get(name, "")) for name in ("image", "head_image", "worker_image")}:
        found = re.search(r"/ray(?:-ml)?:([\d.]+)", image)
        if found and locked.get("ray", found[1]) != found[1]:
            yield f"docker: {image}; requirements.lock has ray {locked['ray']}"


def _commands(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name and the text of every command that `ray up` runs."""
    parts = [("", config), *((f"{name}.", kind) for name, kind in (config.get("available_node_types") or {}).items())]
    for where, part in parts:
        for name in COMMANDS:
            commands = part.get(name) if isinstance(part, dict) else None
            yield from ((where + name, str(command)) for command in commands or [])


def main() -> int:
    """Check the files named on the command line; return the exit status."""
    status = 0
    for name in sys.argv[1:] or ["cluster.yaml"]:
        try:
            demand_sound(Path(name))
            print(f"{name} is sound")
        except RequestError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
    return status


if __name__ == "__main__":
    steady()
    sys.exit(main())
