"""The Docker daemon: the only module that imports Docker's SDK, and what of it pgrescue uses."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import docker
import docker.errors
import requests
import urllib3.exceptions
from docker.context import ContextAPI
from docker.utils import kwargs_from_env, parse_host

from pgrescue.engine.docker_container import FRAME_HEADER, LABEL_ID, Container, frames, outputs
from pgrescue.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NATIVE_HINT = "Take PostgreSQL's programs of this machine with --engine native."

_FIRST_ANSWER_S = 5
_ANSWER_S = 120  # of one request that changes something, on a busy machine
_NO_ANSWER_HINT = (
    "See whether the daemon runs (docker info) and whether you may use it, or take PostgreSQL's programs of this "
    "machine with --engine native."
)
_UNSEEN = "bind source path does not exist"
_UNSEEN_HINT = (
    "Docker's daemon does not see the files of this machine, as when pgrescue itself runs in a container. "
    "Take PostgreSQL's programs of this machine with --engine native."
)
_CHUNK_BYTES = 1 << 16
_CONFLICT = 409


class MissingError(EngineError):
    """The daemon does not know the image or container that it was asked about."""


class RefusedError(EngineError):
    """The daemon answered that it cannot do what it was asked to."""


class OvertimeError(EngineError):
    """A program ran longer than it may, and was ended."""


def elsewhere(address: str) -> str | None:
    """Say why a daemon at this address does not see the workspace, or return None when it does."""
    parts = urlsplit(address)
    if parts.scheme == "http+unix" or parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        return None
    return f"Docker's daemon is on another machine ({parts.hostname}), which does not see the workspace"


def refusal(info: Mapping[str, Any]) -> str | None:
    """Say why a daemon that tells this of itself (`docker info`) cannot work on a workspace, or return None.

    Docker Desktop is let through: it runs in a virtual machine yet shares the user's directories, under the user's
    ownership. That is documented by Docker and untested here.
    """
    options = {option.split(",")[0] for option in info.get("SecurityOptions") or []}
    if info["OSType"] != "linux":
        return f"Docker runs {info['OSType']} containers; PostgreSQL's images are for linux"
    if "name=rootless" in options:
        return "Docker is rootless: what a container writes into the workspace would belong to subordinate ids"
    if "name=userns" in options:
        return "Docker remaps user ids (userns-remap): what a container writes would belong to subordinate ids"
    return None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn whatever the SDK and the libraries below it raise into an EngineError with its remedy."""
    try:
        yield
    except docker.errors.NotFound as error:
        raise MissingError(f"Docker does not know it: {error.explanation}") from error
    except docker.errors.APIError as error:
        hint = _UNSEEN_HINT if _UNSEEN in str(error.explanation) else ""
        raise RefusedError(f"Docker refuses: {error.explanation or error}", hint=hint) from error
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise EngineError(f"Docker does not answer: {error}", hint=_NO_ANSWER_HINT) from error


def _address() -> dict[str, Any]:
    """Return the daemon's address as the SDK takes it: of DOCKER_HOST, else of the current Docker context."""
    told = dict(kwargs_from_env())
    return told if "base_url" in told else {**ContextAPI.kwargs_from_context(), **told}


def _require_listener(address: str) -> None:
    """Raise EngineError at once, with the reason, where nobody listens at a Unix socket.

    The SDK would wrap that reason in three exceptions and leave its socket open.
    """
    path = address.removeprefix("http+unix://")
    if path == address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_FIRST_ANSWER_S)
        try:
            probe.connect(path)
        except OSError as error:
            why = error.strerror or str(error)
            raise EngineError(f"Docker does not answer at {path}: {why}", hint=_NO_ANSWER_HINT) from error


