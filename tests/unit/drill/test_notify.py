"""Telling a hook how a drill ended: against real HTTP servers that misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from pgrescue import __version__
from pgrescue.drill.notify import Hook, notify, summary
from pgrescue.drilled import Assertion, AssertionKind, DrillOutcome, DrillReport, DrillRun, NewestCommit
from pgrescue.model import (
    EngineName,
    Finding,
    PgVersion,
    RecoveredTo,
    RescueReport,
    Severity,
    StrategyName,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

SECRET = "T0KEN-of-the-hook"
DOCUMENT = {"id": "run-1", "text": "Restore drill nightly FAILED."}
ON = frozenset({DrillOutcome.FAILED})
HOOK = Hook("HOOK", ON)


class Receiver:
    """A server that does one thing after the other, the last one again and again, and keeps what it was sent."""

    def __init__(self, *deeds: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.received: list[tuple[str, dict[str, str], Any]] = []
        self.times: list[float] = []
        left = list(deeds)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                content = json.loads(body) if body else None
                receiver.received.append((f"{self.command} {self.path}", dict(self.headers), content))
                receiver.times.append(time.monotonic())
                self.close_connection = True
                deed = left.pop(0) if len(left) > 1 else left[0]
                with contextlib.suppress(OSError):
                    deed(self)

            do_GET = _handle  # noqa: N815 - as http.server calls it
            do_POST = _handle  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}/services/{SECRET}?key={SECRET}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def deed(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"ok")

    return deed


def close(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def hang(_: BaseHTTPRequestHandler) -> None:
    time.sleep(60)


def drip_head(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-More: 1\r\n")
        time.sleep(0.3)


def endless_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b"x" * 65536)


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n" * 100)


def bad_head(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nno header at all\r\nContent-Length: 0\r\n\r\n")


def _notify(address: str | None, *, deadline_s: float = 5.0, hook: Hook = HOOK) -> tuple[str, ...]:
    env = {} if address is None else {hook.url_env: address}
    return notify(DOCUMENT, DrillOutcome.FAILED, [hook], env=env, deadline_s=deadline_s)


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no proxy come between; nothing is ever printed, by the logs of urllib3 neither."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_the_summary_arrives() -> None:
    with Receiver(answer(204)) as receiver:
        assert _notify(f" {receiver.address}\n") == ()
    ((request, headers, content),) = receiver.received
    assert request.startswith(f"POST /services/{SECRET}")
    assert content == DOCUMENT
    assert headers["Idempotency-Key"] == "run-1"
    assert headers["User-Agent"] == f"pgrescue/{__version__}"
    assert headers["Content-Type"] == "application/json"


def test_only_who_is_interested_is_told() -> None:
    with Receiver(answer(200)) as receiver:
        hooks = [
            Hook("A", frozenset({DrillOutcome.PASSED})),
            Hook("B", frozenset(DrillOutcome)),
            Hook("C", frozenset()),
        ]
        env = {name: f"{receiver.address}&{name}" for name in "ABC"}
        assert notify(DOCUMENT, DrillOutcome.FAILED, hooks, env=env) == ()
    assert [request.rpartition("&")[2] for request, _, _ in receiver.received] == ["B"]


@pytest.mark.parametrize("trouble", [answer(500), answer(503), answer(429), close], ids=["500", "503", "429", "closes"])
def test_passing_trouble_is_tried_again_with_the_same_key(trouble: Callable[[BaseHTTPRequestHandler], None]) -> None:
    with Receiver(trouble, trouble, answer(200)) as receiver:
        assert _notify(receiver.address) == ()
    assert [headers["Idempotency-Key"] for _, headers, _ in receiver.received] == ["run-1"] * 3
    assert [content for _, _, content in receiver.received] == [DOCUMENT] * 3


def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    with Receiver(answer(429, Retry_After="1"), answer(200)) as receiver:
        assert _notify(receiver.address) == ()
    assert receiver.times[1] - receiver.times[0] >= 1


def test_a_pause_beyond_the_deadline_is_not_waited_for() -> None:
    begun = time.monotonic()
    with Receiver(answer(429, Retry_After="3600")) as receiver:
        (note,) = _notify(receiver.address)
    assert time.monotonic() - begun < 3
    assert note == "the hook of the variable HOOK was not told: it answered 429"
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 410])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    with Receiver(answer(status)) as receiver:
        assert _notify(receiver.address) == (f"the hook of the variable HOOK was not told: it answered {status}",)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (hang, "it did not answer in time"),
        (drip_head, "there was no answer within 1.5 s"),
        (close, "it could not be reached, or closed the connection"),
        (answer(502), "it answered 502"),
        (no_http, "it could not be reached, or closed the connection"),
    ],
    ids=["hangs", "drips", "closes", "502", "no http"],
)
def test_lasting_trouble_ends_with_the_deadline(deed: Callable[[BaseHTTPRequestHandler], None], reason: str) -> None:
    begun = time.monotonic()
    with Receiver(deed) as receiver:
        (note,) = _notify(receiver.address, deadline_s=1.5)
        assert time.monotonic() - begun < 4
    assert note == f"the hook of the variable HOOK was not told: {reason}"
    assert receiver.received


@pytest.mark.parametrize("deed", [endless_body, bad_head], ids=["endless", "bad head"])
def test_what_comes_after_the_status_does_not_matter(deed: Callable[[BaseHTTPRequestHandler], None]) -> None:
    with Receiver(deed) as receiver:
        assert _notify(receiver.address) == ()
    assert len(receiver.received) == 1


def test_hooks_do_not_wait_for_each_other() -> None:
    begun = time.monotonic()
    with Receiver(hang) as slow, Receiver(answer(200)) as quick:
        hooks = [Hook("SLOW", ON), Hook("SLOW_TOO", ON), Hook("QUICK", ON)]
        env = {"SLOW": slow.address, "SLOW_TOO": slow.address, "QUICK": quick.address}
        notes = notify(DOCUMENT, DrillOutcome.FAILED, hooks, env=env, deadline_s=1.5)
        assert time.monotonic() - begun < 4
        assert quick.times[0] - begun < 1
    assert [note.split()[5] for note in notes] == ["SLOW", "SLOW_TOO"]


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_what_is_sent_is_followed(status: int) -> None:
    with Receiver(answer(200)) as target, Receiver(answer(status, Location=target.address)) as receiver:
        assert _notify(receiver.address) == ()
    ((request, headers, content),) = target.received
    assert request.startswith("POST ")
    assert content == DOCUMENT
    assert headers["Idempotency-Key"] == "run-1"


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_drops_what_is_sent_is_not(status: int) -> None:
    with Receiver(answer(200)) as target, Receiver(answer(status, Location=target.address)) as receiver:
        (note,) = _notify(receiver.address)
    assert f"it answered {status}, a redirect" in note
    assert target.received == []


@pytest.mark.parametrize("location", ["https://127.0.0.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_to_another_scheme_is_not_followed(location: str) -> None:
    with Receiver(answer(307, Location=location)) as receiver:
        (note,) = _notify(receiver.address)
    assert note.endswith("it redirects to another scheme, which is not followed")


def test_a_circle_of_redirects_ends() -> None:
    with Receiver(answer(307, Location="/again")) as receiver:
        (note,) = _notify(receiver.address)
    assert "redirects more than 5 times" in note
    assert len(receiver.received) == 5


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (None, "it is not set"),
        ("", "it is not set"),
        (" \n", "it is not set"),
        (f"hooks.invalid/{SECRET}", "it does not hold an http or https address"),
        (f"file:///etc/passwd?{SECRET}", "it does not hold an http or https address"),
        (f"ftp://127.0.0.1/{SECRET}", "it does not hold an http or https address"),
        (f"http:///{SECRET}", "it does not hold an http or https address"),
        (f"http://[::1/{SECRET}", "it does not hold an http or https address"),
        (f"http://127.0.0.1:99999/{SECRET}", "it does not hold an http or https address"),
        (f"http://{'a' * 70}.invalid/{SECRET}", "it does not hold an http or https address"),
        (f"http://*.invalid/{SECRET}", "it does not hold an http or https address"),
        (f"http://127.0.0.1:1/{SECRET}", "it could not be reached, or closed the connection"),
        (f"http://user:{SECRET}@127.0.0.1:1/", "it could not be reached, or closed the connection"),
    ],
)
def test_what_is_no_address_becomes_a_note_without_it(address: str | None, reason: str) -> None:
    assert _notify(address, deadline_s=0.5) == (f"the hook of the variable HOOK was not told: {reason}",)


def test_a_server_without_tls_is_told_apart() -> None:
    with Receiver(answer(200)) as receiver:
        (note,) = _notify(receiver.address.replace("http:", "https:"), deadline_s=1.5)
    assert note.startswith("the hook of the variable HOOK was not told: TLS failed")
    assert SECRET not in note


def test_a_bug_on_the_way_is_a_note_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("requests.Session.post", broken)
    assert _notify("http://127.0.0.1/") == (
        "the hook of the variable HOOK was not told: sending broke down (RuntimeError)",
    )


RESCUE = RescueReport(
    verdict=Verdict.DAMAGED,
    strategy=StrategyName.ARCHIVE,
    engine=EngineName.DOCKER,
    version=PgVersion(17, 6),
    system_identifier=7,
    workspace=Path("/secret/workspace"),
    url=None,
    shown_url="",
    databases=(),
    recovered_to=RecoveredTo(None, None),
    steps=(),
    findings=(),
    seconds=50.0,
)
DRILL = DrillReport(
    name="nightly",
    outcome=DrillOutcome.FAILED,
    started=datetime(2026, 11, 22, 8, 0, tzinfo=UTC),
    seconds=80.0,
    snapshot="/backups/nightly/data.tar",
    rescue=RESCUE,
    recovery_seconds=50.5,
    size_bytes=1 << 30,
    newest_commit=NewestCommit(datetime(2026, 11, 22, 7, 0, tzinfo=UTC), 3600.0, "the WAL"),
    assertions=(
        Assertion(AssertionKind.ROWS, "orders", DrillOutcome.FAILED, "at least 1,000 rows", "7 rows"),
        Assertion(AssertionKind.RTO, "rto", DrillOutcome.PASSED, "15 min", "50 s"),
        Assertion(AssertionKind.SQL, "newest <order>", DrillOutcome.UNVERIFIED, "> 5", "nothing", "it timed out"),
    ),
    findings=tuple(Finding("code", severity, "object", "detail", "remedy") for severity in (*Severity, Severity.ERROR)),
    regressions=("recovery took 95 s",),
)
BROKEN_OFF = DrillReport(
    "weekly",
    DrillOutcome.UNVERIFIED,
    DRILL.started,
    1.0,
    "https://store/backups?X-Amz-Signature=abc",
    problem=f"https://user:{SECRET}@store/backups?X-Amz-Signature={SECRET} does not answer",
)
PASSED = replace(DRILL, name="hourly", outcome=DrillOutcome.PASSED, assertions=DRILL.assertions[1:2])


def _summary(*drills: DrillReport) -> dict[str, Any]:
    made = summary(DrillRun("run-1", "drill.yaml", DRILL.started, 81.0, drills))
    encoded = json.dumps(made)
    assert SECRET not in encoded
    assert "/secret/workspace" not in encoded
    document: dict[str, Any] = json.loads(encoded)
    return document


def test_a_summary_has_what_is_promised() -> None:
    made = _summary(DRILL)
    assert made == {
        "schema": 1,
        "id": "run-1",
        "file": "drill.yaml",
        "outcome": "failed",
        "text": "Restore drill nightly FAILED. nightly: orders: expected at least 1,000 rows, seen 7 rows (and 1 more)",
        "started": "2026-11-22T08:00:00+00:00",
        "seconds": 81.0,
        "drills": [
            {
                "name": "nightly",
                "outcome": "failed",
                "verdict": "damaged",
                "strategy": "archive",
                "recovery_seconds": 50.5,
                "size_bytes": 1 << 30,
                "newest_commit_age_seconds": 3600.0,
                "failed_assertions": [
                    {"name": "orders", "outcome": "failed", "expected": "at least 1,000 rows", "seen": "7 rows"},
                    {"name": "newest <order>", "outcome": "could-not-verify", "expected": "> 5", "seen": "nothing"},
                ],
                "problem": "",
                "regressions": ["recovery took 95 s"],
                "findings": {"info": 1, "warning": 1, "error": 2},
            }
        ],
    }


def test_a_drill_that_broke_off_says_why_without_secrets() -> None:
    made = _summary(BROKEN_OFF)
    assert made["text"] == "Restore drill weekly could not be verified. weekly: https://store/backups does not answer"
    (drill,) = made["drills"]
    assert drill["problem"] == "https://store/backups does not answer"
    assert drill["verdict"] is drill["strategy"] is drill["recovery_seconds"] is None


def test_several_drills_are_summed_up() -> None:
    text = _summary(DRILL, BROKEN_OFF, PASSED)["text"]
    assert text.startswith(
        "3 restore drills of drill.yaml: 1 FAILED, 1 could not be verified, 1 passed. nightly: orders: "
    )
    assert "hourly" not in text
    assert _summary(PASSED)["text"] == "Restore drill hourly passed."
    assert _summary(*[DRILL] * 9)["text"].endswith("; and 6 more")


def test_a_text_mentions_nobody_and_stays_short() -> None:
    odd = replace(DRILL, name="<!channel> & co", problem="x" * 100_000)
    text = _summary(odd)["text"]
    assert "&lt;!channel&gt; &amp; co" in text
    assert "<" not in text
    assert len(text) < 500
