"""Makes Ray drain a spot machine before it is taken away: its trials continue elsewhere, and none counts as failed.

    python -m search.spot aws|gcp

The cluster files in deploy/ start this module on every spot worker. It polls the machine's metadata service until a
notice comes:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html,
https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from search.errors import unknown
from search.report.console import steady

ASK_EVERY_S = 5.0
PATIENCE_S = 2.0
GCP_GIVES_S = 30.0


def aws() -> float | None:
    """Seconds until the machine is taken away; `None` while there is no notice.

    Raises:
        OSError: the metadata service does not answer.
    """
    service = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
    token = _asked(f"{service}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    try:
        notice = _asked(f"{service}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    at = datetime.fromisoformat(json.loads(notice)["time"])
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def gcp() -> float | None:
    """Seconds until the machine is taken away; `None` while there is no notice.

    Raises:
        OSError: the metadata service does not answer.
    """
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    asked = f"http://{host}/computeMetadata/v1/instance/preempted"
    return GCP_GIVES_S if _asked(asked, {"Metadata-Flavor": "Google"}).strip() == "TRUE" else None


PROVIDERS = {"aws": aws, "gcp": gcp}


def drain(seconds: float) -> None:
    """Tell Ray that this node will be taken away.

    Args:
        seconds: the time left until then.
    """
    import ray

    ray.init("auto", log_to_driver=False, configure_logging=False)
    context = ray.get_runtime_context()
    options = {
        "--address": context.gcs_address,
        "--node-id": context.get_node_id(),
        "--reason": "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message": "spot",
        "--deadline-remaining-seconds": str(max(1, int(seconds))),
    }
    words = [word for option in options.items() for word in option]
    subprocess.run([Path(sys.executable).with_name("ray"), "drain-node", *words], check=True)
    ray.shutdown()


def main() -> None:
    """Wait for the notice, then drain the node."""
    if len(sys.argv) != 2 or sys.argv[1] not in PROVIDERS:
        sys.exit(unknown("provider", " ".join(sys.argv[1:]), PROVIDERS))
    notice = PROVIDERS[sys.argv[1]]
    while True:
        try:
            left = notice()
        except (OSError, ValueError, KeyError) as error:
            print(f"the metadata service gives no answer: {error}", flush=True)
            left = None
        if left is not None:
            print(f"this machine is taken away in {left:.0f} s", flush=True)
            drain(left)
            return
        time.sleep(ASK_EVERY_S)


def _asked(address: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(address, headers=headers, method=method)  # noqa: S310 of the metadata service
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
        return str(answer.read().decode())


if __name__ == "__main__":
    steady()
    main()
