"""The key of a b-tree index tuple as text that PostgreSQL reads back as a literal of the column's type.

Layouts: `itup.h`, `postgres.h` (varlena), `numeric.c`, `timestamp.h`. A value that is compressed, or of a type that is
not listed here, is given as the hexadecimal of its bytes, and the key says that it is not decoded.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_HAS_NULLS: Final = 0x8000
_HEADER_BYTES: Final = 8
_BITMAP_BYTES: Final = 4
_ALIGNMENTS: Final = MappingProxyType({"c": 1, "s": 2, "i": 4, "d": 8})
_MICROSECONDS: Final = 1_000_000
_DAY: Final = 86_400 * _MICROSECONDS
_VARLENA: Final = -1
_CSTRING: Final = -2


@dataclass(frozen=True)
class KeyColumn:
    """A column of an index as pg_attribute describes it *for the index*: atttypid, attlen, attalign, attbyval.

    A domain's column needs its base type. (The index of a `name` column stores a cstring: attlen -2.)
    """

    type_oid: int
    typlen: int
    typalign: str
    typbyval: bool = False


@dataclass(frozen=True)
class Key:
    r"""A key's values, None for NULL; `undecoded` are the places of those that are given as `\x…`."""

    values: tuple[str | None, ...]
    undecoded: tuple[int, ...] = ()

    @property
    def is_decoded(self) -> bool:
        """Whether every value is a literal of its column's type."""
        return not self.undecoded


def decode_keys(raw: Sequence[bytes], columns: Sequence[KeyColumn], *, encoding: str = "utf-8") -> list[Key]:
    """Decode the leading `columns` of index tuples, header included; `encoding` is Python's name of the database's.

    A tuple that is shorter than its columns, which is damage, gives its whole bytes as one undecoded value.
    """
    return [_decode(item, columns, encoding) for item in raw]


def _decode(raw: bytes, columns: Sequence[KeyColumn], encoding: str) -> Key:
    values: list[str | None] = []
    undecoded: list[int] = []
    try:
        (info,) = struct.unpack_from("<H", raw, 6)
        nulls = struct.unpack_from("<I", raw, _HEADER_BYTES)[0] if info & _HAS_NULLS else (1 << 32) - 1
        base = _aligned(_HEADER_BYTES + _BITMAP_BYTES, 8) if info & _HAS_NULLS else _HEADER_BYTES
        offset = base
        for number, column in enumerate(columns):
            if not nulls >> number & 1:
                values.append(None)
                continue
            value, is_plain, offset = _take(raw, offset, column)
            text = _text(value, column.type_oid, encoding) if is_plain else None
            if text is None:
                undecoded.append(number)
            values.append(f"\\x{value.hex()}" if text is None else text)
    except (struct.error, IndexError, ValueError):
        return Key((f"\\x{raw.hex()}",), (0,))
    return Key(tuple(values), tuple(undecoded))


