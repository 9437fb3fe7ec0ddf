"""A drill that is stopped, by whom and when ever: nothing runs on, nothing stays, and the reports say so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli import TIMEOUT_S, environment
from tests.conftest import require_engine
from tests.drilling import REPORTS, WORK, check_nothing_left, command, drill, write_drill
from tests.e2e import inputs
from tests.e2e.accidents import ended, processes_in, with_accident

if TYPE_CHECKING:
    from pathlib import Path

STARTED = "pgrescue.report.console:Plain.started"
# Where a signal arrives, SIGTERM unless another is named: when a phase begins, as the log shows it, or in the midst of
# a function. What only one engine does differently, programs and servers, is tried on both.
PHASES: dict[str, dict[str, Any]] = {
    "reading the snapshot": {"at": STARTED, "only": ("started", "read")},
    "unpacking": {"at": STARTED, "only": ("started", "unpack")},
    "resetting the WAL": {"at": STARTED, "only": ("started", "reset-wal")},
    "repairing": {"at": STARTED, "only": ("started", "repair")},
    "checking": {"at": STARTED, "only": ("started", "verify"), "by": signal.SIGHUP},
    "asking": {"at": STARTED, "only": ("started", "ask")},
    "making the target": {"at": "pgrescue.drill.throwaway:_initialize", "after": True},
    "moving": {"at": STARTED, "only": ("started", "move")},
    "comparing": {"at": STARTED, "only": ("started", "compare")},
}
ON_DOCKER = ("unpacking", "repairing", "checking", "making the target", "moving")
CASES = [
    *(pytest.param("native", phase, marks=pytest.mark.native) for phase in PHASES),
    *(pytest.param("docker", phase, marks=pytest.mark.docker) for phase in ON_DOCKER),
]


def content(engine: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "stopped",
        "snapshot": str(inputs.SAMPLE),
        "engine": engine,
        "checks": [{"database": "portal", "sql": "select count(*) from orders", "expect": ">= 1"}],
        "transfer": {"target": "throwaway", "database": "portal"},
        **changes,
    }


def check_told(root: Path, *, name: str = "stopped") -> None:
    """Assert that the reports of a drill that was stopped say that nothing was verified."""
    document = json.loads((root / REPORTS / "drill.json").read_text())
    (found,) = [one for one in document["drills"] if one["name"] == name]
    assert document["outcome"] == "could-not-verify"
    assert {one["outcome"] for one in found["assertions"]} == {"could-not-verify"}
    assert "interrupted" in found["problem"]


@pytest.mark.parametrize(("engine", "phase"), CASES)
def test_a_signal_in_each_phase_leaves_nothing(engine: str, phase: str, tmp_path: Path) -> None:
    require_engine(engine)
    file = write_drill(tmp_path, content(engine))
    done = ended(with_accident(command(file), cwd=tmp_path, **{"by": signal.SIGTERM, **PHASES[phase]}))
    assert done.status == 130, done.stderr
    check_nothing_left(tmp_path)
    check_told(tmp_path)


def started(file: Path, *options: str) -> subprocess.Popen[str]:
    """Start a drill, as CI does."""
    return subprocess.Popen(
        [sys.executable, "-m", "pgrescue", *command(file, *options)],
        cwd=file.parent,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_line(process: subprocess.Popen[str], words: str) -> None:
    """Read the log until a line holds these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"the drill never said {words!r}")


@pytest.mark.native
def test_a_second_signal_does_not_break_off_the_clearing_away(tmp_path: Path) -> None:
    sql = {"database": "portal", "sql": "select 1 from pg_sleep(100)", "expect": "== 1"}
    with started(write_drill(tmp_path, content("native", checks=[sql]))) as process:
        await_line(process, "recovered copy is sound")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        for _ in range(20):
            time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    check_nothing_left(tmp_path)


@pytest.mark.native
def test_a_signal_ends_the_command_after_it_with_all_that_it_started(tmp_path: Path) -> None:
    # The shell's parent is pgrescue; what it started in the background ignores the signal.
    script = "(trap '' TERM; cd {work}; echo $$ > {root}/pids; exec sleep 321) & kill -TERM $PPID; wait"
    after = script.format(work=tmp_path / WORK, root=tmp_path)
    file = write_drill(tmp_path, content("native", after={"command": after, "database": "portal"}, transfer=None))
    file.write_text(file.read_text().replace("transfer: null\n", ""))
    with started(file) as process:
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert (tmp_path / "pids").exists()
    check_nothing_left(tmp_path)


@pytest.mark.native
def test_a_killed_drill_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    file = write_drill(tmp_path, content("native"))
    process = with_accident(command(file), cwd=tmp_path, by=signal.SIGKILL, **PHASES["moving"])
    assert ended(process).status == -signal.SIGKILL
    assert len(list((tmp_path / WORK).iterdir())) == 1
    assert [one for one in processes_in(tmp_path / WORK) if "bin/postgres -D " in one]
    drill(file).came_to("passed")
    check_nothing_left(tmp_path)


def several(root: Path, **changes: Any) -> Path:
    drills: list[dict[str, Any]] = [
        {"name": "one", "snapshot": str(inputs.SAMPLE), "checks": [{"sql": "select 1", "expect": "== 1"}]},
        {"name": "two", "snapshot": str(inputs.SAMPLE), "checks": [{"sql": "select 1", "expect": "== 2"}]},
        {"name": "three", "snapshot": "nothing/*.tar", "rto_budget": "1 h"},
    ]
    return write_drill(root, {"engine": "native", "drills": [{**one, **changes} for one in drills]})


@pytest.mark.native
def test_several_at_once_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    done = drill(several(tmp_path, require="best-effort"), "--jobs", "3").came_to("failed")
    assert [(one["name"], one["outcome"]) for one in done.document["drills"]] == [
        ("one", "passed"),
        ("two", "failed"),
        ("three", "could-not-verify"),
    ]
    assert "[one] " in done.said
    check_nothing_left(tmp_path)
    alone = drill(several(tmp_path), "--only", "one", "--only", "three").came_to("could-not-verify")
    assert [one["name"] for one in alone.document["drills"]] == ["one", "three"]
    assert len(alone.named("one")["past"]) == 1


@pytest.mark.native
def test_a_signal_ends_all_of_them(tmp_path: Path) -> None:
    sql = [{"sql": "select 1 from pg_sleep(100)", "expect": "== 1"}]
    with started(several(tmp_path, checks=sql), "--jobs", "2") as process:
        await_line(process, "[one] passed: the recovered copy is sound")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    check_nothing_left(tmp_path)
    check_told(tmp_path, name="one")
    check_told(tmp_path, name="two")


@pytest.mark.native
def test_one_that_is_killed_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    kills = {"after": "kill -9 $PPID; sleep 1"}
    file = several(tmp_path)
    text = file.read_text().replace("- name: two", f"- after: {json.dumps(kills['after'])}\n  name: two")
    file.write_text(text)
    done = drill(file, "--jobs", "2").came_to("could-not-verify")
    assert done.named("one")["outcome"] == "passed"
    assert "signal 9" in done.named("two")["problem"]
    check_nothing_left(tmp_path)
