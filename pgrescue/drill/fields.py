"""The kinds of fields that a drill file has: what is read as each, and what to say about anything else.

Each takes what YAML gives, or the value itself, and raises ValueError with what was found and what is expected.
"""

import re
import zoneinfo
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from pgrescue.drill.duration import EXPECTED as DURATION_EXPECTED
from pgrescue.drill.duration import PATTERN as DURATION_PATTERN
from pgrescue.drill.duration import parse_duration, shown
from pgrescue.drill.expectation import Expectation as Expected
from pgrescue.drilled import DrillOutcome
from pgrescue.model import (
    EngineName,
    Immediate,
    Latest,
    StrategyName,
    UntilLsn,
    UntilTime,
    Verdict,
    VerifyLevel,
    parse_until,
)
from pgrescue.model import Until as UntilPoint
from pgrescue.transfer.compare import CompareLevel

VERSION = 1
THROWAWAY = "throwaway"
LONGEST_NAME = 100
# PostgreSQL counts milliseconds in 31 bits, which is little more than 24 days.
LONGEST_TIMEOUT = timedelta(days=24)
BASE = "base"
"""The key in the context of a validation: the directory that relative paths start from."""
_MOST_SHOWN = 60
_AUTO = "auto"
_WHOLE = 100.0
_ENV_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
_PERCENT_PATTERN = r"^\s*[0-9]{1,2}(\.[0-9]{1,6})?\s*%\s*$"
_ZONE_PATTERN = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"
_COMPARISON_PATTERN = r"^\s*(==|!=|<=|>=|<|>|between\s)\s*\S"
_LINE_PATTERN = r"^[^\u0000-\u001f]*[^\s\u0000-\u001f][^\u0000-\u001f]*$"
_VISIBLE_PATTERN = r"\S"
_ADDRESS = re.compile(r"[a-z0-9]+://")


@dataclass(frozen=True)
class Disputed:
    """Words that YAML 1.1 and 1.2 take for different things, such as `no` and `5:30`; `taken_for` is one of them."""

    text: str
    taken_for: str


