"""Two servers behind nginx with the configuration that we ship."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from llavar.serve.api import build
from llavar.serve.settings import Settings

uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent.parent / "docs" / "deploy" / "nginx.conf"
KEY = {"Authorization": "Bearer sk-test"}


def _fakes() -> Any:
    spec = importlib.util.spec_from_file_location("tests_serve_fake_model_for_nginx", HERE / "fake_model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@dataclass
class Backend:
    """A server with a model that answers by a script."""

    model: Any
    app: Any
    server: Any
    thread: threading.Thread
    port: int

    def stop(self) -> None:
        self.model.gate.set()
        self.server.should_exit = True
        self.thread.join()


def start(number: int) -> Backend:
    model = _fakes().FakeModel("m", script=lambda asked: [f"server{number}", " says", " so"])
    app = build({"m": model}, Settings(keys=("sk-test",)))
    config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    return Backend(model, app, server, thread, listening.getsockname()[1])


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    started = [start(1), start(2)]
    yield started
    for backend in started:
        backend.stop()


@pytest.fixture
def address(backends: list[Backend], tmp_path: Path) -> Iterator[str]:
    """That of nginx, which runs as whoever runs the tests."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx is not installed, so the shipped configuration was not tried")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = SHIPPED.read_text()
    for name, number in (("8000", port), ("8001", backends[0].port), ("8002", backends[1].port)):
        text, count = re.subn(rf"127\.0\.0\.1:{name}\b", f"127.0.0.1:{number}", text)
        assert count == 1
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    file = tmp_path / "nginx.conf"
    file.write_text(text.replace("http {\n", "http {\n" + places))
    options = ["-p", str(tmp_path), "-c", str(file), "-e", "stderr"]
    ran_by = f"pid {tmp_path}/pid; daemon off; master_process off;"
    running = subprocess.Popen([program, *options, "-g", ran_by], stderr=subprocess.PIPE)
    try:
        _wait(port, running)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()
        assert running.stderr
        running.stderr.close()


def _wait(port: int, running: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        assert running.poll() is None, running.stderr and running.stderr.read()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise AssertionError("nginx did not listen within 20 s")


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hello"}]} | more


def ask(address: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{address}/v1/chat/completions", json=body(**more), headers=KEY, timeout=30)


def said(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def test_requests_go_where_fewest_are(address: str, backends: list[Backend]) -> None:
    for backend in backends:
        backend.model.gate.clear()  # answers wait
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(said(ask(address)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for backend in backends:
        assert backend.model.begun.wait(20)  # one each
    for backend in backends:
        backend.model.gate.set()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["server1 says so", "server2 says so"]


def test_pieces_pass_as_they_come_and_a_client_that_leaves_is_noticed(
    address: str, backends: list[Backend]
) -> None:
    for backend in backends:
        backend.model.endless = True
    url = f"{address}/v1/chat/completions"
    with httpx.stream("POST", url, json=body(stream=True), headers=KEY, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in response.iter_lines() if line.startswith("data: {"))
        words = ""
        while "says" not in words:  # an endless answer: it would never come through a buffer as a whole
            words += json.loads(next(lines)[6:])["choices"][0]["delta"].get("content") or ""
    (busy,) = [backend for backend in backends if backend.model.asked]
    assert busy.model.idle.wait(20)
    assert sum(busy.model.finished.values()) == 1


def test_a_server_that_is_gone_is_not_noticed(address: str, backends: list[Backend]) -> None:
    backends[0].stop()
    assert {said(ask(address)) for _ in range(4)} == {"server2 says so"}


def test_a_server_that_closes_hands_over(address: str, backends: list[Backend]) -> None:
    backends[1].app.state.desk.closing = True
    assert {said(ask(address)) for _ in range(4)} == {"server1 says so"}


def test_a_full_queue_is_told_to_the_client(address: str, backends: list[Backend]) -> None:
    for backend in backends:
        backend.model.slots = backend.model.may_wait = 0
    response = ask(address)
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) >= 1


def test_the_key_and_the_limits_hold(address: str) -> None:
    url = f"{address}/v1/chat/completions"
    assert httpx.post(url, json=body()).status_code == 401
    assert httpx.post(url, content=b"x" * (33 * 2**20), headers=KEY, timeout=30).status_code == 413
    assert httpx.get(f"{address}/health").status_code == 200
    assert httpx.get(f"{address}/v1/models", headers=KEY).json()["data"][0]["id"] == "m"


@pytest.mark.parametrize("path", ["/invocations", "/metrics", "/openapi.json", "/", "/v1", "/v1/../metrics"])
def test_nothing_else_passes(address: str, path: str) -> None:
    assert httpx.get(f"{address}{path}", headers=KEY).status_code in (301, 404)
