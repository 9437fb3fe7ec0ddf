"""An object store as a drill reads it: listing, looking, and fetching in parallel what must not change meanwhile."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pgrescue.drill.addresses import without_secrets
from pgrescue.errors import RescueError, UsageError
from pgrescue.retry import until_returns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

T = TypeVar("T")

SCHEMES: Final = ("s3", "gs", "az", "https")
PIECE_BYTES: Final = 8 << 20
WORKERS: Final = 8
_PATIENCE_S: Final = 120.0
_FIRST_PATIENCE_S: Final = 20.0
_LONGEST_PAUSE_S: Final = 5.0
_SILENCE_S: Final = 30.0
_ENVIRONMENT: Final = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
# What obstore reads from the environment by itself until it is handed options for the client, which replace these.
_CLIENT_SETTINGS: Final = (
    "allow_http",
    "allow_invalid_certificates",
    "proxy_url",
    "proxy_ca_certificate",
    "proxy_excludes",
)
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_TRUE: Final = frozenset({"1", "true", "on", "yes", "y"})
_NOT_TRUSTED: Final = "InvalidCertificate("
_STATUS: Final = re.compile(r"status code: (?P<code>\d{3})(?P<words>[A-Za-z ]*)")
_MESSAGE: Final = re.compile(r"<Message>([^<\n]{1,300})")
_REQUEST: Final = re.compile(r"performing [A-Z]+ (?P<place>\S+) in \S+ - (?P<reason>[^\n]{1,300})")
_PASSING: Final = frozenset({408, 425, 429, *range(500, 600)})


class StoreError(RescueError):
    """The store cannot be reached, or refuses; nothing is known of what it holds."""


class ChangedError(StoreError):
    """An object is not the one any more that was chosen."""


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing has it; the tag is without its quotes, the time is UTC."""

    key: str
    size_bytes: int
    e_tag: str | None
    modified: datetime


class _DroppedError(Exception):
    """A request that may succeed when it is repeated; its text is the reason."""


class _StoppedError(Exception):
    """Somebody else has failed, or the user has had enough."""


class Store:
    """A bucket, or the files of a web server. Credentials and endpoints come from the environment, as obstore reads it.

    Every method raises StoreError where the store does not answer, and tries again before that.
    """

    def __init__(self, scheme: str, bucket: str) -> None:
        try:
            import obstore  # noqa: PLC0415 - an extra of its own
            from obstore import exceptions  # noqa: PLC0415
        except ImportError as error:
            raise RescueError(
                "snapshots in an object store need the package obstore, which is not installed",
                hint="pip install 'pgrescue[cloud]'",
            ) from error
        self._obstore = obstore
        self._exceptions = exceptions
        self._root = f"{scheme}://{bucket}"
        if scheme == "s3":
            _require_endpoint()
        self._store = self._asked(lambda: self._opened(scheme), patience_s=0)

    def _opened(self, scheme: str) -> Any:  # noqa: ANN401 - one of obstore's classes, which is imported late
        from obstore.store import from_url  # noqa: PLC0415

        client: dict[str, Any] = {
            "connect_timeout": timedelta(seconds=10),
            # For each read: a piece may take its time on a slow line, as long as something comes.
            "read_timeout": timedelta(seconds=_SILENCE_S),
            "timeout": timedelta(minutes=30),
        }
        prefix = _ENVIRONMENT.get(scheme)
        for name in _CLIENT_SETTINGS if prefix else ():
            if value := os.environ.get(f"{prefix}{name.upper()}"):
                client[name] = value
        return from_url(self._root, client_options=client, retry_config={"max_retries": 0})  # type: ignore[call-overload]

    def children(self, prefix: str) -> tuple[tuple[StoredObject, ...], tuple[str, ...]]:
        """Return the objects right below a prefix, and the prefixes below it."""
        found = self._asked(lambda: self._obstore.list_with_delimiter(self._store, prefix or None))
        return tuple(_object(one) for one in found["objects"]), tuple(found["common_prefixes"])

    def below(self, prefix: str, *, after: str | None = None) -> tuple[StoredObject, ...]:
        """Return all objects below a prefix, or those whose keys come after another one."""
        found = self._asked(lambda: self._obstore.list(self._store, prefix, offset=after).collect())
        return tuple(_object(one) for one in found)

    def find(self, key: str) -> StoredObject | None:
        """Return an object, None where there is none."""
        try:
            return _object(self._asked(lambda: self._obstore.head(self._store, key)))
        except FileNotFoundError:
            return None

    def text(self, wanted: StoredObject) -> str:
        """Return what a small object holds."""
        return self._piece(wanted, 0, wanted.size_bytes).decode(errors="replace") if wanted.size_bytes else ""

    def texts(self, wanted: Sequence[StoredObject]) -> Mapping[str, str]:
        """Return what small objects hold, by their keys."""
        with ThreadPoolExecutor(WORKERS) as pool:
            return dict(zip((one.key for one in wanted), pool.map(self.text, wanted), strict=True))

    def fetch(self, wanted: Mapping[StoredObject, Path], *, on_progress: Callable[[int], None]) -> None:
        """Write objects to files, in pieces and several at a time; `on_progress` hears of all bytes so far.

        A connection that drops costs a piece, not the whole. Raises ChangedError where an object was replaced
        meanwhile, and OSError where a file cannot be written.
        """
        for one, path in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.truncate(one.size_bytes)
        work = _Work(_pieces(wanted), on_progress)
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                for done in [pool.submit(work.through, self._piece) for _ in range(WORKERS)]:
                    done.result()
            finally:
                work.stopped.set()

    def _piece(self, wanted: StoredObject, start: int, end: int, stopped: threading.Event | None = None) -> bytes:
        """Return a range of an object that is still the same."""
        # A weak tag never matches in If-Match (RFC 9110 §13.1.1).
        has_strong_tag = wanted.e_tag is not None and not wanted.e_tag.startswith("W/")
        condition = {"if_match": f'"{wanted.e_tag}"'} if has_strong_tag else {}

        def get() -> bytes:
            if stopped is not None and stopped.is_set():
                raise _StoppedError
            answer = self._obstore.get(self._store, wanted.key, options={"range": (start, end), **condition})
            data = bytes(answer.bytes())
            found = _object(answer.meta)
            if (found.size_bytes, found.e_tag) != (wanted.size_bytes, wanted.e_tag):
                raise self._changed(wanted)
            if len(data) != end - start:
                raise _DroppedError(f"{len(data)} bytes came instead of {end - start}")
            return data

        try:
            return self._asked(get, patience_s=_PATIENCE_S)
        except (FileNotFoundError, self._exceptions.PreconditionError):
            raise self._changed(wanted) from None

    def _changed(self, wanted: StoredObject) -> ChangedError:
        return ChangedError(
            f"{self._root}/{wanted.key} was replaced or deleted while it was fetched",
            hint="Run the drill again; keep retention from deleting backups while they are drilled.",
        )

    def _asked(self, request: Callable[[], T], *, patience_s: float | None = None) -> T:
        """Make a request until it is answered; FileNotFoundError and PreconditionError are the caller's."""

        def attempt() -> T:
            try:
                return request()
            except self._exceptions.PreconditionError:
                raise
            except self._exceptions.BaseError as error:
                if _may_pass(str(error)):
                    raise _DroppedError(_reason(str(error))) from None
                raise self._refused(_reason(str(error))) from None
            except ValueError as error:
                raise self._refused(_reason(str(error))) from None

        try:
            return until_returns(
                attempt,
                on=_DroppedError,
                timeout_s=_FIRST_PATIENCE_S if patience_s is None else patience_s,
                longest_pause_s=_LONGEST_PAUSE_S,
            )
        except _DroppedError as error:
            raise self._refused(str(error)) from None

    def _refused(self, reason: str) -> StoreError:
        return StoreError(
            f"{self._root} cannot be read: {reason}",
            hint="Check the bucket's name and, in the environment, the credentials and the endpoint (for S3: "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL).",
        )


