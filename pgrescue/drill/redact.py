"""Taking row contents out of what servers say: a drill's reports are read by more people than its data."""

from __future__ import annotations

import re

# A line of a log, and what belongs to it: the server begins each further line of an entry with a tab (elog.c,
# append_with_tabs), the lines of a finding are indented.
_ENTRY = re.compile(r"^[^\n]*(?:\n *\t[^\n]*)*\n?", re.MULTILINE)
# Entries that say more about an error, or repeat a statement with all that stands in it.
_SAYS_MORE = re.compile(r"\b(?:DETAIL|CONTEXT|STATEMENT|QUERY|HINT):  |\bLOG:  (?:statement|execute|duration)\b")
_LONGEST = 8_000  # nobody reads more of one message, and the expressions take quadratic time where they find no end
# Where PostgreSQL quotes values, of which it escapes nothing: each is taken to reach as far as it can, for a value may
# hold the very marks that end it.
_VALUES = tuple(
    (re.compile(pattern, re.DOTALL), instead)
    for pattern, instead in (
        # Constraints (BuildIndexValueDescription, ri_ReportViolation).
        (r"(\bKey \((?>.*?\)=))\(.*\)( conflicts with (?:existing )?key \((?>.*?\)=))\(.*\)(?=\.)", r"\1(…)\2(…)"),
        (
            r"(\bKey \((?>.*?\)=))\(.*\)(?= (?:already exists|is duplicated|is not present|is still referenced))",
            r"\1(…)",
        ),
        (r"(\)=)\((?!…\))(?:.*\)|.*)", r"\1(…)"),
        # Rows (ExecBuildSlotValueDescription), and the keys of partitions (ExecFindPartition).
        (r"(row contains )\(.*\)(?=\.\))", r"\1(…)"),
        (r"(row contains )\((?!…\))(?:.*\)|.*)", r"\1(…)"),
        # Input functions: `invalid input syntax for type integer: "x"`, `malformed array literal: "x"`; COPY's place.
        (r': ".*"', ': "…"'),
        (r': "[^…].*', ': "…"'),
        (r'\b((?:[Vv]alue|Token|sequence|time zone|found|near) )".*"(?= (?:is |for |not |at |of )|\.)', r'\1"…"'),
        (r'^([^"]*)".*"(?= is (?:out of range|not a valid))', r'\1"…"'),
        (r'(byte sequence (?:for encoding "[^"]*": )?)0x[0-9a-f]{2}(?: 0x[0-9a-f]{2})*', r"\1…"),
        (r"(JSON data, line \d+: ).*", r"\1…"),
        (r"(invalid XML \w+).*", r"\1 …"),
    )
)


def without_rows(text: str) -> str:
    """Return a server's message, or lines of its log, without the values of rows that these quote.

    What functions of the user's raise in words of their own is not recognised.
    """
    return _ENTRY.sub(lambda entry: _without_values(entry[0]), text)


def _without_values(entry: str) -> str:
    if _SAYS_MORE.search(entry):
        return ""
    if len(entry) > _LONGEST:
        entry = f"{entry[:_LONGEST]}…\n"
    for pattern, instead in _VALUES:
        entry = pattern.sub(instead, entry)
    return entry
