"""The text of a migration, and what of pg_dump's output goes into it."""

from __future__ import annotations

import io

import pytest

from pgrescue.errors import RescueError
from pgrescue.transfer.migration_keys import ForeignKey
from pgrescue.transfer.migration_scope import Kind, Relation, Scope, Wanted, choose_scope
from pgrescue.transfer.migration_script import Guard, Remade, closing, commented, copy_rows, opening

# As pg_dump 17.10 writes them; 15 before 15.14 has neither \restrict nor transaction_timeout.
TOP = r"""--
-- PostgreSQL database dump
--

\restrict Z6jkFDENyT0CgQqfLdAqDhYLj54dUwAsrIDRsg45NKzJaQFbaF8CMXUOxSGIXpC

-- Dumped from database version 17.10 (Debian 17.10-1.pgdg13+1)
-- Dumped by pg_dump version 17.10

SET statement_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);
SET row_security = off;

"""
OLD_TOP = "".join(line for line in TOP.splitlines(keepends=True) if not line.startswith(("\\", "SET tr")))
OLD_BOTTOM = "\n--\n-- PostgreSQL database dump complete\n--\n\n"
BOTTOM = OLD_BOTTOM + "\\unrestrict Z6jkFDENyT0CgQqfLdAqDhYLj54dUwAsrIDRsg45NKzJaQFbaF8CMXUOxSGIXpC\n\n"
ROWS = """--
-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.t (x) VALUES
\t('one');

"""
# Lines that look like pg_dump's own, among them its very last words.
TRICKY = ROWS.replace("one", f"\n{TOP}{BOTTOM}\n--\n-- Name: t\n\nSET x = 1;\n\\restrict a\n{OLD_BOTTOM}")


def copied(text: str) -> str:
    out = io.BytesIO()
    copy_rows(io.BytesIO(text.encode()), out)
    return out.getvalue().decode()


@pytest.mark.parametrize("top", [TOP, OLD_TOP])
@pytest.mark.parametrize("bottom", [BOTTOM, OLD_BOTTOM])
@pytest.mark.parametrize("rows", [ROWS, TRICKY, ROWS + TRICKY, TRICKY * 300, ROWS.replace("one", "x" * 5000)])
def test_the_rows_are_copied_as_they_are_without_what_stands_around_them(top: str, rows: str, bottom: str) -> None:
    assert copied(top + rows + bottom) == rows


def test_a_dump_without_rows_is_empty() -> None:
    assert copied(TOP + BOTTOM.removeprefix("\n")) == ""


def test_a_sequences_value_is_a_part_of_the_rows() -> None:
    title = "--\n-- Name: s; Type: SEQUENCE SET; Schema: public; Owner: -\n--\n\n"
    value = f"{title}SELECT pg_catalog.setval('s', 1, true);\n\n"
    assert copied(TOP + value + BOTTOM) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        TOP,
        TOP + ROWS,
        TOP + ROWS + BOTTOM + "more",
        TOP + TRICKY,
        TOP + "CREATE TABLE t ();\n" + ROWS + BOTTOM,
        TOP + "SELECT pg_catalog.set_config('search_path', 'evil', false);\n" + ROWS + BOTTOM,
        "garbage",
    ],
)
def test_a_dump_that_is_cut_or_unknown_is_refused(text: str) -> None:
    with pytest.raises(RescueError, match="pg_dump"):
        copied(text)


def test_nothing_ends_a_comment_but_its_line() -> None:
    assert commented(["a\nb\r\nc\vd\u2028e", "", "x "]) == "-- a b c d e\n--\n-- x\n"


USERS = Relation(1, "public", 'us"ers', Kind.TABLE, has_children=True)
GUARDED = Relation(2, "public", "guarded", Kind.TABLE, forces_rls=True)


def scope() -> Scope:
    return choose_scope([GUARDED, USERS], Wanted())


def lines(statements: object) -> list[str]:
    return [statement.as_string(None) for statement in statements]  # type: ignore[attr-defined]


def remade(*, valid: bool = True, holds: bool = True) -> Remade:
    key = ForeignKey(
        *(9, "The key", 1, 2, None),
        is_valid=valid,
        is_deferred=False,
        definition="FOREIGN KEY (a) REFERENCES b(c)",
        comment="it's {odd} 100%",
    )
    return Remade(key, USERS, holds)


def test_what_is_off_before_the_rows_is_as_it_was_after_them() -> None:
    guards = [
        Guard("TRIGGER", 1, "Loud", is_always=True, on_truncate=False),
        Guard("TRIGGER", 1, "emptied", is_always=False, on_truncate=True),
        Guard("RULE", 2, "swallow", is_always=False, on_truncate=False),
    ]
    assert lines(opening(scope(), guards, [remade()])) == [
        'ALTER TABLE ONLY "public"."us""ers" DISABLE TRIGGER "emptied";',
        'TRUNCATE TABLE "public"."guarded", ONLY "public"."us""ers" CASCADE;',
        'ALTER TABLE ONLY "public"."us""ers" DISABLE TRIGGER "Loud";',
        'ALTER TABLE ONLY "public"."guarded" DISABLE RULE "swallow";',
        'ALTER TABLE ONLY "public"."guarded" NO FORCE ROW LEVEL SECURITY;',
        'ALTER TABLE "public"."us""ers" DROP CONSTRAINT IF EXISTS "The key";',
    ]
    assert lines(closing(scope(), guards, [remade()])) == [
        'ALTER TABLE "public"."us""ers" ADD CONSTRAINT "The key" FOREIGN KEY (a) REFERENCES b(c);',
        """COMMENT ON CONSTRAINT "The key" ON "public"."us""ers" IS 'it''s {odd} 100%';""",
        'ALTER TABLE ONLY "public"."guarded" FORCE ROW LEVEL SECURITY;',
        'ALTER TABLE ONLY "public"."us""ers" ENABLE ALWAYS TRIGGER "Loud";',
        'ALTER TABLE ONLY "public"."us""ers" ENABLE TRIGGER "emptied";',
        'ALTER TABLE ONLY "public"."guarded" ENABLE RULE "swallow";',
    ]


@pytest.mark.parametrize(
    ("valid", "holds", "suffix"), [(True, True, ""), (True, False, " NOT VALID"), (False, False, ""), (False, True, "")]
)
def test_a_key_that_rows_violate_is_added_without_looking_at_them(*, valid: bool, holds: bool, suffix: str) -> None:
    (added, *_) = lines(closing(scope(), [], [remade(valid=valid, holds=holds)]))
    assert added.endswith(f"REFERENCES b(c){suffix};")