class _Work:
    """Pieces to fetch, which several threads share."""

    def __init__(
        self, pieces: Iterator[tuple[StoredObject, Path, int, int]], on_progress: Callable[[int], None]
    ) -> None:
        self.stopped = threading.Event()
        self._pieces = pieces
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._done_bytes = 0

    def through(self, get: Callable[[StoredObject, int, int, threading.Event], bytes]) -> None:
        """Fetch piece after piece until none is left, or until anybody fails."""
        try:
            while not self.stopped.is_set() and (piece := self._next()) is not None:
                wanted, path, start, end = piece
                data = get(wanted, start, end, self.stopped)
                with path.open("r+b") as file:
                    file.seek(start)
                    file.write(data)
                with self._lock:
                    self._done_bytes += len(data)
                    self._on_progress(self._done_bytes)
        except _StoppedError:
            pass
        except BaseException:
            self.stopped.set()
            raise

    def _next(self) -> tuple[StoredObject, Path, int, int] | None:
        with self._lock:
            return next(self._pieces, None)


def _pieces(wanted: Mapping[StoredObject, Path]) -> Iterator[tuple[StoredObject, Path, int, int]]:
    for one, path in wanted.items():
        for start in range(0, one.size_bytes, PIECE_BYTES):
            yield one, path, start, min(start + PIECE_BYTES, one.size_bytes)


def _object(meta: Any) -> StoredObject:  # noqa: ANN401 - obstore's ObjectMeta, which exists for type checkers only
    # Azure quotes tags in an object's head, and does not in listings.
    tag = meta["e_tag"]
    return StoredObject(meta["path"], meta["size"], tag.strip('"') if tag else None, meta["last_modified"])


def _require_endpoint() -> None:
    """Refuse an endpoint that obstore would panic over, or would call a "builder error"."""
    name = next((one for one in _ENDPOINTS if os.environ.get(one)), None)
    if name is None:
        return
    scheme, slashes, host = os.environ[name].partition("://")
    if not slashes or scheme not in {"http", "https"} or not host or re.search(r"[^!-~]", host):
        raise UsageError(f"the variable {name} holds no http or https address", hint="Such as https://s3.example.com.")
    if scheme == "http" and os.environ.get("AWS_ALLOW_HTTP", "").lower() not in _TRUE:
        raise UsageError(
            f"the endpoint in the variable {name} is not encrypted",
            hint="Set AWS_ALLOW_HTTP=true where it is meant, as for a store on the same machine.",
        )


def _may_pass(text: str) -> bool:
    """Tell whether it may help to ask again: not where the store has answered that it will not."""
    if _NOT_TRUSTED in text:
        return False
    status = _STATUS.search(text)
    return int(status["code"]) in _PASSING if status else "HTTP error" in text or "response body" in text


def _reason(text: str) -> str:
    """Return the sentence of an error that is for people; the rest shows whole requests."""
    if _NOT_TRUSTED in text:
        return "its certificate is not trusted"
    if status := _STATUS.search(text):
        said = _MESSAGE.search(text)
        return f"{status['code']}{status['words'].rstrip()}" + (f", {said[1].rstrip()}" if said else "")
    request = _REQUEST.search(text)
    words = f"{request['reason']} ({request['place']})" if request else text.partition("\n")[0][:300]
    return without_secrets(words)
