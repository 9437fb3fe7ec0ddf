"""The parts of the preflight that need no server."""

from __future__ import annotations

import pytest

from pgrescue.transfer.collations import plain_locale
from pgrescue.transfer.facts import listed
from pgrescue.transfer.preflight import room_needed

_GIB = 1 << 30


@pytest.mark.parametrize(
    ("source", "target", "needed"),
    [(10 * _GIB, 0, 11 * _GIB), (10 * _GIB, 6 * _GIB, int(4.4 * _GIB)), (10 * _GIB, 12 * _GIB, 0)],
)
def test_what_an_interrupted_transfer_left_needs_no_more_room(source: int, target: int, needed: int) -> None:
    assert room_needed(source, target) == needed


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("C.UTF-8", "C.utf8"),
        ("C.utf8", "C.utf8"),
        ("de_AT.UTF-8", "de_AT.utf8"),
        ("de_AT.ISO-8859-15", "de_AT.iso885915"),
        ("POSIX", "C"),
        ("en-US", "en-US"),
        ("", ""),
    ],
)
def test_one_locale_has_many_spellings(name: str, plain: str) -> None:
    assert plain_locale(name) == plain


def test_a_long_list_is_cut_and_says_so() -> None:
    assert listed([]) == ""
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(11)]) == "0, 1, 2, 3, 4, 5, 6, 7, and 3 more"
