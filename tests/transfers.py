"""Transfers between two real servers, run in this process: the preflight is asked many times, and is quick."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import psycopg
from rich.console import Console
from typer.testing import CliRunner

from pgrescue.cli.app import app
from pgrescue.cli.to_cluster import _STATUSES
from pgrescue.engine.choose import EngineRequest
from pgrescue.model import EngineName
from pgrescue.report.console import observer_for
from pgrescue.report.document import transfer_document
from pgrescue.transfer.endpoint import Endpoint
from pgrescue.transfer.facts import read_facts
from pgrescue.transfer.pooling import Sessions
from pgrescue.transfer.preflight import Sides
from pgrescue.transfer.site import TransferPlan
from pgrescue.transfer.source import live
from pgrescue.transfer.transfer import transfer
from tests.targets import OWNER, new_database, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures import Server
    from pgrescue.pipeline import Observer
    from pgrescue.transfer.source import Source


@dataclass(frozen=True)
class Ended:
    """A `pgrescue to-cluster --json` that ended: its exit status, its document, and everything that it wrote."""

    status: int
    document: dict[str, Any]
    said: str

    @property
    def outcome(self) -> str:
        return str(self.document["outcome"])

    @property
    def codes(self) -> list[str]:
        return [finding["code"] for finding in self.document["findings"]]

    @property
    def errors(self) -> set[str]:
        return {finding["code"] for finding in self.document["findings"] if finding["severity"] == "error"}

    def finding(self, code: str, about: str = "") -> dict[str, Any]:
        """Return the only finding with this code, of those that are about something where that is said."""
        found = [one for one in self.document["findings"] if one["code"] == code and about in one["object"]]
        assert len(found) == 1, f"{len(found)} findings {code}\n{self.said}"
        finding = found[0]
        assert isinstance(finding, dict)
        return finding

    def refused(self, code: str, *words: str) -> dict[str, Any]:
        """Assert that it was refused for one reason, whose finding says all of `words`."""
        finding = self.finding(code)
        assert (self.status, self.outcome, self.errors) == (2, "refused", {code}), self.said
        assert finding["severity"] == "error"
        text = " ".join(finding[field] for field in ("object", "detail", "remedy"))
        assert [word for word in words if word not in text] == [], text
        return finding

    def ready(self) -> Ended:
        """Assert that nothing speaks against it."""
        assert (self.status, self.outcome, self.errors) == (0, "ready", set()), self.said
        return self

    def moved(self) -> Ended:
        """Assert that everything was moved, and is the same."""
        assert (self.status, self.outcome, self.errors) == (0, "moved", set()), self.said
        assert all(table["equal"] for table in self.document["tables"])
        return self


def to_cluster(source_url: str, target_url: str, *options: str) -> Ended:
    """Run the command on a live source."""
    args = ("to-cluster", "--engine", "native", "--json", "--source-url", source_url, "--target-url", target_url)
    without = {name: None for name in os.environ if name.startswith("PG")}
    done = CliRunner(env=without).invoke(app, [*args, *options], catch_exceptions=False)
    return Ended(done.exit_code, json.loads(done.stdout) if done.stdout else {}, done.stdout + done.stderr)


def _nobody() -> Observer:
    return observer_for(Console(file=io.StringIO()))


class World:
    """Two servers, and databases on them that a test makes for itself; a context manager."""

    def __init__(self, source: Server, target: Server) -> None:
        self.source = source
        self.target = target
        self._sources: dict[str, Source] = {}
        self._made: dict[tuple[str, ...], str] = {}
        self._empty: dict[str, str] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def origin(self, statements: str = "", *, options: str = "", on: Server | None = None, is_own: bool = False) -> str:
        """Create a database to be moved, where its owner runs statements; return its URL for a superuser.

        Tests share it with those that ask for the same, unless it `is_own`.
        """
        server = on or self.source
        wanted = (server.conninfo(), statements, options)
        if is_own or wanted not in self._made:
            name = new_database(server, options=options)
            run(server, name, f"set role {OWNER};\n{statements}")
            self._made[wanted] = name
        return url_of(server, self._made[wanted])

    def empty(self, *, user: str = OWNER, on: Server | None = None) -> str:
        """Return the URL of an empty database that tests share: it stays as it is."""
        server = on or self.target
        if server.conninfo() not in self._empty:
            self._empty[server.conninfo()] = new_database(server)
        return url_of(server, self._empty[server.conninfo()], user)

    def goal(
        self,
        statements: str = "",
        *,
        user: str = OWNER,
        owner: str | None = None,
        options: str = "",
        on: Server | None = None,
    ) -> str:
        """Create a database to move to, where a superuser runs statements; return `user`'s URL: its owner's, mostly."""
        server = on or self.target
        name = new_database(server, owner=owner or user, options=options)
        run(server, name, statements)
        return url_of(server, name, user)

    def look(
        self, source_url: str, target_url: str, *, role: str | None = None, roles: bool = False, jobs: int = 2
    ) -> Ended:
        """Do what the command does with --dry-run, and what makes the preflight slow only once in a module."""
        plan = TransferPlan(jobs=jobs, role=role, makes_roles=roles, is_dry=True)
        report = transfer(self._source(source_url), Endpoint.parse(target_url, "--target-url"), plan, _nobody())
        document = transfer_document(report)
        return Ended(int(_STATUSES[report.outcome]), document, json.dumps(document))

    def _source(self, url: str) -> Source:
        """Return a source whose pg_dump was looked for before."""
        endpoint = Endpoint.parse(url, "--source-url")
        place = f"{endpoint.parameters['host']} {endpoint.parameters['user']}"
        if place not in self._sources:
            request = EngineRequest(EngineName.NATIVE)
            self._sources[place] = self._cleanup.enter_context(live(endpoint, request, _nobody()))
        return self._sources[place].of_database(name_of(url))


def run(server: Server, database: str, statements: str) -> None:
    """Run statements, each in its own transaction: they are separated by semicolons at line ends."""
    with server.connect(database) as connection:
        for statement in statements.split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())


def name_of(url: str) -> str:
    """Return a URL's database."""
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


@contextlib.contextmanager
def both(source_url: str, target_url: str) -> Iterator[Sides]:
    """Ask source and target, as the preflight does, for one of its checks alone."""
    endpoints = Endpoint.parse(source_url, "--source-url"), Endpoint.parse(target_url, "--target-url")
    with endpoints[0].connect() as source, endpoints[1].connect() as target:
        yield Sides(source, read_facts(source), target, read_facts(target), Sessions(1, 1, are_shared=False))
