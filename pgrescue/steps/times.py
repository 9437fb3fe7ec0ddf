"""Times as the server's log writes them under `log_timezone = 'UTC'`."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_log_time(text: str) -> datetime | None:
    """Read `2026-11-22 08:15:01.123456+00` or `… UTC`; None for anything else."""
    stamp = text.removesuffix("UTC").removesuffix("+00").strip()
    try:
        return datetime.fromisoformat(stamp).replace(tzinfo=UTC)
    except ValueError:
        return None
