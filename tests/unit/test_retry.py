"""Waiting at an edge."""

from __future__ import annotations

import time

import pytest

from pgrescue.retry import until_returns


class _NotYetError(Exception):
    pass


def test_it_is_tried_until_it_returns() -> None:
    left = [_NotYetError(), _NotYetError()]

    def attempt() -> str:
        if left:
            raise left.pop()
        return "there"

    assert until_returns(attempt, on=_NotYetError, timeout_s=5, longest_pause_s=0.02) == "there"
    assert left == []


def test_when_time_is_over_the_last_exception_is_raised() -> None:
    raised: list[_NotYetError] = []

    def attempt() -> None:
        raised.append(_NotYetError(str(len(raised))))
        raise raised[-1]

    begun = time.monotonic()
    with pytest.raises(_NotYetError) as caught:
        until_returns(attempt, on=_NotYetError, timeout_s=0.1, longest_pause_s=0.02)
    assert time.monotonic() - begun >= 0.05
    assert len(raised) > 1
    assert caught.value is raised[-1]


@pytest.mark.parametrize("error", [ValueError("another"), KeyboardInterrupt()])
def test_other_exceptions_end_it_at_once(error: BaseException) -> None:
    tries = []

    def attempt() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        until_returns(attempt, on=(_NotYetError, KeyError), timeout_s=5)
    assert len(tries) == 1


def test_a_pause_that_was_asked_for_is_kept() -> None:
    left = [_NotYetError("0.3")]

    def attempt() -> str:
        if left:
            raise left.pop()
        return "there"

    begun = time.monotonic()
    asked = until_returns(
        attempt, on=_NotYetError, timeout_s=5, longest_pause_s=0.02, asked_pause_s=lambda error: float(str(error))
    )
    assert asked == "there"
    assert 0.3 <= time.monotonic() - begun < 3


def test_a_pause_that_would_not_end_in_time_ends_it_at_once() -> None:
    tries = []

    def attempt() -> None:
        tries.append(1)
        raise _NotYetError

    begun = time.monotonic()
    with pytest.raises(_NotYetError):
        until_returns(attempt, on=_NotYetError, timeout_s=3, asked_pause_s=lambda _: 3600.0)
    assert time.monotonic() - begun < 2
    assert len(tries) == 1
