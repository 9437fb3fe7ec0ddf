"""The documents say what the program does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from typer.main import get_command

from pgrescue.cli.app import app
from pgrescue.drill.reading import parse_scenario
from pgrescue.drill.scenario import CHECKS
from pgrescue.errors import ExitStatus
from pgrescue.strategy.recipes import STEPS

ROOT = Path(__file__).parents[2]
RECOVERY = (ROOT / "RECOVERY.md").read_text()
README = (ROOT / "README.md").read_text()


def codes_in_the_program() -> set[str]:
    found = set()
    for file in (ROOT / "pgrescue").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            # _Kind holds a finding's code in verify/files.py.
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"Finding", "_Kind"}:
                for argument in node.args[:1]:
                    if isinstance(argument, ast.Constant):
                        found.add(str(argument.value))
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                # repair/lost_rows.py chooses among several codes.
                found |= {str(node.value.value) for name in node.targets if getattr(name, "id", "") == "code"}
    return found


def codes_in_the_runbook() -> set[str]:
    return set(re.findall(r"^\| `([a-z_]+)` \|", RECOVERY.partition("## Findings")[2], flags=re.MULTILINE))


def test_the_runbook_has_every_finding_and_no_other() -> None:
    assert len(codes_in_the_program()) > 20
    assert codes_in_the_program() == codes_in_the_runbook()


def test_every_remedy_is_written_down() -> None:
    rows = [line for line in RECOVERY.partition("## Findings")[2].splitlines() if line.startswith("| `")]
    assert all(len([cell for cell in row.strip("|").split("|") if cell.strip()]) == 4 for row in rows)


def test_the_runbook_has_every_step() -> None:
    names = {step.name for steps in STEPS.values() for step in steps}
    table = RECOVERY.partition("## 1.")[2].partition("## 2.")[0]
    assert names == set(re.findall(r"^\| `([a-z-]+)` \|", table, flags=re.MULTILINE))


def test_the_readme_names_every_command_and_no_other() -> None:
    block = README.partition("## What it does")[2].split("```")[1]
    usages = (line.split("  ")[0].partition("[")[0] for line in block.splitlines())
    documented = {name for usage in usages for name in re.findall(r"[a-z]+(?:-[a-z]+)*", usage)}
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]  # typer's group
    assert documented - {"pgrescue"} == commands


def test_the_readme_has_every_exit_status_that_a_command_can_end_with() -> None:
    table = README.partition("### Exit statuses")[2].partition("###")[0]
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)}
    assert documented == {int(status) for status in ExitStatus}


def test_the_drill_file_of_the_readme_is_one() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    (drill,) = parse_scenario(text, ROOT / "drill.yaml").drills
    assert {type(check).__name__ for check in drill.checks} == {type_.__name__ for type_ in CHECKS.values()}
    assert None not in (drill.require, drill.rto_budget, drill.rpo_budget, drill.transfer, drill.after)
