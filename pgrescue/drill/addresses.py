"""What may be shown of addresses: users, passwords and signed queries are secrets."""

from __future__ import annotations

import re
from typing import Final

# The scheme is bounded so that a long word costs no quadratic time.
_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]{0,15}://)(?:[^\s/@]*@)?(?P<place>[^\s?#]*)(?:[?#]\S*)?")


def without_secrets(text: str) -> str:
    """Take users, passwords and queries out of the addresses in a text: a signed one has its key in the query."""
    return _ADDRESS.sub(r"\g<scheme>\g<place>", text)
