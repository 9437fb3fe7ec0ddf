"""What a drill file asks for, as frozen values that have the file's shape (`reading.py` reads it)."""

import glob
import os
import re
import unicodedata
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationInfo,
    model_validator,
)

from pgrescue.drill import fields
from pgrescue.drill.duration import shown
from pgrescue.drilled import DrillOutcome
from pgrescue.model import Finding, Latest, VerifyLevel
from pgrescue.transfer.compare import CompareLevel

CHECK_KINDS = ("sql", "rows", "freshness", "schema", "verify")
ASSERTIONS = ("require", "rto_budget", "rpo_budget", "checks", "transfer", "after")
"""The fields of a drill that assert something."""
_WILDCARDS = frozenset("*?[")
_LONGEST_SLUG = 40
_MOST_OF_SQL = 60
_DATABASE_URL = "DATABASE_URL"


class _Value(BaseModel):
    """A frozen value; an unknown field is an error, and the JSON Schema has the docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class SnapshotChoice:
    """Which snapshot is restored: an address of an object store, or an absolute path.

    Where the newest is taken, a path with a wildcard is a glob; else it means exactly itself.
    """

    text: str
    takes_newest: bool

    @property
    def is_address(self) -> bool:
        """Tell whether it lies in an object store."""
        return fields.is_address(self.text)


class Newest(_Value):
    """Restores the newest of several snapshots."""

    newest: fields.Line = Field(examples=["/backups/portal", "/backups/*/data.tar.gz", "s3://backups/portal"])
    """A directory or an address below which backups lie, or a glob: the newest finished backup is restored."""


def _snapshot(value: object, info: ValidationInfo) -> SnapshotChoice:
    match value:
        case SnapshotChoice():
            return value
        case dict():
            asked = Newest.model_validate(value, context=info.context)
            return SnapshotChoice(_place(asked.newest, info), takes_newest=True)
        case _:
            text = fields.line(value)
            is_glob = not fields.is_address(text) and bool(_WILDCARDS & set(text))
            return SnapshotChoice(_place(text, info), takes_newest=is_glob)


def _place(text: str, info: ValidationInfo) -> str:
    if fields.is_address(text):
        return fields.address(text)
    base = str((info.context or {}).get(fields.BASE, ""))
    if text.startswith("~/"):
        base, text = str(Path.home()), text.removeprefix("~/")
    # Characters of the drill file's directory are no wildcards.
    return os.path.join(glob.escape(base) if _WILDCARDS & set(text) else base, text)  # noqa: PTH118 - a glob is no path


class _Check(_Value):
    name: fields.Line | None = Field(default=None, examples=["orders are there"])
    """What reports call this check. Default: words made of what it checks."""


class _DatabaseCheck(_Check):
    database: fields.Line | None = Field(default=None, examples=["portal"])
    """The database to look into. Default: the only one that is no template, no maintenance database, and not empty."""
    timeout: fields.Timeout = Field(default=timedelta(minutes=5), examples=["30 s"])
    """How long it may take before it counts as not verified. Default: 5 min."""


class SqlCheck(_DatabaseCheck):
    """Compares the one value of a query, which runs in a transaction that is read only."""

    sql: fields.Text = Field(examples=["select count(*) from orders where total < 0"])
    """A query that gives one row with one column."""
    expect: fields.Expectation = Field(
        examples=["== 0", ">= 1000", "between 1 and 9", "!= null", "== 'paid'", "<= 5 min", ">= 2026-11-22"]
    )
    """What that value is to be: == != < <= > >= and a value, or between two; a text stands in single quotes."""

    @property
    def title(self) -> str:
        """What reports call it."""
        sql = " ".join(self.sql.split())
        return self.name or f"{sql if len(sql) <= _MOST_OF_SQL else sql[: _MOST_OF_SQL - 1] + '…'} {self.expect}"


class RowCount(_Value):
    """How many rows a table has; at least one of min, max and max_loss is required."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["min"]}, {"required": ["max"]}, {"required": ["max_loss"]}]}
    )

    table: fields.Line = Field(examples=["orders", "billing.invoices"])
    """The table: NAME or SCHEMA.NAME, as it is spelled."""
    min: fields.Count | None = Field(default=None, examples=[1000])
    """It has at least so many rows."""
    max: fields.Count | None = Field(default=None, examples=[1000000])
    """It has at most so many rows."""
    max_loss: fields.Loss | None = Field(default=None, examples=["5 %", "0 %"])
    """It has lost at most so many per cent of the rows that it had in the drill before."""

    @model_validator(mode="after")
    def _check(self) -> "RowCount":
        if self.min is None and self.max is None and self.max_loss is None:
            raise ValueError("no limit, at least one of min, max and max_loss is expected")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} and max {self.max}, a max that is not less than min is expected")
        return self


