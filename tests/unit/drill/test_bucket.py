"""Snapshots in an object store: real barman backups in moto's S3, and connections that drop."""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import pytest

from fixtures import ObjectStore, Server, barman_backup, barman_wal_archive
from fixtures.backups.barman import read_backup_info
from pgrescue.drill import store as store_module
from pgrescue.drill.bucket import Fetched, fetch_snapshot, is_address
from pgrescue.drill.newest import NoSnapshotError
from pgrescue.drill.store import PIECE_BYTES, ChangedError, StoreError
from pgrescue.errors import DiskSpaceError, RescueError, UnreadableSnapshotError, UsageError
from pgrescue.model import Outcome
from pgrescue.pipeline import Silent
from pgrescue.snapshot.contents import read_snapshot
from pgrescue.snapshot.wal_archive import read_archive
from pgrescue.snapshot.wal_beside import find_wal_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from pgrescue.model import StepReport
    from pgrescue.pipeline import Unit

SECRET = "S3CRET-of-the-store"


@dataclass
class Watching(Silent):
    """Keeps what it hears, and does something at the first sign of progress."""

    at_first: Callable[[], object] = lambda: None
    progress: list[tuple[int, int | None]] = field(default_factory=list)
    end: StepReport | None = None

    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:  # noqa: ARG002
        if not self.progress:
            self.at_first()
        self.progress.append((done, total))

    def ended(self, record: StepReport) -> None:
        self.end = record


class Cutter:
    """A way to a store over TCP that cuts the first connections, each after so many bytes from the store."""

    def __init__(self, endpoint: str, *, cuts: int, after_bytes: int, hangs: bool = False) -> None:
        self.cuts = cuts
        self._target = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._after_bytes = after_bytes
        self._hangs = hangs
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._backward, args=(server, client), daemon=True).start()

    @staticmethod
    def _forward(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)

    def _backward(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                passed += len(data)
                if passed > self._after_bytes and self._takes_its_turn():
                    if not self._hangs:
                        client.shutdown(socket.SHUT_RDWR)
                        server.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)

    def _takes_its_turn(self) -> bool:
        with self._lock:
            self.cuts -= 1
            return self.cuts >= 0


@dataclass(frozen=True)
class Site:
    """A store with a barman server's prefix `site/portal`: two backups by the real tools, one of them gzip, and WAL."""

    store: ObjectStore
    ids: tuple[str, str]
    begins: tuple[str, str]
    original: Path

    def address(self, rest: str = "") -> str:
        return f"s3://{self.store.bucket}/site/portal{rest}"

    def put(self, key: str, content: bytes) -> None:
        self.store._client().put_object(Bucket=self.store.bucket, Key=key, Body=content)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    out = tmp_path_factory.mktemp("site")
    with ObjectStore() as store:
        with Server(major=17, promoted=True) as server:
            first = barman_backup(server, out / "first", store=store)
            time.sleep(1.1)  # barman's ids count seconds
            with server.connect() as connection:
                connection.execute("SELECT pg_switch_wal()")
            second = barman_backup(server, out / "second", store=store, compression="gzip")
            barman_wal_archive(server, first, compression="gzip", store=store)
        client = store._client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=store.bucket):
            for entry in page["Contents"]:
                source = {"Bucket": store.bucket, "Key": entry["Key"]}
                key = f"site/{entry['Key'].partition('/')[2]}"
                client.copy_object(Bucket=store.bucket, Key=key, CopySource=source)
                client.delete_object(**source)
        original = out / "original"
        store.download("site/portal", original)
        infos = [read_backup_info(one.path.parent / "backup.info") for one in (first, second)]
        first_id, second_id = (one.path.parent.name for one in (first, second))
        yield Site(store, (first_id, second_id), (str(infos[0]["begin_wal"]), str(infos[1]["begin_wal"])), original)


@pytest.fixture(autouse=True)
def credentials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fixture")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    if "site" in request.fixturenames:
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("site").store.endpoint_url)


def _fetch(address: str, into: Path, *, takes_newest: bool = True, observer: Watching | None = None) -> Fetched:
    return fetch_snapshot(address, takes_newest=takes_newest, into=into, observer=observer or Watching())


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def _assert_same(site: Site, into: Path, files: set[str]) -> None:
    _, mismatch, errors = filecmp.cmpfiles(site.original, into, sorted(files), shallow=False)
    assert (mismatch, errors) == ([], [])


