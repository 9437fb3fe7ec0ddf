"""Which daemons are refused, and what becomes of the SDK's exceptions."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.engine import docker_daemon
from pgrescue.engine.docker import docker_unavailable, find_docker, image_is_present
from pgrescue.engine.docker_daemon import Daemon, MissingError, RefusedError, elsewhere, refusal
from pgrescue.errors import EngineError
from pgrescue.model import Outcome, PgVersion, StepReport
from pgrescue.pipeline import Silent, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

LINUX = {"OSType": "linux", "OperatingSystem": "Debian", "SecurityOptions": ["name=seccomp,profile=builtin"]}
OFFICIAL = {"Config": {"Env": ["PG_MAJOR=17", "PG_VERSION=17.2-1.pgdg120+1"], "Volumes": None}}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SecurityOptions": ["name=rootless", "name=cgroupns"]}, "rootless"),
        ({"SecurityOptions": ["name=seccomp,profile=x", "name=userns"]}, "userns-remap"),
        ({"OSType": "windows"}, "windows"),
        ({}, None),
        ({"SecurityOptions": None}, None),
        ({"OperatingSystem": "Docker Desktop"}, None),
    ],
)
def test_a_daemon_whose_files_would_belong_to_others_is_refused(changed: dict[str, Any], words: str | None) -> None:
    reason = refusal({**LINUX, **changed})
    assert reason is None if words is None else words in str(reason)


@pytest.mark.parametrize("host", ["tcp://build.example:2375", "ssh://me@build.example"])
def test_a_daemon_on_another_machine_is_refused_without_asking_it(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert "another machine (build.example)" in str(docker_unavailable())


@pytest.mark.parametrize("address", ["http+unix:///var/run/docker.sock", "http://127.0.0.1:2375", "https://[::1]:2376"])
def test_a_daemon_on_this_machine_is_taken(address: str) -> None:
    assert elsewhere(address) is None


class FakeDaemon(BaseHTTPRequestHandler):
    """Answers as `answers` of its server says: a path's end, and the status and lines of JSON that it gets."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, *documents = self.server.answers[self.path.rpartition("/")[2].partition("?")[0]]  # type: ignore[attr-defined] # set by the fixture
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        for text in (*(json.dumps(document) for document in documents), ""):
            with contextlib.suppress(BrokenPipeError):  # a client need not read to the end
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text.encode()))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


class Answers(dict[str, tuple[Any, ...]]):
    """What the fake daemon says, and where it listens."""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a path short enough for a socket (108 bytes), after DOCKER_HOST is set to it."""
    with TemporaryDirectory(prefix="pgr") as directory:
        path = Path(directory, "s")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        yield path
        gc.collect()


@pytest.fixture
def answers(place: Path) -> Iterator[Answers]:
    known = Answers({"version": (200, {"ApiVersion": "1.44"}), "info": (200, LINUX)})
    with ThreadingUnixStreamServer(str(place), FakeDaemon) as server:
        server.answers = known  # type: ignore[attr-defined] # read by FakeDaemon
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield known
        server.shutdown()
        thread.join()


class Watcher(Silent):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def started(self, name: str, title: str) -> None:
        self.seen.append((name, title))

    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:  # noqa: ARG002
        self.seen.append((done, total, unit))

    def ended(self, record: StepReport) -> None:
        self.seen.append(record.outcome)


def test_no_daemon_is_told_with_a_remedy(place: Path) -> None:
    assert docker_unavailable() == f"Docker does not answer at {place}: No such file or directory"
    assert not image_is_present("postgres:17")
    with pytest.raises(EngineError, match="does not answer") as caught:
        find_docker(17, image=None, may_pull=True, observer=Silent())
    assert "--engine native" in caught.value.hint
    assert not place.exists()


def test_a_daemon_that_hangs_is_given_up_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_daemon, "_FIRST_ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(place))
        deaf.listen()
        assert "does not answer" in str(docker_unavailable())


def test_a_daemon_that_dies_amid_an_answer_is_an_engine_error(answers: Answers) -> None:
    answers["containers"] = (200,)
    answers["json"] = (200,)  # no JSON at all
    with contextlib.closing(Daemon()) as daemon, pytest.raises(EngineError, match="does not answer"):
        daemon.containers("x")


def test_what_the_daemon_says_is_kept(answers: Answers) -> None:
    answers["json"] = (404, {"message": "No such image: x"})
    with contextlib.closing(Daemon()) as daemon:
        with pytest.raises(MissingError, match="No such image: x"):
            daemon.image("x")
        answers["json"] = (500, {"message": "disk is full"})
        with pytest.raises(RefusedError, match="disk is full"):
            daemon.image("x")
        answers["create"] = (400, {"message": "invalid mount config: bind source path does not exist: /w"})
        with pytest.raises(RefusedError, match="bind source") as caught:
            daemon.run({}, name="x")
    assert "--engine native" in caught.value.hint


def test_a_rootless_daemon_is_refused_with_a_remedy(answers: Answers) -> None:
    answers["info"] = (200, {**LINUX, "SecurityOptions": ["name=rootless"]})
    assert "rootless" in str(docker_unavailable())
    with pytest.raises(EngineError, match="rootless") as caught:
        find_docker(17, image=None, may_pull=True, observer=Silent())
    assert "--engine native" in caught.value.hint


def test_a_present_image_is_found_without_running_it(answers: Answers) -> None:
    answers["json"] = (200, OFFICIAL)
    found = find_docker(17, image=None, may_pull=False, observer=Silent())
    assert found.image == "postgres:17"
    assert found.version == PgVersion(17, 2)
    assert "postgres:17 (PostgreSQL 17.2" in found.installation.described


def test_another_major_is_refused(answers: Answers) -> None:
    answers["json"] = (200, OFFICIAL)
    with pytest.raises(EngineError, match=r"of PostgreSQL 16.*mine:1 has PostgreSQL 17\.2") as caught:
        find_docker(16, image="mine:1", may_pull=False, observer=Silent())
    assert "postgres:16" in caught.value.hint


def test_an_absent_image_that_may_not_be_pulled(answers: Answers) -> None:
    answers["json"] = (404, {"message": "No such image: postgres:17"})
    with pytest.raises(EngineError, match="no image postgres:17") as caught:
        find_docker(17, image=None, may_pull=False, observer=Silent())
    assert "docker pull postgres:17" in caught.value.hint


def test_a_pull_tells_its_bytes_and_its_failure(answers: Answers) -> None:
    answers["json"] = (404, {"message": "No such image: postgres:17"})
    answers["create"] = (
        200,
        {"status": "Pulling from library/postgres", "id": "17"},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 10, "total": 100}},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 5, "total": 50}},
        {"status": "Download complete", "id": "a", "progressDetail": {}},
        {"errorDetail": {"message": "no route"}, "error": "no route to registry"},
    )
    watcher = Watcher()
    with pytest.raises(EngineError, match="cannot be pulled: no route to registry") as caught:
        find_docker(17, image=None, may_pull=True, observer=watcher)
    for remedy in ("docker pull postgres:17", "docker load", "--image", "--engine native", "compose/image"):
        assert remedy in caught.value.hint
    assert watcher.seen == [
        ("pull", "Pull the image postgres:17"),
        (10, 100, Unit.BYTES),
        (15, 150, Unit.BYTES),
        (105, 150, Unit.BYTES),
        Outcome.FAILED,
    ]
