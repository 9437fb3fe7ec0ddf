"""The data directory's own configuration lets it start anywhere, or is what the user wants of it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.model import OwnConfig, Owner, Severity
from pgrescue.pipeline import Silent
from pgrescue.steps.blank_config import BlankConfig
from pgrescue.steps.own_config import FILES, TakenConfig
from tests.unit.builders import FakeEngine, data_directory, make_run, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pgrescue.run import Run
    from pgrescue.steps.own_config import ConfigRequest

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


FIRST = TakenConfig(Path("/clean/first"), {"custom.conf": b"port = 5433\n", "override.conf": b""})
SECOND = TakenConfig(Path("/clean/second"), {"custom.conf": b"", "override.conf": b"restore_command = 'caf\xe9'\n"})
CHOICES: Mapping[str, ConfigRequest] = {
    "blank": OwnConfig.BLANK,
    "keep": OwnConfig.KEEP,
    "first": FIRST,
    "second": SECOND,
}
SNAPSHOTS = {
    "promoted": CNPG,
    "primary": {**CNPG, "override.conf": ""},
    # A missing include.
    "broken": {name: text for name, text in CNPG.items() if name != "override.conf"},
    # CloudNativePG had no override.conf in its beginnings.
    "older": {**OWN, "postgresql.conf": "include 'custom.conf'\n", "custom.conf": "archive_mode = on\n"},
    "other": OWN,
}


def asking(run: Run, choice: str) -> Run:
    """Return the run of somebody who asks for this."""
    asked = CHOICES[choice]
    if isinstance(asked, TakenConfig):
        asked.save(run.workspace.taken_config)
        return dataclasses.replace(run, config=OwnConfig.TAKEN)
    return dataclasses.replace(run, config=asked)


def reach(run: Run, choice: str) -> None:
    """Take the step as the runner does."""
    run = asking(run, choice)
    if not BlankConfig().holds(run):
        BlankConfig().apply(run, Silent())
    assert BlankConfig().holds(run)


def expected(texts: Mapping[str, str], choice: str) -> dict[str, bytes]:
    """Return the two files in the copy of a snapshot with these files."""
    match CHOICES[choice]:
        case OwnConfig.BLANK:
            return {name: b"" for name in FILES if name in texts or name in texts["postgresql.conf"]}
        case OwnConfig.KEEP:
            return {name: texts[name].encode() for name in FILES if name in texts}
        case TakenConfig() as taken:
            return dict(taken.contents)


def check(run: Run, texts: Mapping[str, str], choice: str) -> None:
    """Assert that the copy is as asked for, that nothing of the snapshot is lost, and removed/ has nothing else."""
    pgdata, removed = run.workspace.pgdata, run.workspace.removed
    assert {name: (pgdata / name).read_bytes() for name in FILES if (pgdata / name).exists()} == expected(texts, choice)
    assert {name: (pgdata / name).read_text() for name in OWN} == {name: texts[name] for name in OWN}
    kept = files(removed)
    assert kept == {name: texts[name] for name in kept}
    for name in set(FILES) & set(texts):
        assert name in kept or (pgdata / name).read_text() == texts[name]


@pytest.mark.parametrize("texts", SNAPSHOTS.values(), ids=SNAPSHOTS)
@pytest.mark.parametrize("first", CHOICES)
def test_every_choice_after_every_other_is_as_if_it_were_the_first(
    tmp_path: Path, texts: dict[str, str], first: str
) -> None:
    for second, third in itertools.product(CHOICES, CHOICES):
        run = run_on(tmp_path / f"{second}-{third}", texts)
        for choice in (first, second, third):
            reach(run, choice)
            check(run, texts, choice)


class Killed(BaseException):
    """The end of the process."""


@contextlib.contextmanager
def killed_at(change: int, *, after: bool) -> Iterator[None]:
    """End the process before or after the n-th time that a file gets its place or loses it."""
    left = change

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *args: Any, **options: Any) -> Any:
            nonlocal left
            if path.name.startswith(".") and not args:
                return function(path, **options)  # write_atomically tidies up
            left -= 1
            if left == 0 and not after:
                raise Killed
            result = function(path, *args, **options)
            if left == 0:
                raise Killed
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, killing(getattr(Path, name)))
        yield


@pytest.mark.parametrize("texts", [SNAPSHOTS["promoted"], SNAPSHOTS["older"]], ids=["promoted", "older"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(CHOICES, 2)))
def test_a_kill_anywhere_is_made_good_by_the_next_run_whatever_it_asks(
    tmp_path: Path,
    texts: dict[str, str],
    first: str,
    second: str,
    after: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    kills = 0
    for change, third in itertools.product(range(1, 7), sorted({second, "keep"})):
        run = run_on(tmp_path / f"{change}-{third}", texts)
        reach(run, first)
        changed = asking(run, second)
        with contextlib.suppress(Killed), killed_at(change, after=after):
            BlankConfig().apply(changed, Silent())
            continue
        kills += 1
        reach(run, third)
        check(run, texts, third)
    assert kills


def test_where_nothing_is_to_be_done_nothing_is_written(tmp_path: Path) -> None:
    run = run_on(tmp_path, CNPG)
    reach(run, "keep")
    assert not run.workspace.copied_config.exists()
    reach(run, "first")
    made = {path: path.stat().st_ino for path in run.workspace.root.rglob("*") if path != run.workspace.taken_config}
    reach(run, "first")
    found = {path: path.stat().st_ino for path in run.workspace.root.rglob("*") if path != run.workspace.taken_config}
    assert found == made


def test_what_an_earlier_version_blanked_comes_back(tmp_path: Path) -> None:
    """It wrote nothing down, and made an empty override.conf where that was included and missing."""
    run = run_on(tmp_path, SNAPSHOTS["broken"])
    (run.workspace.pgdata / "custom.conf").replace(run.workspace.removed / "custom.conf")
    for name in FILES:
        (run.workspace.pgdata / name).touch()
    reach(run, "blank")
    for choice in ("keep", "first", "keep"):
        reach(run, choice)
        check(run, SNAPSHOTS["broken"], choice)


def test_a_file_that_is_not_known_as_the_snapshots_is_never_lost(tmp_path: Path) -> None:
    """As where it is a hard link, or larger than what is read of it beforehand."""
    run = run_on(tmp_path, OWN)
    (run.workspace.pgdata / "custom.conf").write_text("work_mem = '1MB'\n")
    for choice in ("first", "second", "blank", "keep"):
        reach(run, choice)
        assert files(run.workspace.removed) == {"custom.conf": "work_mem = '1MB'\n"}
    assert (run.workspace.pgdata / "custom.conf").read_text() == "work_mem = '1MB'\n"


def test_a_finding_tells_what_the_copy_has(tmp_path: Path) -> None:
    run = run_on(tmp_path, SNAPSHOTS["primary"])
    told = {}
    for choice in ("keep", "first", "blank"):
        reach(run, choice)
        told[choice] = BlankConfig().findings(asking(run, choice))
    [kept], [taken], [blanked] = told["keep"], told["first"], told["blank"]
    assert (kept.code, kept.severity, kept.object) == ("config_kept", Severity.WARNING, "custom.conf")
    assert "--config-from" in kept.remedy
    assert (taken.code, taken.severity, taken.object) == ("config_taken", Severity.INFO, "override.conf, custom.conf")
    assert "/clean/first" in taken.detail
    assert (blanked.code, blanked.severity, blanked.object) == ("config_blanked", Severity.INFO, "custom.conf")


def test_where_there_is_nothing_to_keep_nothing_is_told(tmp_path: Path) -> None:
    run = run_on(tmp_path, OWN)
    reach(run, "keep")
    assert BlankConfig().findings(asking(run, "keep")) == ()


@pytest.mark.parametrize("choice", ["blank", "keep", "first"])
def test_new_files_belong_to_who_runs_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    run = run_on(tmp_path, CNPG, FakeEngine(owner=Owner(os.getuid(), os.getgid())))
    if choice == "keep":
        reach(run, "second")
    owned: list[tuple[str, int, int]] = []
    monkeypatch.setattr("os.chown", lambda path, uid, gid: owned.append((path.name, uid, gid)))
    run = dataclasses.replace(run, engine=FakeEngine(owner=Owner(999, 998)))
    reach(run, choice)
    assert sorted(owned) == [("custom.conf", 999, 998), ("override.conf", 999, 998)]
