"""Telling somebody how a drill ended: a JSON summary, posted to addresses that only the environment knows.

An address is a secret: who has it can post as well. No note and no exception holds one; requests' own exceptions do, so
none of them leaves this module.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from pgrescue import __version__
from pgrescue.drill.addresses import without_secrets
from pgrescue.drilled import DrillOutcome
from pgrescue.retry import until_returns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgrescue.drilled import Assertion, DrillReport, DrillRun

SCHEMA: Final = 1
DEADLINE_S: Final = 30.0
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 10.0
_SHORTEST_S: Final = 0.1
_GRACE_S: Final = 1.0  # so that an attempt that ends with the deadline can still say why
_LONGEST_PAUSE_S: Final = 4.0
_MOST_REDIRECTS: Final = 5
_TOO_MANY_REQUESTS: Final = 429
_ACCEPTED: Final = range(200, 300)
_SERVER_ERRORS: Final = range(500, 600)
_POST_AGAIN: Final = (307, 308)
_MOST_NAMED: Final = 3
_LONGEST_TEXT: Final = 300
# Slack takes <!channel> and the like for a mention (docs.slack.dev, "Escaping text").
_SLACK: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True)
class Hook:
    """Whom to tell: the environment variable with the address, and the outcomes that are of interest."""

    url_env: str
    on: frozenset[DrillOutcome]


class _NotToldError(Exception):
    """Nobody was told, and trying again would not help; its text is the reason, without the address."""


class _LaterError(_NotToldError):
    """Nobody was told yet; `pause_s` is how long the other side wants to be left alone."""

    def __init__(self, reason: str, *, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


def notify(
    document: Mapping[str, Any],
    outcome: DrillOutcome,
    hooks: Sequence[Hook],
    *,
    env: Mapping[str, str],
    deadline_s: float = DEADLINE_S,
) -> tuple[str, ...]:
    """Post a summary to every hook that is interested in the outcome; return a note for each that could not be told.

    All of them together take `deadline_s` at most. Each is told again until it has answered, always with the same
    `Idempotency-Key`. Never raises for trouble on the way.
    """
    body = json.dumps(document).encode()
    deliveries = [
        _Delivery(hook.url_env, env.get(hook.url_env, "").strip(), str(document["id"]), body, deadline_s)
        for hook in hooks
        if outcome in hook.on
    ]
    for delivery in deliveries:
        delivery.start()
    for delivery in deliveries:
        delivery.join()
    return tuple(
        f"the hook of the variable {one.variable} was not told: {one.trouble}" for one in deliveries if one.trouble
    )


class _Delivery:
    """One hook being told, in a thread that nothing waits for longer than the deadline: a name server can hang, too."""

    def __init__(self, variable: str, url: str, key: str, body: bytes, deadline_s: float) -> None:
        self.variable = variable
        self._url = url
        self._body = body
        self._headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "User-Agent": f"pgrescue/{__version__}",
        }
        self._deadline_s = deadline_s
        self._end = time.monotonic() + deadline_s
        self._trouble = f"there was no answer within {deadline_s:g} s"
        self._thread = threading.Thread(target=self._run, name=f"hook {variable}", daemon=True)

    @property
    def trouble(self) -> str:
        """Why nobody was told, empty where somebody was."""
        return self._trouble

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended, or time is over."""
        self._thread.join(max(0.0, self._end + _GRACE_S - time.monotonic()))

    def _run(self) -> None:
        try:
            self._tell()
            self._trouble = ""
        except _NotToldError as error:
            self._trouble = str(error)
        except Exception as error:  # noqa: BLE001 - the traceback that a thread prints would show the address
            self._trouble = f"sending broke down ({type(error).__name__})"

    def _tell(self) -> None:
        if not self._url:
            raise _NotToldError("it is not set")
        with requests.Session() as session:
            until_returns(
                partial(self._attempt, session),
                on=_LaterError,
                timeout_s=self._deadline_s,
                longest_pause_s=_LONGEST_PAUSE_S,
                asked_pause_s=lambda error: error.pause_s if isinstance(error, _LaterError) else 0.0,
            )

    def _attempt(self, session: requests.Session) -> None:
        """Post once, and again where a redirect says that the same should go elsewhere by the same scheme."""
        url = self._url
        for _ in range(_MOST_REDIRECTS):
            response = self._post(session, url)
            if not response.is_redirect:
                _judge(response)
                return
            if response.status_code not in _POST_AGAIN:
                raise _NotToldError(f"it answered {response.status_code}, a redirect that drops what was sent")
            target = urljoin(url, response.headers["Location"])
            if urlsplit(target).scheme != urlsplit(url).scheme:
                raise _NotToldError("it redirects to another scheme, which is not followed")
            url = target
        raise _NotToldError(f"it redirects more than {_MOST_REDIRECTS} times")

    def _post(self, session: requests.Session, url: str) -> requests.Response:
        left_s = max(_SHORTEST_S, self._end - time.monotonic())
        try:
            # With `stream`, nothing of the answer is read but its head: its body may never end.
            with session.post(
                url,
                data=self._body,
                headers=self._headers,
                timeout=(min(_CONNECT_S, left_s), min(_ANSWER_S, left_s)),
                allow_redirects=False,
                stream=True,
            ) as response:
                return response
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _reason(error) from None


