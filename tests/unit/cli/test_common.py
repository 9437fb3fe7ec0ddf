"""What every command shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.cli.common import fail
from pgrescue.errors import EngineError

if TYPE_CHECKING:
    import pytest


def test_a_hint_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """It may hold what rich takes for a picture or for markup: an entry of /etc/passwd, an array."""
    fail(EngineError("[bold]no account[/]", hint="add `rescue:x:77:0::/:`"), as_json=False)
    said = capsys.readouterr().err
    assert "error: [bold]no account[/]" in said
    assert "add `rescue:x:77:0::/:`" in said
