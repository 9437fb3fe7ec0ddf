"""`pgrescue local`, with the rescue itself replaced."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.errors import DiskSpaceError, RescueError
from pgrescue.ledger import EngineRecord, Ledger
from pgrescue.model import EngineName, OwnConfig, RescueReport, StrategyName, Verdict
from pgrescue.steps.own_config import TakenConfig
from tests.unit.cli.conftest import pgrescue
from tests.unit.report.conftest import PASSWORD
from tests.unit.report.conftest import report as report_fixture
from tests.unit.snapshot.conftest import DATA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgrescue.pipeline import Observer
    from pgrescue.snapshot.contents import Snapshot
    from pgrescue.strategy.rescue import RescuePlan
    from pgrescue.workspace import Workspace

report = report_fixture


@pytest.fixture
def plans(
    monkeypatch: pytest.MonkeyPatch, module: Callable[[str], Any], report: RescueReport
) -> Callable[..., list[RescuePlan]]:
    """Return what replaces the rescue by a verdict or an error, and gives the plans that it was asked."""

    def replace(verdict: Verdict = Verdict.BEST_EFFORT, error: RescueError | None = None) -> list[RescuePlan]:
        asked: list[RescuePlan] = []

        def rescue(snapshot: Snapshot, workspace: Workspace, plan: RescuePlan, _: Observer) -> RescueReport:
            asked.append(plan)
            if error is not None:
                raise error
            record = EngineRecord(EngineName.NATIVE)
            Ledger.begin(workspace.ledger, snapshot=snapshot.path, fingerprint="f", major=17, engine=record)
            return dataclasses.replace(report, verdict=verdict, workspace=workspace.root)

        monkeypatch.setattr(module("local"), "rescue", rescue)
        return asked

    return replace


def test_json_is_one_object_with_the_url_and_the_kept_report_has_no_password(
    here: Path, backup: Path, plans: Callable[..., list[RescuePlan]]
) -> None:
    plans()
    done = pgrescue("local", backup, "--json")
    assert done.status == 0
    assert PASSWORD in done.document()["url"]
    assert PASSWORD not in done.stderr
    kept = here / "data.pgrescue/report.json"
    assert json.loads(kept.read_text())["verdict"] == "best-effort"
    assert not [path for path in here.rglob("*") if path.is_file() and PASSWORD in path.read_text()]


def test_for_a_person_the_password_is_not_shown(
    here: Path, backup: Path, plans: Callable[..., list[RescuePlan]]
) -> None:
    plans()
    done = pgrescue("local", backup, "-w", "elsewhere")
    assert done.status == 0
    assert "Verdict: best-effort." in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    assert (here / "elsewhere/report.json").exists()


@pytest.mark.parametrize("required", [None, "consistent", "best-effort"])
@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.usefixtures("here")
def test_the_exit_status(
    backup: Path, plans: Callable[..., list[RescuePlan]], verdict: Verdict, required: str | None
) -> None:
    plans(verdict)
    done = pgrescue("local", backup, "--json", *(["--require", required] if required else []))
    order = list(Verdict)
    enough = required is None or order.index(verdict) <= order.index(Verdict(required))
    assert done.status == (1 if verdict is Verdict.FAILED else 0 if enough else 3)
    assert done.document()["verdict"] == verdict.value


@pytest.mark.usefixtures("here")
def test_options_become_the_plan(backup: Path, plans: Callable[..., list[RescuePlan]]) -> None:
    asked = plans()
    pgrescue("local", backup)
    pgrescue(
        *("local", backup, "--engine", "docker", "--image", "own:17", "--strategy", "reset"),
        *("--plain-reset", "--port", "5499"),
    )
    plain, own = asked
    assert (plain.engine.name, plain.strategy, plain.computes_reset, plain.port) == (None, None, True, None)
    assert (own.engine.name, own.engine.image) == (EngineName.DOCKER, "own:17")
    assert (own.strategy, own.computes_reset, own.port) == (StrategyName.RESET, False, 5499)


def test_the_copys_own_settings_become_a_part_of_the_plan(
    here: Path, backup: Path, plans: Callable[..., list[RescuePlan]]
) -> None:
    asked = plans()
    clean = here / "clean"
    clean.mkdir()
    (clean / "override.conf").touch()
    (clean / "custom.conf").write_bytes(b"cluster_name = 'caf\xe9'\n")
    for options in ((), ("--config-from", "blank"), ("--config-from", "keep"), ("--config-from", "clean")):
        assert pgrescue("local", backup, *options).status == 0
    taken = TakenConfig(clean, {"override.conf": b"", "custom.conf": b"cluster_name = 'caf\xe9'\n"})
    assert [plan.config for plan in asked] == [None, OwnConfig.BLANK, OwnConfig.KEEP, taken]


@pytest.mark.parametrize("missing", ["clean", "override.conf", "custom.conf"])
def test_settings_that_cannot_be_taken_are_refused_before_anything_else(
    here: Path, plans: Callable[..., list[RescuePlan]], missing: str
) -> None:
    asked = plans()
    if missing != "clean":
        (here / "clean").mkdir()
        for name in {"override.conf", "custom.conf"} - {missing}:
            (here / "clean" / name).touch()
    before = sorted(here.rglob("*"))
    done = pgrescue("local", "absent.tar", "--config-from", "clean", "--json")
    error = done.document()["error"]
    assert (done.status, asked) == (2, [])
    assert f"--config-from: {here}/clean" in error["problem"]
    assert "does not exist" in error["problem"]
    assert error["hint"]
    assert sorted(here.rglob("*")) == before


def test_an_error_before_the_ledger_leaves_no_workspace(
    here: Path, backup: Path, plans: Callable[..., list[RescuePlan]]
) -> None:
    plans(error=DiskSpaceError("the disk is full", hint="free some"))
    done = pgrescue("local", backup, "--json")
    assert done.status == 1
    assert done.document()["error"] == {"problem": "the disk is full", "hint": "free some", "exit_status": 1}
    assert list(here.iterdir()) == []


def test_what_lies_in_the_way_is_untouched(here: Path, backup: Path, plans: Callable[..., list[RescuePlan]]) -> None:
    asked = plans()
    (here / "data.pgrescue").mkdir()
    (here / "data.pgrescue/letter").write_text("dear")
    done = pgrescue("local", backup, "--json")
    assert done.status == 2
    assert "in the way" in done.document()["error"]["problem"]
    assert (asked, (here / "data.pgrescue/letter").read_text()) == ([], "dear")


def test_a_workspace_that_another_process_holds_is_busy(
    here: Path, backup: Path, plans: Callable[..., list[RescuePlan]], rescued: Callable[..., Workspace]
) -> None:
    asked = plans()
    with rescued().locked():
        done = pgrescue("local", backup, "--json")
    assert (done.status, asked) == (1, [])
    assert "another pgrescue" in done.document()["error"]["problem"]
    assert (here / "data.pgrescue/ledger.json").exists()


def test_nothing_is_ever_written_into_a_snapshot(
    tmp_path: Path, plans: Callable[..., list[RescuePlan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plans()
    pgdata = tmp_path / "pgdata"
    (pgdata / "global").mkdir(parents=True)
    (pgdata / "PG_VERSION").write_text("17\n")
    (pgdata / "global/pg_control").write_bytes((DATA / "pg_control_17.bin").read_bytes())
    monkeypatch.chdir(pgdata)
    done = pgrescue("local", pgdata, "--json")
    assert (done.status, asked) == (2, [])
    assert "within the snapshot" in done.document()["error"]["problem"]
    assert sorted(path.name for path in pgdata.iterdir()) == ["PG_VERSION", "global"]