class Daemon:
    """A connection to the daemon that DOCKER_HOST or the current Docker context names.

    Making one asks the daemon for its version, for a few seconds at most. Every method raises EngineError when the
    daemon does not answer, RefusedError when it cannot do what it is asked to, MissingError when what it is about
    does not exist.
    """

    def __init__(self) -> None:
        with _translated():
            told = _address()
            address = str(parse_host(told.get("base_url")))
            if reason := elsewhere(address):
                raise EngineError(reason, hint=NATIVE_HINT)
            _require_listener(address)
            self._api = docker.APIClient(version="auto", timeout=_FIRST_ANSWER_S, **told)
        self._api.timeout = _ANSWER_S

    def close(self) -> None:
        """Close its connections."""
        self._api.close()

    def refusal(self) -> str | None:
        """Ask the daemon about itself, and say why it cannot work on workspaces here, or return None."""
        with _translated():
            info = self._api.info()
        return refusal(info)

    def image(self, reference: str) -> dict[str, Any]:
        """Return the daemon's description of a local image."""
        with _translated():
            image: dict[str, Any] = self._api.inspect_image(reference)  # type: ignore[no-untyped-call] # bare in the stubs
            return image

    def pull(self, reference: str) -> Iterator[dict[str, Any]]:
        """Pull an image, yielding the daemon's reports of progress."""
        with _translated():
            for report in self._api.pull(reference, stream=True, decode=True):
                if "error" in report:
                    raise RefusedError(str(report["error"]))
                yield report

    def containers(self, workspace_id: str) -> list[Container]:
        """List the containers that are labelled with the workspace's id, in any state."""
        with _translated():
            listed = self._api.containers(all=True, filters={"label": f"{LABEL_ID}={workspace_id}"})
        return [Container.parse(one) for one in listed]

    def running(self) -> list[Container]:
        """List the running containers, whosever they are."""
        with _translated():
            return [Container.parse(one) for one in self._api.containers()]

    def run(
        self,
        config: Mapping[str, Any],
        *,
        name: str,
        timeout_s: float | None = None,
        archive: bytes | None = None,
        on_stderr: Callable[[str], None] | None = None,
    ) -> tuple[int, str, str]:
        """Run a container that removes itself to its end; return its exit status, its stdout and its stderr.

        `archive` is a tar that is unpacked at its root first. `on_stderr` is told each line of stderr. Raises
        OvertimeError after `timeout_s`. Whatever happens, Ctrl-C included, the container does not outlive the call.
        """
        with _translated(), contextlib.ExitStack() as stack:
            stack.callback(self._remove_if_possible, name)
            self._api.create_container_from_config(dict(config), name)  # type: ignore[no-untyped-call] # bare in the stubs
            if archive is not None:
                self._api.put_archive(name, "/", archive)
            # Both are asked for before the start: a short program would be over, and removed, before an answer.
            end = stack.enter_context(self._ask(name, "wait", condition="removed"))
            output = stack.enter_context(self._ask(name, "attach", stdout="1", stderr="1", stream="1"))
            self._api.start(name)
            overtime = stack.enter_context(_alarm(timeout_s, lambda: self._remove_if_possible(name)))
            chunks = output.iter_content(_CHUNK_BYTES) if on_stderr is None else _as_they_come(output)
            out, err = outputs(chunks, on_stderr)
            status = int(end.json()["StatusCode"])
            if overtime.is_set():
                raise OvertimeError(f"the program did not end within {timeout_s} s and was stopped")
            return status, out, err

    def _ask(self, name: str, verb: str, **params: str) -> requests.Response:
        """Ask about a container and return as soon as the daemon begins to answer, which may take it for ever.

        The SDK's own wait() returns at the end only, and its attach() cannot be closed without its internals.
        """
        url = f"{self._api.base_url}/v{self._api.api_version}/containers/{name}/{verb}"
        method = "GET" if verb == "logs" else "POST"
        response = self._api.request(method, url, params=params, stream=True, timeout=None)
        if response.ok:
            return response
        with response:
            raise docker.errors.create_api_error_from_http_exception(requests.HTTPError(response=response))

    def launch(self, config: Mapping[str, Any], *, name: str) -> None:
        """Create and start a container that outlives this process; leave none behind when it does not start."""
        with _translated():
            self._api.create_container_from_config(dict(config), name)  # type: ignore[no-untyped-call] # bare in the stubs
        try:
            with _translated():
                self._api.start(name)
        except BaseException:
            self._remove_if_possible(name)
            raise

    def unpause(self, name: str) -> None:
        """Let a paused container go on."""
        with _translated():
            self._api.unpause(name)

    def stop(self, name: str, *, timeout_s: int) -> None:
        """Send a container its stop signal, and kill it when it is not over after `timeout_s`."""
        with _translated():
            self._api.stop(name, timeout=timeout_s)

    def logs(self, name: str, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        """Yield pieces of both outputs of a container, in their order; `follow` goes on until it stops."""
        wanted = {
            "stdout": "1",
            "stderr": "1",
            "follow": str(int(follow)),
            "tail": "all" if tail is None else str(tail),
        }
        with _translated(), self._ask(name, "logs", **wanted) as response:
            # No size: each piece as it arrives.
            for _, data in frames(response.iter_content(None)):
                yield data

    def remove(self, name: str) -> None:
        """End and remove a container and its anonymous volumes; return when it is gone, or was never there."""
        with contextlib.suppress(MissingError), _translated():
            try:
                self._api.remove_container(name, v=True, force=True)
            except docker.errors.APIError as error:
                if error.status_code != _CONFLICT:
                    raise
                self._api.wait(name, timeout=_ANSWER_S, condition="removed")  # the daemon is removing it already

    def _remove_if_possible(self, name: str) -> None:
        """Remove a container in the course of another error, which is the one to tell."""
        with contextlib.suppress(EngineError):
            self.remove(name)


def _as_they_come(attached: requests.Response) -> Iterator[bytes]:
    """Yield the pieces of an attached container's outputs, each as soon as it is there.

    The answer has neither a length nor chunks, so that reading more than a frame would wait for the next one, and
    reading without a size for the container's end.
    """
    while header := attached.raw.read(FRAME_HEADER.size):
        yield header
        yield attached.raw.read(FRAME_HEADER.unpack(header)[1]) if len(header) == FRAME_HEADER.size else b""


@contextlib.contextmanager
def _alarm(timeout_s: float | None, ring: Callable[[], None]) -> Iterator[threading.Event]:
    """Call `ring` in another thread unless the block ends within `timeout_s`; the event tells whether it rang."""
    rang = threading.Event()
    if timeout_s is None:
        yield rang
        return

    def expire() -> None:
        rang.set()
        ring()

    timer = threading.Timer(timeout_s, expire)
    timer.daemon = True
    timer.start()
    try:
        yield rang
    finally:
        timer.cancel()
