"""All commands in one application."""

from __future__ import annotations

from typing import Annotated

import typer

from pgrescue import __version__
from pgrescue.cli.doctor import doctor
from pgrescue.cli.drill import app as drill
from pgrescue.cli.inspect import inspect
from pgrescue.cli.local import local
from pgrescue.cli.migration import migration
from pgrescue.cli.rm import rm
from pgrescue.cli.server import logs, psql, status, stop
from pgrescue.cli.to_cluster import to_cluster

app = typer.Typer(
    name="pgrescue",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pgrescue {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a physical PostgreSQL snapshot into a running, checked server, and say honestly what was recovered."""
    del version


app.command()(inspect)
app.command()(local)
app.command(name="to-cluster")(to_cluster)
app.command()(migration)
app.add_typer(drill, name="drill")
app.command()(status)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)
app.command()(logs)
app.command()(stop)
app.command()(rm)
app.command()(doctor)
