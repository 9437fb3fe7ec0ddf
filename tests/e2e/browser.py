"""A real browser without a window, driven by the Chrome DevTools Protocol over two pipes; it needs no other program."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ANSWER_S = 60.0
_COLOURS = """(async () => {
  const picture = new Image();
  picture.src = "data:image/png;base64,%s";
  await picture.decode();
  const canvas = new OffscreenCanvas(picture.width, picture.height), pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  const bytes = pen.getImageData(0, 0, picture.width, picture.height).data, counts = new Map();
  for (let at = 0; at < bytes.length; at += 4) {
    const pixel = bytes[at] << 16 | bytes[at + 1] << 8 | bytes[at + 2];
    counts.set(pixel, (counts.get(pixel) || 0) + 1);
  }
  const shares = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 1000).map(([pixel, number]) =>
    [`${pixel >> 16},${pixel >> 8 & 255},${pixel & 255}`, 4 * number / bytes.length]);
  return Object.fromEntries(shares);
})()"""
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # CI is root, and Chromium's sandbox refuses root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_browser() -> str:
    """Return the browser's path; skip the test without one, or fail it where PGRESCUE_REQUIRE_BROWSER is 1."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        reason = f"no browser: none of {', '.join(_NAMES)} is installed"
        if os.environ.get("PGRESCUE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Browser:
    """One browser with one page open; a context manager that ends it and everything it started."""

    def __init__(self, program: str, home: Path) -> None:
        self._program = program
        self._home = home
        self._asked = 0
        self._buffer = b""
        self._session = ""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        try:
            # The protocol's pipes are descriptors 3 and 4 of the browser.
            script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
            with (self._home / "browser.log").open("wb") as log:
                self._process = subprocess.Popen(
                    ["bash", "-c", script, "-", self._program, *_OPTIONS, f"--user-data-dir={self._home}/profile"],
                    pass_fds=(to_browser, from_browser),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "HOME": str(self._home)},
                )
        finally:
            os.close(to_browser)
            os.close(from_browser)
        try:
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                self._ask(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def open(self, page: Path, *, width: int, dark: bool = False) -> None:
        """Load a file as a window of this width and this colour scheme shows it; forget earlier events."""
        self.events.clear()
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._ask("Page.navigate", url=page.as_uri())
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self.events))

    def value(self, script: str) -> Any:
        """Return what a JavaScript expression yields in the page, as JSON has it."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self) -> bytes:
        """Return the whole page as PNG."""
        answer = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def colours(self, png: bytes) -> dict[str, float]:
        """Return the colours of a picture as `r,g,b`, the most frequent first, each with its share; leaves the page."""
        self._ask("Page.navigate", url="about:blank")
        shares: dict[str, float] = self.value(_COLOURS % base64.b64encode(png).decode())
        return shares

    def printed(self) -> bytes:
        """Return the page as PDF, as it would be printed."""
        return base64.b64decode(self._ask("Page.printToPDF")["data"])

    def on_paper(self) -> None:
        """Let the open page look as on paper, in the dark scheme, which paper must not show."""
        scheme = {"name": "prefers-color-scheme", "value": "dark"}
        self._ask("Emulation.setEmulatedMedia", media="print", features=[scheme])

    def headings(self) -> list[tuple[int, str]]:
        """Return level and text of the headings as a screen reader would read them, in their order."""
        nodes = {node["nodeId"]: node for node in self._ask("Accessibility.getFullAXTree")["nodes"]}
        found, left = [], [next(iter(nodes.values()))]
        while left:
            node = left.pop()
            left += [nodes[child] for child in reversed(node.get("childIds", ())) if child in nodes]
            if not node["ignored"] and node["role"]["value"] == "heading":
                level = next(item["value"]["value"] for item in node["properties"] if item["name"] == "level")
                found.append((int(level), str(node["name"]["value"])))
        return found

    def requested(self) -> list[str]:
        """Return every URL that the page asked for since it was opened."""
        return [
            str(event["params"]["request"]["url"])
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Return what the browser would write to its console about the page."""
        return [
            json.dumps(event["params"])
            for event in self.events
            if event["method"] in {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
        ]

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._asked += 1
        number = self._asked
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer: dict[str, Any] = {}
        deadline = time.monotonic() + _ANSWER_S
        while answer.get("id") != number:
            answer = self._next(deadline)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _ANSWER_S
        while not happened():
            self._next(deadline)

    def _next(self, deadline: float) -> dict[str, Any]:
        """Return the next message, and remember it where it is an event."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                log = (self._home / "browser.log").read_text(errors="replace")
                pytest.fail(f"the browser {'ended' if ready else 'does not answer'}:\n{log[-2000:]}")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def _end(self) -> None:
        """Close the pipes, at which the browser ends by itself, and kill what is left of its session."""
        os.close(self._write)
        os.close(self._read)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
