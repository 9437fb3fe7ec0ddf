"""What a person reads."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.model import Lsn, Outcome, Severity, StepReport, Verdict
from pgrescue.pipeline import Observer, Unit
from pgrescue.report import console as console_module
from pgrescue.report.console import Live, Plain, observer_for, print_findings, print_report
from tests.unit.builders import finding
from tests.unit.report.conftest import PASSWORD, text_of

if TYPE_CHECKING:
    from rich.console import Console

    from pgrescue.model import RescueReport

DONE = StepReport("unpack", Outcome.DONE, 1.25)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console_module, "time", clock)
    return clock


def test_it_draws_on_terminals_only(plain: Console, terminal: Console) -> None:
    assert isinstance(observer_for(plain), Plain)
    assert isinstance(observer_for(terminal), Live)


def test_a_log_gets_one_line_for_each_step(plain: Console) -> None:
    observer = Plain(plain)
    for outcome in Outcome:
        observer.started("unpack", "Unpack the snapshot")
        observer.advanced(1, 2, Unit.BYTES)
        observer.ended(StepReport("unpack", outcome, 1.25))
    assert text_of(plain).splitlines() == [
        f"Unpack the snapshot: {mark}, 1.2 s" for mark in ("done", "done before", "skipped", "FAILED")
    ]


def test_a_long_step_is_told_of_every_ten_seconds(plain: Console, clock: Clock) -> None:
    observer = Plain(plain)
    observer.started("unpack", "Unpack the snapshot")
    for second in range(26):
        clock.now = 100 + second
        observer.advanced(second << 20, 100 << 20, Unit.BYTES)
    observer.started("check", "Check")
    clock.now += 11
    observer.advanced(12_345, None, Unit.ITEMS)
    assert text_of(plain).splitlines() == [
        "Unpack the snapshot: 10 MiB of 100 MiB",
        "Unpack the snapshot: 20 MiB of 100 MiB",
        "Check: 12,345",
    ]


def test_a_replay_is_told_with_the_position_wanted_and_its_rate(plain: Console, clock: Clock) -> None:
    observer = Plain(plain)
    start, wanted = Lsn.parse("0/3000028").position, Lsn.parse("1/0").position
    for step in ("recover", "recover again"):
        observer.started("recover", step)
        for second in range(22):
            clock.now += 1
            observer.advanced(start + second * (3 << 20), wanted if step == "recover" else None, Unit.LSN)
    assert text_of(plain).splitlines() == [
        "recover: 0/4B00028 of 1/0",
        "recover: 0/6900028 of 1/0, 3 MiB/s",
        "recover again: 0/4B00028",
        "recover again: 0/6900028, 3 MiB/s",
    ]


def test_a_terminal_shows_a_replay_from_where_it_began(terminal: Console, clock: Clock) -> None:
    observer = Live(terminal)
    observer.started("recover", "Recover")
    start, wanted = Lsn.parse("0/3000028"), Lsn.parse("0/5000000")
    for position in (start.position, start.position + (1 << 20), wanted.position):
        clock.now += 1
        observer.advanced(position, wanted.position, Unit.LSN)
    observer.ended(DONE)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text_of(terminal))
    assert "0/3000028" in shown
    assert "0/5000000 of 0/5000000" in shown


def test_notes_are_neither_wrapped_nor_taken_for_markup(plain: Console) -> None:
    text = "[bold]" + "long " * 30 + "/path/with spaces"
    Plain(plain).noted(text)
    assert text_of(plain) == text + "\n"


@pytest.mark.parametrize("kind", [Plain, Live])
def test_any_thread_may_tell_of_progress(
    kind: type[Plain | Live], plain: Console, terminal: Console, clock: Clock
) -> None:
    console = plain if kind is Plain else terminal
    observer: Observer = kind(console)
    observer.started("unpack", "Unpack")
    clock.now += 11

    def tell(number: int) -> None:
        for step in range(50):
            observer.advanced(number * step, 1000, Unit.BYTES)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(tell, range(8)))
    observer.ended(DONE)
    if kind is Plain:
        assert len(text_of(console).splitlines()) == 2


def test_a_terminal_shows_a_moving_line_and_leaves_one_for_each_step(terminal: Console, clock: Clock) -> None:
    observer = Live(terminal)
    observer.started("unpack", "Unpack [the] snapshot")
    clock.now += 1
    observer.advanced(5 << 20, 10 << 20, Unit.BYTES)
    observer.noted("Engine: a fake")
    observer.ended(DONE)
    observer.started("start", "Start")
    observer.ended(StepReport("start", Outcome.FAILED, 0.5))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text_of(terminal))
    assert "Unpack [the] snapshot  1.2 s" in shown
    assert "Engine: a fake" in shown
    assert "FAILED  Start  0.5 s" in shown


def test_a_terminal_gets_its_cursor_back(terminal: Console) -> None:
    observer = Live(terminal)
    observer.started("unpack", "Unpack")
    assert text_of(terminal).rfind("\x1b[?25l") > text_of(terminal).rfind("\x1b[?25h")
    observer.ended(DONE)
    assert text_of(terminal).rfind("\x1b[?25h") > text_of(terminal).rfind("\x1b[?25l")


def test_the_gravest_finding_comes_first_with_its_remedy(plain: Console) -> None:
    print_findings(
        plain,
        [
            finding(Severity.INFO, code="i"),
            finding(Severity.ERROR, code="e", detail="two\nlines [red]", remedy="mend it"),
            finding(Severity.WARNING, code="w", remedy=""),
        ],
    )
    assert text_of(plain).splitlines() == [
        "error e: object",
        "    two",
        "    lines [red]",
        "    -> mend it",
        "warning w: object",
        "    detail",
        "info i: object",
        "    detail",
        "    -> remedy",
    ]


def test_the_report_tells_what_to_believe_and_what_to_do(report: RescueReport, plain: Console) -> None:
    print_report(plain, report)
    text = text_of(plain)
    workspace = "'/rescue/my data.pgrescue'"
    for words in (
        "Verdict: best-effort.",
        "/rescue/my data.pgrescue/report.json",
        "PostgreSQL 17.11 (native, strategy crash), app (5 MiB), postgres (7 MiB)",
        f"pgrescue psql -w {workspace}",
        f"pgrescue stop -w {workspace}",
        f"pgrescue rm -w {workspace}",
        "PGSERVICEFILE='/rescue/my data.pgrescue/pg_service.conf' psql service=pgrescue",
        "RECOVERY.md",
        f"Connect:  {report.shown_url}",
    ):
        assert words in text
    assert text.index("an_error") < text.index("a_warning") < text.index("Verdict")
    assert "[bold]not markup[/]" in text
    assert "an_info" not in text
    assert "(1 more of severity info in report.json)" in text


def test_commands_name_the_program_as_the_shell_finds_it(report: RescueReport, plain: Console) -> None:
    print_report(plain, report, program="/tmp/venv/bin/pgrescue")
    assert "/tmp/venv/bin/pgrescue stop -w" in text_of(plain)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_said_without_the_password_and_without_control_codes(
    report: RescueReport, plain: Console, terminal: Console, verdict: Verdict
) -> None:
    urls: dict[str, Any] = {"url": None, "shown_url": None} if verdict is Verdict.FAILED else {}
    for console in (plain, terminal):
        print_report(console, dataclasses.replace(report, verdict=verdict, **urls))
        assert verdict.value in text_of(console)
        assert PASSWORD not in text_of(console)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text_of(plain))


def test_a_failed_rescue_names_log_and_removal_only(report: RescueReport, plain: Console) -> None:
    print_report(plain, dataclasses.replace(report, verdict=Verdict.FAILED, url=None, shown_url=None))
    text = text_of(plain)
    assert "There is no server." in text
    assert "pgrescue logs -w" in text
    assert "pgrescue rm -w" in text
    assert "report.json" in text
    assert not [words for words in ("Connect:", "psql", "Stop:") if words in text]
