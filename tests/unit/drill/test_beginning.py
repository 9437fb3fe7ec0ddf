"""The drill file that a snapshot begins with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pgrescue.drill.beginning import Beginning, beginning, drill_text
from pgrescue.drill.reading import parse_scenario, read_scenario
from pgrescue.drill.schema import scenario_schema
from pgrescue.drill.tree import plain, read_tree
from pgrescue.errors import UsageError
from pgrescue.model import StrategyName, Verdict, VerifyLevel
from pgrescue.snapshot.contents import read_snapshot
from pgrescue.strategy.choose import assess
from pgrescue.strategy.wal_plan import WalRequest, plan_wal

FILE = Path("/drills/drill.yaml")
SAMPLE = Path(__file__).parents[3] / "fixtures/sample/data.tar.gz"
FIELDS = set(scenario_schema()["properties"]) - {"drills"}


def start(**changes: object) -> Beginning:
    return Beginning(
        **{  # type: ignore[arg-type] # each is of its field's type
            "name": "portal",
            "snapshot": "backups/data.tar.gz",
            "pattern": "backups/*.tar.gz",
            "wal": None,
            "has_wal_tar": False,
            "strategy": StrategyName.RESET,
            "major": 17,
            **changes,
        }
    )


def uncommented(text: str) -> str:
    """Return the file with every example taken in, as its first lines say."""
    return re.sub(r"^( *)#(?=[^# \n]|  )", r"\1", text, flags=re.MULTILINE)


def at(path: Path, file: Path = FILE, name: str | None = None) -> Beginning:
    """Return what the file begins with for the sample, copied to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(SAMPLE.read_bytes())
    snapshot = read_snapshot(path)
    plan = plan_wal(snapshot, WalRequest(None))
    return beginning(snapshot, plan, assess(snapshot, plan), file=file, name=name)


def test_it_asserts_something_as_it_is() -> None:
    (drill,) = parse_scenario(drill_text(start(), file_name="drill.yaml"), FILE).drills
    assert (drill.name, drill.require, drill.verify_level) == ("portal", Verdict.BEST_EFFORT, VerifyLevel.FAST)
    assert [check.title for check in drill.checks] == ["verify: fast"]
    assert drill.snapshot.text == "/drills/backups/data.tar.gz"
    assert drill.wal is None


def test_with_every_example_it_is_valid_too_and_says_everything() -> None:
    text = uncommented(drill_text(start(), file_name="drill.yaml"))
    scenario = parse_scenario(text, FILE)
    (drill,) = scenario.drills
    assert len(drill.checks) == 5
    assert (drill.transfer is None, drill.after is None, drill.ignore == (), scenario.notify == ()) == (False,) * 4
    root = read_tree(text).root
    assert root is not None
    data = plain(root)
    assert isinstance(data, dict)
    assert set(data) == FIELDS
    assert [error.message for error in Draft202012Validator(scenario_schema()).iter_errors(data)] == []


def test_each_example_is_valid_by_itself() -> None:
    text = drill_text(start(), file_name="drill.yaml")
    blocks = text.split("\n\n")
    assert sum(uncommented(block) != block for block in blocks) >= 14
    for number, block in enumerate(blocks):
        whole = "\n\n".join([*blocks[:number], uncommented(block), *blocks[number + 1 :]])
        parse_scenario(whole, FILE)


def test_no_comment_is_an_example_by_mistake() -> None:
    text = drill_text(start(wal="../wals"), file_name="drill.yaml")
    assert [line for line in text.splitlines() if re.match(r" *#[^ ]", line) and ":" not in line] == []


@pytest.mark.parametrize("strategy", StrategyName)
def test_it_requires_the_best_that_the_strategy_can_show(strategy: StrategyName) -> None:
    text = drill_text(start(strategy=strategy), file_name="drill.yaml")
    sure = {StrategyName.CLEAN, StrategyName.ARCHIVE, StrategyName.REPLAY}
    required = parse_scenario(text, FILE).drills[0].require
    assert required is (Verdict.CONSISTENT if strategy in sure else Verdict.BEST_EFFORT)
    assert f"strategy {strategy}" in text.lower()


def test_wal_that_was_found_is_named() -> None:
    text = drill_text(start(wal="../wals"), file_name="drill.yaml")
    assert parse_scenario(text, FILE).drills[0].wal == "/drills/../wals"
    assert "pg_wal.tar beside the snapshot is found by itself" in drill_text(start(has_wal_tar=True), file_name="d")


@given(st.text(min_size=1, max_size=100))
def test_any_name_is_written_so_that_it_is_read_or_refused(name: str) -> None:
    try:
        text = drill_text(start(name=name, snapshot=f"/b/{name}"), file_name="drill.yaml")
    except UsageError:
        assert not name.isprintable()
        return
    if name.strip():
        (drill,) = parse_scenario(text, FILE).drills
        assert (drill.name, drill.snapshot.text) == (name.strip(), f"/b/{name}")


@pytest.mark.parametrize(
    "name", ["no", "5:30", "010", "null", "- a", "a: b", "a #b", "@x", "x'y\"z", "a\\b", "*", "<<"]
)
def test_words_of_yaml_are_quoted(name: str) -> None:
    text = drill_text(start(name=name), file_name="drill.yaml")
    assert parse_scenario(text, FILE).drills[0].name == name


@pytest.mark.parametrize(
    ("place", "name", "pattern"),
    [
        ("portal.tar.gz", "portal", "*.tar.gz"),
        ("portal/data.tar.gz", "portal", "portal/*.tar.gz"),
        ("portal/base/20261122T081501/data.tar.gz", "portal", "portal/base/*/data.tar.gz"),
        ("main/20261122T081501.tgz", "main", "main/*.tgz"),
    ],
)
def test_paths_are_relative_to_the_file(tmp_path: Path, place: str, name: str, pattern: str) -> None:
    found = at(tmp_path / "here/backups" / place, tmp_path / "here/ci/drill.yaml")
    assert (found.name, found.snapshot, found.pattern) == (name, f"../backups/{place}", f"../backups/{pattern}")


def test_a_path_with_wildcards_means_itself(tmp_path: Path) -> None:
    path = tmp_path / "here/[a]*/x?.tar.gz"
    file = tmp_path / "here/drill.yaml"
    file.parent.mkdir()
    file.write_text(drill_text(at(path, file), file_name=file.name))
    (drill,) = read_scenario(file).drills
    assert list(Path("/").glob(drill.snapshot.text[1:])) == [path]


def test_the_glob_that_is_offered_takes_the_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "[1]/portal/base/20261122T081501/data.tar.gz"
    assert list(tmp_path.glob(at(path, tmp_path / "drill.yaml").pattern)) == [path]


def test_nothing_in_common_but_the_root_makes_an_absolute_path(tmp_path: Path) -> None:
    path = tmp_path / "data.tar.gz"
    assert at(path, Path("/drill.yaml")).snapshot == str(path)


def test_a_directory_that_is_called_tilde_is_not_the_home(tmp_path: Path) -> None:
    path = tmp_path / "~/data.tar.gz"
    assert at(path, tmp_path / "drill.yaml").snapshot == "./~/data.tar.gz"


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a\udcff\n.tar.gz"
    with pytest.raises(UsageError, match="cannot hold"):
        drill_text(at(path, tmp_path / "drill.yaml"), file_name="drill.yaml")
