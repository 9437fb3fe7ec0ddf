"""`pgrescue migration`: the app's data as a file of SQL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrescue.cli.common import JsonOption, WorkspaceOption, fail, messages, output, print_json
from pgrescue.cli.sources import (
    AUTO,
    BindirOption,
    DatabaseOption,
    EngineOption,
    ImageOption,
    SourceArgument,
    SourceUrlOption,
    engine_request,
    open_source,
)
from pgrescue.errors import RescueError
from pgrescue.report.console import observer_for, print_findings
from pgrescue.report.document import SCHEMA, finding_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.migration import MigrationReport


def migration(
    name: Annotated[str, typer.Argument(help="The migration's name, which becomes its folder.")],
    source: SourceArgument = None,
    out: Annotated[Path, typer.Option(help="Where the folder is made.", metavar="DIR", readable=False)] = Path(
        "db/migrations"
    ),
    source_url: SourceUrlOption = None,
    database: DatabaseOption = None,
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
    engine: EngineOption = AUTO,
    image: ImageOption = None,
    bindir: BindirOption = None,
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
            engine=engine_request(engine, image, bindir),
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
