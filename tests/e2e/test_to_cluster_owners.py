"""Whose everything is after a transfer, and who may use it: by a superuser, by plain owners, with roles made anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import Server
from tests.conftest import require_engine
from tests.targets import OWNER
from tests.transfers import Ended, World, name_of, run, to_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = ("app_team", "app_guest", "app_reader")
_UNTRUSTED = "create function public.raw(cstring) returns integer language c as '$libdir/hstore', 'hstore_in'"

# Everything that has an owner and privileges, each with what the default of its kind is.
_OWNERS = """
with owned (kind, name, owner, acl, plain) as (
    select 'schema', nspname::text, nspowner, nspacl, acldefault('n', nspowner) from pg_namespace
     where nspname !~ '^pg_' and nspname <> 'information_schema'
    union all
    select 'relation', oid::regclass::text, relowner, relacl,
           acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)
      from pg_class where oid >= 16384 and relkind in ('r', 'v', 'S')
    union all
    select 'column', attrelid::regclass::text || '.' || attname, 0, attacl, null from pg_attribute
     where attacl is not null and attrelid >= 16384
    union all
    select 'routine', oid::regprocedure::text, proowner, proacl, acldefault('f', proowner) from pg_proc
     where oid >= 16384 and pronamespace <> coalesce(to_regnamespace('kit'), 0)
        or oid in (to_regprocedure('pg_ls_dir(text)'), to_regprocedure('kit.hstore(text, text)'))
    union all
    select 'domain', oid::regtype::text, typowner, typacl, acldefault('T', typowner) from pg_type
     where typtype = 'd' and oid >= 16384
    union all
    select 'statistics', stxname::text, stxowner, null, null from pg_statistic_ext
    union all
    select 'publication', pubname::text, pubowner, null, null from pg_publication
    union all
    select 'event trigger', evtname::text, evtowner, null, null from pg_event_trigger
    union all
    select 'large object', oid::text, lomowner, lomacl, acldefault('L', lomowner) from pg_largeobject_metadata
    union all
    select 'default', defaclrole::regrole::text || ' ' || defaclobjtype::text || defaclnamespace::text, defaclrole,
           defaclacl, null from pg_default_acl where defaclnamespace = 0
    union all
    select 'default', defaclrole::regrole::text || ' ' || defaclobjtype::text || nspname, defaclrole, defaclacl, null
      from pg_default_acl join pg_namespace as n on n.oid = defaclnamespace
)
select kind || ' ' || name, case owner when 0 then '' else pg_get_userbyid(owner) end,
       array(select (case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee) end) || ' ' || privilege_type
                    || case when is_grantable then ' with grant option' else '' end || ' by '
                    || pg_get_userbyid(a.grantor)
               from aclexplode(coalesce(acl, plain)) as a order by 1)
  from owned
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Server() as source, Server() as target, World(source, target) as world:
        run(target, "postgres", f"create role {OWNER} login createrole")
        yield world


@pytest.fixture(scope="module")
def old() -> Iterator[Server]:
    """Run a server of the oldest major."""
    require_engine("native", 15)
    with Server(major=15) as server:
        yield server


@pytest.fixture(scope="module")
def source(world: World) -> str:
    return filled(world)


def filled(world: World) -> str:
    """Make the roles and the database that is moved; return its URL."""
    run(world.source, "postgres", ";\n".join(f"create role {role}" for role in ROLES))
    run(world.source, "postgres", "grant app_reader to app_team")
    return world.origin(f"reset role;\n{(Path(__file__).parent / 'ownership.sql').read_text()}")


def owners(server: Server, url: str) -> dict[str, tuple[str, list[str]]]:
    """Return what each object's owner and privileges are."""
    with server.connect(name_of(url)) as connection:
        return {row[0]: (row[1], row[2]) for row in connection.execute(_OWNERS).fetchall()}


def different(here: dict[str, Any], there: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (here.get(name), there.get(name)) for name in {*here, *there} if here.get(name) != there.get(name)}


