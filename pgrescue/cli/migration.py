"""`pgrescue migration`: the app's data as a file of SQL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrescue.cli.common import JsonOption, WorkspaceOption, fail, messages, named, output, print_json
from pgrescue.cli.sources import open_source
from pgrescue.engine.choose import EngineRequest
from pgrescue.errors import RescueError
from pgrescue.model import EngineName
from pgrescue.report.console import observer_for, print_findings
from pgrescue.report.document import SCHEMA, finding_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.migration import MigrationReport


def migration(
    name: Annotated[str, typer.Argument(help="The migration's name, which becomes its folder.")],
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A workspace, or a snapshot (it is rescued first). Default: the only workspace here.", readable=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the folder is made.", metavar="DIR", readable=False)] = Path(
        "db/migrations"
    ),
    source_url: Annotated[
        str | None,
        typer.Option(
            help="A live server in place of SOURCE.", envvar="PGRESCUE_SOURCE_URL", show_envvar=True, metavar="URL"
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="The app database. Default: the only one that is no template, maintenance or empty one."),
    ] = None,
    workspace: WorkspaceOption = None,
    schema: Annotated[
        list[str] | None,
        typer.Option(help="A schema whose tables to take; may be repeated. Default: public.", metavar="NAME"),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="Take this table only: NAME or SCHEMA.NAME, as it is spelled; may be repeated.", metavar="NAME"
        ),
    ] = None,
    with_bookkeeping: Annotated[
        bool, typer.Option("--with-bookkeeping", help="Take in the tables of migration tools, such as Prisma's.")
    ] = False,
    sensitive: Annotated[
        bool, typer.Option("--sensitive", help="Add the folder to the .gitignore of the repository first.")
    ] = False,
    engine: Annotated[str, typer.Option(help="auto, docker or native.", metavar="ENGINE")] = "auto",
    image: Annotated[str | None, typer.Option(help="The Docker image with PostgreSQL's programs.")] = None,
    bindir: Annotated[
        Path | None, typer.Option(help="Where PostgreSQL's programs are, for the native engine.", readable=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write db/migrations/NAME/migration.sql: SQL that empties the app's tables and fills them with the data of SOURCE.

    It holds data only, for a database that has the schema. An existing one is never overwritten. Exit status: 0
    written, 1 the source cannot be had or is damaged, 2 the request cannot be meant; nothing is written then.
    """
    from pgrescue.transfer.migration import write_migration  # noqa: PLC0415 - with psycopg, as in to_cluster
    from pgrescue.transfer.migration_place import find_place  # noqa: PLC0415 - as above
    from pgrescue.transfer.migration_scope import Wanted  # noqa: PLC0415 - as above

    observer = observer_for(messages())
    try:
        place = find_place(name, out, is_sensitive=sensitive)
        wanted = Wanted(tuple(schema or ("public",)), tuple(table or ()), with_bookkeeping=with_bookkeeping)
        with open_source(
            source,
            workspace=workspace,
            source_url=source_url,
            database=database,
            observer=observer,
            engine=EngineRequest(None if engine == "auto" else named(EngineName, engine, "--engine"), image, bindir),
        ) as found:
            report = write_migration(found, place, wanted, observer)
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    if as_json:
        print_json(_document(report))
        return
    console = output()
    print_findings(console, report.findings)
    for line in _lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _document(report: MigrationReport) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "migration": str(report.file),
        "source": report.source,
        "database": report.database,
        "tables": [{"name": table.name, "rows": table.rows} for table in report.tables],
        "size_bytes": report.size_bytes,
        "findings": [finding_document(finding) for finding in report.findings],
        "seconds": report.seconds,
    }


def _lines(report: MigrationReport) -> Iterator[str]:
    yield f"Written:  {report.file} ({report.size_bytes / (1 << 20):,.1f} MiB)"
    yield f"Holds:    {report.rows:,} rows of {len(report.tables)} tables of {report.source}"
    yield "Apply:    its first lines say how; it empties the tables before it fills them"
