"""A browser for tests: Chromium without a window, driven through its own protocol over two pipes.

Nothing but the browser itself is needed: with ``--remote-debugging-pipe`` it reads commands from descriptor 3
and writes answers to 4, each a JSON document that ends with a zero byte.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE = 30.0
_KEYS = {
    "Enter": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Escape": {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27},
    "Tab": {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9},
    "ArrowRight": {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39},
    "ArrowDown": {"key": "ArrowDown", "code": "ArrowDown", "windowsVirtualKeyCode": 40},
    " ": {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
}
# Descriptors 3 and 4 are given in the child, where nobody else uses them.
_START = (
    "import fcntl,os,sys; r,w=(fcntl.fcntl(int(n),fcntl.F_DUPFD,10) for n in sys.argv[1:3]);"
    "os.dup2(r,3); os.dup2(w,4); os.execv(sys.argv[3],sys.argv[3:])"
)


def find() -> str | None:
    """The program, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of one browser. Not for more than one thread."""

    def __init__(self, program: str, profile: Path) -> None:
        from_us, ours_out = os.pipe()
        ours_in, to_us = os.pipe()
        arguments = [
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(from_us), str(to_us), *arguments],
            pass_fds=(from_us, to_us),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(from_us)
        os.close(to_us)
        self._in, self._out = ours_in, ours_out
        self._buffer, self._last, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        try:
            targets = self.call("Target.getTargets")["targetInfos"]
            target = next(one["targetId"] for one in targets if one["type"] == "page")
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._in, self._out):
            os.close(pipe)

    # ------------------------------------------------------------------------------------------- protocol

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and what it brought."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        deadline = time.monotonic() + _PATIENCE
        while True:
            reply = self._read(deadline, method)
            if reply.get("id") != self._last:
                self.events.append(reply)
                continue
            if "error" in reply:
                raise AssertionError(f"{method}: {reply['error']}")
            return reply["result"]

    def _read(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"no answer from the browser to {what} after {_PATIENCE:g} s")
            read = os.read(self._in, 1 << 20)
            if not read:
                raise AssertionError(f"the browser ended during {what}")
            self._buffer += read
        document, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(document)

    # ---------------------------------------------------------------------------------------------- page

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        reply = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in reply:
            raise AssertionError(f"{expression}: {reply['exceptionDetails']}")
        return reply["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until the expression is true; the page itself looks at it again and again."""
        deadline = time.monotonic() + _PATIENCE
        watch = (
            "new Promise(done => { const end = Date.now() + 1000; const look = () => { let is = false;"
            f" try {{ is = Boolean({condition}) }} catch {{}}"
            " if (is || Date.now() > end) done(is); else setTimeout(look, 15) }; look() })"
        )
        while True:
            with contextlib.suppress(AssertionError):  # a page that is being left
                if self.js(watch):
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"not true after {_PATIENCE:g} s: {condition}")

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element, as a user would; what lies above it gets the click."""
        self.js(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = self.js(
            "(box => [box.x + box.width / 2, box.y + box.height / 2, box.width])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        assert box[2], f"{selector} cannot be seen"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        modifiers = 8 if shift else 0
        self.call("Input.dispatchKeyEvent", type="keyDown", modifiers=modifiers, **_KEYS[key])
        self.call(
            "Input.dispatchKeyEvent",
            type="keyUp",
            modifiers=modifiers,
            **{k: v for k, v in _KEYS[key].items() if k != "text"},
        )

    def choose_file(self, selector: str, path: Path) -> None:
        """Put a file into an input, as the dialog of the system would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def size(self, width: int, height: int, *, mobile: bool = False, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def colours(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    # ------------------------------------------------------------------------------------------ findings

    def seen(self, method: str, value: Callable[[dict[str, Any]], Any]) -> list[Any]:
        """Of all events of a kind since the page was opened."""
        self.js("0")  # takes in what waits in the pipe
        return [value(event["params"]) for event in self.events if event["method"] == method]

    def requests(self) -> list[str]:
        return self.seen("Network.requestWillBeSent", lambda event: event["request"]["url"])

    def complaints(self) -> list[str]:
        """Uncaught errors, and what the policy or the network refused."""
        thrown = self.seen(
            "Runtime.exceptionThrown", lambda event: str(event["exceptionDetails"].get("exception", event))
        )
        logged = self.seen("Log.entryAdded", lambda event: event["entry"])
        return thrown + [one["text"] for one in logged if one["level"] == "error"]