def without_roles(world: World, *names: str) -> None:
    """Drop roles of the target, and all databases that tests made there."""
    with world.target.connect() as connection:
        for (database,) in connection.execute("select datname from pg_database where datname ~ '^target_'").fetchall():
            run(world.target, "postgres", f'drop database "{database}"')
        for (name,) in connection.execute("select rolname from pg_roles where rolname = any (%s)", [list(names)]):
            run(world.target, "postgres", f"drop role {name}")


def test_a_superuser_keeps_all_owners(world: World, source: str) -> None:
    without_roles(world, *ROLES)
    run(world.source, name_of(source), _UNTRUSTED)
    target = world.goal(user="postgres")
    done = to_cluster(source, target, "--roles").moved()
    assert {"roles_made", "subscriptions_left_out"} <= set(done.codes)
    assert not {"ownership_not_kept", "objects_left_out"} & set(done.codes)
    assert different(owners(world.source, source), owners(world.target, target)) == {}
    with world.target.connect(name_of(target)) as connection:
        assert connection.execute("select count(*) from pg_subscription").fetchone() == (0,)
        assert connection.execute(
            "select obj_description(oid) from pg_extension where extname = 'hstore'"
        ).fetchone() == ("a comment of our own",)
        members = connection.execute("select pg_has_role('app_team', 'app_reader', 'USAGE')").fetchone()
        assert members == (True,)
        passwords = connection.execute("select rolname from pg_authid where rolpassword is not null").fetchall()
        assert passwords == []
    run(world.source, name_of(source), "drop function public.raw")
    # The roles are there now.
    assert to_cluster(source, world.goal(user="postgres")).moved().codes == ["subscriptions_left_out"]


def test_a_plain_owner_keeps_the_owners_that_it_may_act_as(world: World, source: str) -> None:
    """As on a managed service: the owner of the database may act as the application's roles, and is no superuser."""
    without_roles(world, *ROLES)
    target = world.goal()
    done = to_cluster(source, target, "--roles").moved()
    assert "roles_made" in done.codes
    check_what_a_plain_owner_gets(world, source, target, done)
    # And with roles that are there before, where CREATE on the schema is only lent.
    target = world.goal()
    done = to_cluster(source, target).moved()
    assert "roles_made" not in done.codes
    check_what_a_plain_owner_gets(world, source, target, done)
    assert to_cluster(source, target).codes == ["already_there"]


def test_a_plain_owner_of_the_oldest_major(old: Server) -> None:
    """Memberships had no options of their own then."""
    with Server(major=15) as target_of_old:
        world = World(old, target_of_old)
        source, target = filled(world), world.goal()
        check_what_a_plain_owner_gets(world, source, target, to_cluster(source, target, "--roles").moved())


OF_EXTENSIONS = """
reset role;
create extension pg_stat_statements;
grant execute on function pg_stat_statements_reset(oid, oid, bigint) to app_monitor;
grant execute on function pg_ls_dir(text) to app_monitor;
create table mine (id integer);
grant select on mine to app_monitor
"""


def test_privileges_on_what_another_version_may_lack(world: World, old: Server) -> None:
    """The function has one more parameter since 17."""
    run(old, "postgres", "create role app_monitor")
    source, target = world.origin(OF_EXTENSIONS, on=old), world.goal(user="postgres")
    done = to_cluster(source, target, "--roles").moved()
    lost = done.finding("objects_left_out")["object"]
    assert ("pg_stat_statements_reset" in lost, "pg_ls_dir" in lost, "mine" in lost) == (True, True, False)
    assert "app_monitor SELECT by postgres" in owners(world.target, target)["relation mine"][1]