def _aligned(offset: int, to: int) -> int:
    return -(-offset // to) * to


def _take(raw: bytes, offset: int, column: KeyColumn) -> tuple[bytes, bool, int]:
    """Return a value's bytes without its length, whether they are uncompressed, and where it ends (att_align_pointer).

    Raises ValueError where the tuple ends first.
    """
    if column.typlen == _VARLENA and raw[offset]:
        pass  # Padding is zero, and the first byte of a short value never is.
    else:
        offset = _aligned(offset, _ALIGNMENTS[column.typalign])
    start, is_plain = offset, True
    if column.typlen == _CSTRING:
        return raw[offset : raw.index(0, offset)], True, raw.index(0, offset) + 1
    if column.typlen != _VARLENA:
        end = offset + column.typlen
    elif raw[offset] & 1:
        end, start = offset + (raw[offset] >> 1), offset + 1
    else:
        (header,) = struct.unpack_from("<I", raw, offset)
        end, start, is_plain = offset + (header >> 2), offset + 4, header & 2 == 0
    if not start <= end <= len(raw):
        msg = f"a value of {end - start} bytes at {start} does not fit in {len(raw)}"
        raise ValueError(msg)
    return raw[start:end], is_plain, end


def _text(value: bytes, type_oid: int, encoding: str) -> str | None:
    """Return a literal, None where the type is not known or the value is none of its type."""
    if type_oid in _TEXTS:
        try:
            return value.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            return None
    decoder = _DECODERS.get(type_oid)
    try:
        return decoder(value) if decoder else None
    except (struct.error, ValueError, IndexError):
        return None


def _number(code: str) -> Callable[[bytes], str]:
    layout = struct.Struct(f"<{code}")
    return lambda value: str(layout.unpack(value)[0])


def _bool(value: bytes) -> str:
    return "true" if value[0] else "false"


def _char(value: bytes) -> str:
    """Write a "char" as charout does: nothing for 0, octal for what is not ASCII."""
    byte = value[0]
    return "" if byte == 0 else chr(byte) if byte < 128 else f"\\{byte:03o}"  # noqa: PLR2004 (the end of ASCII)


def _float(code: str, kind: type[np.float32 | np.float64]) -> Callable[[bytes], str]:
    def decode(value: bytes) -> str:
        (number,) = struct.unpack(f"<{code}", value)
        text = str(np.array(number, dtype=kind)[()])
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(text, text)

    return decode


def _day(days: int) -> tuple[str, str]:
    """Return the ISO date that many days after 2000-01-01, and what stands behind it before the year 1.

    The calendar is Gregorian in both directions (j2date), counted in eras of 400 years that begin on 1 March.
    """
    era, day = divmod(days + 730_425, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    shifted = (5 * day + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9  # noqa: PLR2004 (January and February end such a year)
    year += era * 400 + (month <= 2)  # noqa: PLR2004
    day_of_month = day - (153 * shifted + 2) // 5 + 1
    return f"{year if year > 0 else 1 - year:04}-{month:02}-{day_of_month:02}", "" if year > 0 else " BC"


def _date(value: bytes) -> str:
    (days,) = struct.unpack("<i", value)
    if infinity := {-(1 << 31): "-infinity", (1 << 31) - 1: "infinity"}.get(days):
        return infinity
    return "".join(_day(days))


def _timestamp(zone: str) -> Callable[[bytes], str]:
    def decode(value: bytes) -> str:
        (microseconds,) = struct.unpack("<q", value)
        if infinity := {-(1 << 63): "-infinity", (1 << 63) - 1: "infinity"}.get(microseconds):
            return infinity
        days, rest = divmod(microseconds, _DAY)
        seconds, fraction = divmod(rest, _MICROSECONDS)
        time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        digits = f".{fraction:06}".rstrip("0") if fraction else ""
        date, suffix = _day(days)
        return f"{date} {time}{digits}{zone}{suffix}"

    return decode


def _numeric(value: bytes) -> str:
    """Write a numeric with as many decimals as it has (NumericShort and NumericLong)."""
    (header,) = struct.unpack_from("<H", value)
    if header & 0xC000 == 0xC000:  # noqa: PLR2004 (NUMERIC_SPECIAL)
        return {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}[header & 0xF000]
    if header & 0x8000:
        is_negative, scale, start = header & 0x2000, (header & 0x1F80) >> 7, 2
        weight = (header & 0x3F) - (64 if header & 0x40 else 0)
    else:
        is_negative, scale, start = header & 0x4000, header & 0x3FFF, 4
        (weight,) = struct.unpack_from("<h", value, 2)
    digits = [digit for (digit,) in struct.iter_unpack("<H", value[start:])]
    groups = {weight - place: digit for place, digit in enumerate(digits)}
    whole = "".join(f"{groups.get(place, 0):04}" for place in range(weight, -1, -1)).lstrip("0") or "0"
    part = "".join(f"{groups.get(place, 0):04}" for place in range(-1, -((scale + 3) // 4) - 1, -1))[:scale]
    return ("-" if is_negative else "") + whole + (f".{part}" if scale else "")


_TEXTS: Final = frozenset({19, 25, 1042, 1043, 2275})
"""name, text, bpchar, varchar, cstring."""

_DECODERS: Final[Mapping[int, Callable[[bytes], str]]] = MappingProxyType(
    {
        16: _bool,
        17: lambda value: f"\\x{value.hex()}",
        18: _char,
        20: _number("q"),
        21: _number("h"),
        23: _number("i"),
        26: _number("I"),
        700: _float("f", np.float32),
        701: _float("d", np.float64),
        1082: _date,
        1114: _timestamp(""),
        1184: _timestamp("+00"),
        1700: _numeric,
        2950: lambda value: str(uuid.UUID(bytes=value)),
    }
)
"""By pg_type's oid: bool, bytea, "char", int8, int2, int4, oid, float4, float8, date, timestamps, numeric, uuid."""
