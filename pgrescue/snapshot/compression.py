"""Compressed files that fit into memory, such as WAL files: what they are, and what is in them.

What a file is, its first bytes tell: barman says `compression=None` of compressed files, and WAL-G's and barman's
encryption leaves names as they are (reference/formats.md §1 and §4).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import zlib
from typing import TYPE_CHECKING, Final

from pgrescue.errors import SnapshotError, TruncatedSnapshotError, UnreadableSnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COMPRESSIONS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x5d\0\0", "lzma"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
)
_REFUSED: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"Salted__", "encrypted (OpenSSL, as pgBackRest does)", "Fetch it with pgbackrest archive-get, which decrypts."),
    (b"-----BEGIN PGP", "encrypted (OpenPGP)", "Decrypt it first: gpg -d"),
    (b"age-encryption.org/", "encrypted (age)", "Decrypt it first: age -d"),
    *(
        (bytes([tag]), "encrypted (OpenPGP)", "Decrypt it first: gpg -d, or fetch it with wal-g or barman.")
        for tag in (0x84, 0x85, 0x86, 0x8C, 0x8D, 0xC1, 0xC3)  # session key packets (RFC 9580 §4.2), old and new form
    ),
    (b"\x89LZO\0", "compressed with lzop, which pgrescue does not read", "Unpack it first: lzop -d"),
    (b"PK\x03\x04", "a zip archive", "Unpack it first: unzip"),
)
_STREAMS: Final[Mapping[str, Callable[[io.BytesIO], io.BufferedIOBase]]] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "lzma": lzma.LZMAFile,
}
_AGAIN: Final = "Fetch it again, and compare its size with the original's."
_OVERFLOW: Final = "failed to write whole buffer"


def compression_of(head: bytes) -> str | None:
    """Tell how a file is compressed that begins with these 10 bytes or more; None where it is not, or nobody knows."""
    return next((name for magic, name in _COMPRESSIONS if head.startswith(magic)), None)


def refuse_encrypted(head: bytes, what: str) -> None:
    """Raise SnapshotError for a file that begins as encrypted files, and those of other archivers, do.

    OpenPGP is known by one byte only: ask after everything else that a file may be.
    """
    for magic, is_, remedy in _REFUSED:
        if head.startswith(magic):
            raise UnreadableSnapshotError(f"{what} is {is_}", hint=remedy)


def unpacked(data: bytes, compression: str, *, what: str, limit_bytes: int) -> bytes:
    """Return what a compressed file holds, all members and frames of it.

    `what` names the file in errors. Raises SnapshotError where the data is damaged, or unpacks to more than
    `limit_bytes`; that much memory is used at most. TruncatedSnapshotError where it ends too early.
    """
    try:
        if compression in _STREAMS:
            with _STREAMS[compression](io.BytesIO(data)) as stream:
                found = stream.read(limit_bytes + 1)
        else:
            found = _by_cramjam(data, compression, what=what, limit_bytes=limit_bytes)
    except EOFError as error:
        raise TruncatedSnapshotError(
            f"{what} is truncated: its {compression} data ends too early", hint=_AGAIN
        ) from error
    except (OSError, zlib.error, lzma.LZMAError) as error:
        raise SnapshotError(f"{what} is damaged: {error}", hint=_AGAIN) from error
    if len(found) > limit_bytes:
        raise _too_large(what, limit_bytes)
    return found


def _by_cramjam(data: bytes, compression: str, *, what: str, limit_bytes: int) -> bytes:
    """Unpack zstd, lz4 frames and snappy's framing format.

    The buffer is as large as the limit, and a mapping, so that only the part that is written to takes memory.
    """
    import cramjam  # noqa: PLC0415 - 4 MiB of code that only archives compressed in one of these three ways need

    modules = {"zstd": cramjam.zstd, "lz4": cramjam.lz4, "snappy": cramjam.snappy}
    with mmap.mmap(-1, max(limit_bytes, 1)) as buffer:
        try:
            size = modules[compression].decompress_into(data, buffer)
        except cramjam.DecompressionError as error:
            if _OVERFLOW in str(error):
                raise _too_large(what, limit_bytes) from error
            raise SnapshotError(f"{what} is damaged or cut short ({compression}): {error}", hint=_AGAIN) from error
        return buffer[:size]


def _too_large(what: str, limit_bytes: int) -> SnapshotError:
    return SnapshotError(
        f"{what} unpacks to more than {limit_bytes} bytes, the most that such a file can hold",
        hint="It is damaged, or something else than its name says.",
    )
