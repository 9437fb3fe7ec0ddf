"""What becomes of single entries of a schema, as the preflight decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgrescue.transfer.plan import GRANTOR, Loan, Plan
from pgrescue.transfer.schema import Entry, Schema

TABLE = Entry(
    number=1,
    class_oid=1259,
    oid=20000,
    name="notes",
    type="TABLE",
    schema="app",
    owner="team",
    depends=(),
    sql="CREATE TABLE app.notes (\n    id integer\n);\n\n\nALTER TABLE app.notes OWNER TO team;",
)
GRANTS = Entry(
    number=7,
    class_oid=0,
    oid=0,
    name="TABLE notes",
    type="ACL",
    schema="app",
    owner="team",
    depends=(1,),
    sql='GRANT SELECT ON TABLE app.notes TO reader WITH GRANT OPTION;\nSET SESSION AUTHORIZATION "a reader";\n'
    "GRANT SELECT ON TABLE app.notes TO guest;\nRESET SESSION AUTHORIZATION;",
)
SCHEMA = Schema((TABLE,), (GRANTS,))


def applied(plan: Plan, entry: Entry = TABLE) -> Entry:
    """Return what becomes of an entry."""
    return plan.applied(replace(SCHEMA, before=(entry,), after=()), "new").entries[0]


def test_without_decisions_a_schema_stays_as_it_is() -> None:
    assert Plan().applied(SCHEMA, "new") == SCHEMA


def test_what_is_left_out_is_known_by_what_it_is_and_not_by_its_number() -> None:
    plan = Plan()
    plan.leave_out(TABLE)
    again = replace(TABLE, number=3, sql="CREATE TABLE app.notes (\n    id integer\n);", owner="")
    other = replace(GRANTS, number=1)
    assert plan.left_out(Schema((again,), (other,))) == {3}
    assert applied(plan, again).sql == ""
    assert applied(plan, other) == other


def test_an_entry_keeps_its_name_among_the_tasks_whatever_becomes_of_it() -> None:
    loan = Loan.of(TABLE)
    assert loan is not None
    for plan in (Plan(strangers=frozenset({"team"})), Plan(loans={loan})):
        assert applied(plan).sql != TABLE.sql
        assert applied(plan).key == TABLE.key
        assert plan.applied(SCHEMA, "new").fingerprint == SCHEMA.fingerprint


def test_what_belongs_to_a_stranger_is_given_to_nobody() -> None:
    made = applied(Plan(strangers=frozenset({"team"})))
    assert made.sql == "CREATE TABLE app.notes (\n    id integer\n);"
    body = "CREATE FUNCTION f() RETURNS text\n    AS $$\nALTER TABLE x OWNER TO y;\n$$;"
    function = replace(TABLE, sql=f'{body}\n\n\nALTER FUNCTION app.f() OWNER TO "te am";')
    assert applied(Plan(strangers=frozenset({"team"})), function).sql == body


@pytest.mark.parametrize(
    ("changes", "loan"),
    [
        ({}, Loan("SCHEMA", "app", "team")),
        ({"type": "PUBLICATION", "schema": ""}, Loan("DATABASE", "", "team")),
        ({"type": "SCHEMA", "schema": ""}, None),
        ({"owner": ""}, None),
        ({"sql": "ALTER SEQUENCE app.s OWNED BY app.notes.id;"}, None),
    ],
)
def test_what_a_new_owner_needs(changes: dict[str, str], loan: Loan | None) -> None:
    assert Loan.of(replace(TABLE, **changes)) == loan  # type: ignore[arg-type]  # names of fields that are text


def test_a_loan_begins_and_ends_with_its_entry() -> None:
    plan = Plan(loans={Loan("SCHEMA", "app", "team"), Loan("DATABASE", "", "te am")})
    lines = applied(plan).sql.splitlines()
    assert lines[0] == 'GRANT CREATE ON SCHEMA "app" TO "team";'
    assert lines[-1] == ';REVOKE CREATE ON SCHEMA "app" FROM "team";'
    publication = replace(TABLE, type="PUBLICATION", schema="", owner="te am")
    assert applied(plan, publication).sql.startswith('GRANT CREATE ON DATABASE "new" TO "te am";\n')
    other = replace(TABLE, owner="another")
    assert applied(plan, other) == other


def test_grants_in_the_name_of_others() -> None:
    assert GRANTOR.findall(GRANTS.sql) == ['"a reader"']
    assert applied(Plan(), GRANTS) == GRANTS
    made = applied(Plan(grants_by_role=True), GRANTS)
    assert made.sql.splitlines()[1:] == [
        'SET LOCAL ROLE "a reader";',
        "GRANT SELECT ON TABLE app.notes TO guest;",
        "RESET ROLE;",
    ]
