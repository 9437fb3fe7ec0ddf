"""Which snapshot is the newest, on directories as backup tools leave them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pgrescue.drill.newest import NoSnapshotError, choose_snapshot
from tests.unit.builders import let_others_pass

if TYPE_CHECKING:
    from pathlib import Path


def _touch(path: Path, time: str = "2026-11-01 00:00", content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return _modified(path, time)


def _modified(path: Path, time: str) -> Path:
    stamp = datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()
    os.utime(path, (stamp, stamp))
    return path


def _barman(
    server: Path, backup_id: str, *, ended: str | None = None, status: str = "DONE", tar: str = "data.tar"
) -> Path:
    """Make a barman backup; without an end and a status, it has no backup.info."""
    folder = server / "base" / backup_id
    made = _touch(folder / tar)
    if ended is not None or status != "DONE":
        _touch(folder / "backup.info", content=f"backup_label=None\nstatus={status}\nend_time={ended}\n")
    return made


def _data_directory(path: Path, time: str) -> Path:
    _touch(path / "PG_VERSION", content="17\n")
    _touch(path / "global" / "pg_control", time)
    return path


def test_a_plain_path_is_taken_as_it_is(tmp_path: Path) -> None:
    for path in (tmp_path, _touch(tmp_path / "anything"), _touch(tmp_path / "odd[1]*?.tar")):
        chosen = choose_snapshot(str(path), takes_newest=False)
        assert (chosen.path, chosen.because) == (path, "")
    assert choose_snapshot(str(tmp_path / "anything"), takes_newest=True).path == tmp_path / "anything"


def test_a_path_that_is_missing_is_named_with_what_is_there(tmp_path: Path) -> None:
    _touch(tmp_path / "other.tar")
    with pytest.raises(NoSnapshotError, match=r"missing/deep\.tar does not exist") as caught:
        choose_snapshot(str(tmp_path / "missing" / "deep.tar"), takes_newest=False)
    assert f"In {tmp_path} there are: other.tar." in caught.value.hint
    (tmp_path / "other.tar").unlink()
    with pytest.raises(NoSnapshotError) as caught:
        choose_snapshot(str(tmp_path / "missing" / "deep.tar"), takes_newest=True)
    assert caught.value.hint == f"{tmp_path} is empty."


def test_the_newest_is_told_by_the_end_in_backup_info(tmp_path: Path) -> None:
    # Its id, its name and its modification are older than the others'.
    newest = _barman(tmp_path, "20261101T000000", ended="2026-11-22 10:15:30.5+02:00")
    _barman(tmp_path, "20261120T000000", ended="2026-11-22 07:00:00+00:00")
    _modified(_barman(tmp_path, "20261121T000000", ended="2026-11-21 00:00:00+00:00"), "2026-12-31 00:00")
    for pattern in ("base/*", "base/*/data.tar*", "**/data.tar"):
        chosen = choose_snapshot(f"{tmp_path}/{pattern}", takes_newest=False)
        assert chosen.path == newest
        assert chosen.because.startswith("the newest of 3 by backup.info: ended 2026-11-22 08:15 UTC; also there: ")
        assert f"{tmp_path}/base/20261120T000000/data.tar (ended 2026-11-22 07:00 UTC)" in chosen.because


@pytest.mark.parametrize("below", ["", "base"])
def test_below_a_directory_barmans_backups_are_found(tmp_path: Path, below: str) -> None:
    _barman(tmp_path, "20261120T000000", ended="2026-11-20 01:00:00+00:00")
    newest = _barman(tmp_path, "20261121T000000", ended="2026-11-21 01:00:00+00:00", tar="data.tar.gz")
    _touch(tmp_path / "wals" / "0000000100000000" / "000000010000000000000001", "2026-12-01 00:00")
    assert choose_snapshot(str(tmp_path / below), takes_newest=True).path == newest


def test_without_backup_info_barmans_id_tells(tmp_path: Path) -> None:
    newest = _barman(tmp_path, "20261122T081501")
    _modified(_barman(tmp_path, "20261121T081501"), "2026-12-31 00:00")
    chosen = choose_snapshot(f"{tmp_path}/base/*", takes_newest=True)
    assert chosen.path == newest
    assert chosen.because.startswith("the newest of 2 by barman's id: begun 2026-11-22 08:15 by barman's clock; ")


def test_else_the_modification_tells(tmp_path: Path) -> None:
    for number, name in enumerate(("c.tar", "a.tgz", "b.tar.gz", "d.tar.bz2", "e.tar"), start=1):
        _touch(tmp_path / name, f"2026-11-0{number} 00:00")
    chosen = choose_snapshot(f"{tmp_path}/*", takes_newest=False)
    assert chosen.path == tmp_path / "e.tar"
    assert chosen.because.startswith(
        "the newest of 5 by modification time: modified 2026-11-05 00:00 UTC; also there: "
    )
    assert chosen.because.endswith("c.tar (modified 2026-11-01 00:00 UTC)") is False
    assert chosen.because.endswith(" and 1 more")


def test_a_data_directory_was_modified_when_its_control_file_was(tmp_path: Path) -> None:
    _modified(_data_directory(tmp_path / "a", "2026-11-01 00:00"), "2026-12-31 00:00")
    _data_directory(tmp_path / "b" / "data", "2026-11-03 00:00")
    _data_directory(tmp_path / "c" / "pgdata", "2026-11-02 00:00")
    chosen = choose_snapshot(f"{tmp_path}/*", takes_newest=True)
    assert chosen.path == tmp_path / "b"
    assert "modified 2026-11-03 00:00 UTC" in chosen.because


def test_a_directory_that_is_a_snapshot_is_its_own_newest(tmp_path: Path) -> None:
    _data_directory(tmp_path / "it", "2026-11-01 00:00")
    _touch(tmp_path / "it" / "later.tar", "2026-12-01 00:00")
    chosen = choose_snapshot(str(tmp_path / "it"), takes_newest=True)
    assert chosen.path == tmp_path / "it"
    assert chosen.because == "the only one: modified 2026-11-01 00:00 UTC"


def test_where_signs_differ_times_are_compared_and_it_is_said(tmp_path: Path) -> None:
    finished = _barman(tmp_path, "20261120T000000", ended="2026-11-20 01:00:00+00:00")
    copy = _touch(tmp_path / "base" / "copy.tar", "2026-11-19 00:00")
    chosen = choose_snapshot(f"{tmp_path}/base/*", takes_newest=False)
    assert chosen.path == finished
    assert chosen.because == (
        "the newest of 2 as far as can be told, by its backup.info: ended 2026-11-20 01:00 UTC; "
        f"also there: {copy} (modified 2026-11-19 00:00 UTC)"
    )
    _modified(copy, "2026-11-21 00:00")
    assert choose_snapshot(f"{tmp_path}/base/*", takes_newest=False).path == copy


def test_a_tie_goes_to_the_better_sign_then_the_last_name(tmp_path: Path) -> None:
    finished = _barman(tmp_path, "20261120T000000", ended="2026-11-20 00:00:00+00:00")
    _touch(tmp_path / "base" / "zzz.tar", "2026-11-20 00:00")
    assert choose_snapshot(f"{tmp_path}/base/*", takes_newest=False).path == finished
    for name in "bca":
        _touch(tmp_path / "same" / f"{name}.tar", "2026-11-20 00:00")
    assert choose_snapshot(f"{tmp_path}/same/*", takes_newest=False).path.name == "c.tar"


@pytest.mark.parametrize("status", ["FAILED", "STARTED", "EMPTY", "SYNCING", "WAITING_FOR_WALS"])
def test_what_is_not_done_is_passed_over_and_said(tmp_path: Path, status: str) -> None:
    good = _barman(tmp_path, "20261120T000000", ended="2026-11-20 01:00:00+00:00")
    bad = _barman(tmp_path, "20261121T000000", ended="2026-11-21 01:00:00+00:00", status=status)
    chosen = choose_snapshot(str(tmp_path), takes_newest=True)
    assert chosen.path == good
    assert chosen.because == (f"the only one: ended 2026-11-20 01:00 UTC; passed over: {bad} (its status is {status})")
    (tmp_path / "base" / "20261120T000000" / "data.tar").unlink()
    with pytest.raises(NoSnapshotError, match=f"has ended well: .*its status is {status}"):
        choose_snapshot(str(tmp_path), takes_newest=True)


def test_a_backup_without_backup_info_beside_ones_that_have_it_is_under_way(tmp_path: Path) -> None:
    good = _barman(tmp_path / "one", "20261120T000000", ended="2026-11-20 01:00:00+00:00")
    under_way = _barman(tmp_path / "one", "20261121T000000")
    chosen = choose_snapshot(str(tmp_path / "one"), takes_newest=True)
    assert chosen.path == good
    assert f"passed over: {under_way} (it has no backup.info" in chosen.because
    # Those of another server say nothing of it.
    other = _barman(tmp_path / "two", "20261122T000000")
    assert choose_snapshot(f"{tmp_path}/*/base/*", takes_newest=True).path == other


@pytest.mark.parametrize(
    "info",
    [
        "status=DONE\nend_time=None\n",
        "status=DONE\nend_time=Tue Nov 10 08:15:01 2026\n",
        "status=DONE\nend_time=9999-12-31T23:59:59-14:00\n",
        "neither\n",
        "",
    ],
)
def test_where_backup_info_says_nothing_of_the_end_the_id_tells(tmp_path: Path, info: str) -> None:
    older = _barman(tmp_path, "20261120T000000", ended="2026-11-20 01:00:00+00:00")
    newer = _barman(tmp_path, "20261121T000000")
    _touch(newer.parent / "backup.info", content=info)
    assert choose_snapshot(str(tmp_path), takes_newest=True).path == newer
    assert older.exists()


def test_what_only_looks_like_an_id_is_none(tmp_path: Path) -> None:
    _touch(tmp_path / "99999999T999999.tar", "2026-11-02 00:00")
    _touch(tmp_path / "20261101T000000.tar", "2026-12-31 00:00")
    assert choose_snapshot(f"{tmp_path}/*", takes_newest=False).path.name == "99999999T999999.tar"


def test_what_is_no_snapshot_is_none(tmp_path: Path) -> None:
    for name in (
        *("backup.info", "drill.history.jsonl", "drill.yaml", "x.tar.sha256", "x.tar.part", ".hidden.tar", "notes.txt"),
        *("pg_wal.tar", "pg_wal.tar.gz", "16384.tar", "data_0001.tar", "data_0001.tar.gz", "dump.sql.gz"),
        *("wals/0000000100000000/000000010000000000000001", "lost+found/x", "empty.pgrescue/x"),
    ):
        _touch(tmp_path / name)
    _data_directory(tmp_path / "mine.pgrescue" / "pgdata", "2026-11-01 00:00")
    _data_directory(tmp_path / "nightly-1.drill" / "pgdata", "2026-11-01 00:00")
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "dangling.tar").symlink_to("nowhere")
    for text, newest in ((f"{tmp_path}/*", False), (str(tmp_path), True)):
        with pytest.raises(NoSnapshotError, match="matches no snapshot") as caught:
            choose_snapshot(text, takes_newest=newest)
        assert f"In {tmp_path} there are: " in caught.value.hint
        assert " more. A snapshot is " in caught.value.hint
    base = _touch(tmp_path / "set" / "base.tar.gz", "2026-11-01 00:00")
    for name in ("pg_wal.tar.gz", "16384.tar.gz"):
        _touch(base.with_name(name), "2026-12-01 00:00")
    for text in (f"{tmp_path}/*", f"{tmp_path}/set/*", f"{tmp_path}/s*t"):
        assert choose_snapshot(text, takes_newest=False).path == base


def test_a_pattern_without_a_match_names_what_is_there(tmp_path: Path) -> None:
    _touch(tmp_path / "weekly" / "a.tar")
    with pytest.raises(NoSnapshotError, match=r"nightly-\*/\[ab\]\.tar matches no snapshot") as caught:
        choose_snapshot(f"{tmp_path}/nightly-*/[ab].tar", takes_newest=False)
    assert caught.value.hint.startswith(f"In {tmp_path} there are: weekly.")


def test_links_are_followed_to_snapshots(tmp_path: Path) -> None:
    _touch(tmp_path / "store" / "x.tar")
    (tmp_path / "latest.tar").symlink_to("store/x.tar")
    assert choose_snapshot(f"{tmp_path}/*.tar", takes_newest=False).path == tmp_path / "latest.tar"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_cannot_be_read_is_an_error_not_an_older_backup(tmp_path: Path) -> None:
    _barman(tmp_path, "20261120T000000", ended="2026-11-20 01:00:00+00:00")
    closed = _barman(tmp_path, "20261121T000000", ended="2026-11-21 01:00:00+00:00").parent
    let_others_pass(tmp_path)
    closed.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(NoSnapshotError, match="20261121T000000: Permission denied"):
            choose_snapshot(str(tmp_path), takes_newest=True)
    finally:
        os.seteuid(0)
