from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, Timeline
from pgrescue.snapshot.timeline_history import (
    TimelineHistory,
    TimelineSwitch,
    choose_timeline,
    parse_timeline_history,
    read_histories,
    segments_along,
)
from pgrescue.snapshot.wal_archive import read_archive

from .segments import MIB

if TYPE_CHECKING:
    from pathlib import Path

REAL = "1\t0/1700000\tno recovery target specified\n"
THREE = "# a comment\n\n1\t0/380000\tno recovery target specified\n\n  2\t0/580000\tbefore 2000-01-01 00:00:00+00\n"


def parse(number: int, text: str) -> TimelineHistory:
    return parse_timeline_history(Timeline(number), text)


def history(number: int, *switches: tuple[int, str]) -> TimelineHistory:
    entries = tuple(TimelineSwitch(Timeline(parent), Lsn.parse(lsn)) for parent, lsn in switches)
    return TimelineHistory(Timeline(number), entries)


def test_what_a_server_writes() -> None:
    found = parse(2, REAL)
    assert found.entries == (TimelineSwitch(Timeline(1), Lsn.parse("0/1700000"), "no recovery target specified"),)
    assert found.name == "00000002.history"


def test_comments_empty_lines_and_white_space() -> None:
    assert [(entry.timeline, str(entry.switch_lsn)) for entry in parse(3, THREE).entries] == [
        (1, "0/380000"),
        (2, "0/580000"),
    ]
    assert parse(3, THREE.replace("\n", "\r\n")) == parse(3, THREE)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing", "  # nothing\n"])
def test_no_ancestors(text: str) -> None:
    assert parse(2, text) == TimelineHistory(Timeline(2))


def test_a_line_without_a_reason() -> None:
    assert parse(2, "1\t0/1700000").entries[0].reason == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x\t0/1\n", 1),
        ("\n1\n", 2),
        ("1\t1700000\n", 1),
        ("1\t0/123456789\n", 1),
        ("1\t0/1\n\n1\t0/2\n", 3),
        ("2\t0/1\n1\t0/2\n", 2),
        ("0\t0/1\n", 1),
        ("-1\t0/1\n", 1),
        ("5\t0/1\n", 1),
        ("6\t0/1\n", 1),
        ("9999999999\t0/1\n", 1),
        ("\u0661\t0/1\n", 1),
    ],
)
def test_lines_that_make_no_sense_are_named(text: str, line: int) -> None:
    with pytest.raises(SnapshotError, match=f"00000005.history, line {line}: ") as caught:
        parse(5, text)
    assert caught.value.hint


@given(st.text(max_size=80))
def test_any_text_is_a_history_or_an_error(text: str) -> None:
    try:
        found = parse(9, text)
    except SnapshotError:
        return
    assert [entry.timeline for entry in found.entries] == sorted({entry.timeline for entry in found.entries})


def test_which_timeline_a_position_is_on() -> None:
    found = parse(3, THREE)
    assert found.timeline_at(Lsn(0)) == 1
    assert found.timeline_at(Lsn.parse("0/37FFFF")) == 1
    assert found.timeline_at(Lsn.parse("0/380000")) == 2
    assert found.timeline_at(Lsn.parse("0/580000")) == 3
    assert found.switch_from(Timeline(2)) == Lsn.parse("0/580000")
    assert found.switch_from(Timeline(3)) is None


FAMILY = (
    history(2, (1, "0/300000")),
    history(3, (1, "0/300000"), (2, "0/500000")),
    history(4, (1, "0/700000")),
    history(6, (5, "0/900000")),
)