class RowsCheck(_DatabaseCheck):
    """Counts the rows of a table."""

    rows: RowCount
    """The table, and how many rows it is to have."""

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or f"{self.rows.table}: {', '.join(self.limits)}"

    @property
    def limits(self) -> tuple[str, ...]:
        """What is expected, in words."""
        asked = self.rows
        return (
            *([] if asked.min is None else [f"at least {asked.min:,} rows"]),
            *([] if asked.max is None else [f"at most {asked.max:,} rows"]),
            *([] if asked.max_loss is None else [f"at most {asked.max_loss:g} % fewer rows than last time"]),
        )


class Freshness(_Value):
    """How old the newest row of a table may be."""

    table: fields.Line = Field(examples=["orders"])
    """The table: NAME or SCHEMA.NAME, as it is spelled."""
    column: fields.Line = Field(examples=["created_at"])
    """A column with times or days."""
    max_age: fields.Span = Field(examples=["24 h", "15 min"])
    """Its greatest value is at most so old when the drill begins."""
    zone: fields.Zone = Field(default="UTC", examples=["Europe/Berlin"])
    """The time zone of a column that has none. Default: UTC."""


class FreshnessCheck(_DatabaseCheck):
    """Looks how old the newest row of a table is."""

    freshness: Freshness
    """The column, and how old its newest value may be."""

    @property
    def title(self) -> str:
        """What reports call it."""
        asked = self.freshness
        return self.name or f"{asked.table}.{asked.column}: at most {shown(asked.max_age)} old"


class SchemaCheck(_DatabaseCheck):
    """Compares the database's schema with a reference that is kept beside the drill file."""

    file: fields.FilePath = Field(validation_alias="schema", examples=["portal.schema.sql"])
    """The reference, relative to this file; `pgrescue drill FILE --write-schema` writes it."""

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or f"schema as in {self.file.name}"


class VerifyCheck(_Check):
    """Checks the server's files, catalogs, tables and indexes before it is opened."""

    level: fields.Level = Field(validation_alias="verify", examples=["full"])
    """How much is checked: fast, or full, which compares every index with its table and reads every row whole."""

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or f"verify: {self.level}"


def _kind(value: object) -> str | None:
    """Return the kind of a check, None where it has none, or several."""
    match value:
        case dict():
            kinds = [kind for kind in CHECK_KINDS if kind in value]
            return kinds[0] if len(kinds) == 1 else None
        case _:
            return next((kind for kind, model in CHECKS.items() if isinstance(value, model)), None)


CHECKS: dict[str, type[_Check]] = {
    "sql": SqlCheck,
    "rows": RowsCheck,
    "freshness": FreshnessCheck,
    "schema": SchemaCheck,
    "verify": VerifyCheck,
}
Check = SqlCheck | RowsCheck | FreshnessCheck | SchemaCheck | VerifyCheck
"""One check of a drill."""
_AnyCheck = Annotated[
    Annotated[SqlCheck, Tag("sql")]
    | Annotated[RowsCheck, Tag("rows")]
    | Annotated[FreshnessCheck, Tag("freshness")]
    | Annotated[SchemaCheck, Tag("schema")]
    | Annotated[VerifyCheck, Tag("verify")],
    Discriminator(_kind),
]