def test_the_schema_public_may_have_an_owner(world: World) -> None:
    for server in (world.source, world.target):
        run(server, "postgres", "create role app_public")
    source = world.origin(
        "create table mine ();\nreset role;\nalter schema public owner to app_public;\n"
        "create table theirs ();\nalter table theirs owner to app_public"
    )
    target = world.goal()
    assert "may not act as app_public" in to_cluster(source, target).moved().finding("ownership_not_kept")["detail"]
    there = owners(world.target, target)
    assert (there["schema public"][0], there["relation theirs"][0]) == ("pg_database_owner", OWNER)
    run(world.target, "postgres", f"grant app_public to {OWNER}")
    target = world.goal()
    assert "ownership_not_kept" not in to_cluster(source, target).moved().codes
    there = owners(world.target, target)
    assert (there["schema public"][0], there["relation theirs"][0]) == ("app_public", "app_public")


def test_an_interrupted_transfer_goes_on_with_the_roles_that_it_made(world: World, source: str) -> None:
    without_roles(world, *ROLES)
    target = world.goal(
        "create function public.refuse() returns event_trigger language plpgsql as $$ begin raise 'not now'; end $$;\n"
        "create extension refint;\nalter extension refint add function public.refuse();\n"
        "create event trigger refuse on ddl_command_start when tag in ('GRANT') execute function public.refuse()"
    )
    broken = to_cluster(source, target, "--roles")
    assert broken.status == 1
    assert "not now" in broken.said
    run(world.target, name_of(target), "drop event trigger refuse")
    done = to_cluster(source, target, "--roles").moved()
    assert "transfer_resumed" in done.codes, done.said
    run(world.target, name_of(target), "drop extension refint")
    check_what_a_plain_owner_gets(world, source, target, done)


POWERFUL = """
reset role;
create table public.things (id integer);
create role app_boss createdb noinherit connection limit 7;
create role app_heir;
create role app_spy;
grant app_heir to app_boss with inherit false, set false;
grant pg_read_all_data to app_spy;
grant postgres to app_heir;
alter table public.things owner to app_boss;
grant select on public.things to app_heir, app_spy
"""


def test_roles_get_no_powers_over_the_cluster(world: World) -> None:
    for user in ("postgres", OWNER):
        source = world.origin(POWERFUL, is_own=True)
        done = to_cluster(source, world.goal(user=user), "--roles").moved()
        less = {
            (one["object"], one["severity"]) for one in done.document["findings"] if one["code"] == "role_less_powerful"
        }
        assert less == {(name, "warning") for name in ("app_boss", "app_heir", "app_spy")}
        assert done.finding("roles_made")["object"] == "app_boss, app_heir, app_spy"
        with world.target.connect() as connection:
            roles = connection.execute(
                "select rolname, rolinherit, rolcreatedb or rolsuper or rolcanlogin, rolconnlimit from pg_roles "
                "where rolname ~ '^app_(boss|heir|spy)$' order by 1"
            ).fetchall()
            assert roles == [
                ("app_boss", False, False, 7),
                ("app_heir", True, False, -1),
                ("app_spy", True, False, -1),
            ]
            groups = connection.execute(
                "select roleid::regrole::text, member::regrole::text, inherit_option, set_option from pg_auth_members "
                "where member::regrole::text ~ '^app_(boss|heir|spy)$'"
            ).fetchall()
            assert groups == [("app_heir", "app_boss", False, False)]
        without_roles(world, "app_boss", "app_heir", "app_spy")
        run(world.source, name_of(source), "drop owned by app_boss, app_heir, app_spy")
        run(world.source, "postgres", "drop role app_boss, app_heir, app_spy")


