"""`pgrescue drill init` and `pgrescue drill schema`: a drill file to begin with, and what drill files may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgrescue.cli.common import JsonOption, WalOption, fail, messages, output, print_json, program_name, read
from pgrescue.errors import RescueError, UsageError
from pgrescue.files import write_atomically
from pgrescue.report.console import observer_for
from pgrescue.report.document import SCHEMA, encoded
from pgrescue.strategy.choose import assess
from pgrescue.strategy.wal_plan import WalRequest, plan_wal

if TYPE_CHECKING:
    from pgrescue.pipeline import Observer

_MODE = 0o666  # less what the umask takes away: both files are for a repository, and hold no secret
_FORCE = "Choose another file with --out, or replace it with --force."


def init(
    snapshot: Annotated[
        str, typer.Argument(help="A tar (plain, gzip, bzip2 or xz), a data directory, or a backup's folder.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE", readable=False)] = Path("drill.yaml"),
    wal: WalOption = None,
    name: Annotated[
        str | None, typer.Option(help="What reports call the drill. Default: made of SNAPSHOT's path.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented drill file for SNAPSHOT, which is only read, and drill.schema.json for editors beside it.

    The file is valid as it is, and requires what the snapshot allows. Exit status: 0 written, 2 not.
    """
    try:
        schema_file = _write(snapshot, out, wal=wal, name=name, force=force, observer=observer_for(messages()))
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    if as_json:
        print_json({"schema": SCHEMA, "file": str(out), "schema_file": str(schema_file)})
        return
    console = output()
    for line in (
        f"Written: {out}, and {schema_file} for editors",
        f"Next:    add checks of your tables to it, then: {program_name()} drill {out}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def schema() -> None:
    """Print the JSON Schema of drill files."""
    from pgrescue.drill.schema import scenario_schema  # noqa: PLC0415 - with pydantic, which other commands never need

    print_json(scenario_schema())


def _write(snapshot: str, out: Path, *, wal: Path | None, name: str | None, force: bool, observer: Observer) -> Path:
    """Write both files, and return the schema's path."""
    from pgrescue.drill.beginning import SCHEMA_FILE, beginning, drill_text  # noqa: PLC0415 - as in schema
    from pgrescue.drill.reading import parse_scenario  # noqa: PLC0415 - as above
    from pgrescue.drill.schema import scenario_schema  # noqa: PLC0415 - as above

    schema_file = out.parent / SCHEMA_FILE
    path = _local(snapshot)
    _refuse_place(path, out, schema_file, force=force)
    found = read(path, observer)
    plan = plan_wal(found, WalRequest(wal))
    start = beginning(found, plan, assess(found, plan), file=out.absolute(), name=name)
    text = drill_text(start, file_name=out.name)
    # A name from the command line may be one that a drill file refuses.
    parse_scenario(text, out)
    try:
        write_atomically(schema_file, encoded(scenario_schema()) + "\n", mode=_MODE)
        write_atomically(out, text, mode=_MODE)
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written: {error.strerror}", hint="Choose another place with --out."
        ) from error
    return schema_file


def _local(snapshot: str) -> Path:
    if "://" in snapshot:
        raise UsageError(
            f"{snapshot} is not on this machine, and its content is what is to be read",
            hint="Write a drill file for a snapshot that is here, then put the address into its `snapshot`.",
        )
    return Path(snapshot)


def _refuse_place(snapshot: Path, out: Path, schema_file: Path, *, force: bool) -> None:
    """Refuse to replace what is there, and to write into the snapshot."""
    if not out.parent.is_dir():
        raise UsageError(f"there is no directory {out.parent}", hint="Make it, or choose another file with --out.")
    if out.name == schema_file.name:
        raise UsageError(f"{out} is where the schema goes", hint="Choose another file with --out.")
    for path in (out, schema_file):
        if path.is_dir():
            raise UsageError(f"{path} is a directory", hint="Choose another file with --out.")
        if path.parent.resolve().is_relative_to(snapshot.resolve()):
            raise UsageError(f"{path} would lie within the snapshot, which is never written to", hint=_FORCE)
    for path, is_ours in ((out, False), (schema_file, _is_schema(schema_file))):
        if (path.exists() or path.is_symlink()) and not is_ours and not force:
            raise UsageError(f"{path} is there already", hint=_FORCE)


def _is_schema(path: Path) -> bool:
    """Tell whether a file is a schema of drill files: another version's may be replaced."""
    from pgrescue.drill.schema import TITLE  # noqa: PLC0415 - with pydantic

    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("title") == TITLE
