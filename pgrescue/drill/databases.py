"""The databases of the recovered server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.transfer.source import choose_database

if TYPE_CHECKING:
    from pgrescue.model import RescueReport
    from pgrescue.transfer.source import Source


class Databases:
    """The recovered server's databases; which one is the app's is found out once, where no check names one."""

    def __init__(self, source: Source, report: RescueReport) -> None:
        self._source = source
        self._app: Source | None = None
        self.names = tuple(database.name for database in report.databases)

    def has(self, name: str) -> bool:
        """Tell whether there is such a database."""
        return name in self.names

    def get(self, name: str | None) -> Source:
        """Return a database by its name, or the app's; raise UsageError where that is not clear."""
        if name is not None:
            return choose_database(self._source, name)
        if self._app is None:
            self._app = choose_database(self._source, None)
        return self._app
