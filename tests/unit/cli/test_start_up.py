"""What makes every command wait is imported only by those that need it."""

from __future__ import annotations

import json
import subprocess
import sys

SLOW = ("docker", "jinja2", "numpy", "psycopg", "pydantic", "requests", "tenacity", "yaml")
PROBE = f"import json, sys, pgrescue.cli.app; print(json.dumps([name for name in {SLOW!r} if name in sys.modules]))"


def test_the_command_line_starts_without_the_slow_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_each_of_them_is_there_to_be_imported() -> None:
    program = "; ".join(f"import {name}" for name in SLOW)
    subprocess.run([sys.executable, "-c", program], check=True)
