"""Values as a person reads them: sizes and durations, and texts from outside that must not mislead."""

from __future__ import annotations

import re

# What keeps a page small enough to be opened and read: the JSON report has everything.
MOST_CHARACTERS = 6_000
MOST_IN_A_LINE = 400
# What a reader would drop, refuse or let turn the text around it: control characters, lone surrogates (file names that
# are no UTF-8) and overrides of the writing direction. XML 1.0 forbids most of them.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_KIB, _MINUTE, _HOUR, _DAY = 1024, 60, 3600, 86_400


def visible(text: str) -> str:
    """Make what would vanish or mislead visible, as Python writes it in a text; tabs and line ends stay."""
    return _UNFIT.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def fit(value: object) -> object:
    """Do the same to a value that a template is about to show, unless it is markup."""
    return value if hasattr(value, "__html__") else visible(str(value))


def cut(text: str, where: str = "report.json") -> str:
    """Return the beginning of a very long text, and say how much more there is in the file `where`."""
    left = len(text) - MOST_CHARACTERS
    return text if left <= 0 else f"{text[:MOST_CHARACTERS]}…\n({left:,} more characters in {where})"


def short(text: str) -> str:
    """Return the beginning of a very long name."""
    return text if len(text) <= MOST_IN_A_LINE else f"{text[:MOST_IN_A_LINE]}…"


def size(size_bytes: float) -> str:
    """Return a size with three digits or so."""
    amount, units = float(size_bytes), iter(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    for larger in units:
        if amount < _KIB:
            break
        amount, unit = amount / _KIB, larger
    digits = 0 if unit == "bytes" or amount >= 100 else 1  # noqa: PLR2004 - three digits
    return f"{amount:,.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Return a duration: `1.2 s`, `3 min 07 s`, `2 h 05 min`, `3 d 04 h`."""
    if seconds < 0:
        return f"\N{MINUS SIGN}{duration(-seconds)}"
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR:,} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY:,} d {whole % _DAY // _HOUR:02} h"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 row`, `1,834 rows`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
