"""Drill files as they are read: every error with its place, whatever the file holds."""

from __future__ import annotations

import json
import os
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.drill.reading import LARGEST_BYTES, ScenarioError, parse_scenario, read_scenario
from pgrescue.drill.scenario import (
    FreshnessCheck,
    RowsCheck,
    Scenario,
    SchemaCheck,
    SqlCheck,
    VerifyCheck,
)
from pgrescue.drilled import DrillOutcome
from pgrescue.errors import ExitStatus
from pgrescue.model import EngineName, StrategyName, Verdict, VerifyLevel, parse_until
from pgrescue.transfer.compare import CompareLevel
from tests.unit.drill.drill_files import BAD, GOOD, HEAD, Bad

FILE = Path("/etc/drills/drill.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, FILE)
    return caught.value.problem.splitlines()


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_a_good_file_is_read(text: str) -> None:
    assert isinstance(parse_scenario(text, FILE), Scenario)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_an_error_has_its_place_and_says_what_is_expected(bad: Bad) -> None:
    said = problems(bad.text)
    here = [line for line in said if line.startswith(f"{FILE}:{bad.place}: ")]
    assert len(here) == 1, said
    assert [word for word in bad.words if word not in here[0]] == []


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_secret_at_the_wrong_place_is_not_repeated(bad: Bad) -> None:
    assert "hunter2" not in "\n".join(problems(bad.text))


def test_some_of_the_bad_files_hold_a_secret() -> None:
    assert sum("hunter2" in bad.text for bad in BAD.values()) >= 5


def test_everything_that_a_file_says_is_there() -> None:
    scenario = parse_scenario(GOOD["everything"], FILE)
    (drill,) = scenario.drills
    assert (drill.name, drill.snapshot.text, drill.snapshot.takes_newest) == (
        "portal",
        "/etc/drills/backups/data.tar.gz",
        False,
    )
    assert (drill.wal, drill.bindir) == ("/etc/drills/../wals", Path("/usr/lib/postgresql/17/bin"))
    assert drill.until == parse_until("2026-11-22 08:15:00+01:00")
    assert (drill.engine, drill.image, drill.strategy) == (EngineName.DOCKER, "postgres:17", StrategyName.ARCHIVE)
    assert (drill.require, drill.rto_budget, drill.rpo_budget) == (
        Verdict.BEST_EFFORT,
        timedelta(minutes=90),
        timedelta(minutes=90),
    )
    one, flag, rows, loss, fresh, schema, verify = drill.checks
    assert isinstance(one, SqlCheck)
    assert (one.name, one.database, one.timeout, one.sql) == ("one", "portal", timedelta(seconds=30), "select 1")
    assert one.expect.judge(1)
    assert isinstance(flag, SqlCheck)
    assert (flag.database, flag.timeout) == (None, timedelta(minutes=5))
    assert isinstance(rows, RowsCheck)
    assert (rows.rows.table, rows.rows.min, rows.rows.max, rows.rows.max_loss) == ("orders", 0, 5, 5.0)
    assert isinstance(loss, RowsCheck)
    assert (loss.rows.min, loss.rows.max_loss) == (None, 0.5)
    assert isinstance(fresh, FreshnessCheck)
    assert (fresh.freshness.column, fresh.freshness.max_age, fresh.freshness.zone) == (
        "created_at",
        timedelta(hours=24),
        "Europe/Berlin",
    )
    assert isinstance(schema, SchemaCheck)
    assert schema.file == Path("/etc/drills/portal.sql")
    assert isinstance(verify, VerifyCheck)
    assert verify.level is VerifyLevel.FULL
    assert drill.transfer is not None
    assert (drill.transfer.target_url_env, drill.transfer.compare, drill.transfer.roles) == (
        None,
        CompareLevel.COUNT,
        True,
    )
    assert drill.after is not None
    assert (drill.after.command, drill.after.env, drill.after.timeout) == ("npm test", "URL", timedelta(hours=1))
    assert drill.ignore[0].until == date(2027, 1, 31)
    assert scenario.notify[0].on == (DrillOutcome.PASSED, DrillOutcome.FAILED, DrillOutcome.UNVERIFIED)
    assert scenario.notify[1].on == (DrillOutcome.FAILED, DrillOutcome.UNVERIFIED)


def test_short_forms_mean_the_long_ones() -> None:
    (drill,) = parse_scenario(GOOD["short forms"], FILE).drills
    assert drill.transfer is not None
    assert drill.transfer.target == "throwaway"
    assert drill.after is not None
    assert (drill.after.command, drill.after.env, drill.after.timeout) == (
        "npm test",
        "DATABASE_URL",
        timedelta(minutes=30),
    )


def test_auto_is_no_choice() -> None:
    (drill,) = parse_scenario(GOOD["auto"], FILE).drills
    assert (drill.engine, drill.strategy) == (None, None)


def test_defaults_are_for_all_drills_and_checks_are_added() -> None:
    first, second = parse_scenario(GOOD["several"], FILE).drills
    assert (first.engine, second.engine) == (EngineName.NATIVE, EngineName.DOCKER)
    assert [check.title for check in first.checks] == ["verify: fast"]
    assert [check.title for check in second.checks] == ["verify: fast", "verify: full"]


@pytest.mark.parametrize(
    ("written", "text", "newest"),
    [
        ("a.tar", "/etc/drills/a.tar", False),
        ("/b/a.tar", "/b/a.tar", False),
        ("a/*/data.tar", "/etc/drills/a/*/data.tar", True),
        ("/b/[ab].tar", "/b/[ab].tar", True),
        ("~/a.tar", f"{Path.home()}/a.tar", False),
        ("s3://b/a.tar", "s3://b/a.tar", False),
        ("{newest: backups}", "/etc/drills/backups", True),
        ("{newest: s3://b/a}", "s3://b/a", True),
    ],
)
def test_a_snapshot_is_a_path_a_pattern_or_an_address(written: str, text: str, *, newest: bool) -> None:
    (drill,) = parse_scenario(f"version: 1\nname: a\nsnapshot: {written}\nrequire: consistent\n", FILE).drills
    assert (drill.snapshot.text, drill.snapshot.takes_newest) == (text, newest)
    assert drill.snapshot.is_address is written.removeprefix("{newest: ").startswith("s3:")


def test_the_directory_of_the_file_is_no_pattern(tmp_path: Path) -> None:
    directory = tmp_path / "a[1]*"
    directory.mkdir()
    file = directory / "drill.yaml"
    file.write_text("version: 1\nname: a\nsnapshot: '?.tar'\nrequire: consistent\n")
    (directory / "x.tar").touch()
    (drill,) = read_scenario(file).drills
    assert list(Path("/").glob(drill.snapshot.text.removeprefix("/"))) == [directory / "x.tar"]


def test_all_errors_are_told_at_once_in_the_order_of_the_lines() -> None:
    said = problems(
        "version: 1\nnmae: a\nengine: x\nrto_budget: 5\nchecks:\n- sql: a\n- verify: no\n- rows: {table: 5}\nafter:\n"
    )
    places = [tuple(int(part) for part in line.removeprefix(f"{FILE}:").split(":")[:2]) for line in said]
    assert places == sorted(places)
    assert [line for line, _ in places] == [1, 1, 2, 3, 4, 6, 7, 8, 9]


def test_the_exit_status_is_that_of_a_wrong_request() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario("", FILE)
    assert caught.value.status is ExitStatus.USAGE
    assert "pgrescue drill schema" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (f"{HEAD}checks:\n- sql: a\n  expect: >= 1000\n", "6:12", 'quote the comparison, as in ">= 1000"'),
        (f"{HEAD}checks:\n- sql: a\n  expect: > 1000\n", "6:13", "quote the comparison"),
        (f"{HEAD}checks:\n- sql: a\n  expect: >\n    1000\n", "6:11", "begins a block of text in YAML: quote it"),
        (f"{HEAD}checks:\n- sql: a\n  expect: != 5\n", "6:11", "quote the whole comparison"),
        (f"{HEAD}require: !x consistent\n", "4:10", "a tag"),
        (f"{HEAD}require: !!str consistent\n", "4:10", "a tag"),
        (f"{HEAD}require: !!python/name:os.system consistent\n", "4:10", "a tag"),
        (f"{HEAD}after: echo a: b\n", "4:14", "quote the text"),
        (f"{HEAD}after: `date`\n", "4:8", "quote the text"),
        (f"{HEAD}after: @x\n", "4:8", "quote the text"),
        (f"{HEAD}after:\n\tcommand: x\n", "5:1", "a tab"),
        (f"{HEAD}name: b\nrequire: consistent\n", "4:1", "the key name again, it is in line 2 already"),
        (f"{HEAD}<<: {{a: b}}\nrequire: consistent\n", "4:1", "a merge key"),
        (f"{HEAD}? [a]\n: b\nrequire: consistent\n", "4:3", "a key that is no word"),
        (f"{HEAD}require: consistent\n---\na: b\n", "5:1", "a second document"),
        (f"{HEAD}require: *x\n", "4:10", "the alias *x"),
        (f"{HEAD}checks: &x [*x]\n", "4:13", "the alias *x"),
        (f"{HEAD}after: [a\n", "5:1", "not YAML"),
        (f'{HEAD}after: "\\U00110000"\n', "4:1", "no character"),
        (f'{HEAD}after: "\\ud800"\n', "4:8", "surrogates"),
        (f"{HEAD}after: a\x01b\n", "4:9", "U+0001"),
        (f"{HEAD}checks: {'[' * 100}\n", "4:49", "levels"),
        ("# nothing\n", "1:1", "an empty file"),
        ("", "1:1", "an empty file"),
        ("on: yes\nversion: 1\n", "1:1", "the unknown key on"),
    ],
)
def test_the_traps_of_yaml_are_named(text: str, place: str, words: str) -> None:
    said = problems(text)
    assert [line for line in said if line.startswith(f"{FILE}:{place}: ") and words in line] != [], said


