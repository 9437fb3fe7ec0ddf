"""Drill files that are right and wrong: for the reader and for the JSON Schema, which must agree."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = "version: 1\nname: portal\nsnapshot: backups/data.tar.gz\n"
"""A drill that asserts nothing yet: three lines."""


@dataclass(frozen=True)
class Bad:
    """A file with one thing wrong: where, with words of what is said; `schema` tells whether a schema can see it."""

    text: str
    place: str
    words: tuple[str, ...]
    schema: bool = True


GOOD = {
    "the least": f"{HEAD}require: consistent\n",
    "quoted": '"version": 1\n"name": \'portal\'\n"snapshot": "a b.tar"\n"require": "best-effort"\n',
    "everything": f"""{HEAD}wal: ../wals
until: 2026-11-22 08:15:00+01:00
engine: docker
image: postgres:17
bindir: /usr/lib/postgresql/17/bin
strategy: archive
require: best-effort
rto_budget: 90 min
rpo_budget: 1h 30m
checks:
  - {{sql: select 1, expect: "== 1", name: one, database: portal, timeout: 30 s}}
  - {{sql: select true, expect: "== true"}}
  - rows: {{table: orders, min: 0, max: 5, max_loss: 5 %}}
    name: orders are there
  - rows: {{table: public.orders, max_loss: "0.5%"}}
  - freshness: {{table: orders, column: created_at, max_age: 24 h, zone: Europe/Berlin}}
  - schema: portal.sql
    database: portal
  - verify: full
transfer: {{target: throwaway, database: portal, compare: count, roles: true}}
after: {{command: npm test, env: URL, database: portal, timeout: 1 h}}
ignore:
  - {{code: x, object: "portal *", reason: we know, until: 2027-01-31}}
notify:
  - {{url_env: HOOK, on: [passed, failed, could-not-verify]}}
  - url_env: OTHER
""",
    "auto": f"{HEAD}engine: auto\nstrategy: auto\nuntil: latest\nrto_budget: 2 w\n",
    "short forms": f"{HEAD}transfer: throwaway\nafter: npm test\n",
    "only after": f"{HEAD}after: 'true'\n",
    "target from the environment": f"{HEAD}transfer:\n  target_url_env: TARGET\n  role: app\n",
    "newest": "version: 1\nname: portal\nsnapshot:\n  newest: s3://bucket/portal\nrpo_budget: 24 h\n",
    "glob": "version: 1\nname: portal\nsnapshot: backups/*/data.tar.gz\nrpo_budget: 24 h\n",
    "several": """version: 1
engine: native
checks: [{verify: fast}]
drills:
  - {name: a, snapshot: a.tar}
  - {name: b, snapshot: b.tar, engine: docker, checks: [{verify: full}]}
notify: [{url_env: HOOK}]
""",
    "several, each with its own": """version: 1
drills:
  - {name: a, snapshot: a.tar, require: consistent}
  - {name: b, snapshot: b.tar, checks: [{verify: fast}]}
""",
    "an alias": """version: 1
drills:
  - {name: a, snapshot: a.tar, checks: &all [{verify: fast}]}
  - {name: b, snapshot: b.tar, checks: *all}
