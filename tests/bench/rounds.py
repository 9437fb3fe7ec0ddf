"""Two ways to do the same, measured in turns, so that what else the machine does meets both alike."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Way:
    """One way: `prepare` and `clean` are not measured; `act` returns the seconds that count, None for all of them."""

    name: str
    prepare: Callable[[], None]
    act: Callable[[], float | None]
    clean: Callable[[], None]


def alternate(ways: tuple[Way, ...], *, rounds: int) -> dict[str, list[float]]:
    """Take the ways in turns, `rounds` times after one round that only warms the caches; return the seconds of each."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            way.prepare()
            # What the last one wrote must not be written to disk while this one is measured.
            os.sync()
            begun = time.monotonic()
            told = way.act()
            took = time.monotonic() - begun if told is None else told
            way.clean()
            if number:
                seconds[way.name].append(took)
                print(f"  round {number}: {way.name:<12} {took:8.3f} s", flush=True)
    return seconds


def show(seconds: Mapping[str, list[float]], *, ours: str, theirs: str, target: float) -> bool:
    """Print the medians and their ratio; tell whether it meets the target."""
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<14} median {median:8.3f} s   of {', '.join(f'{one:.3f}' for one in sorted(seconds[name]))}")
    ratio = medians[ours] / medians[theirs]
    verdict = "met" if ratio <= target else "MISSED"
    print(f"ratio {ours} / {theirs}: {ratio:.2f} (target {target:.1f}: {verdict})\n", flush=True)
    return ratio <= target
