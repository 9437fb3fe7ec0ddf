"""The data directory's own configuration lets it start anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgrescue.model import Owner
from pgrescue.pipeline import Silent
from pgrescue.steps.blank_config import BlankConfig
from tests.unit.builders import FakeEngine, data_directory, make_run, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.run import Run

OWN = {"postgresql.conf": "port = 5432\n", "pg_hba.conf": "local all all trust\n", "pg_ident.conf": "# none\n"}
CNPG = {
    **OWN,
    "postgresql.conf": "include 'custom.conf'\ninclude 'override.conf'\n",
    "custom.conf": "archive_mode = on\n",
    "override.conf": "restore_command = '/controller/manager'\n",
}


def run_on(root: Path, texts: dict[str, str], engine: FakeEngine | None = None) -> Run:
    run = make_run(root, engine, of=snapshot(data_directory(texts={"PG_VERSION": "17\n", **texts})))
    for name, text in texts.items():
        (run.workspace.pgdata / name).write_text(text)
    return run


def files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_what_names_paths_of_the_pod_is_blanked_and_kept(tmp_path: Path) -> None:
    run = run_on(tmp_path, CNPG)
    assert not BlankConfig().holds(run)
    BlankConfig().apply(run, Silent())
    assert BlankConfig().holds(run)
    assert files(run.workspace.pgdata) == {**CNPG, "custom.conf": "", "override.conf": ""}
    assert files(run.workspace.removed) == {name: CNPG[name] for name in ("custom.conf", "override.conf")}
    [found] = BlankConfig().findings(run)
    assert (found.code, found.object) == ("config_blanked", "override.conf, custom.conf")


def test_an_included_file_that_is_missing_is_made(tmp_path: Path) -> None:
    run = run_on(tmp_path, {name: text for name, text in CNPG.items() if name != "override.conf"})
    assert not BlankConfig().holds(run)
    BlankConfig().apply(run, Silent())
    assert BlankConfig().holds(run)
    assert (run.workspace.pgdata / "override.conf").read_text() == ""
    assert set(files(run.workspace.removed)) == {"custom.conf"}


def test_a_server_of_another_kind_keeps_its_configuration(tmp_path: Path) -> None:
    run = run_on(tmp_path, OWN)
    assert BlankConfig().holds(run)
    BlankConfig().apply(run, Silent())
    assert files(run.workspace.pgdata) == OWN
    assert BlankConfig().findings(run) == ()


@pytest.mark.parametrize("missing", OWN)
def test_a_configuration_file_that_lay_elsewhere_is_replaced(tmp_path: Path, missing: str) -> None:
    run = run_on(tmp_path, {name: text for name, text in OWN.items() if name != missing})
    assert not BlankConfig().holds(run)
    BlankConfig().apply(run, Silent())
    assert BlankConfig().holds(run)
    made = files(run.workspace.pgdata)
    assert made[missing].startswith("# Written by pgrescue")
    assert "trust" not in made[missing]
    assert {name: text for name, text in made.items() if name != missing} == {
        name: text for name, text in OWN.items() if name != missing
    }


def test_after_a_kill_between_keeping_and_blanking_the_original_stays_kept(tmp_path: Path) -> None:
    run = run_on(tmp_path, CNPG)
    (run.workspace.pgdata / "override.conf").replace(run.workspace.removed / "override.conf")
    BlankConfig().apply(run, Silent())
    BlankConfig().apply(run, Silent())
    assert BlankConfig().holds(run)
    assert files(run.workspace.removed)["override.conf"] == CNPG["override.conf"]
    assert files(run.workspace.removed)["custom.conf"] == CNPG["custom.conf"]


def test_new_files_belong_to_who_runs_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned: list[tuple[str, int, int]] = []
    monkeypatch.setattr("os.chown", lambda path, uid, gid: owned.append((path.name, uid, gid)))
    run = run_on(tmp_path, CNPG, FakeEngine(owner=Owner(999, 998)))
    BlankConfig().apply(run, Silent())
    assert sorted(owned) == [("custom.conf", 999, 998), ("override.conf", 999, 998)]
