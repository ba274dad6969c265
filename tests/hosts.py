"""Machines to launch a cluster on: namespaces of this one, each with its own network, processes, folders and sshd.

They share a folder, as machines do by NFS, at `SHARED`, and all have this project's virtual environment. Only root can
make them.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SHARED = "/mnt"
NETWORK, BRIDGE = "10.77.0", "finetune0"
PROJECT = Path(__file__).resolve().parent.parent
PROGRAMS = ("ip", "sshd", "ssh-copy-id", "rsync", "tmux", "curl", "setpriv", "unshare", "nsenter", "mount", "make")
PATIENCE_S = 30

BOOT = """
set -e
until ip link show eth0 > /dev/null 2>&1; do sleep 0.1; done
hostname {name}
ip link set lo up
ip address add {address}/24 dev eth0
ip link set eth0 up
ip route add default via {network}.1
mount --make-rprivate /
mkdir -p {folder}/{name}
cd {folder}/{name}
mkdir -p .ssh .project .python .shared finetune-search/.venv
mount --bind {project} .project
mount --bind {python} .python
{share}
cp {folder}/key {folder}/key.pub .
cp key.pub .ssh/authorized_keys
mount --rbind . /root
export HOME=/root
cd /root
for covered in /tmp /run /dev/shm; do mount -t tmpfs none $covered; done
mount -t proc none /proc
mkdir -p {project} {python} /run/sshd
mount --bind .project {project}
mount --bind .python {python}
mount --bind {project}/.venv finetune-search/.venv
mount -o remount,bind,ro finetune-search/.venv
mount --bind .shared {shared}
touch .bashrc
exec /usr/sbin/sshd -D -f /dev/null -h /root/key -o UsePAM=no -o PermitRootLogin=yes -o StrictModes=no
"""


def possible() -> bool:
    """Whether such machines can be made here."""
    return os.getuid() == 0 and all(shutil.which(program) for program in PROGRAMS)


@dataclass
class Host:
    """One machine.

    Args:
        process: as long as it lives, the machine does.
    """

    name: str
    address: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of its first process, seen from here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Begin a command on it, as its user would in a login shell."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        environment = {"HOME": "/root", "PATH": os.environ["PATH"], "TERM": "dumb", "LANG": "C.UTF-8"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*enter, "bash", "-c", f"cd ~/finetune-search || exit 1\n{command}"],
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    def run(self, command: str, patience_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command on it to its end."""
        process = self.begin(command)
        output, _ = process.communicate(timeout=patience_s)
        return subprocess.CompletedProcess(command, process.returncode, output, "")

    @staticmethod
    def let_go(process: subprocess.Popen[str]) -> None:
        """Follow a command no more; what it began ends with the machine."""
        process.kill()
        if process.stdout:
            process.stdout.close()
        process.wait()

    def cable(self, plugged: bool) -> None:
        """Pull its network cable, or plug it in."""
        _ip("link", "set", f"to-{self.name}", "up" if plugged else "down")

    def trials(self, go: bool) -> None:
        """Have the trials there stand still, so that some are left when another machine is ready; or go on."""
        assert self.run(f"pkill -{'CONT' if go else 'STOP'} -f '[r]ay::Implicit'").returncode == 0

    def lose(self) -> None:
        """It loses its power."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            _unplug(f"to-{self.name}")


class Hosts:
    """Machines on one network, and the folder that they share. Leaving the context ends them all.

    Args:
        folder: for their files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shared = folder / "shared"
        self._hosts: list[Host] = []

    def __enter__(self) -> Self:
        """Make the network.

        Raises:
            RuntimeError: another run has machines on it.
        """
        self.shared.mkdir()
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / "key")]
        subprocess.run(command, check=True)
        bridge = Path("/sys/class/net", BRIDGE)
        if bridge.exists():  # left by a run that was killed: its machines end with it, the bridge does not
            until = time.monotonic() + PATIENCE_S
            while list(bridge.glob("brif/*")):
                if time.monotonic() > until:
                    raise RuntimeError(f"another run has machines on {BRIDGE}")
                time.sleep(0.1)
            _ip("link", "delete", BRIDGE)
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for host in self._hosts:
            host.lose()
        _ip("link", "delete", BRIDGE)

    def add(self, name: str, shared: bool = True) -> Host:
        """A new machine; without `shared` its folder of that name is its own.

        Raises:
            RuntimeError: it does not come up.
        """
        address = f"{NETWORK}.{10 + len(self._hosts)}"
        share = f"mount --bind {self.shared} .shared" if shared else "mount -t tmpfs none .shared"
        script = BOOT.format(
            name=name,
            address=address,
            network=NETWORK,
            folder=self._folder,
            project=PROJECT,
            python=sys.base_prefix,
            share=share,
            shared=SHARED,
        )
        kinds = ["--net", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc"]
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "unshare", *kinds, "bash", "-c", script], stdout=log, stderr=log
            )
        host = Host(name, address, process)
        self._hosts.append(host)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                _ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
                break
            except (subprocess.CalledProcessError, IndexError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        _ip("link", "set", f"to-{name}", "master", BRIDGE, "up")
        while subprocess.run([*SSH, "-i", self._folder / "key", f"root@{address}", "true"], check=False).returncode:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self._folder / f"{name}.log").read_text())
            time.sleep(0.2)
        return host


SSH = ("ssh", "-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, stdout=subprocess.DEVNULL)


def _unplug(cable: str) -> None:
    """Take a cable away at once, for open connections would keep it; where there are none, the system was faster."""
    until = time.monotonic() + PATIENCE_S
    while Path("/sys/class/net", cable).exists():
        done = subprocess.run(["ip", "link", "delete", cable], check=False, capture_output=True, text=True)
        if done.returncode and time.monotonic() > until:
            raise RuntimeError(done.stderr)