def test_who_may_not_be_given_anything_is_told(world: World) -> None:
    """The schema public is open to the target's role, and not its own."""
    for server in (world.source, world.target):
        run(server, "postgres", "create role app_late;\ncreate role app_hoarder")
    run(world.target, "postgres", f"grant app_late to {OWNER}")
    source = world.origin(
        "create table mine ();\ncreate table late ();\nreset role;\nalter table late owner to app_late;\n"
        "select lo_from_bytea(4711, 'of a role without anything else');\nalter large object 4711 owner to app_hoarder"
    )
    target = world.goal(f"alter schema public owner to postgres;\ngrant usage, create on schema public to {OWNER}")
    finding = to_cluster(source, target).moved().finding("ownership_not_kept")
    assert "app_late may not create anything in the schema public" in finding["detail"]
    assert f"{OWNER} may not act as app_hoarder" in finding["detail"]
    assert owners(world.target, target)["relation late"][0] == OWNER
    target = world.goal(f"alter schema public owner to postgres;\ngrant all on schema public to {OWNER}, app_late")
    assert "app_late" not in to_cluster(source, target).moved().finding("ownership_not_kept")["detail"]
    assert owners(world.target, target)["relation late"][0] == "app_late"
    assert owners(world.target, target)["large object 4711"][0] == OWNER


def check_what_a_plain_owner_gets(world: World, source: str, target: str, done: Ended) -> None:
    assert f"{OWNER} may not act as postgres" in done.finding("ownership_not_kept")["detail"]
    lost = done.finding("objects_left_out", "privileges")["object"]
    assert lost == "privileges on FUNCTION hstore(text, text), privileges on FUNCTION pg_ls_dir(text)"
    here, there = owners(world.source, source), owners(world.target, target)
    assert there["relation team.notes"] == here["relation team.notes"]
    # Of two who may have granted something, the server takes any: names of grantors do not count from here on.
    differing = {
        name: sides
        for name, sides in different(here, there).items()
        if not sides[1] or nameless(sides[0]) != nameless(sides[1])
    }
    theirs = {"relation of_nobody", "routine watch()", "large object 20000", "schema kit"}
    for name in theirs:
        owner, grants = nameless(differing.pop(name)[1])
        assert (owner, grants) == (OWNER, sorted(line.replace("postgres", OWNER) for line in nameless(here[name])[1]))
    # Those that only a superuser makes, or that belong to PostgreSQL and the extension.
    assert set(differing) == {
        "publication everything",
        "event trigger watcher",
        "routine pg_ls_dir(text)",
        "routine kit.hstore(text,text)",
    }
    check_what_belongs_together(world.target, target)


def nameless(one: tuple[str, list[str]]) -> tuple[str, list[str]]:
    return one[0], sorted(line.partition(" by ")[0] for line in one[1])


def check_what_belongs_together(server: Server, url: str) -> None:
    """Assert that nothing was left out in place of something else: an entry's number is another in each dump."""
    with server.connect(name_of(url)) as connection:
        owned = connection.execute("select pg_get_serial_sequence('team.notes', 'id')").fetchone()
        comments = connection.execute("select obj_description(oid) from pg_publication where pubname = 'of_team'")
        assert owned == ("team.notes_id_seq",)
        assert comments.fetchall() == [("notes only",)]


def test_everything_goes_to_one_role(world: World, source: str) -> None:
    without_roles(world, *ROLES)
    run(world.target, "postgres", f"create role sole;\ngrant sole to {OWNER}")
    target = world.goal(owner="sole")
    assert "ownership_not_kept" not in to_cluster(source, target, "--role", "sole").moved().codes
    check_all_belongs_to(world, target, "sole")


def check_all_belongs_to(world: World, target: str, owner: str) -> None:
    """Assert that one role has everything, but for what lies in every database, and that nobody was granted any."""
    there = owners(world.target, target)
    others = {"schema public", "routine pg_ls_dir(text)", "routine kit.hstore(text,text)"}
    assert {name: one for name, one in there.items() if name not in others and one[0] != owner} == {}
    granted = {line.split()[0] for name, one in there.items() if name not in others for line in one[1]}
    assert granted <= {owner, "public"}
    check_what_belongs_together(world.target, target)


def test_without_the_roles_everything_is_the_target_roles(world: World, source: str) -> None:
    without_roles(world, *ROLES, "sole")
    target = world.goal()
    done = to_cluster(source, target).moved()
    finding = done.finding("ownership_not_kept")
    assert "lacks the roles app_guest, app_reader, app_team" in finding["detail"]
    check_all_belongs_to(world, target, OWNER)