def test_a_bomb_of_aliases_does_not_go_off() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"b{number}: &b{number} [{','.join(['*a' if number == 0 else f'*b{number - 1}'] * 9)}]\n"
        for number in range(20)
    )
    (only,) = problems(bomb)
    assert "more than 20,000 values" in only


def test_very_many_errors_are_cut() -> None:
    said = problems(f"{HEAD}require: consistent\n" + "".join(f"zz{number}: 1\n" for number in range(500)))
    assert len(said) == 101
    assert said[-1] == "… and 400 more"


def test_an_old_disagreement_about_words_is_no_value() -> None:
    (only,) = problems(f"{HEAD}after: {{command: off}}\n")
    assert "off, which YAML may take for false, a text is expected: quote it" in only


def test_a_file_is_read_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "drill.yaml").write_text(f"{HEAD}require: consistent\n")
    monkeypatch.chdir(tmp_path)
    (drill,) = read_scenario(Path("drill.yaml")).drills
    assert drill.snapshot.text == str(tmp_path / "backups/data.tar.gz")


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "drill.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + f"{HEAD}require: consistent\n".replace("\n", "\r\n").encode())
    assert read_scenario(file).drills[0].name == "portal"


def _make_missing(_: Path) -> None:
    """Leave the file missing."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_make_missing, "1:1: cannot be read (No such file or directory)"),
        (lambda path: path.mkdir(), "1:1: a directory"),
        (os.mkfifo, "1:1: no regular file"),
        (lambda path: path.symlink_to(path), "1:1: cannot be read"),
        (lambda path: path.write_bytes(b"version: 1\nname: \xff\n"), "2:7: bytes that are no UTF-8"),
        (lambda path: path.write_bytes("version: 1\n".encode("utf-16")), "1:1: bytes that are no UTF-8"),
        (lambda path: path.write_bytes(b"#" * (LARGEST_BYTES + 1)), "1:1: more than 1 MiB"),
        (lambda path: path.write_bytes(b""), "1:1: an empty file"),
    ],
)
def test_what_is_no_drill_file_is_named(tmp_path: Path, make: object, said: str) -> None:
    assert callable(make)
    file = tmp_path / "drill.yaml"
    make(file)
    with pytest.raises(ScenarioError) as caught:
        read_scenario(file)
    assert caught.value.problem.startswith(f"{file}:{said}")


def test_a_path_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ScenarioError):
        read_scenario(Path("a\0b"))


_MARKS = "- : ? , [ ] { } & * ! | > % @ ` ' \" # --- ... << ~ &a *a !!str yes no 5:30 010 1_0 .nan == >= 1 fast"
_KEYS = (
    "version name snapshot checks sql expect rows table min max max_loss freshness column max_age zone schema verify "
    "database timeout newest target target_url_env compare roles role command env code object reason until drills on"
)
_SPACES = ["\n", "\n  ", "\n    ", "\n- ", "\n  - ", ": ", " ", "\t", "\\", "\ufeff", "\x85", "\u2028", "\U0001f600"]
_WORDS = st.sampled_from([*_KEYS.split(), *_MARKS.split(), *_SPACES])
_TEXTS = st.one_of(
    st.text(),
    st.lists(_WORDS, max_size=40).map("".join),
    st.tuples(st.sampled_from(sorted(GOOD.values())), st.integers(0, 1500), st.lists(_WORDS, max_size=4)).map(
        lambda parts: parts[0][: parts[1]] + "".join(parts[2]) + parts[0][parts[1] + len(parts[2]) :]
    ),
)


def _said(text: str) -> str:
    """Return what is wrong with a text, nothing where it is a drill file."""
    try:
        parse_scenario(text, FILE)
    except ScenarioError as error:
        return error.problem
    return ""


@given(_TEXTS)
def test_any_text_is_read_or_refused(text: str) -> None:
    said = _said(text)
    assert all(line.startswith((f"{FILE}:", "… and ")) for line in said.splitlines())
    said.encode()


_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["== 1", "5 min", "fast", "throwaway", "consistent", "2027-01-01", "A", "5 %"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(_KEYS.split()),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)


@given(st.sampled_from(["checks", "transfer", "after", "ignore", "notify", "snapshot", "drills", "until"]), _VALUES)
def test_any_value_of_a_field_is_read_or_refused(field: str, value: object) -> None:
    # JSON is YAML, but for numbers such as NaN and 1e400.
    said = _said(f"{HEAD}require: consistent\n{field}: {json.dumps(value)}\n")
    assert said == "" or said.startswith(f"{FILE}:")
