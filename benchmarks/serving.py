"""Servers compared on one machine: python benchmarks/serving.py

    --transformers PYTHON     an environment with `transformers serve`, which wants accelerate; default: ours
    --vllm PATH               an environment with vLLM (a build for CPUs, where there is no GPU)
    --llama-server PATH --gguf FILE --mmproj FILE       llama.cpp, whose LLaVA is wrong by its class token

Every server gets the same folder (the shipped nano in fp32), the same requests over loopback, and the machine
to itself; one that is not there is left out with a sentence. A request is one picture of the held-out exam in
the tower's own size, as a PNG in a data URL, and one question; greedy, streamed; every picture is asked about
once by each server, so that no cache of pictures helps. Clients are a closed loop: each sends its next
request when its answer is whole, over a connection that stays open. They run in a process of their own.

``natural`` answers end by themselves (at most 64 tokens). ``fixed`` ones have exactly ``--tokens``: in a
copy of the folder the end token's row of the head is the mean of two other rows, so that it is never the
likeliest.

Taken at 1, 8 and 32 clients: requests and tokens a second (those of the texts, by our tokenizer), first
token and whole answer (median, p99; seconds from sending the request), the highest sum of resident memory of
the server's processes (asked every 50 ms; pages that they share count twice), failures, and ``equal``: the
share of answers that are those of this package in one process, one at a time. ``bare`` is that: first text
and answer of a plain loop, picture and prompt prepared inside the time. Nano's first token is mostly a blank,
which no server sends by itself, so that the first text is that of two tokens, for all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZE, MOST, WARM = 96, 64, 8
PATIENCE = 600
"""Seconds for a server to start, and for one answer."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """How to start one. ``absent`` is why it cannot be."""

    name: str
    command: Callable[[Path, int], list[str]] = lambda _folder, _port: []
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""
    model: Callable[[Path], str] = lambda _folder: "m"
    ready: str = "/health"
    absent: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request: the picture's file and the question."""

    picture: bytes
    question: str