@pytest.mark.parametrize("below", ["", "/", "/base", "/base/"])
def test_the_newest_backup_comes_with_its_wal_in_barmans_layout(site: Site, tmp_path: Path, below: str) -> None:
    observer = Watching()
    fetched = _fetch(site.address(below), tmp_path / "deep" / "into", observer=observer)
    into = tmp_path / "deep" / "into"
    newest = f"base/{site.ids[1]}"
    assert fetched.path == into / newest / "data.tar.gz"
    assert fetched.wal == into / "wals" == find_wal_beside(fetched.path)
    assert fetched.because.startswith(f"site/portal/{newest}/data.tar.gz, the newest of 2 by backup.info: ended 20")
    assert f"also there: site/portal/base/{site.ids[0]}/data.tar (ended " in fetched.because
    files = _files(into)
    assert {one for one in files if one.startswith("base/")} == {f"{newest}/data.tar.gz", f"{newest}/backup.info"}
    _assert_same(site, into, files)
    fetched_segments = set(read_archive(fetched.wal).segments)
    all_segments = set(read_archive(site.original / "wals").segments)
    assert fetched_segments == {one for one in all_segments if one >= site.begins[1]}
    assert site.begins[1] in fetched_segments < all_segments
    total = sum(one.stat().st_size for one in into.rglob("*") if one.is_file())
    assert observer.progress[0] == (0, total)
    assert observer.progress[-1] == (total, total)
    assert observer.progress == sorted(observer.progress)
    assert observer.end is not None
    assert (observer.end.name, observer.end.outcome) == ("fetch", Outcome.DONE)
    snapshot = read_snapshot(fetched.path)
    assert snapshot.backup_info is not None
    assert snapshot.backup_info.is_done


@pytest.mark.parametrize(("below", "takes_newest"), [("", True), ("", False), ("/data.tar", False)])
def test_one_backup_can_be_named(site: Site, tmp_path: Path, below: str, takes_newest: bool) -> None:  # noqa: FBT001
    fetched = _fetch(site.address(f"/base/{site.ids[0]}{below}"), tmp_path, takes_newest=takes_newest)
    assert fetched.path == tmp_path / "base" / site.ids[0] / "data.tar"
    assert fetched.because.startswith(f"site/portal/base/{site.ids[0]}/data.tar, the only one: ended 20") or (
        below and fetched.because == ""
    )
    assert fetched.wal is not None
    assert set(read_archive(fetched.wal).segments) == {
        one for one in read_archive(site.original / "wals").segments if one >= site.begins[0]
    }
    _assert_same(site, tmp_path, _files(tmp_path))


def test_tars_in_a_prefix_are_told_apart_by_their_times(site: Site, tmp_path: Path) -> None:
    for name in ("old.tar", "new.tar.gz", "pg_wal.tar", "notes.txt", "deeper/later.tar"):
        site.put(f"tars/{name}", name.encode())
        time.sleep(1.1 if name == "old.tar" else 0)
    fetched = _fetch(f"s3://{site.store.bucket}/tars", tmp_path)
    assert fetched.path.read_text() == "new.tar.gz"
    assert _files(tmp_path) == {"new.tar.gz"}
    assert fetched.wal is None
    assert fetched.because.startswith("tars/new.tar.gz, the newest of 2 by modification time: modified 20")


def test_what_pg_basebackup_put_beside_comes_along(site: Site, tmp_path: Path) -> None:
    for name in ("base.tar.gz", "pg_wal.tar.gz", "backup_manifest"):
        site.put(f"streamed/{name}", name.encode())
    fetched = _fetch(f"s3://{site.store.bucket}/streamed/base.tar.gz", tmp_path, takes_newest=False)
    assert fetched == Fetched(tmp_path / "base.tar.gz", None, "")
    assert _files(tmp_path) == {"base.tar.gz", "pg_wal.tar.gz"}


def test_odd_keys_and_empty_objects(site: Site, tmp_path: Path) -> None:
    key = "odd ü+%20=&/it's #1?.tar"
    site.put(key, b"content")
    fetched = _fetch(f"s3://{site.store.bucket}/{key}", tmp_path, takes_newest=False)
    assert fetched.path.read_text() == "content"
    site.put("empty/none.tar", b"")
    fetched = _fetch(f"s3://{site.store.bucket}/empty", tmp_path)
    assert fetched.path.read_bytes() == b""


def test_backups_that_have_not_ended_are_passed_over(site: Site, tmp_path: Path) -> None:
    info = (site.original / "base" / site.ids[0] / "backup.info").read_bytes()
    site.put("failing/base/20260101T000000/data.tar", b"good")
    site.put("failing/base/20260101T000000/backup.info", info)
    site.put("failing/base/20260102T000000/data.tar", b"bad")
    site.put("failing/base/20260102T000000/backup.info", info.replace(b"status=DONE", b"status=FAILED"))
    site.put("failing/base/20260103T000000/data.tar", b"under way")
    fetched = _fetch(f"s3://{site.store.bucket}/failing", tmp_path)
    assert fetched.path.read_text() == "good"
    assert "20260102T000000/data.tar (its status is FAILED)" in fetched.because
    assert "20260103T000000/data.tar (it has no backup.info" in fetched.because
    assert fetched.wal is None


