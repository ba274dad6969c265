"""The notice that a spot machine is taken away, from a stand-in for the metadata service that speaks HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from search import spot

TOKEN = "a-token"  # noqa: S105
AWS_NOTICE, GCP_NOTICE = "/latest/meta-data/spot/instance-action", "/computeMetadata/v1/instance/preempted"


class Service:
    """What the service answers by now."""

    aws: str | None = None
    gcp = "FALSE"


def handler(service: Service) -> type[BaseHTTPRequestHandler]:
    """The two services, as strict as they are."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            wanted = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            self._answer(TOKEN if wanted else None)

        def do_GET(self) -> None:
            if self.path == AWS_NOTICE and self.headers["X-aws-ec2-metadata-token"] == TOKEN:
                self._answer(service.aws)
            elif self.path == GCP_NOTICE and self.headers["Metadata-Flavor"] == "Google":
                self._answer(service.gcp)
            else:
                self.send_error(401)

        def _answer(self, text: str | None) -> None:
            if text is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that is asked instead of the provider's."""
    known = Service()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(known)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{address}/")
        monkeypatch.setenv("GCE_METADATA_HOST", address)
        yield known
        server.shutdown()


def test_no_notice(service: Service) -> None:
    """Every spot machine would be drained at once."""
    assert service.aws is None
    assert spot.aws() is None
    assert spot.gcp() is None


def test_aws_says_when(service: Service) -> None:
    """A node is drained too late, or its trials are cut off early."""
    at = datetime.now(UTC) + timedelta(seconds=120)
    service.aws = json.dumps({"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")})
    left = spot.aws()

    assert left is not None
    assert 110 < left <= 120


def test_gcp_gives_half_a_minute(service: Service) -> None:
    """The notice is not understood."""
    service.gcp = "TRUE"

    assert spot.gcp() == 30


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_a_service_that_does_not_answer_is_asked_again(
    provider: str, service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The watcher dies of a hiccup, and the notice comes unseen."""
    drained: list[float] = []
    asked = spot.PROVIDERS[provider]
    answers: Iterator[Callable[[], float | None]] = iter([_fails, asked, asked])

    def notice() -> float | None:
        answer = next(answers)()
        service.gcp = "TRUE"
        service.aws = json.dumps({"action": "terminate", "time": "2020-01-01T00:00:00Z"})
        return answer

    monkeypatch.setattr("sys.argv", ["spot", provider])
    monkeypatch.setattr(spot, "ASK_EVERY_S", 0.0)
    monkeypatch.setattr(spot, "drain", drained.append)
    monkeypatch.setitem(spot.PROVIDERS, provider, notice)
    spot.main()

    assert drained == [30.0 if provider == "gcp" else 0.0]
    assert "gives no answer" in capsys.readouterr().out


def _fails() -> float | None:
    raise OSError("no route to host")