@dataclass(kw_only=True)
class Got:
    """An answer, and when it came: seconds from sending to the first text, and to the end."""

    index: int
    text: str = ""
    first: float = 0.0
    whole: float = 0.0
    error: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=8, help="for each client, but at least 32 in all")
    parser.add_argument("--least", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="of the fixed answers")
    parser.add_argument("--only", nargs="+", choices=("llavar", "transformers", "vllm", "llama.cpp"))
    parser.add_argument("--loads", nargs="+", choices=("natural", "fixed"), default=["natural", "fixed"])
    parser.add_argument("--threads", type=int, default=1, help="of each server (0: its own choice)")
    parser.add_argument("--transformers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--vllm", default="", metavar="PATH")
    parser.add_argument("--vllm-args", default="", help="more arguments of vLLM, in one string")
    parser.add_argument("--llama-server", default="", metavar="PATH")
    parser.add_argument("--gguf", default="", metavar="FILE")
    parser.add_argument("--mmproj", default="", metavar="FILE")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "serving.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _clients()
        return
    document = _measured(arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    _show(document)


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    from llavar.study.nano import weights

    counts = {n: max(arguments.least, n * arguments.requests) for n in arguments.clients}
    asked = _requests(sum(counts.values()) + WARM)
    results: dict[str, Any] = {}
    bare: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for load in arguments.loads:
            folder = Path(place) / load
            shutil.copytree(weights.folder("nano"), folder)
            tokens = MOST
            if load == "fixed":
                _never_ends(folder)
                tokens = arguments.tokens
            expected, bare[load] = _bare(folder, asked, tokens)
            for server in _servers(arguments):
                print(f"{load}: {server.name}", file=sys.stderr, flush=True)
                rows = _rows(server, folder, asked, expected, counts, tokens, arguments.threads)
                results.setdefault(server.name, {"version": server.version})[load] = rows
    return {
        "command": "python benchmarks/serving.py",
        "machine": _machine(),
        "model": "nano, fp32",
        "threads": arguments.threads or "each server's own choice",
        "requests": counts,
        "tokens": {"natural": f"at most {MOST}", "fixed": arguments.tokens},
        "bare": bare,
        "servers": results,
        "goals": _goals(results, bare, arguments.loads),
    }


# --- what is asked --------------------------------------------------------------------------------------


def _requests(count: int) -> list[Asked]:
    from llavar.study.nano.questions import exam, write_pictures

    drawn = exam(count, seed="serving")
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(drawn.scenes, Path(folder), SIZE)
        files = {name: (Path(folder) / name).read_bytes() for name in drawn.scenes}
    # The n-th picture's n-th question, so that all kinds are asked.
    by_picture: dict[str, list[str]] = {}
    for question in drawn.questions:
        by_picture.setdefault(question.image, []).append(question.text)
    return [
        Asked(picture=files[name], question=texts[index % len(texts)])
        for index, (name, texts) in enumerate(by_picture.items())
    ]


def _never_ends(folder: Path) -> None:
    """Make the end token never the likeliest: its logit is the mean of two others."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    head = tensors["language_model.lm_head.weight"]
    end = json.loads((folder / "config.json").read_text())["text_config"]["eos_token_id"]
    head[end] = (head[40].float() + head[41].float()).div(2).to(head.dtype)
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


def _bare(folder: Path, asked: Sequence[Asked], tokens: int) -> tuple[list[str], dict[str, Any]]:
    """Our answers one at a time in this process, and the times of a plain loop."""
    import io

    import torch
    from PIL import Image

    from llavar.generate.base import Request
    from llavar.generate.local import LocalGenerator

    torch.set_num_threads(1)
    generator = LocalGenerator.load(folder)

    def answer(one: Asked, most: int) -> str:
        generator.forget()
        picture = Image.open(io.BytesIO(one.picture)).convert("RGB")
        (text,) = generator.answer([Request(image=picture, question=one.question, max_new_tokens=most)])
        return text

    texts: list[str] = []
    first: list[float] = []
    whole: list[float] = []
    for one in asked:
        least = next((most for most in (1, 2, 3) if answer(one, most)), 1)
        started = time.perf_counter()
        answer(one, least)
        first.append(time.perf_counter() - started)
        started = time.perf_counter()
        texts.append(answer(one, tokens))
        whole.append(time.perf_counter() - started)
    return texts, {"first": _spread(first[WARM:]), "whole": _spread(whole[WARM:])}


# --- servers --------------------------------------------------------------------------------------------


def _servers(arguments: argparse.Namespace) -> Iterator[Server]:
    made = (_llavar, _transformers, _vllm, _llama)
    for make in made:
        server = make(arguments)
        if not arguments.only or server.name in arguments.only:
            yield server


def _llavar(arguments: argparse.Namespace) -> Server:
    del arguments

    def command(folder: Path, port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "llavar", "serve", str(folder), "--engine", "native"),
            *("--port", str(port), "--served-model-name", "m"),
        ]

    return Server(
        name="llavar",
        command=command,
        version=metadata.version("llavar"),
        environment={"PYTHONPATH": str(ROOT / "src")},
        ready="/ready",
    )


def _transformers(arguments: argparse.Namespace) -> Server:
    python = arguments.transformers
    script = "import accelerate, fastapi, transformers; print(transformers.__version__)"
    found = subprocess.run([python, "-c", script], capture_output=True, text=True)
    if found.returncode:
        reason = found.stderr.strip().splitlines()[-1:] or ["no reason"]
        return Server(name="transformers", absent=f"{python} cannot run transformers serve ({reason[0]})")

    def command(folder: Path, port: int) -> list[str]:
        return [
            *(python, "-m", "transformers.cli.transformers", "serve", str(folder)),
            *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--device", "cpu"),
        ]

    return Server(name="transformers", command=command, version=found.stdout.strip(), model=str)


def _vllm(arguments: argparse.Namespace) -> Server:
    from llavar.errors import LlavarError
    from llavar.serve import vllm
    from llavar.serve.settings import Settings

    if not arguments.vllm:
        return Server(name="vllm", absent="no --vllm names an environment with it")
    try:
        executable = vllm.find(arguments.vllm)
    except LlavarError as error:
        return Server(name="vllm", absent=str(error))
    settings = Settings(names=("m",))
    extra = ("--dtype", "float32", *arguments.vllm_args.split())

    def command(folder: Path, port: int) -> list[str]:
        return list(vllm.plan(folder, settings, port=port, executable=executable, extra=extra).command)

    from llavar.study.nano import weights

    environment = vllm.plan(weights.folder("nano"), settings).environment
    shown = subprocess.run(
        [
            executable.with_name("python"),
            "-c",
            "from importlib.metadata import version as v; print(v('vllm'))",
        ],
        capture_output=True,
        text=True,
    )
    return Server(
        name="vllm",
        command=command,
        environment={**environment, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"},
        version=" ".join([shown.stdout.strip(), *extra]),
    )


def _llama(arguments: argparse.Namespace) -> Server:
    files = (arguments.llama_server, arguments.gguf, arguments.mmproj)
    if not all(files):
        return Server(name="llama.cpp", absent="--llama-server, --gguf and --mmproj do not name it")
    missing = next((name for name in files if not Path(name).is_file()), None)
    if missing:
        return Server(name="llama.cpp", absent=f"there is no file {missing}")

    def command(folder: Path, port: int) -> list[str]:
        template = str(folder / "chat_template.jinja")
        return [
            *(arguments.llama_server, "-m", arguments.gguf, "--mmproj", arguments.mmproj),
            *("--host", "127.0.0.1", "--port", str(port), "-np", "32", "-c", str(32 * 512)),
            *("--jinja", "--chat-template-file", template, "--alias", "m"),
        ]

    return Server(name="llama.cpp", command=command, version=Path(arguments.gguf).name)


def _rows(
    server: Server,
    folder: Path,
    asked: Sequence[Asked],
    expected: Sequence[str],
    counts: dict[int, int],
    tokens: int,
    threads: int,
) -> dict[str, Any]:
    """What was taken at each number of clients, or why nothing was."""
    if server.absent:
        return {"skipped": server.absent}
    if server.name == "llama.cpp" and folder.name == "fixed":
        return {"skipped": "its files are made of the folder beforehand, and end by themselves"}
    rows: dict[str, Any] = {}
    try:
        with _running(server, folder, threads) as (port, memory):
            ask = _Asking(port=port, model=server.model(folder), tokens=tokens)
            ask(asked[:WARM], 4)
            start = WARM
            for clients, count in counts.items():
                memory.peak = 0
                got, seconds = ask(asked[start : start + count], clients)
                rows[str(clients)] = _row(got, seconds, expected[start : start + count], folder)
                rows[str(clients)]["peak_rss"] = memory.peak
                start += count
    except _Failed as error:
        return {**rows, "skipped": str(error)}
    return rows


class _Failed(Exception):
    """A server did not start, or ended."""


class _Memory(threading.Thread):
    """Watches the resident memory of a process and its children, in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._over = pid, threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, sum(map(_resident, _tree(self._pid))))

    def end(self) -> None:
        self._over.set()
        self.join()