""",
}


def _drill(field: str, place: str, *words: str, schema: bool = True) -> Bad:
    """Return a drill whose fourth line is wrong; `place` begins at that line."""
    return Bad(f"{HEAD}{field}\nrequire: consistent\n", place, words, schema)


def _check(check: str, place: str, *words: str, schema: bool = True) -> Bad:
    return Bad(f"{HEAD}checks:\n  - {check}\n", place, words, schema)


BAD = {
    "nothing asserted": Bad(HEAD, "1:1", ("asserts nothing", "require, rto_budget", "after")),
    "no checks": Bad(f"{HEAD}checks: []\n", "1:1", ("asserts nothing",)),
    "no version": Bad("name: a\nsnapshot: b\nrequire: consistent\n", "1:1", ("without version", '"version: 1"')),
    "another version": Bad("version: 2\nname: a\nsnapshot: b\nrequire: consistent\n", "1:10", ("number 2", "number 1")),
    "a version in quotes": Bad('version: "1"\nname: a\nsnapshot: b\nrequire: consistent\n', "1:10", ('"1"',)),
    "no name": Bad("version: 1\nsnapshot: b\nrequire: consistent\n", "1:1", ("a drill without name",)),
    "no snapshot": Bad("version: 1\nname: b\nrequire: consistent\n", "1:1", ("a drill without snapshot",)),
    "an empty name": Bad('version: 1\nname: ""\nsnapshot: b\nrequire: consistent\n', "2:7", ("empty text",)),
    "a blank name": Bad('version: 1\nname: " "\nsnapshot: b\nrequire: consistent\n', "2:7", ("something in it",)),
    "no value": Bad("version: 1\nname:\nsnapshot: b\nrequire: consistent\n", "2:6", ("name: no value",)),
    "a long name": Bad(
        f"version: 1\nname: {'x' * 101}\nsnapshot: b\nrequire: consistent\n", "2:7", ("at most 100 characters",)
    ),
    "a name with a bell": Bad('version: 1\nname: "a\\a"\nsnapshot: b\nrequire: consistent\n', "2:7", ("control",)),
    "a name that is a number": Bad("version: 1\nname: 5\nsnapshot: b\nrequire: consistent\n", "2:7", ("quote it",)),
    "a name that was false": Bad(
        "version: 1\nname: no\nsnapshot: b\nrequire: consistent\n", "2:7", ("no, which", "quote it"), schema=False
    ),
    "an unknown key": _drill("enigne: docker", "4:1", "enigne", "did you mean engine?"),
    "a key near nothing": _drill("zzz: docker", "4:1", "zzz", "one of", "snapshot"),
    "a key of the other level": _drill("expect: '== 1'", "4:1", "the unknown key expect"),
    "an engine": _drill("engine: dokcer", "4:9", '"dokcer"', "auto, docker, native"),
    "a strategy": _drill("strategy: magic", "4:11", "auto, clean, archive, replay, crash, reset"),
    "a verdict": Bad(f"{HEAD}require: damaged\n", "4:10", ("consistent, best-effort",)),
    "a duration without unit": _drill("rto_budget: 5", "4:13", "number 5", "90 min", "s, sec, min, m, h, d, w"),
    "a duration in quotes without unit": _drill("rto_budget: '5'", "4:13", "without a unit", "s, sec, min"),
    "a duration with a strange unit": _drill("rto_budget: 5 years", "4:13", "'years'", "s, sec, min"),
    "a duration with a unit twice": _drill("rto_budget: 5 m 3 min", "4:13", "twice", schema=False),
    "no time at all": _drill("rpo_budget: 0 s", "4:13", "more than no time", schema=False),
    "a sexagesimal number": _drill("rto_budget: 5:30", "4:13", "5:30", "base 60", "quote it"),
    "a time without zone": _drill("until: 2026-11-22 08:15:00", "4:8", "no zone", schema=False),
    "an until that is a number": _drill("until: 7", "4:8", "number 7", "latest, immediate"),
    "an image that is a number": _drill("image: 17", "4:8", "number 17", "quote it"),
    "a list in place of a text": _drill("image: [a]", "4:8", "a list", "a text is expected"),
    "a snapshot of two kinds": Bad(
        "version: 1\nname: a\nsnapshot: {newest: a, path: b}\nrequire: consistent\n", "3:23", ("unknown key path",)
    ),
    "a snapshot without a place": Bad(
        "version: 1\nname: a\nsnapshot: {}\nrequire: consistent\n", "3:11", ("snapshot without newest",)
    ),
    "a secret in the snapshot": Bad(
        "version: 1\nname: a\nsnapshot: https://u:hunter2@h/x\nrequire: consistent\n",
        "3:11",
        ("credentials come from the environment",),
        schema=False,
    ),
    "a snapshot of a strange kind": Bad(
        "version: 1\nname: a\nsnapshot: ftp://h/x\nrequire: consistent\n", "3:11", ("s3://",), schema=False
    ),
    "a wildcard in an address": Bad(
        "version: 1\nname: a\nsnapshot: s3://b/*.tar\nrequire: consistent\n", "3:11", ("newest",), schema=False
    ),
    "checks that are none": _drill("checks: fast", "4:9", "a list is expected"),
    "a check that is a text": _check("verify", "5:5", "a check is expected"),
    "a check of no kind": _check("{database: portal}", "5:5", "no kind", "sql, rows, freshness, schema, verify"),
    "a check of nearly a kind": _check("{row: {table: t}}", "5:5", "no kind", "did you mean rows?"),
    "a check of two kinds": _check("{verify: fast, schema: x}", "5:5", "schema and verify", "exactly one"),
    "sql without expect": _check("sql: select 1", "5:5", "a check of sql without expect"),
    "expect without sql": _check("{verify: fast, expect: '== 1'}", "5:20", "the unknown key expect"),
    "an unknown key of a check": _check("{sql: x, expect: '== 1', timout: 5 s}", "5:30", "did you mean timeout?"),
    "an expected number": _check("{sql: x, expect: 1000}", "5:22", 'write "== 1000"'),
    "an expected number in quotes": _check("{sql: x, expect: '1000'}", "5:22", 'write "== 1000"'),
    "an expected flag": _check("{sql: x, expect: true}", "5:22", 'write "== true"'),
    "one sign of equality": _check("{sql: x, expect: '= 5'}", "5:22", 'write "== 5"'),
    "an expected bare word": _check("{sql: x, expect: '== paid'}", "5:22", "'paid'", schema=False),
    "the order of null": _check("{sql: x, expect: '> null'}", "5:22", "can only be equal", schema=False),
    "a long wait": _check("{sql: x, expect: '== 1', timeout: 5 w}", "5:39", "at most 24 d", schema=False),
    "a timeout of verify": _check("{verify: fast, timeout: 5 s}", "5:20", "the unknown key timeout"),
    "a level": _check("verify: none", "5:13", '"none"', "fast, full"),
    "rows without limit": _check("rows: {table: t}", "5:11", "min, max and max_loss"),
    "rows without table": _check("rows: {min: 5}", "5:11", "rows without table"),
    "fewer than no rows": _check("rows: {table: t, min: -1}", "5:27", "0 or more"),
    "rows in quotes": _check("rows: {table: t, min: '5'}", "5:27", "whole number"),
    "half a row": _check("rows: {table: t, min: 1.5}", "5:27", "whole number"),
    "rows with an underscore": _check("rows: {table: t, min: 1_000}", "5:27", "1_000", "digits alone"),
    "rows to the base 8": _check("rows: {table: t, min: 010}", "5:27", "010", "digits alone"),
    "a max below min": _check("rows: {table: t, min: 5, max: 4}", "5:11", "min 5 and max 4", schema=False),
    "a loss without per cent": _check("rows: {table: t, max_loss: 5}", "5:32", '"5 %"'),
    "a loss of everything": _check("rows: {table: t, max_loss: 100 %}", "5:32", "below 100"),
    "freshness without age": _check("freshness: {table: t, column: c}", "5:16", "freshness without max_age"),
    "a zone": _check(
        "freshness: {table: t, column: c, max_age: 1 h, zone: Mars/Base}", "5:58", "Europe/Berlin", schema=False
    ),
    "a schema elsewhere": _check("schema: s3://b/x.sql", "5:13", "a path on this machine", schema=False),
    "a target": _drill("transfer: {target: other}", "4:20", '"throwaway" is expected', "target_url_env"),
    "a URL as the transfer": _drill("transfer: postgresql://u:hunter2@h/d", "4:11", "environment variable"),
    "a URL as the target": _drill("transfer: {target: 'postgresql://u:hunter2@h/d'}", "4:20", "environment variable"),
    "a URL under a key of its own": _drill(
        "transfer: {target_url: 'postgresql://u:hunter2@h/d', target: throwaway}", "4:12", "target_url_env"
    ),
    "words of a connection as the variable": _drill(
        "transfer: {target_url_env: 'host=h password=hunter2'}", "4:28", "name of an environment variable"
    ),
    "two targets": _drill("transfer: {target: throwaway, target_url_env: A}", "4:11", "target and target_url_env"),
    "no target": _drill("transfer: {compare: hash}", "4:11", "no target"),
    "nothing compared": _drill("transfer: {target: throwaway, compare: none}", "4:40", "hash, count"),
    "roles by an old word": _drill("transfer: {target: throwaway, roles: yes}", "4:38", "yes", "true or false"),
    "a role and roles": _drill("transfer: {target: throwaway, role: a, roles: true}", "4:11", "role and roles"),
    "after without command": _drill("after: {env: A}", "4:8", "after without command"),
    "after that is a list": _drill("after: [a, b]", "4:8", "a list", "a mapping is expected"),
    "a variable with a blank": _drill("after: {command: a, env: A B}", "4:26", "environment variable"),
    "ignored without reason": _drill("ignore: [{code: x, until: 2027-01-31}]", "4:10", "ignore without reason"),
    "ignored for nothing": _drill("ignore: [{code: x, reason: '', until: 2027-01-31}]", "4:28", "reason"),
    "ignored for ever": _drill("ignore: [{code: x, reason: y}]", "4:10", "ignore without until"),
    "a day that is none": _drill(
        "ignore: [{code: x, reason: y, until: 2027-02-30}]", "4:38", "no day", "day is out of range", schema=False
    ),
    "a time in place of a day": _drill(
        "ignore: [{code: x, reason: y, until: 2027-02-03 05:00:00}]", "4:38", "2027-01-31"
    ),
    "a webhook's address": _drill(
        "notify: [{url_env: 'https://hooks.example/hunter2'}]", "4:20", "name of an environment variable"
    ),
    "an address without a scheme": _drill("notify: [{url_env: hooks.example/hunter2}]", "4:20", "a text that is none"),
    "an outcome": _drill("notify: [{url_env: A, on: [success]}]", "4:28", '"success"', "passed"),
    "no outcome": _drill("notify: [{url_env: A, on: []}]", "4:27", "at least one"),
    "no drills": Bad("version: 1\ndrills: []\n", "2:9", ("at least one drill",)),
    "drills that are none": Bad("version: 1\ndrills: x\n", "2:9", ("a list is expected",)),
    "a drill that is none": Bad("version: 1\nrequire: consistent\ndrills: [x]\n", "3:10", ("a mapping is expected",)),
    "a name for all": Bad(
        "version: 1\nname: a\nrequire: consistent\ndrills: [{name: a, snapshot: b}]\n", "2:1", ("within each",)
    ),
    "a snapshot for all": Bad(
        "version: 1\nsnapshot: a\nrequire: consistent\ndrills: [{name: a, snapshot: b}]\n", "2:1", ("within each",)
    ),
    "notify in a drill": Bad(
        "version: 1\ndrills: [{name: a, snapshot: b, require: consistent, notify: []}]\n",
        "2:54",
        ("at the top of the file",),
    ),
    "one idle among several": Bad(
        "version: 1\ndrills:\n- {name: a, snapshot: b, require: consistent}\n- {name: b, snapshot: b}\n",
        "4:3",
        ("asserts nothing",),
    ),
    "one name twice": Bad(
        "version: 1\nrequire: consistent\ndrills:\n- {name: a, snapshot: b}\n- {name: a, snapshot: c}\n",
        "5:10",
        ("name: a again", "line 4"),
        schema=False,
    ),
    "a default that nobody takes": Bad(
        "version: 1\nengine: x\nrequire: consistent\ndrills:\n- {name: a, snapshot: b, engine: docker}\n",
        "2:9",
        ('"x"',),
    ),
    "an unknown default": Bad(
        "version: 1\nnotfy: []\nrequire: consistent\ndrills:\n- {name: a, snapshot: b}\n",
        "2:1",
        ("did you mean notify?",),
    ),
    "a list": Bad("- name: a\n", "1:1", ("a list", "a mapping of fields")),
    "a text": Bad("hello\n", "1:1", ("a mapping of fields",)),
}