@pytest.mark.parametrize(
    ("timeline", "lsn", "end", "chosen"),
    [
        (1, "0/200000", None, 4),
        (1, "0/400000", None, 4),
        (1, "0/700000", None, 1),
        (1, "0/6FFFFF", None, 4),
        (1, "0/200000", "0/700000", 4),
        (1, "0/200000", "0/700001", 1),
        (2, "0/400000", None, 3),
        (2, "0/200000", None, 2),  # on timeline 1 there: no label says that, and no server would take it
        (2, "0/500000", None, 2),
        (3, "0/600000", None, 3),
        (7, "0/600000", None, 7),
    ],
)
def test_the_newest_timeline_that_descends_from_the_start(
    timeline: int, lsn: str, end: str | None, chosen: int
) -> None:
    found = choose_timeline(
        FAMILY,
        start_timeline=Timeline(timeline),
        start_lsn=Lsn.parse(lsn),
        end_lsn=None if end is None else Lsn.parse(end),
    )
    assert found == chosen


def test_a_newer_timeline_that_left_too_early_gives_way_to_an_older_one() -> None:
    family = (history(2, (1, "0/700000")), history(3, (1, "0/300000")))
    assert choose_timeline(family, start_timeline=Timeline(1), start_lsn=Lsn.parse("0/400000")) == 2


def test_without_histories_the_start_is_the_target() -> None:
    assert choose_timeline((), start_timeline=Timeline(5), start_lsn=Lsn(1)) == 5


def along(found: TimelineHistory, first: str, last: str) -> list[list[str]]:
    return [[str(name) for name in names] for names in segments_along(found, Lsn.parse(first), Lsn.parse(last), MIB)]


def test_segments_of_one_timeline() -> None:
    assert along(history(1), "0/100028", "0/300001") == [
        ["000000010000000000000001"],
        ["000000010000000000000002"],
        ["000000010000000000000003"],
    ]
    assert along(history(1), "0/100028", "0/200000") == [["000000010000000000000001"]]
    assert along(history(1), "0/200000", "0/200000") == []


def test_the_segment_of_a_switch_is_the_new_timelines() -> None:
    found = history(2, (1, "0/380000"))
    assert along(found, "0/200000", "0/500000") == [
        ["000000010000000000000002"],
        ["000000020000000000000003"],
        ["000000020000000000000004"],
    ]


def test_the_old_timelines_segment_will_do_up_to_the_switch() -> None:
    found = history(2, (1, "0/380000"))
    assert along(found, "0/300000", "0/380000") == [["000000020000000000000003", "000000010000000000000003"]]
    assert along(found, "0/300000", "0/380001") == [["000000020000000000000003"]]


def test_a_switch_between_two_segments() -> None:
    assert along(history(2, (1, "0/300000")), "0/200000", "0/400000") == [
        ["000000010000000000000002"],
        ["000000020000000000000003"],
    ]


def test_two_switches_in_one_segment() -> None:
    found = history(3, (1, "0/320000"), (2, "0/360000"))
    assert along(found, "0/300000", "0/400000") == [["000000030000000000000003"]]
    assert along(found, "0/300000", "0/340000") == [["000000030000000000000003", "000000020000000000000003"]]


@given(
    st.lists(st.integers(1, 20 * MIB), max_size=4),
    st.integers(0, 20 * MIB),
    st.integers(0, 5 * MIB),
)
def test_every_segment_has_a_name_also_where_switches_do_not_ascend(
    switches: list[int], first: int, length: int
) -> None:
    entries = tuple(TimelineSwitch(Timeline(index), Lsn(at)) for index, at in enumerate(switches, 1))
    found = TimelineHistory(Timeline(len(switches) + 1), entries)
    for names in segments_along(found, Lsn(first), Lsn(first + length), MIB):
        assert names
        assert len({name.number(MIB) for name in names}) == 1
        assert sorted(names, reverse=True) == list(names)


def test_the_histories_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "00000003.history").write_text(THREE)
    (tmp_path / "00000002.history").write_text(REAL)
    assert read_histories(read_archive(tmp_path)) == (parse(2, REAL), parse(3, THREE))
    (tmp_path / "00000002.history").write_text("nonsense")
    with pytest.raises(SnapshotError, match=re.escape("00000002.history, line 1")):
        read_histories(read_archive(tmp_path))