def _tree(pid: int) -> list[int]:
    found, new = [pid], [pid]
    while new:
        children: list[int] = []
        for parent in new:
            for task in Path(f"/proc/{parent}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    children += map(int, task.read_text().split())
        found += children
        new = children
    return found


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def _running(server: Server, folder: Path, threads: int) -> Iterator[tuple[int, _Memory]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    environment.pop("OMP_NUM_THREADS", None)
    environment |= server.environment
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            server.command(folder, port), env=environment, stdout=log, stderr=log, start_new_session=True
        )
        memory = _Memory(process.pid)
        try:
            _wait(f"http://127.0.0.1:{port}{server.ready}", process, log)
            memory.start()
            yield port, memory
        finally:
            if memory.is_alive():
                memory.end()
            _end(process)


def _wait(url: str, process: subprocess.Popen[bytes], log: Any) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    log.seek(0)
    said = log.read()[-600:].decode(errors="replace")
    raise _Failed(f"it did not start: ...{' '.join(said.split())}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)


# --- clients --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """Sends requests from a process of its own."""

    port: int
    model: str
    tokens: int

    def __call__(self, asked: Sequence[Asked], clients: int) -> tuple[list[Got], float]:
        bodies = [self._body(one) for one in asked]
        order = json.dumps({"port": self.port, "clients": clients, "bodies": bodies})
        done = subprocess.run(
            [sys.executable, __file__, "--child"], input=order, capture_output=True, text=True
        )
        if done.returncode:
            raise _Failed(f"the clients failed: {done.stderr[-600:]}")
        found = json.loads(done.stdout)
        return [Got(**one) for one in found["got"]], found["seconds"]

    def _body(self, one: Asked) -> str:
        url = "data:image/png;base64," + base64.b64encode(one.picture).decode()
        parts = [{"type": "text", "text": one.question}, {"type": "image_url", "image_url": {"url": url}}]
        asked = {"model": self.model, "max_tokens": self.tokens, "temperature": 0, "stream": True}
        return json.dumps({**asked, "messages": [{"role": "user", "content": parts}]})


def _clients() -> None:
    """The child: reads what to ask from the standard input, writes what came to the standard output."""
    order = json.load(sys.stdin)
    started = time.perf_counter()
    got = asyncio.run(_ask_all(order["port"], order["clients"], order["bodies"]))
    seconds = time.perf_counter() - started
    json.dump({"got": [vars(one) for one in got], "seconds": seconds}, sys.stdout)


async def _ask_all(port: int, clients: int, bodies: list[str]) -> list[Got]:
    waiting = iter(enumerate(bodies))
    got: list[Got] = []

    async def client() -> None:
        connection: _Connection | None = None
        for index, body in waiting:
            connection = connection or await _Connection.open(port)
            one = Got(index=index)
            try:
                await asyncio.wait_for(connection.ask(body.encode(), one), PATIENCE)
            except (TimeoutError, OSError, EOFError, ValueError) as error:
                one.error = f"{type(error).__name__}: {error}"[:200]
            if one.error:
                connection.close()
                connection = None
            got.append(one)
        if connection:
            connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return sorted(got, key=lambda one: one.index)


class _Connection:
    """HTTP/1.1 by hand: a client library would take more of the machine than some servers do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> _Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))

    def close(self) -> None:
        self._writer.close()

    async def ask(self, body: bytes, one: Got) -> None:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        started = time.perf_counter()
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        status = int((await self._reader.readuntil(b"\r\n")).split()[1])
        headers = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        rest = b""
        async for chunk in self._chunks(headers):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                text = _piece(line)
                if text and not one.first:
                    one.first = time.perf_counter() - started
                one.text += text
        one.whole = time.perf_counter() - started
        if status != 200:
            one.error = f"HTTP {status}: {rest[:120].decode(errors='replace')}"

    async def _chunks(self, headers: bytes) -> AsyncIterator[bytes]:
        if b"chunked" not in headers:
            length = next(
                int(line.split(b":")[1])
                for line in headers.split(b"\r\n")
                if line.startswith(b"content-length")
            )
            yield await self._reader.readexactly(length)
            return
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readuntil(b"\r\n")


def _piece(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices = json.loads(line[6:]).get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


# --- results --------------------------------------------------------------------------------------------


def _row(got: Sequence[Got], seconds: float, expected: Sequence[str], folder: Path) -> dict[str, Any]:
    from llavar.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    fine = [one for one in got if not one.error]
    failed = [one.error for one in got if one.error]
    if not fine:
        return {"requests": len(got), "failed": len(failed), "failure": failed[0]}
    # White space around an answer is left by some servers and not by others.
    equal = sum(one.text.strip() == expected[one.index].strip() for one in fine)
    tokens = sum(len(tokenizer.encode(one.text.strip())) - 1 for one in fine)
    return {
        "requests": len(got),
        "failed": len(failed),
        **({"failure": failed[0]} if failed else {}),
        "requests_per_second": round(len(fine) / seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        "first": _spread([one.first for one in fine if one.first]),
        "whole": _spread([one.whole for one in fine]),
        "equal": round(equal / len(fine), 4),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"median": round(statistics.median(ordered), 4), "p99": round(last, 4)}


def _goals(results: dict[str, Any], bare: dict[str, Any], loads: Sequence[str]) -> dict[str, Any]:
    """Ours against each peer (requests a second), and the first token at 1 client against the plain loop."""

    def rate(server: str, load: str, clients: str) -> float:
        return results.get(server, {}).get(load, {}).get(clients, {}).get("requests_per_second", 0.0)

    found: dict[str, Any] = {}
    for load in loads:
        ours = results.get("llavar", {}).get(load, {})
        for clients in [name for name in ours if name.isdecimal()]:
            for peer in results:
                if peer != "llavar" and rate(peer, load, clients):
                    ratio = rate("llavar", load, clients) / rate(peer, load, clients)
                    found[f"{load}, {clients} clients: requests/s over {peer}"] = round(ratio, 2)
        first = ours.get("1", {}).get("first", {}).get("median")
        if first:
            ratio = first / bare[load]["first"]["median"]
            found[f"{load}: first token at 1 client over a plain loop"] = round(ratio, 2)
    return found


def _machine() -> dict[str, Any]:
    import torch

    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _show(document: dict[str, Any]) -> None:
    for name, loads in document["servers"].items():
        for load, rows in loads.items():
            if load == "version":
                continue
            if "skipped" in rows:
                print(f"{name:13} {load:8} skipped: {rows['skipped']}")
            for clients, row in rows.items():
                if clients != "skipped":
                    print(f"{name:13} {load:8} {clients:>3} clients  {json.dumps(row)}")
    for what, ratio in document["goals"].items():
        print(f"{what}: {ratio}")


if __name__ == "__main__":
    main()