def test_a_backup_in_parts_is_refused_before_it_is_fetched(site: Site, tmp_path: Path) -> None:
    for name in ("data.tar", "data_0001.tar"):
        site.put(f"parts/base/20260101T000000/{name}", b"x")
    for rest, takes_newest in (("", True), ("/base/20260101T000000/data.tar", False)):
        with pytest.raises(UnreadableSnapshotError, match="is in parts"):
            _fetch(f"s3://{site.store.bucket}/parts{rest}", tmp_path / "into", takes_newest=takes_newest)
    assert not (tmp_path / "into").exists()


def test_where_there_is_none_it_says_what_there_is(site: Site, tmp_path: Path) -> None:
    site.put("nothing/here/notes.txt", b"x")
    site.put("nothing/readme", b"x")
    observer = Watching()
    with pytest.raises(NoSnapshotError, match="s3://backups/nothing holds no snapshot") as caught:
        _fetch(f"s3://{site.store.bucket}/nothing", tmp_path, observer=observer)
    assert caught.value.hint.startswith("There are: here/, readme. ")
    assert observer.end is not None
    assert observer.end.outcome is Outcome.FAILED
    with pytest.raises(NoSnapshotError) as caught:
        _fetch(f"s3://{site.store.bucket}/no/such.tar", tmp_path, takes_newest=False)
    assert caught.value.hint.startswith("There is nothing at all.")


@pytest.fixture
def large(site: Site) -> bytes:
    content = os.urandom(3 * PIECE_BYTES + 12_345)
    site.put("large/it.tar", content)
    return content


