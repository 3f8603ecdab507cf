"""A headless Chromium, spoken to in its own protocol over a pipe: no package between, no port open."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def binary() -> str | None:
    """The browser of the variable CHROME, or the first on PATH."""
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)


class Chrome:
    """One browser process."""

    def __init__(self, path: str, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        flags = (
            f"--headless=new --remote-debugging-pipe --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --user-data-dir={profile}"
        )
        quiet = "--no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-extensions --mute-audio"
        command = f'exec "$0" {flags} {quiet} about:blank 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, path], pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL, start_new_session=True
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, timeout_s: float = 60, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            answer = self._next(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)
        raise TimeoutError(method)

    def wait(self, method: str, session: str, timeout_s: float = 60) -> dict[str, Any]:
        """The first event of this name, of what has come or comes."""
        end = time.monotonic() + timeout_s
        while True:
            for event in self.events:
                if event.get("method") == method and event.get("sessionId") == session:
                    return event
            self.events.append(self._next(end))

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser says nothing")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._out)
        os.close(self._in)


class Page:
    """A tab that shows a file, with all that it logged and requested."""

    def __init__(
        self, chrome: Chrome, file: Path, width: int = 1280, height: int = 800, phone: bool = False, dark: bool = False, media: str = ""
    ) -> None:
        self.chrome = chrome
        chrome.events.clear()
        self.target = chrome.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = chrome.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Page.navigate", url=file.as_uri())
        chrome.wait("Page.loadEventFired", self.session)

    def call(self, method: str, **params: Any) -> Any:
        return self.chrome.call(method, self.session, **params)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is, or the promise it gives comes to."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is on the screen, scrolled to."""
        box = f"document.querySelector({selector!r})"
        self.value(f"{box}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        x, y = self.value(f"(() => {{ const b = {box}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()")
        return x, y

    def hover(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        self.hover(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, selector: str) -> None:
        self.click(*self.middle(selector))

    def count(self, selector: str) -> int:
        return self.value(f"document.querySelectorAll({selector!r}).length")

    def complaints(self) -> list[str]:
        """Exceptions, console errors and log entries so far."""
        self.value("0")  # what was logged before this answer has come
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event) for event in self.chrome.events if event.get("sessionId") == self.session and event["method"] in kinds]

    def requests(self) -> list[str]:
        """Addresses asked for, the page itself and data inside it aside."""
        events = [e for e in self.chrome.events if e.get("sessionId") == self.session and e["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in events]
        return [url for url in urls if not url.startswith(("data:", "blob:", "file:"))]

    def first_paint_s(self) -> float:
        observe = "new PerformanceObserver((list) => done(list.getEntries().at(-1).startTime)).observe({type: 'paint', buffered: true})"
        return self.value(f"new Promise((done) => {observe})") / 1000

    def screenshot(self, path: Path, whole: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **({"clip": self._all()} if whole else {}))
        path.write_bytes(base64.b64decode(shot["data"]))

    def _all(self) -> dict[str, float]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def close(self) -> None:
        self.chrome.call("Target.closeTarget", targetId=self.target)
