"""A whole rescue on Docker: `pgrescue local` against the runbook by hand: `python -m tests.bench.rescue`.

By hand: tar -xf, rm backup_label, blank both files, mkdir, chown, pg_resetwal in a container, the server in another,
wait until it accepts connections. pgrescue does more: it reads every page for the values of the reset, makes a role
with a password, checks every database, keeps what it took away. So there are two comparisons: the whole command
against the whole script, and the command without what the script does not do against the same script.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.rounds import Way, alternate, show

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE = Path(__file__).parents[2] / "fixtures" / "sample" / "data.tar.gz"
_MIB = 1 << 20
_FILE_BYTES = 64 * _MIB

# What the runbook does not do; nor does it scan the pages in reset-wal, which a plain reset does not either.
OWN_STEPS = ("configure", "access", "health-check", "hand-over")

BY_HAND = """\
set -eu
PATH=$(pg_config --bindir 2>/dev/null || :):$PATH  # Debian's own pg_isready is a script that takes 0.1 s
mkdir "$directory"
tar -xf "$tar" -C "$directory"
rm -f "$directory/backup_label"
: > "$directory/override.conf"
: > "$directory/custom.conf"
mkdir -p "$directory/pg_wal/archive_status" "$directory/pg_wal/summaries"
if [ "$(id -u)" = 0 ]; then chown -R 999:999 "$directory"; user=postgres; else user=$(id -u):$(id -g); fi
data=/var/lib/postgresql/data
docker run --rm --user "$user" --volume "$directory:$data" "$image" pg_resetwal -f "$data" > /dev/null
docker run --detach --name "$name" --user "$user" --publish "127.0.0.1:$port:5432" --volume "$directory:$data" \
  "$image" -c listen_addresses='*' > /dev/null
until pg_isready --quiet --host 127.0.0.1 --port "$port"; do sleep 0.05; done
"""


def make_tar(path: Path, *, megabytes: int) -> None:
    """Write the sample's files as a plain tar, and so many megabytes of tables more: copies of its largest one."""
    with tarfile.open(SAMPLE) as sample, tarfile.open(path, "w") as tar:
        files = [(member, sample.extractfile(member)) for member in sample]
        largest = max((one for one, _ in files if one.name.startswith("base/")), key=lambda one: one.size)
        content = next(file for one, file in files if one is largest)
        assert content is not None
        pages = content.read()
        content.seek(0)
        for member, file in files:
            tar.addfile(member, file)
        filler = path.with_suffix(".filler")
        with filler.open("wb") as file:
            for _ in range(_FILE_BYTES // len(pages) + 1):
                file.write(pages)
        directory = largest.name.rpartition("/")[0]
        for number in range(megabytes * _MIB // _FILE_BYTES):
            tar.add(filler, f"{directory}/{900000 + number}")
        filler.unlink()


@dataclass
class Bench:
    """One snapshot, and both ways to bring it up."""

    tar: Path
    scratch: Path
    image: str
    steps: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    name: str = field(default_factory=lambda: f"pgrescue-bench-{secrets.token_hex(4)}")

    def by_hand(self) -> None:
        """Run the script."""
        variables = {
            "tar": str(self.tar),
            "directory": str(self.scratch / "hand"),
            "image": self.image,
            "name": self.name,
            "port": str(_free_port()),
        }
        assigned = "".join(f"{name}='{value}'\n" for name, value in variables.items())
        subprocess.run(["bash", "-c", assigned + BY_HAND], check=True)

    def clean_by_hand(self) -> None:
        """Remove what the script made."""
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], check=True, capture_output=True)
        shutil.rmtree(self.scratch / "hand")

    def pgrescue(self, way: str, *options: str) -> None:
        """Run the command, and keep what each step took."""
        root = str(self.scratch / "ours.pgrescue")
        command = ["pgrescue", "local", str(self.tar), "-w", root, "--engine", "docker", "--image", self.image]
        done = subprocess.run(
            [*command, "--strategy", "reset", *options, "--json"], check=True, capture_output=True, text=True
        )
        report = json.loads(done.stdout)
        for step in report["steps"]:
            self.steps[way][step["name"]].append(step["seconds"])
        self.steps[way]["(all steps)"].append(report["seconds"])

    def clean_pgrescue(self) -> None:
        """Remove the workspace."""
        root = str(self.scratch / "ours.pgrescue")
        subprocess.run(["pgrescue", "rm", "--yes", "-w", root], check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _nothing() -> None:
    """Prepare nothing."""


def compare(bench: Bench, *, rounds: int) -> bool:
    """Measure, and show where the time goes; tell whether the target is met with the same steps."""
    seconds = alternate(
        (
            Way("by hand", _nothing, bench.by_hand, bench.clean_by_hand),
            Way("pgrescue", _nothing, lambda: bench.pgrescue("pgrescue"), bench.clean_pgrescue),
            Way("plain reset", _nothing, lambda: bench.pgrescue("plain reset", "--plain-reset"), bench.clean_pgrescue),
        ),
        rounds=rounds,
    )
    for way, steps in bench.steps.items():
        print(f"\nwhere {way} spends its time (medians):")
        for name, taken in steps.items():
            print(f"  {name:<22} {statistics.median(taken[1:]):7.3f} s{'  not by hand' if name in OWN_STEPS else ''}")
        outside = statistics.median(seconds[way]) - statistics.median(steps["(all steps)"][1:])
        print(f"  {'(before and after)':<22} {outside:7.3f} s")
    print("\nthe whole command against the whole script:")
    show({name: seconds[name] for name in ("by hand", "pgrescue")}, ours="pgrescue", theirs="by hand", target=1.0)
    print("the same work: with pg_resetwal's own values, less the steps that the script has not, start-up included:")
    same = {
        "by hand": seconds["by hand"],
        "same work": _same_work(seconds["plain reset"], bench.steps["plain reset"]),
    }
    return show(same, ours="same work", theirs="by hand", target=1.0)


def _same_work(whole: list[float], steps: Mapping[str, list[float]]) -> list[float]:
    """Return, for each round but the first, the seconds of the command less those of its own steps."""
    own = [sum(taken) for taken in zip(*(steps[name][1:] for name in OWN_STEPS), strict=True)]
    return [took - less for took, less in zip(whole, own, strict=True)]


def main() -> int:
    """Measure; the exit status is 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=0, help="tables to add to the sample")
    parser.add_argument("--image", default="postgres:17")
    parser.add_argument("--directory", type=Path, help="where to work (default: the system's temporary directory)")
    asked = parser.parse_args()
    missing = [program for program in ("docker", "pg_isready", "pgrescue") if shutil.which(program) is None]
    if missing:
        parser.error(f"not on PATH: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="pgrescue-bench-", dir=asked.directory) as scratch:
        Path(scratch).chmod(0o755)
        tar = Path(scratch) / "data.tar"
        make_tar(tar, megabytes=asked.megabytes)
        print(f"the sample and {asked.megabytes} MB of tables: {tar.stat().st_size / _MIB:,.0f} MiB")
        return 0 if compare(Bench(tar, Path(scratch), asked.image), rounds=asked.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