def test_connections_that_drop_cost_a_piece_each(
    site: Site, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cutter(site.store.endpoint_url, cuts=12, after_bytes=PIECE_BYTES // 2) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
        observer = Watching()
        fetched = _fetch(f"s3://{site.store.bucket}/large", tmp_path, observer=observer)
        assert way.cuts <= 0
    assert fetched.path.read_bytes() == large
    assert observer.progress[-1] == (len(large), len(large))


def test_a_connection_that_falls_silent_is_made_anew(
    site: Site, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_SILENCE_S", 0.5)
    with Cutter(site.store.endpoint_url, cuts=3, after_bytes=1 << 20, hangs=True) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
        fetched = _fetch(f"s3://{site.store.bucket}/large", tmp_path)
        assert way.cuts <= 0
    assert fetched.path.read_bytes() == large


def test_a_store_that_never_gives_a_piece_is_given_up(
    site: Site, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert large
    monkeypatch.setattr(store_module, "_PATIENCE_S", 1.0)
    with Cutter(site.store.endpoint_url, cuts=1_000_000, after_bytes=1 << 20) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
        with pytest.raises(StoreError, match="s3://backups cannot be read: ") as caught:
            _fetch(f"s3://{site.store.bucket}/large", tmp_path)
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_what_is_replaced_meanwhile_is_no_snapshot(site: Site, large: bytes, tmp_path: Path) -> None:
    replace = Watching(at_first=lambda: site.put("large/it.tar", bytes(reversed(large))))
    with pytest.raises(ChangedError, match=r"s3://backups/large/it\.tar was replaced or deleted"):
        _fetch(f"s3://{site.store.bucket}/large", tmp_path, observer=replace)
    delete = Watching(at_first=lambda: site.store._client().delete_object(Bucket=site.store.bucket, Key="large/it.tar"))
    with pytest.raises(ChangedError):
        _fetch(f"s3://{site.store.bucket}/large", tmp_path / "again", observer=delete)


def test_whoever_watches_can_end_it(site: Site, large: bytes, tmp_path: Path) -> None:
    assert large

    class Impatient(Watching):
        def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:
            super().advanced(done, total, unit, detail)
            if done:
                raise KeyboardInterrupt

    observer = Impatient()
    with pytest.raises(KeyboardInterrupt):
        _fetch(f"s3://{site.store.bucket}/large", tmp_path, observer=observer)
    assert [thread for thread in threading.enumerate() if "ThreadPool" in thread.name] == []


def test_room_is_looked_for_before(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1 << 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(DiskSpaceError, match=r"have 0\.0 GiB, 0\.0 GiB are free"):
        _fetch(site.address(), tmp_path)
    assert _files(tmp_path) == set()


def test_a_bucket_that_is_missing_is_named(site: Site, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(StoreError, match="s3://no-such-bucket cannot be read: 404 Not Found, The specified") as caught:
        _fetch("s3://no-such-bucket/x", tmp_path)
    assert "AWS_ENDPOINT_URL" in caught.value.hint
    assert time.monotonic() - begun < 5
    assert site.ids


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_a_store_that_is_not_there_is_an_error_without_secrets(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_FIRST_PATIENCE_S", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StoreError, match="s3://backups cannot be read: ") as caught:
        _fetch("s3://backups/x", tmp_path)
    assert SECRET not in f"{caught.value} {caught.value.hint}"
    assert "Debug" not in caught.value.problem


@pytest.mark.parametrize(
    "endpoint", ["no address", "ftp://host", "https://", "http://user name@host", "https://h\u00f6st"]
)
def test_an_endpoint_that_is_none_is_told_by_its_variable(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UsageError) as caught:
        _fetch("s3://backups/x", tmp_path)
    assert caught.value.problem == "the variable AWS_ENDPOINT_URL holds no http or https address"


def test_an_endpoint_without_encryption_must_be_meant(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    with pytest.raises(UsageError, match="is not encrypted") as caught:
        _fetch(site.address(), tmp_path)
    assert "AWS_ALLOW_HTTP=true" in caught.value.hint


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(RescueError, match="the package obstore, which is not installed") as caught:
        _fetch("s3://backups/x", tmp_path)
    assert caught.value.hint == "pip install 'pgrescue[cloud]'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://b/p", True),
        ("gs://b", True),
        ("az://b/p", True),
        ("https://host/file.tar", True),
        ("http://host/file.tar", False),
        ("/backups/s3://x", False),
        ("file:///x", False),
        ("s3:/b", False),
        ("", False),
    ],
)
def test_what_is_an_address(text: str, expected: bool) -> None:  # noqa: FBT001
    assert is_address(text) is expected


@pytest.mark.parametrize(
    ("address", "takes_newest", "problem"),
    [
        ("s3://", True, "names no bucket"),
        ("s3:///key", True, "names no bucket"),
        (f"https://user:{SECRET}@host/it.tar", False, "holds a user or password"),
        (f"https://host/it.tar?X-Amz-Signature={SECRET}", False, "is signed"),
        ("https://host/backups", True, "cannot be listed"),
    ],
)
def test_addresses_that_cannot_be_meant(address: str, takes_newest: bool, problem: str, tmp_path: Path) -> None:  # noqa: FBT001
    with pytest.raises(UsageError, match=re.escape(problem)) as caught:
        _fetch(address, tmp_path, takes_newest=takes_newest)
    assert SECRET not in f"{caught.value} {caught.value.hint}"


class _Ranges(BaseHTTPRequestHandler):
    """A web server's file, by ranges."""

    content = os.urandom(2 * PIECE_BYTES + 7)
    protocol_version = "HTTP/1.1"

    def _answer(self, *, with_body: bool) -> None:
        if self.path != "/dir/my%20data.tar":
            self.send_error(404)
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(found[1]), int(found[2]) + 1) if found else (0, len(self.content))
        body = self.content[start:end]
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", 'W/"weak"')
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 08:15:00 GMT")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: Any) -> None:
        pass


def _certificate(directory: Path) -> tuple[Path, Path, Path]:
    """Make an authority, and a certificate of it for localhost; return both and the certificate's key."""
    authority, certificate, key = (directory / name for name in ("authority.pem", "certificate.pem", "key.pem"))
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    authority_key = directory / "authority.key"
    signed = ["-CA", authority, "-CAkey", authority_key, "-addext", "basicConstraints=critical,CA:FALSE"]
    for arguments in (
        ["-subj", "/CN=authority", "-keyout", authority_key, "-out", authority],
        [
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            *signed,
            "-keyout",
            key,
            "-out",
            certificate,
        ],
    ):
        subprocess.run([*make, *map(str, arguments)], check=True, capture_output=True)
    return authority, certificate, key


def test_a_file_of_a_web_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, certificate, key = _certificate(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    root = f"https://localhost:{server.server_port}/dir"
    try:
        with pytest.raises(StoreError, match="its certificate is not trusted"):
            _fetch(f"{root}/my%20data.tar", tmp_path / "into", takes_newest=False)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        fetched = _fetch(f"{root}/my%20data.tar", tmp_path / "into", takes_newest=False)
        with pytest.raises(NoSnapshotError, match="does not exist"):
            _fetch(f"{root}/other.tar", tmp_path / "other", takes_newest=False)
    finally:
        server.shutdown()
        server.server_close()
    assert fetched == Fetched(tmp_path / "into" / "my data.tar", None, "")
    assert fetched.path.read_bytes() == _Ranges.content
