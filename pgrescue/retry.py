"""Waiting at an edge: the only place that retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def until_returns(
    attempt: Callable[[], T],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    timeout_s: float,
    longest_pause_s: float = 1.0,
    asked_pause_s: Callable[[BaseException], float] | None = None,
) -> T:
    """Call `attempt` until it returns, pausing 0.02 s at first and `longest_pause_s` at most.

    Only the exceptions named by `on` are retried. When `timeout_s` is over, the last of them is raised.
    `asked_pause_s` tells how long the pause must be at least after an exception, such as HTTP's Retry-After; the
    exception is raised at once where that pause would not end in time.
    """
    import tenacity  # noqa: PLC0415 - with asyncio it takes 0.1 s to import; few commands wait

    doubling = tenacity.wait_exponential(multiplier=0.02, max=longest_pause_s)

    def pause_s(state: tenacity.RetryCallState) -> float:
        error = None if state.outcome is None else state.outcome.exception()
        asked_s = 0.0 if asked_pause_s is None or error is None else asked_pause_s(error)
        return max(doubling(state), asked_s)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(on),
        wait=pause_s,
        stop=(tenacity.stop_after_delay if asked_pause_s is None else tenacity.stop_before_delay)(timeout_s),
        reraise=True,
    )
    return retrying(attempt)