def _judge(response: requests.Response) -> None:
    status = response.status_code
    if status == _TOO_MANY_REQUESTS or status in _SERVER_ERRORS:
        raise _LaterError(f"it answered {status}", pause_s=_retry_after_s(response))
    if status not in _ACCEPTED:
        raise _NotToldError(f"it answered {status}")


def _retry_after_s(response: requests.Response) -> float:
    """Read the header's seconds; a date is not worth comparing two clocks within half a minute."""
    text = response.headers.get("Retry-After", "").strip()
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) else 0.0


def _reason(error: Exception) -> _NotToldError:
    """Return what a failure means in words of our own, as the exception's own hold the address."""
    match error:
        case requests.exceptions.SSLError():
            return _NotToldError("TLS failed: its certificate is not trusted, or it speaks no TLS")
        case requests.Timeout():
            return _LaterError("it did not answer in time")
        case requests.exceptions.ProxyError():
            return _LaterError("the proxy refused the connection")
        case requests.ConnectionError():
            return _LaterError("it could not be reached, or closed the connection")
        case (
            requests.exceptions.InvalidSchema()
            | requests.exceptions.MissingSchema()
            | requests.exceptions.InvalidURL()
            | urllib3.exceptions.LocationParseError()
        ):
            return _NotToldError("it does not hold an http or https address")
        case _:
            return _NotToldError(f"sending failed ({type(error).__name__})")


def summary(run: DrillRun) -> dict[str, Any]:
    """Return a run in short, ready for JSON; `text` is what a chat shows. It holds no rows and no secret."""
    return {
        "schema": SCHEMA,
        "id": run.id,
        "file": run.file,
        "outcome": run.outcome.value,
        "text": _text(run),
        "started": run.started.isoformat(),
        "seconds": run.seconds,
        "drills": [_drill(drill) for drill in run.drills],
    }


def _drill(drill: DrillReport) -> dict[str, Any]:
    rescue = drill.rescue
    severities = Counter(finding.severity.value for finding in drill.findings)
    return {
        "name": drill.name,
        "outcome": drill.outcome.value,
        "verdict": None if rescue is None else rescue.verdict.value,
        "strategy": None if rescue is None else rescue.strategy.value,
        "recovery_seconds": drill.recovery_seconds,
        "size_bytes": drill.size_bytes,
        "newest_commit_age_seconds": None if drill.newest_commit is None else drill.newest_commit.age_seconds,
        "failed_assertions": [
            {"name": one.name, "outcome": one.outcome.value, "expected": one.expected, "seen": one.seen}
            for one in _unmet(drill)
        ],
        "problem": without_secrets(drill.problem),
        "regressions": list(drill.regressions),
        "findings": dict(severities),
    }


def _unmet(drill: DrillReport) -> list[Assertion]:
    return [one for one in drill.assertions if one.outcome is not DrillOutcome.PASSED]


def _text(run: DrillRun) -> str:
    """Say in one sentence how it ended, and in another why, of the drills that did not pass."""
    words = {
        DrillOutcome.PASSED: "passed",
        DrillOutcome.FAILED: "FAILED",
        DrillOutcome.UNVERIFIED: "could not be verified",
    }
    counts = Counter(drill.outcome for drill in run.drills)
    if len(run.drills) == 1:
        said = f"Restore drill {run.drills[0].name} {words[run.outcome]}."
    else:
        parts = ", ".join(
            f"{counts[outcome]} {words[outcome]}" for outcome in reversed(DrillOutcome) if counts[outcome]
        )
        said = f"{len(run.drills)} restore drills of {run.file}: {parts or 'none ran'}."
    reasons = [_why(drill) for drill in run.drills if drill.outcome is not DrillOutcome.PASSED]
    more = f"; and {len(reasons) - _MOST_NAMED} more" if len(reasons) > _MOST_NAMED else ""
    why = "; ".join(reasons[:_MOST_NAMED]) + more
    return f"{said} {why}".strip().translate(_SLACK)


def _why(drill: DrillReport) -> str:
    unmet = _unmet(drill)
    if drill.problem:
        reason = without_secrets(drill.problem)
    elif unmet:
        reason = f"{unmet[0].name}: expected {unmet[0].expected}, seen {unmet[0].seen}"
        if len(unmet) > 1:
            reason += f" (and {len(unmet) - 1} more)"
    else:
        reason = f"{len(drill.findings)} findings"
    reason = reason if len(reason) <= _LONGEST_TEXT else f"{reason[: _LONGEST_TEXT - 1]}…"
    return f"{drill.name}: {reason}"
