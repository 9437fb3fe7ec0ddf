from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.snapshot.settings import Setting, effective, parse_conf


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        # What pg_file_settings of PostgreSQL 17.10 said of the same lines.
        (r"a.a = 'it''s \'q\' \101\x tab\t'", "a.a", "it's 'q' Ax tab\t"),
        ("A.B on", "a.b", "on"),
        ("a.c=5.5e3", "a.c", "5.5e3"),
        ("a.d = -12kB   # c", "a.d", "-12kB"),
        ("a.e='x'# no space", "a.e", "x"),
        ("a.f foo/bar:baz-1._", "a.f", "foo/bar:baz-1._"),
        ("a.g = 0x1Fms", "a.g", "0x1Fms"),
        ("a.h=.5", "a.h", ".5"),
        ("a.i = ''", "a.i", ""),
        (r"a.j = 'a\\b'", "a.j", r"a\b"),
        ("a.p'x'", "a.p", "x"),
        ("a = 'b' \r", "a", "b"),
        ("a = '#'", "a", "#"),
    ],
)
def test_lines_as_the_server_reads_them(line: str, name: str, value: str) -> None:
    assert parse_conf(f"\n# comment\n{line}") == (Setting(name, value, 3),)


@pytest.mark.parametrize(
    "line",
    [
        '"work_mem" = 1', "a.k = b.c", "a.l 1 2", "a.m = 1.5GB", "a.n = 'unterminated", "a.o =", "a.o", "= 1",
        "a.q=1e5", "9x = 1", "a.b.c = 1", "a == 1", "a = 'b", "a = \f1", "a-b = 1", "a = 'x\\",
    ],
)  # fmt: skip
def test_lines_that_the_server_refuses(line: str) -> None:
    with pytest.raises(SnapshotError, match="line 2 ") as caught:
        parse_conf(f"a = 1\n{line}")
    assert caught.value.hint


def test_cloudnativepg_includes_and_auto_conf() -> None:
    files = {
        "postgresql.conf": "port = 5432\ninclude 'custom.conf'\n\ninclude 'override.conf'\n",
        "custom.conf": "Shared_Preload_Libraries = 'pgaudit,pg_stat_statements'\nport = '5433'\n",
        "override.conf": "",
        "postgresql.auto.conf": "work_mem = '64MB'\n",
    }
    assert effective(files.get) == {
        "port": "5433",
        "shared_preload_libraries": "pgaudit,pg_stat_statements",
        "work_mem": "64MB",
    }


def test_a_setting_after_an_include_wins() -> None:
    files = {"postgresql.conf": "include 'a'\nx = 2", "a": "x = 1\ny = 1"}
    assert effective(files.get) == {"x": "2", "y": "1"}


def test_includes_are_relative_to_the_file_that_has_them() -> None:
    files = {
        "conf/main.conf": "include '../other/a.conf'\ninclude '/etc/pg/abs.conf'",
        "other/a.conf": "include 'b.conf'",
        "other/b.conf": "x = 1",
        "/etc/pg/abs.conf": "y = 2",
    }
    assert effective(files.get, "conf/main.conf") == {"x": "1", "y": "2"}


def test_directories_in_the_order_of_their_names() -> None:
    files = {"postgresql.conf": "include_dir = 'conf.d'", "conf.d/a.conf": "x = 1", "conf.d/b.conf": "x = 2"}
    files |= {"conf.d/.c.conf": "bad", "conf.d/d.txt": "bad"}
    names = ["b.conf", "a.conf", ".c.conf", "d.txt", ".conf"]
    assert effective(files.get, directory={"conf.d": names}.__getitem__) == {"x": "2"}
    assert effective(files.get) == {}


def test_missing_files_are_passed_over() -> None:
    assert effective(lambda _: None) == {}
    assert effective({"postgresql.conf": "include 'a'\ninclude_if_exists 'b'\nx = 1"}.get) == {"x": "1"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"postgresql.conf": "include 'postgresql.conf'"}, "include each other"),
        ({"postgresql.conf": "include 'a'", "a": "x = 1\ninclude 'postgresql.conf'"}, "include each other"),
        ({"postgresql.conf": "include 'a'", "a": "x 1 2"}, "a: line 1 "),
        ({"postgresql.conf": "include ''"}, "without a name"),
    ],
)
def test_configurations_that_cannot_be(files: dict[str, str], words: str) -> None:
    with pytest.raises(SnapshotError, match=words):
        effective(files.get)


NAMES = st.from_regex(r"[a-z_][a-z_0-9]{0,10}(\.[a-z_][a-z_0-9]{0,5})?", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_quoted_values_are_read_as_written(pairs: list[tuple[str, str]]) -> None:
    text = "\n".join("{} = '{}'".format(name, value.replace("\\", "\\\\").replace("'", "''")) for name, value in pairs)
    assert parse_conf(text) == tuple(Setting(name, value, line) for line, (name, value) in enumerate(pairs, start=1))


@given(st.text(st.sampled_from("ab='\\# .\n\t1-e0x_\u00e9\0")))
def test_any_text_raises_nothing_else(text: str) -> None:
    with contextlib.suppress(SnapshotError):
        effective({"postgresql.conf": text}.get)