class Transfer(_Value):
    """Moves the app database into an empty target, and compares both sides.

    The target is a throwaway server that the drill starts, or the one whose URL an environment variable holds.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["target"]}, {"required": ["target_url_env"]}],
            "not": {"required": ["role", "roles"], "properties": {"roles": {"const": True}}},
        }
    )

    target: fields.Throwaway | None = Field(default=None, examples=[fields.THROWAWAY])
    """`throwaway`: a server of this machine, which the drill starts and removes."""
    target_url_env: fields.EnvName | None = Field(default=None, examples=["DRILL_TARGET_URL"])
    """The environment variable that holds the URL of an empty database, which the drill fills."""
    database: fields.Line | None = Field(default=None, examples=["portal"])
    """The database to move. Default: the only one that is no template, no maintenance database, and not empty."""
    compare: fields.Compared = Field(default=CompareLevel.HASH, examples=["count"])
    """What is compared: hash, the content of every row, or count, how many there are. Default: hash."""
    roles: fields.Flag = Field(default=False, examples=[True])
    """Whether roles that the target lacks are created, without passwords. Default: those of a throwaway server."""
    role: fields.Line | None = Field(default=None, examples=["app"])
    """The role of the target that is to own everything; privileges are not moved then."""

    @model_validator(mode="after")
    def _check(self) -> "Transfer":
        if (self.target is None) is (self.target_url_env is None):
            found = "no target" if self.target is None else "target and target_url_env"
            raise ValueError(f"{found}, one of `target: {fields.THROWAWAY}` and target_url_env is expected")
        if self.role is not None and self.roles:
            raise ValueError("role and roles, one of them is expected: role gives everything to one role")
        return self


def _transfer(value: object) -> object:
    return {"target": value} if isinstance(value, str) else value


class After(_Value):
    """Runs a command of the user's on the rescued server: it passes where it exits with 0."""

    command: fields.Text = Field(examples=["npm run test:smoke"])
    """A command for the shell, run in the drill file's directory."""
    env: fields.EnvName = Field(default=_DATABASE_URL, examples=[_DATABASE_URL])
    """The environment variable in which the command finds the database's URL. Default: DATABASE_URL."""
    database: fields.Line | None = Field(default=None, examples=["portal"])
    """The database of that URL. Default: the only one that is no template, no maintenance database, and not empty."""
    timeout: fields.Timeout = Field(default=timedelta(minutes=30), examples=["10 min"])
    """How long the command may run. Default: 30 min."""


def _after(value: object) -> object:
    return {"command": value} if isinstance(value, str) else value


class Ignore(_Value):
    """Lets a finding not count, for a reason, and until a day."""

    code: fields.Line = Field(examples=["collation_version_changed"])
    """The finding's code, as in reports and in RECOVERY.md."""
    object: fields.Line | None = Field(default=None, examples=["portal public.audit_*"])
    """A glob for the finding's object. Default: any."""
    reason: fields.Text = Field(examples=["the index is rebuilt next week, OPS-123"])
    """Why it does not count."""
    until: fields.Day = Field(examples=["2027-01-31"])
    """The last day on which it does not count (UTC)."""

    def applies_on(self, day: date) -> bool:
        """Tell whether it still has an effect on this day."""
        return day <= self.until

    def covers(self, finding: Finding, *, day: date) -> bool:
        """Tell whether the finding does not count on this day."""
        fits = self.object is None or fnmatchcase(finding.object, self.object)
        return self.applies_on(day) and finding.code == self.code and fits


class Notify(_Value):
    """Tells a webhook how the drills ended."""

    url_env: fields.EnvName = Field(examples=["SLACK_WEBHOOK_URL"])
    """The environment variable that holds the webhook's URL."""
    on: Annotated[tuple[fields.Outcome, ...], Field(min_length=1)] = Field(
        default=(DrillOutcome.FAILED, DrillOutcome.UNVERIFIED), examples=[["failed", "could-not-verify"]]
    )
    """The outcomes that it hears of. Default: failed and could-not-verify."""