def found(value: object) -> str:  # noqa: PLR0911 - one line for each type
    """Name a value of a drill file in words: shortened, and without what could be a secret."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str() if "://" in value:
            # It may hold a password, and this goes into the logs of a CI.
            return "an address"
        case str():
            text = value if len(value) <= _MOST_SHOWN else f"{value[: _MOST_SHOWN - 1]}…"
            return "an empty text" if not value else ascii(text) if not text.isprintable() else f'"{text}"'
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case Disputed():
            return f"{value.text}, which YAML may take for {value.taken_for}"
        case _:
            return "something else"


def _refuse(value: object, expected: str, *, advice: str = "") -> ValueError:
    """Return the error: a TypeError would not be one of the file."""
    return ValueError(f"{found(value)}, {expected}{f': {advice}' if advice else ''}")


def _advice(value: object) -> str:
    """Say how to make a text of what YAML takes for something else."""
    return "quote it" if isinstance(value, Disputed | bool | int | float) else ""


def text(value: object) -> str:
    """Return a text with something to see in it; a NUL or half of a surrogate pair cannot be passed on."""
    if not isinstance(value, str):
        raise _refuse(value, "a text is expected", advice=_advice(value))
    if not value.strip():
        raise _refuse(value, "a text with something in it is expected")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise _refuse(value, "a text without NUL characters and broken surrogates is expected")
    return value


def line(value: object) -> str:
    """Return a text of one line."""
    read = text(value)
    if not read.isprintable():
        raise _refuse(value, "a text of one line without control characters is expected")
    return read


def _name(value: object) -> str:
    read = line(value).strip()
    if len(read) > LONGEST_NAME:
        raise _refuse(value, f"at most {LONGEST_NAME} characters are expected, not {len(read)}")
    return read


def _env(value: object) -> str:
    read = value.strip() if isinstance(value, str) else ""
    if re.search(_ENV_PATTERN, read) is None:
        # Whoever wrote the secret itself here must not find it in a log.
        what = "a text that is none" if read else found(value)
        raise ValueError(
            f"{what}, the name of an environment variable is expected, such as DATABASE_URL, which holds the secret"
        )
    return read


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _refuse(value, "true or false is expected")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _refuse(value, "a whole number, 0 or more, is expected, with digits alone")
    return value


def _span(value: object) -> timedelta:
    if not isinstance(value, str | timedelta):
        advice = "quote it, with a unit" if isinstance(value, Disputed) else ""
        raise _refuse(value, DURATION_EXPECTED, advice=advice)
    read = parse_duration(value) if isinstance(value, str) else value
    if read <= timedelta(0):
        raise _refuse(shown(read), "more than no time is expected")
    return read


def _timeout(value: object) -> timedelta:
    read = _span(value)
    if read > LONGEST_TIMEOUT:
        raise _refuse(shown(read), f"at most {shown(LONGEST_TIMEOUT)} are expected")
    return read


def _loss(value: object) -> float:
    if isinstance(value, float) and 0 <= value < _WHOLE:
        return value
    if not isinstance(value, str) or re.search(_PERCENT_PATTERN, value) is None:
        raise _refuse(value, 'a percentage from 0 to below 100 is expected, such as "5 %"')
    return float(value.strip().removesuffix("%"))


def _expectation(value: object) -> Expected:
    match value:
        case Expected():
            return value
        case str():
            return Expected.parse(value)
        case bool() | int() | float():
            raise _refuse(value, f'a comparison is expected: write "== {str(value).lower()}"')
        case _:
            raise _refuse(value, 'a comparison is expected, such as "== 5"', advice=_advice(value))


def _until(value: object) -> UntilPoint:
    if isinstance(value, Latest | Immediate | UntilTime | UntilLsn):
        return value
    if not isinstance(value, str):
        expected = "latest, immediate, an LSN such as 16/B374D848, or a time with its zone is expected"
        raise _refuse(value, expected, advice=_advice(value))
    return parse_until(value)


def _day(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value.strip(), re.ASCII):
        try:
            return date.fromisoformat(value.strip())
        except ValueError as error:
            raise ValueError(f"{found(value)} is no day: {error}") from None
    raise _refuse(value, "a day is expected, such as 2027-01-31")


def _zone(value: object) -> str:
    read = line(value)
    known = zoneinfo.available_timezones()
    # A machine without a list of zones cannot tell; PostgreSQL has its own.
    if (known and read != "UTC" and read not in known) or re.search(_ZONE_PATTERN, read) is None:
        raise _refuse(value, "the name of a time zone is expected, such as Europe/Berlin")
    return read


def _version(value: object) -> int:
    if isinstance(value, bool) or value != VERSION:
        newer = "another version of pgrescue may read it" if isinstance(value, int) and value > VERSION else ""
        raise _refuse(value, f"the number {VERSION} is expected", advice=newer)
    return VERSION


def _throwaway(value: object) -> str:
    if value != THROWAWAY:
        what = "another text" if isinstance(value, str) else found(value)
        raise ValueError(
            f'{what}, "{THROWAWAY}" is expected: the URL of a server could hold a password, so put it into an '
            "environment variable, and name that with target_url_env"
        )
    return THROWAWAY


def _path(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    read = line(value)
    if _ADDRESS.match(read):
        raise _refuse(value, "a path on this machine is expected")
    return resolved(read, info)


def resolved(path: str, info: ValidationInfo) -> Path:
    """Return a path of a drill file, which is relative to the file's directory; `~/` is the user's own."""
    base = Path((info.context or {}).get(BASE, ""))
    return base / (Path(path).expanduser() if path.startswith("~/") else path)


def is_address(path: str) -> bool:
    """Tell whether it names something in an object store."""
    return _ADDRESS.match(path) is not None


def address(value: str) -> str:
    """Return an address of an object store; raise ValueError where it is none, or could hold a secret."""
    scheme, _, rest = value.partition("://")
    if scheme not in {"s3", "gs", "az", "https"} or not rest.strip("/"):
        raise ValueError("an address of another kind, a path or s3://, gs://, az:// or https:// is expected")
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise ValueError("an address with a user or a query, none is expected: credentials come from the environment")
    if "*" in rest or "[" in rest:
        raise ValueError("an address with a wildcard, a prefix is expected: write `newest: ADDRESS` below `snapshot`")
    return value


def wal(value: object, info: ValidationInfo) -> str:
    """Return where WAL lies: an absolute path, or an address."""
    read = line(value)
    return address(read) if is_address(read) else str(resolved(read, info))


NameT = TypeVar("NameT", bound=StrEnum)


def _one_of(members: Collection[NameT], *, auto: bool = False) -> Callable[[object], NameT | None]:
    """Return what reads one of these names; with `auto`, that is one too, and stands for None."""
    names = [*([_AUTO] if auto else []), *(member.value for member in members)]

    def read(value: object) -> NameT | None:
        if auto and (value is None or value == _AUTO):
            return None
        for member in members:
            if value == member.value:
                return member
        raise _refuse(value, f"one of {', '.join(names)} is expected")

    return read


def _names(members: Collection[StrEnum], *, auto: bool = False) -> dict[str, Any]:
    return {"type": "string", "enum": [*([_AUTO] if auto else []), *(member.value for member in members)]}


_VERDICTS = (Verdict.CONSISTENT, Verdict.BEST_EFFORT)
_LEVELS = (VerifyLevel.FAST, VerifyLevel.FULL)
_COMPARED = (CompareLevel.HASH, CompareLevel.COUNT)
_OUTCOMES = (DrillOutcome.FAILED, DrillOutcome.UNVERIFIED, DrillOutcome.PASSED)
_DURATION: dict[str, Any] = {"type": "string", "pattern": DURATION_PATTERN}

Version = Annotated[int, PlainValidator(_version), WithJsonSchema({"type": "integer", "const": VERSION})]
Throwaway = Annotated[str, PlainValidator(_throwaway), WithJsonSchema({"type": "string", "const": THROWAWAY})]
Text = Annotated[str, PlainValidator(text), WithJsonSchema({"type": "string", "pattern": _VISIBLE_PATTERN})]
Line = Annotated[str, PlainValidator(line), WithJsonSchema({"type": "string", "pattern": _LINE_PATTERN})]
Name = Annotated[
    str,
    PlainValidator(_name),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _LINE_PATTERN,
            "maxLength": LONGEST_NAME,
        }
    ),
]
EnvName = Annotated[str, PlainValidator(_env), WithJsonSchema({"type": "string", "pattern": _ENV_PATTERN})]
Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})]
Count = Annotated[int, PlainValidator(_count), WithJsonSchema({"type": "integer", "minimum": 0})]
Span = Annotated[timedelta, PlainValidator(_span), WithJsonSchema(_DURATION)]
Timeout = Annotated[timedelta, PlainValidator(_timeout), WithJsonSchema(_DURATION)]
Loss = Annotated[float, PlainValidator(_loss), WithJsonSchema({"type": "string", "pattern": _PERCENT_PATTERN})]
Expectation = Annotated[
    Expected, PlainValidator(_expectation), WithJsonSchema({"type": "string", "pattern": _COMPARISON_PATTERN})
]
Until = Annotated[UntilPoint, PlainValidator(_until), WithJsonSchema({"type": "string", "pattern": _VISIBLE_PATTERN})]
Day = Annotated[date, PlainValidator(_day), WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"})]
Zone = Annotated[str, PlainValidator(_zone), WithJsonSchema({"type": "string", "pattern": _ZONE_PATTERN})]
FilePath = Annotated[Path, PlainValidator(_path), WithJsonSchema({"type": "string", "pattern": _VISIBLE_PATTERN})]
WalPlace = Annotated[str, PlainValidator(wal), WithJsonSchema({"type": "string", "pattern": _VISIBLE_PATTERN})]
Engine = Annotated[
    EngineName | None, PlainValidator(_one_of(EngineName, auto=True)), WithJsonSchema(_names(EngineName, auto=True))
]
Strategy = Annotated[
    StrategyName | None,
    PlainValidator(_one_of(StrategyName, auto=True)),
    WithJsonSchema(_names(StrategyName, auto=True)),
]
Required = Annotated[Verdict, PlainValidator(_one_of(_VERDICTS)), WithJsonSchema(_names(_VERDICTS))]
Level = Annotated[VerifyLevel, PlainValidator(_one_of(_LEVELS)), WithJsonSchema(_names(_LEVELS))]
Compared = Annotated[CompareLevel, PlainValidator(_one_of(_COMPARED)), WithJsonSchema(_names(_COMPARED))]
Outcome = Annotated[DrillOutcome, PlainValidator(_one_of(_OUTCOMES)), WithJsonSchema(_names(_OUTCOMES))]
