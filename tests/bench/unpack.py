"""Unpacking: pgrescue's step against GNU tar, on the same file. `python -m tests.bench.unpack [--rounds N] [--big]`.

Measured is the step alone, in a process of its own, as `tar -xf` is: reading the snapshot's headers, which pgrescue
does once before (and tar never), is printed beside it, and so is the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from pgrescue.pipeline import Silent
from pgrescue.snapshot.contents import read_snapshot
from pgrescue.steps.unpack import Unpack
from pgrescue.workspace import Workspace
from tests.bench.rounds import Way, alternate, show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgrescue.run import Run

SAMPLE = Path(__file__).parents[2] / "fixtures" / "sample" / "data.tar.gz"
MOST_MEMORY = 150 << 20
_KIB, _MIB = 1 << 10, 1 << 20


def mixed_sizes(random: Random) -> Iterable[int]:
    """About 500 MB as a small server has it: 1,500 files, most of them a few pages."""
    yield from (8 * _KIB * random.randint(1, 6) for _ in range(1200))
    yield from (_MIB * random.randint(1, 2) // 2 for _ in range(250))
    yield from (_MIB * random.randint(3, 10) for _ in range(45))


def big_sizes(random: Random) -> Iterable[int]:
    """2 GB in eight segments."""
    yield from ((256 * _MIB) + 8 * _KIB * random.randint(0, 9) for _ in range(8))


def make_tar(path: Path, sizes: Iterable[int], random: Random) -> int:
    """Write a tar of the sample's control files and of relations of these sizes, in no order; return how many files."""
    block = random.randbytes(16 * _MIB)
    wanted = list(sizes)
    random.shuffle(wanted)
    with tarfile.open(SAMPLE) as sample, tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("PG_VERSION", "global/pg_control"):
            member = next(one for one in sample if one.name.removeprefix("./") == name)
            tar.addfile(member, sample.extractfile(member))
        for number, size in enumerate(wanted):
            member = tarfile.TarInfo(f"base/5/{16384 + number}")
            member.size, member.mode = size, 0o600
            whole, rest = divmod(size, len(block))
            tar.addfile(member, _Repeated(block, whole, rest))
    return len(wanted) + 2


class _Repeated(BytesIO):
    """A file of one block over and over: incompressible for a file system, cheap to make."""

    def __init__(self, block: bytes, whole: int, rest: int) -> None:
        super().__init__()
        self._pieces = [memoryview(block)] * whole + [memoryview(block)[:rest]]

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes, which tarfile asks for in small pieces."""
        while self._pieces and not self._pieces[0]:
            self._pieces.pop(0)
        if not self._pieces:
            return b""
        piece = self._pieces[0]
        wanted = len(piece) if size is None or size < 0 else size
        self._pieces[0] = piece[wanted:]
        return bytes(piece[:wanted])


@dataclass
class _Ours:
    """What the child told of each of its runs."""

    headers_s: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)

    def run(self, tar: Path, root: Path) -> float:
        command = [sys.executable, "-m", "tests.bench.unpack", "--child", str(tar), str(root)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.headers_s.append(told["headers_s"])
        self.memory_bytes.append(told["memory_bytes"])
        return float(told["unpack_s"])


def child(tar: Path, root: Path) -> None:
    """Read and unpack, and print what it took as JSON."""
    begun = time.monotonic()
    snapshot = read_snapshot(tar)
    headers_s = time.monotonic() - begun
    workspace = Workspace(root)
    workspace.create(shared=False)
    # The step asks the engine for the owner of the files alone; as root, who owns them is set, by tar as well.
    engine = SimpleNamespace(installation=SimpleNamespace(owner=None))
    run = cast("Run", SimpleNamespace(snapshot=snapshot, workspace=workspace, engine=engine))
    begun = time.monotonic()
    Unpack().apply(run, Silent())
    told: dict[str, Any] = {
        "headers_s": headers_s,
        "unpack_s": time.monotonic() - begun,
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB,
    }
    print(json.dumps(told))


def compare(tar: Path, scratch: Path, *, rounds: int) -> bool:
    """Measure both on one file; tell whether the targets are met."""
    ours, root, hand = _Ours(), scratch / "ours.pgrescue", scratch / "hand"

    def by_hand() -> float:
        begun = time.monotonic()
        subprocess.run(["tar", "-xf", str(tar), "-C", str(hand)], check=True)
        return time.monotonic() - begun

    seconds = alternate(
        (
            Way("tar -xf", hand.mkdir, by_hand, lambda: shutil.rmtree(hand)),
            Way("pgrescue", lambda: None, lambda: ours.run(tar, root), lambda: shutil.rmtree(root)),
        ),
        rounds=rounds,
    )
    fast = show(seconds, ours="pgrescue", theirs="tar -xf", target=1.0)
    memory = max(ours.memory_bytes)
    print(f"headers read before: {statistics.median(ours.headers_s):.3f} s")
    verdict = "met" if memory < MOST_MEMORY else "MISSED"
    print(f"peak memory: {memory / _MIB:.0f} MiB (target {MOST_MEMORY // _MIB}: {verdict})\n")
    return fast and memory < MOST_MEMORY


def main() -> int:
    """Measure; the exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--big", action="store_true", help="also 2 GB of large files")
    parser.add_argument("--directory", type=Path, help="where to work (default: the system's temporary directory)")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(*asked.child)
        return 0
    met = True
    for name, sizes in (("mixed", mixed_sizes), *([("big", big_sizes)] if asked.big else [])):
        with tempfile.TemporaryDirectory(prefix="pgrescue-bench-", dir=asked.directory) as scratch:
            random = Random(name)
            tar = Path(scratch) / f"{name}.tar"
            files = make_tar(tar, sizes(random), random)
            print(f"{name}: {files} files, {tar.stat().st_size / _MIB:,.0f} MiB")
            met &= compare(tar, Path(scratch), rounds=asked.rounds)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
