"""A server of the benchmarks in a process of its own, and a client that notices everything. No command.

The client speaks to sockets, so that it can send what no HTTP library would, and knows of each response
whether it was whole: as long as its header says, or ended as its framing says.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

ROOT = Path(__file__).resolve().parent.parent
CHAT = "/v1/chat/completions"
PATIENCE = 120.0
"""Seconds until a server that does not answer counts as hung."""


# ------------------------------------------------------------------------------------------------ the server


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process holds."""

    megabytes: float
    threads: int
    files: int


class Child:
    """``llavar serve`` on loopback; ``flags`` follow the model."""

    program: Sequence[str] = ("-m", "llavar", "serve", "nano")

    def __init__(self, log: Path, *flags: str, port: int = 0, key: str = "") -> None:
        self.log, self.flags, self.port, self.key = log, flags, port or free_port(), key
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it, and return the seconds until it is ready."""
        begun = time.monotonic()
        command = [sys.executable, *self.program, "--port", str(self.port), *self.flags]
        environment = os.environ | ({"LLAVAR_API_KEY": self.key} if self.key else {})
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=ROOT)
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() - begun > PATIENCE:
                raise SystemExit(f"the server did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return time.monotonic() - begun

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/ready")[0] == 200
        return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page, by another client than ours."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        asked = Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with build_opener(ProxyHandler({})).open(asked, timeout=30) as answer:
            return answer.status, answer.read()

    def metrics(self) -> dict[str, float]:
        """The sum of each series over its labels, by name."""
        found: dict[str, float] = {}
        for line in self.get("/metrics")[1].decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def usage(self) -> Usage:
        """Linux only."""
        folder = Path(f"/proc/{self.process.pid}")
        status = dict(re.findall(r"(\w+):\s+(\d+)", (folder / "status").read_text()))
        return Usage(
            megabytes=round(int(status["VmRSS"]) / 1024, 1),
            threads=int(status["Threads"]),
            files=len(list((folder / "fd").iterdir())),
        )

    def idle(self, seconds: float = PATIENCE) -> dict[str, float]:
        """Wait until nothing runs or waits, and return the metrics that say so."""
        end = time.monotonic() + seconds
        while True:
            found = self.metrics()
            held = {name: found[name] for name in HELD}
            if not any(held.values()):
                return found
            if time.monotonic() > end:
                raise SystemExit(f"the server still holds {held} after {seconds:.0f} s without requests")
            time.sleep(0.1)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process, "start() first"
        return self._process

    def kill(self) -> None:
        """SIGKILL, as when memory runs out."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop, and return how it ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise SystemExit("the server did not stop within a minute of SIGTERM") from None


