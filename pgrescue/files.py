"""Writing files so that a crash leaves the old or the new, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from typing import TYPE_CHECKING, BinaryIO

from pgrescue.errors import DiskSpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ASIDE = re.compile(r"\..+\.[0-9a-f]{8}")


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace `path` by `content` so that a reader, and a crash, meet the old file or the new one, never a part.

    What is not `durable` need not outlive a power failure, and is written faster. Raises DiskSpaceError where there
    is no room for it.
    """
    with replacing(path, mode=mode, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o600, durable: bool = True) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of `path` when the block ends, and is gone where it fails.

    `durable` and DiskSpaceError are as for `write_atomically`.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskSpaceError(
                f"the disk is full: {path} cannot be written", hint="Free some space and run the same command again."
            ) from error
        raise
    if durable:
        sync_directory(path.parent)


def is_remains(path: Path) -> bool:
    """Tell whether a kill within `write_atomically` left this file."""
    return _ASIDE.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def remove_remains(directory: Path) -> None:
    """Remove what kills within `write_atomically` left in a directory, where it exists and nobody writes now."""
    if directory.is_dir():
        for path in directory.iterdir():
            if is_remains(path):
                path.unlink()


def size_of(directory: Path) -> int:
    """Return the bytes of all files below a directory, links not followed; what goes away meanwhile does not count."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - of many files, by their names
    return total


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable, such as a rename within it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
