"""A real browser for pages that spoold makes: Chromium without a screen, driven by its DevTools protocol over a pipe.

It is Debian's package ``chromium``. Where it is missing, the test is skipped, and fails in CI, like tests that need an
engine (``tests.engines``). Pages are opened from files by the user that runs the tests. That may be root, which
Chromium's own sandbox refuses, so Chromium runs without it.

See https://chromedevtools.github.io/devtools-protocol. Messages are JSON that ends with a NUL. Chromium reads them from
descriptor 3 and writes them to descriptor 4.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import engines

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
KEYS = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Space": (" ", 32, " "),
    "End": ("End", 35, ""),
    "Down": ("ArrowDown", 40, ""),
}


class Page:
    """One tab. ``errors`` has the errors of its scripts and everything that the page's policy refused."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.errors: list[str] = []
        self._loaded: set[str] = set()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Page.setLifecycleEventsEnabled", enabled=True)

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result."""
        return self._browser.ask(method, self._session, **parameters)

    def open(
        self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False, script: bool = True
    ) -> None:
        """Open a file on a screen of this size."""
        self.errors.clear()
        self.requested: list[str] = []
        self.ask("Emulation.setScriptExecutionDisabled", value=not script)
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded.clear()
        loader = self.ask("Page.navigate", url=path.absolute().as_uri())["loaderId"]
        while loader not in self._loaded:  # the late event of the empty page may come first
            self._browser.read()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression.

        The debugger evaluates it, so the page's policy does not apply.
        """
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, times: int = 1, *, shift: bool = False) -> None:
        """Press a key, by its name or its character."""
        name, code, text = KEYS.get(key, (key, ord(key[0].upper()), key))
        common = {"key": name, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        for _ in range(times):
            self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        """Write what the tab shows to a PNG file."""
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def on_event(self, method: str, parameters: dict[str, Any]) -> None:
        """Record errors, and requests to the network."""
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif method == "Page.lifecycleEvent" and parameters["name"] == "load":
            self._loaded.add(parameters["loaderId"])


class Browser:
    """Chromium, with a profile of its own."""

    def __init__(self, program: str, profile: str) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The shell gives the descriptors the numbers that Chromium expects, whatever numbers they have in this process.
        line = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, "bash", program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": profile},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def page(self) -> Page:
        """Open a tab."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        return page

    def ask(self, method: str, session: str = "", /, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        of = {"sessionId": session} if session else {}
        message = {"id": self._number, "method": method, "params": parameters, **of}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            said = self.read()
            if said.get("id") == self._number:
                assert "error" not in said, (method, said["error"])
                return dict(said["result"])

    def read(self) -> dict[str, Any]:
        """Return the next message of Chromium, after its page has handled it."""
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 16)
            assert part, f"Chromium ended: {self._process.wait()}"
            self._rest += part
        data, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(data)
        if "method" in said:
            session = said.get("sessionId", "")
            if session in self._pages:
                self._pages[session].on_event(said["method"], said["params"])
        return said

    def close(self) -> None:
        """Close the browser."""
        with contextlib.suppress(AssertionError, BrokenPipeError):
            self.ask("Browser.close")
        os.close(self._out)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """Yield a browser. Without Chromium the test is skipped, and fails in CI."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        engines.unavailable("not installed: chromium")
    with tempfile.TemporaryDirectory(prefix="spoold-browser.", ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            yield browser
        finally:
            browser.close()
