"""The files that describe clusters: every one that we ship is sound, and what is wrong with one is said."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from search import clusterfile
from search.clusterfile import demand_sound
from search.errors import RequestError

ROOT = Path(__file__).parent.parent
SHIPPED = [ROOT / "cluster.yaml", ROOT / "deploy" / "aws.yaml", ROOT / "deploy" / "gcp.yaml"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home with a key and a token."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "finetune_cluster").write_text("key")
    (tmp_path / ".ssh" / "finetune_cluster").chmod(0o600)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("token")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    return tmp_path


@pytest.mark.parametrize("path", SHIPPED, ids=[path.name for path in SHIPPED])
def test_what_we_ship_is_sound(path: Path) -> None:
    """A user's first `ray up` fails, or opens his machines to everybody."""
    demand_sound(path)


@pytest.mark.parametrize("path", SHIPPED[:2], ids=["cluster", "aws"])
def test_every_change_is_found(path: Path, tmp_path: Path, home: Path) -> None:
    """A fault costs the time of a launch each, or is never seen."""
    (home / ".ssh" / "finetune_cluster").chmod(0o644)
    (home / ".ray" / "auth_token").unlink()
    config: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    config["auth"]["ssh_private_key"] = "~/.ssh/finetune_cluster"
    config["provider"]["regoin"] = "here"
    config["file_mounts"]["~/data"] = str(tmp_path / "gone")
    config["max_wrokers"] = 3
    config["setup_commands"].append("pip install 'ray[tune]==2.59.0'")
    config["worker_start_ray_commands"].append("ray start --address=$RAY_HEAD_IP:6379 --dashboard-host=0.0.0.0")
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(config))
    with pytest.raises(RequestError) as caught:
        demand_sound(changed)

    said = [
        "Ray refuses it: .*max_wrokers",
        "unknown key 'regoin'; did you mean 'region'|unknown key 'regoin'",
        "gone, for ~/data, is not there",
        "no auth_token is copied",
        "others may read the key",
        "without RAY_AUTH_MODE=token",
        "--dashboard-host=0.0.0.0 is open to others",
        r"ray==2.59.0; requirements.lock has ",
    ]
    assert len(caught.value.faults) == len(said)
    for pattern in said:
        assert re.search(pattern, str(caught.value)), pattern


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """A traceback instead of a sentence."""
    for text in ("- a list", "key: [", ""):
        (tmp_path / "cluster.yaml").write_text(text)
        with pytest.raises(RequestError, match=r"cluster\.yaml"):
            demand_sound(tmp_path / "cluster.yaml")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts cannot tell a sound file from another."""
    monkeypatch.setattr("sys.argv", ["clusterfile", str(SHIPPED[0])])
    assert clusterfile.main() == 0
    monkeypatch.setattr("sys.argv", ["clusterfile", str(tmp_path / "gone.yaml")])
    assert clusterfile.main() == 2
    assert "gone.yaml" in capsys.readouterr().err


def test_kubernetes_and_its_image_name_the_locked_ray() -> None:
    """The image has one Ray, the operator expects another."""
    locked = dict(re.findall(r"^([\w-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))
    job = yaml.safe_load((ROOT / "deploy" / "kuberay.yaml").read_text("utf-8"))
    image = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")

    assert job["spec"]["rayClusterSpec"]["rayVersion"] == locked["ray"]
    assert f"FROM rayproject/ray:{locked['ray']}-py" in image
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "--resume" in job["spec"]["entrypoint"]


def test_tensorboard_on_kubernetes_sees_what_the_search_writes() -> None:
    """It shows nothing: another image, another volume, or another folder than the search's."""
    job, board = (
        yaml.safe_load((ROOT / "deploy" / f"{name}.yaml").read_text("utf-8")) for name in ("kuberay", "tensorboard")
    )
    head, pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"], board["spec"]
    (ray,), (container,) = head["containers"], pod["containers"]
    storage = re.search(r"--storage (\S+)\"", job["spec"]["entrypoint"])
    name = re.search(r"--name (\w+)", job["spec"]["entrypoint"])

    assert container["image"] == ray["image"]
    assert container["volumeMounts"] == ray["volumeMounts"]
    assert pod["volumes"] == head["volumes"]
    assert storage
    assert name
    assert f"{storage[1]}/{name[1]}/tensorboard" in container["command"]