HELD = ("llavar_answers_running", "llavar_answers_waiting", "llavar_requests_open")
"""What has to be 0 when nobody asks."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def machine() -> dict[str, object]:
    import torch

    return {
        "cpu": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


# ------------------------------------------------------------------------------------------------ the client


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One response. ``whole``: nothing of it is missing."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool

    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True, kw_only=True)
class Talk:
    """What came of one connection."""

    heard: list[Heard] = field(default_factory=list[Heard])
    raw: bytes = b""
    failure: str = ""
    """Why there is nothing (more) to hear: a kind of exception, or "silence" where the server said nothing
    for too long."""


def request(
    path: str = CHAT,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: Sequence[tuple[str, str]] = (),
    key: str = "",
) -> bytes:
    """The bytes of a proper request that closes its connection. Headers given replace the usual ones."""
    given = {name.lower() for name, _ in headers}
    usual = [("Host", "127.0.0.1"), ("Connection", "close"), ("Content-Type", "application/json")]
    usual += [("Content-Length", str(len(body)))] + ([("Authorization", f"Bearer {key}")] if key else [])
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in usual if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


async def talk(
    port: int, *parts: bytes, pause: float = 0.0, end: str = "read", seconds: float = PATIENCE
) -> Talk:
    """Send ``parts`` with pauses between them, then ``end``: "read" all that comes, "half" close and read,
    "leave" at once, "reset" the connection, "first" wait for first bytes of an answer and reset."""
    said = Talk()
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await _converse(said, reader, writer, parts, pause, end)
            finally:
                if end in ("reset", "first"):
                    _reset(writer)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        said.failure = "silence"
    except OSError as error:
        said.failure = type(error).__name__
    said.heard = responses(said.raw)
    return said


async def _converse(
    said: Talk,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    parts: Sequence[bytes],
    pause: float,
    end: str,
) -> None:
    try:
        for number, part in enumerate(parts):
            if number and pause:
                await asyncio.sleep(pause)
            writer.write(part)
            await writer.drain()
        if end == "half":
            writer.write_eof()
    except ConnectionError as error:  # refused before all was sent; the reason may have come
        said.failure = type(error).__name__
    if end == "first":
        said.raw = await reader.read(16)
    elif end in ("read", "half"):
        while data := await reader.read(65_536):
            said.raw += data


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a client that died."""
    plug = writer.get_extra_info("socket")
    if plug is not None:
        with contextlib.suppress(OSError):
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def responses(raw: bytes) -> list[Heard]:
    """The responses in what a server sent on one connection."""
    found: list[Heard] = []
    while raw:
        head, blank, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        matched = re.fullmatch(r"HTTP/1\.[01] (\d{3})( .*)?", first)
        if matched is None:
            return [*found, Heard(status=0, headers={}, body=raw, whole=False)]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body, raw, whole = _body(rest, headers)
        found.append(Heard(status=int(matched[1]), headers=headers, body=body, whole=whole and bool(blank)))
    return found


def _body(rest: bytes, headers: Mapping[str, str]) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it is whole."""
    if "content-length" in headers:
        length = int(headers["content-length"])
        return rest[:length], rest[length:], len(rest) >= length
    if headers.get("transfer-encoding") != "chunked":
        return rest, b"", True
    body = b""
    while True:
        size, line, rest = rest.partition(b"\r\n")
        if not line or len(rest) < int(size, 16) + 2:
            return body + rest, b"", False
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
        if not length:
            return body, rest, True


# ------------------------------------------------------------------------------------------ proper questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one request asks; ``picture`` is a data URL."""

    text: str
    picture: str
    max_tokens: int = 24

    def body(self, *, stream: bool = False, **more: object) -> bytes:
        parts = [
            {"type": "text", "text": self.text},
            {"type": "image_url", "image_url": {"url": self.picture}},
        ]
        document = {
            "model": "nano",
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": stream,
        }
        return json.dumps(document | more).encode()


def questions(count: int, *, seed: str = "serve") -> list[Question]:
    """Different pictures with words, and what nano was taught to be asked."""
    from llavar.render.layouts import Style, scene
    from llavar.render.paint import paint

    asked = ("What does it say?", "Read everything.", "What is written in the first line?")
    return [
        Question(
            text=asked[number % len(asked)],
            picture=png_url(paint(scene(f"{seed}-{number}", Style()), 128)),
        )
        for number in range(count)
    ]


def png_url(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def answer_of(heard: Heard) -> str | None:
    """The text of a finished answer, streamed or not; None unless a client would take it for finished."""
    if heard.status != 200 or not heard.whole:
        return None
    if not heard.headers.get("content-type", "").startswith("text/event-stream"):
        choice = heard.document()["choices"][0]
        return str(choice["message"]["content"]) if choice["finish_reason"] else None
    events = [
        line.removeprefix("data:").strip()
        for line in heard.body.decode().splitlines()
        if line.startswith("data:")
    ]
    if events[-1:] != ["[DONE]"]:
        return None
    text, finished = "", False
    for event in map(json.loads, events[:-1]):
        if "error" in event:
            return None
        for choice in event["choices"]:
            text += choice["delta"].get("content") or ""
            finished = finished or choice["finish_reason"] is not None
    return text if finished else None
