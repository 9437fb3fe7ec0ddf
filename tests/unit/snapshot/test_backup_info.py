from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, PgVersion, Timeline
from pgrescue.snapshot.backup_info import parse_backup_info
from pgrescue.snapshot.backup_label import parse_backup_label
from pgrescue.snapshot.tablespace_map import TablespaceLink
from pgrescue.snapshot.wal import SegmentName

from .conftest import DATA

INFO = (DATA / "backup_17.info").read_text()


def _with(key: str, value: str) -> str:
    changed, count = re.subn(rf"^{key}=.*$", lambda _: f"{key}={value}", INFO, flags=re.MULTILINE)
    assert count == 1
    return changed


def test_what_barman_cloud_backup_wrote() -> None:
    info = parse_backup_info(INFO)
    assert info.status == "DONE"
    assert info.is_done
    assert info.version == PgVersion(17, 10)
    assert info.timeline == Timeline(1)
    assert info.begin_wal == SegmentName.parse("000000010000000000000002")
    assert info.end_wal == SegmentName.parse("000000010000000000000002")
    assert info.begin_lsn == Lsn.parse("0/2000028")
    assert info.end_lsn == Lsn.parse("0/2050510")
    assert info.system_identifier == 7710906428667462182
    assert info.segment_size == 16 << 20
    assert info.tablespaces == ()
    assert info.compression is None
    assert not info.has_volume_snapshots
    assert info.backup_label is not None
    label = parse_backup_label(info.backup_label)
    assert label.start_lsn == info.begin_lsn


@pytest.mark.parametrize("status", ["STARTED", "FAILED", "EMPTY", "WAITING_FOR_WALS", "SYNCING"])
def test_other_statuses_are_not_done(status: str) -> None:
    info = parse_backup_info(_with("status", status))
    assert info.status == status
    assert not info.is_done


def test_a_backup_that_has_only_begun() -> None:
    info = parse_backup_info("status=STARTED\nversion=150004\nend_wal=None\nbackup_label=None\n")
    assert info.version == PgVersion(15, 4)
    assert info.end_wal is None
    assert info.backup_label is None
    assert info.segment_size == 16 << 20


def test_tablespaces() -> None:
    info = parse_backup_info(_with("tablespaces", "[('fast', 16387, '/srv/fast'), ('o', 16388, '/srv/it\\'s')]"))
    assert info.tablespaces == (TablespaceLink(16387, "/srv/fast"), TablespaceLink(16388, "/srv/it's"))


def test_volume_snapshots_and_names() -> None:
    info = parse_backup_info(INFO + "snapshots_info={'provider': 'aws'}\nbackup_name=nightly\nnew_key=1\n")
    assert info.has_volume_snapshots
    assert info.backup_name == "nightly"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "seventeen"),
        ("timeline", "-1"),
        ("begin_wal", "0002"),
        ("end_xlog", "0-1"),
        ("systemid", "0x10"),
        ("xlog_segment_size", "16MB"),
        ("backup_label", "__import__('os').getcwd()"),
        ("backup_label", "['a']"),
        ("backup_label", "'unterminated"),
        ("tablespaces", "[('a', 'b', 'c')]"),
        ("tablespaces", "[('a', True, 'c')]"),
        ("tablespaces", "{'a': 1}"),
        ("tablespaces", "[[[["),
        ("tablespaces", "(" * 5000),
        ("tablespaces", "[" + "-" * 100_000 + "1]"),
    ],
)
def test_values_that_cannot_be_are_named(key: str, value: str) -> None:
    with pytest.raises(SnapshotError, match=key) as caught:
        parse_backup_info(_with(key, value))
    assert len(caught.value.problem) < 250


def test_what_is_no_backup_info() -> None:
    with pytest.raises(SnapshotError, match="line 1"):
        parse_backup_info("<html>")
    with pytest.raises(SnapshotError, match="status"):
        parse_backup_info("# nothing\n\n")


@given(st.integers(0, len(INFO) - 1), st.characters())
def test_one_changed_character_raises_nothing_else(position: int, character: str) -> None:
    with contextlib.suppress(SnapshotError):
        parse_backup_info(INFO[:position] + character + INFO[position + 1 :])


@given(st.sampled_from(["backup_label", "tablespaces", "version", "timeline", "begin_wal", "end_xlog"]), st.text())
def test_any_value_raises_nothing_else(key: str, value: str) -> None:
    with contextlib.suppress(SnapshotError):
        parse_backup_info(f"status=DONE\n{key}={value}\n")


@given(st.text())
def test_a_label_is_read_as_written(text: str) -> None:
    assert parse_backup_info(f"status=DONE\nbackup_label={text!r}\n").backup_label == text