class Drill(_Value):
    """One restore drill: which snapshot, how it is restored, and what is to hold then."""

    name: fields.Name = Field(examples=["portal, nightly"])
    """What reports, metrics and the history call this drill; unique in the file."""
    snapshot: Annotated[
        SnapshotChoice,
        PlainValidator(_snapshot, json_schema_input_type=fields.Line | Newest),
    ] = Field(examples=["/backups/portal/data.tar.gz", "/backups/portal/*/data.tar.gz", {"newest": "s3://b/portal"}])
    """The snapshot: a path relative to this file, a glob, of which the newest is taken, or an object store's address.

    `newest: PLACE` takes the newest backup below a directory or an address."""
    wal: fields.WalPlace | None = Field(default=None, examples=["/backups/portal/wals"])
    """Where WAL lies: an archive's directory, or pg_wal.tar. Default: what lies beside the snapshot."""
    until: fields.Until = Field(default=Latest(), examples=["latest", "2026-11-22 08:15:00+01:00", "immediate"])
    """Where replay ends: latest, immediate, an LSN, or a time with its zone. Default: latest."""
    engine: fields.Engine = Field(default=None, examples=["native"])
    """What runs PostgreSQL: auto, docker, or native, the programs of this machine. Default: auto."""
    image: fields.Line | None = Field(default=None, examples=["postgres:17"])
    """The Docker image. Default: postgres:MAJOR of the snapshot."""
    bindir: fields.FilePath | None = Field(default=None, examples=["/usr/lib/postgresql/17/bin"])
    """Where PostgreSQL's programs are, for the native engine."""
    strategy: fields.Strategy = Field(default=None, examples=["archive"])
    """How the copy is made startable, as in `pgrescue inspect`. Default: auto, the best that is possible."""
    require: fields.Required | None = Field(default=None, examples=["consistent"])
    """The least verdict that passes: consistent or best-effort."""
    rto_budget: fields.Span | None = Field(default=None, examples=["30 min"])
    """How long it may take from the snapshot to an open server."""
    rpo_budget: fields.Span | None = Field(default=None, examples=["24 h"])
    """How old the newest commit in the recovered copy may be when the drill begins."""
    checks: tuple[_AnyCheck, ...] = Field(default=(), examples=[[{"verify": "full"}]])
    """What is to hold in the recovered databases; each is one of sql, rows, freshness, schema and verify."""
    transfer: (
        Annotated[Transfer, BeforeValidator(_transfer, json_schema_input_type=Literal["throwaway"] | Transfer)] | None
    ) = Field(default=None, examples=[fields.THROWAWAY])
    """Moves the app database into an empty target, and compares both."""
    after: Annotated[After, BeforeValidator(_after, json_schema_input_type=fields.Text | After)] | None = Field(
        default=None, examples=["npm run test:smoke"]
    )
    """A command to run on the recovered database."""
    ignore: tuple[Ignore, ...] = ()
    """Findings that do not count."""

    @property
    def slug(self) -> str:
        """The name for files: lower-case letters, digits and dashes, at most 40; not always unique."""
        plain = unicodedata.normalize("NFKD", self.name).encode("ascii", "ignore").decode().lower()
        return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_SLUG].rstrip("-") or "drill"

    @property
    def verify_level(self) -> VerifyLevel:
        """How much is checked before the server is opened: the most that a check asks for, fast without any."""
        levels = [check.level for check in self.checks if isinstance(check, VerifyCheck)]
        return VerifyLevel.FULL if VerifyLevel.FULL in levels else VerifyLevel.FAST


class Scenario(_Value):
    """Everything that a drill file asks for."""

    version: fields.Version
    """The version of the file's format: 1."""
    drills: tuple[Drill, ...]
    """Several drills; fields beside it are defaults, and its `checks` and `ignore` come before each drill's own."""
    notify: tuple[Notify, ...] = ()
    """Webhooks that hear how it ended."""
