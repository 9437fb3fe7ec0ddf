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
) -> T:
    """Call `attempt` until it returns, pausing 0.02 s at first and `longest_pause_s` at most.

    Only the exceptions named by `on` are retried. When `timeout_s` is over, the last of them is raised.
    """
    import tenacity  # noqa: PLC0415 - with asyncio it takes 0.1 s to import; few commands wait

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(on),
        wait=tenacity.wait_exponential(multiplier=0.02, max=longest_pause_s),
        stop=tenacity.stop_after_delay(timeout_s),
        reraise=True,
    )
    return retrying(attempt)
