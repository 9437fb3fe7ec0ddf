"""What the preflight decided of a schema: what is left out of it, and what its new owners need meanwhile."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from psycopg import sql

if TYPE_CHECKING:
    from pgrescue.transfer.schema import Entry, Schema

_Identity: TypeAlias = tuple[str, str, str, int]
# pg_dump writes the grants of others than the owner so, which only a superuser may do.
_SESSION = re.compile(r"^(RE)?SET SESSION AUTHORIZATION\b", re.MULTILINE)
# The last statement of an entry.
_OWNER = re.compile(r"\n+ALTER [^\n]+ OWNER TO [^\n]+;\s*\Z")
GRANTOR = re.compile(r"^SET SESSION AUTHORIZATION (.+);$", re.MULTILINE)
"""The role in whose name an entry grants, as an identifier."""


@dataclass(frozen=True, order=True)
class Loan:
    """CREATE on a schema, or on the database, that a role needs while it is made the owner of something there.

    `kind` is SCHEMA or DATABASE, `name` the schema's.
    """

    kind: str
    name: str
    role: str

    @classmethod
    def of(cls, entry: Entry) -> Loan | None:
        """Return what an entry's owner needs (ALTER TABLE, ALTER PUBLICATION … OWNER TO in the manual)."""
        if not entry.owner or " OWNER TO " not in entry.sql:
            return None
        if entry.type == "PUBLICATION":
            return cls("DATABASE", "", entry.owner)
        return cls("SCHEMA", entry.schema, entry.owner) if entry.schema else None

    @property
    def lacks(self) -> str:
        """Words for what the role cannot do without it."""
        return f"may not create anything in the {f'schema {self.name}' if self.name else 'database'}"

    def around(self, statements: str, database: str) -> str:
        """Return statements of one transaction with the loan, which ends with it."""
        on = f"CREATE ON {self.kind} {_quoted(self.name or database)}"
        role = _quoted(self.role)
        return f"GRANT {on} TO {role};\n{statements}\n;REVOKE {on} FROM {role};"


@dataclass
class Plan:
    """What becomes of the schema: entries to leave out, roles to make first, whether owners are kept.

    `roles` are all that own or are granted anything; `schemas_there` those schemas that the target has beforehand, and
    that are left as they are. What is owned by `strangers` will belong to the target's role, where other owners are
    kept. `grants_by_role` tells that grants in another role's name are made by SET ROLE.
    """

    keeps_owners: bool = True
    missing_roles: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    schemas_there: frozenset[str] = frozenset()
    strangers: frozenset[str] = frozenset()
    grants_by_role: bool = False
    loans: set[Loan] = field(default_factory=set)
    _left_out: set[_Identity] = field(default_factory=set)

    def leave_out(self, entry: Entry) -> None:
        """Have an entry left out."""
        self._left_out.add(_identity(entry))

    def leaves_out(self, entry: Entry) -> bool:
        """Tell whether an entry is left out, in whichever dump of the same schema: its number is another in each."""
        return _identity(entry) in self._left_out

    def left_out(self, schema: Schema) -> frozenset[int]:
        """Return the numbers of what is left out."""
        return frozenset(entry.number for entry in schema.entries if self.leaves_out(entry))

    def applied(self, schema: Schema, database: str) -> Schema:
        """Return the schema as the target's `database` can take it."""
        return replace(
            schema,
            before=tuple(self._adapted(entry, database) for entry in schema.before),
            after=tuple(self._adapted(entry, database) for entry in schema.after),
        )

    def _adapted(self, entry: Entry, database: str) -> Entry:
        statements = entry.sql
        loan = Loan.of(entry)
        if self.leaves_out(entry):
            statements = ""
        elif entry.owner in self.strangers:
            statements = _OWNER.sub("", statements)
        elif loan is not None and loan in self.loans:
            statements = loan.around(statements, database)
        if self.grants_by_role and entry.type == "ACL":
            statements = _SESSION.sub(lambda found: "RESET ROLE" if found[1] else "SET LOCAL ROLE", statements)
        return entry if statements == entry.sql else replace(entry, sql=statements, dumped=entry.sql)


def _identity(entry: Entry) -> _Identity:
    return entry.type, entry.schema, entry.name, entry.oid


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
