"""A real server on loopback: clients that leave, clients of others, and the end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from llavar.errors import ConfigError, ModelError
from llavar.generate.base import Request
from llavar.generate.remote import RemoteGenerator
from llavar.llm import Client, Endpoint
from llavar.serve import handling, run

ASK = {"messages": [{"role": "user", "content": "one two"}]}
POST = "POST /v1/chat/completions HTTP/1.1\nHost: x\nContent-Type: application/json"


def post(url: str, **options: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=ASK | options, timeout=20, trust_env=False)


def raw(url: str, head: str, body: bytes = b"") -> socket.socket:
    """A connection on which a request has been sent."""
    host, port = url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    made.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    return made


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("held", [False, True])  # in the middle of an answer, or before its first token
def test_a_client_that_leaves_gives_its_slot_back(live: Any, fakes: Any, stream: bool, held: bool) -> None:
    model = fakes.FakeModel(endless=True, held=held)
    server = live(model)
    body = json.dumps(ASK | {"stream": stream, "n": 2}).encode()
    connection = raw(server.url, f"{POST}\nContent-Length: {len(body)}", body)
    model.wait_for(2)
    if stream and not held:
        assert b"200 OK" in connection.recv(1000)
    connection.close()
    assert model.idle.wait(10)
    assert model.finished == {"cancelled": 2}
    model.endless = False
    model.gate.set()
    assert post(server.url).status_code == 200
    lines = httpx.get(f"{server.url}/metrics", trust_env=False).text
    assert 'llavar_requests_total{route="/v1/chat/completions",status="499"} 1.0' in lines
    assert "llavar_requests_open 0.0" in lines


def test_a_client_that_leaves_during_its_upload(live: Any, fakes: Any) -> None:
    model = fakes.FakeModel()
    server = live(model)
    raw(server.url, f"{POST}\nContent-Length: 1000", b'{"messages"').close()
    assert post(server.url).status_code == 200
    assert len(model.asked) == 1


def test_a_body_beyond_the_limit_is_refused_while_it_comes(live: Any) -> None:
    server = live(max_body_bytes=1000, names=())
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"  # and the last one never comes
    connection = raw(server.url, f"{POST}\nTransfer-Encoding: chunked", chunk)
    answer = b""
    while part := connection.recv(4096):  # until the server closes
        answer += part
    connection.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"1,000 bytes, the limit" in answer


def test_a_client_that_does_not_read_is_let_go(
    live: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handling, "_MARGIN", 0.3)
    model = fakes.FakeModel(endless=True, script=lambda asked: ["x" * 200_000])
    server = live(model, timeout=0.3)
    body = json.dumps(ASK | {"stream": True}).encode()
    connection = raw(server.url, f"{POST}\nContent-Length: {len(body)}", body)
    model.wait_for(1)
    assert model.idle.wait(20)
    with httpx.Client(trust_env=False) as client:
        while "llavar_requests_open 0.0" not in client.get(f"{server.url}/metrics").text:
            assert client.get(f"{server.url}/health").status_code == 200
    connection.close()
    assert model.finished == {"cancelled": 1}


def test_many_at_a_time_get_their_own_answers(live: Any, fakes: Any) -> None:
    server = live(fakes.FakeModel(slots=4, may_wait=1000))
    texts = [f"number {index} of all" for index in range(60)]

    def ask(text: str) -> str:
        body = {"messages": [{"role": "user", "content": text}], "n": 2}
        reply = client.post(f"{server.url}/v1/chat/completions", json=body)
        first, second = (choice["message"]["content"] for choice in reply.json()["choices"])
        assert first == second
        return first

    with httpx.Client(trust_env=False, timeout=20) as client, ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, texts)) == texts


def test_the_client_of_openai(live: Any, fakes: Any, png: str) -> None:
    server = live(fakes.FakeModel(), keys=("k",))
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["fake"]
        picture = {"type": "image_url", "image_url": {"url": png}}
        messages: Any = [{"role": "user", "content": [{"type": "text", "text": "see"}, picture]}]
        whole = client.chat.completions.create(
            model="fake", messages=messages, n=2, seed=3, stop=["x"], logprobs=True, top_logprobs=1
        )
        assert [choice.message.content for choice in whole.choices] == ["see [6x4]"] * 2
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 4
        assert whole.choices[0].logprobs is not None
        assert [entry.token for entry in whole.choices[0].logprobs.content or ()] == ["see", " [6x4]"]
        stream = client.chat.completions.create(
            model="fake", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "see [6x4]"
        assert chunks[-1].usage is not None
        with pytest.raises(openai.NotFoundError, match="this server has fake"):
            client.chat.completions.create(model="gpt-9", messages=messages)
        with pytest.raises(openai.BadRequestError, match="n is 99"):
            client.chat.completions.create(model="fake", messages=messages, n=99)
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="not one of this server's"),
    ):
        client.models.list()


def test_a_stream_that_fails_is_an_error_for_the_client_of_openai(live: Any, fakes: Any) -> None:
    server = live(fakes.FakeModel(fails=ModelError("gone")))
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client:
        messages: Any = ASK["messages"]
        stream = client.chat.completions.create(model="fake", messages=messages, stream=True)
        with pytest.raises(openai.APIError, match="the model failed"):
            list(stream)


def test_our_own_client(live: Any, fakes: Any) -> None:
    server = live(fakes.FakeModel(may_wait=50), keys=("k",))
    endpoint = Endpoint(base_url=f"{server.url}/v1", model="fake", api_key="k", attempts=1)
    with Client(endpoint) as client:
        generator = RemoteGenerator(client, workers=4)
        image = Image.new("RGB", (5, 3))
        asked = [Request(image=image, question=f"q{index}") for index in range(8)]
        assert generator.answer(asked) == [f"[5x3] q{index}" for index in range(8)]


# --------------------------------------------------------------------------------------------------- the end


def test_the_end_finishes_what_runs(live: Any, fakes: Any) -> None:
    model = fakes.FakeModel(held=True)
    server = live(model)
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(post, server.url)
        stream = pool.submit(post, server.url, stream=True)
        model.wait_for(2)
        server.stop()
        model.gate.set()
        assert whole.result(20).json()["choices"][0]["message"]["content"] == "one two"
        assert stream.result(20).text.endswith("data: [DONE]\n\n")
    server.join()
    assert server.failure is None
    with pytest.raises(httpx.ConnectError):
        post(server.url)


def test_what_does_not_finish_in_time_is_given_up_with_a_sentence(live: Any, fakes: Any) -> None:
    model = fakes.FakeModel(endless=True)
    server = live(model, grace=0.1)
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(post, server.url)
        stream = pool.submit(post, server.url, stream=True)
        model.wait_for(2)
        server.stop()
        assert whole.result(20).status_code == 503
        assert "shutting down" in whole.result().json()["error"]["message"]
        last = stream.result(20).text.rstrip().rpartition("data: ")[2]
        assert "shutting down" in json.loads(last)["error"]["message"]
    server.join()


def test_a_server_answers_while_it_loads(live: Any, fakes: Any) -> None:
    go, model = threading.Event(), fakes.FakeModel()

    def load() -> dict[str, Any]:
        assert go.wait(20)
        return {"fake": model}

    server = live(load=load, names=("fake",))
    assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
    early = httpx.get(f"{server.url}/ready", trust_env=False)
    assert early.status_code == 503
    assert "being loaded" in early.json()["error"]["message"]
    assert post(server.url).status_code == 503
    go.set()
    assert server.ready.wait(20)
    assert httpx.get(f"{server.url}/ready", trust_env=False).status_code == 200
    assert post(server.url).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server(live: Any) -> None:
    def load() -> dict[str, Any]:
        raise ModelError("there are no weights")

    server = live(load=load, names=("fake",))
    server.join()
    assert str(server.failure) == "there are no weights"


def test_a_model_that_is_loaded_too_late_is_closed(live: Any, fakes: Any) -> None:
    go, begun, model = threading.Event(), threading.Event(), fakes.FakeModel()

    def load() -> dict[str, Any]:
        begun.set()
        assert go.wait(20)
        return {"fake": model}

    server = live(load=load, names=("fake",))
    assert begun.wait(10)
    server.stop()
    go.set()
    server.join()
    for thread in threading.enumerate():
        if thread.name in ("loading", "closing fake"):
            thread.join(10)
    assert model.closing


_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from fake_model import FakeModel
from llavar.serve import handling, run
from llavar.serve.api import build
from llavar.serve.settings import Settings

models = {}
address = run.resolve("127.0.0.1", 0)
listener = run.bind(address)
app = build(models, Settings(names=("fake",)))
ready = lambda: print(run.url_of(address, listener), flush=True)
load = lambda: {"fake": FakeModel(endless=True)}
run.serve(app, listener, models, load, ready=ready, grace=float(sys.argv[2]))
print("ended", flush=True)
"""


class Child:
    """A server in a process of its own, whose answers never end."""

    def __init__(self, grace: float) -> None:
        folder = str(Path(__file__).parent)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, folder, str(grace)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(run.__file__).parents[2])},
        )
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        self._client = httpx.Client(trust_env=False, timeout=20)

    def begin(self) -> httpx.Response:
        """A stream that has begun."""
        request = self._client.build_request(
            "POST", f"{self.url}/v1/chat/completions", json=ASK | {"stream": True}
        )
        response = self._client.send(request, stream=True)
        assert response.status_code == 200
        return response

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        self._client.close()
        return self.process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_in_good_order(number: signal.Signals) -> None:
    child = Child(grace=0.2)
    response = child.begin()
    child.process.send_signal(number)
    text = "".join(response.iter_text())
    assert "shutting down" in text
    assert "[DONE]" not in text
    status, out, err = child.end()
    assert (status, out.strip()) == (0, "ended")
    assert "Traceback" not in err


def test_a_second_signal_ends_it_at_once() -> None:
    child = Child(grace=600)
    response = child.begin()
    child.process.send_signal(signal.SIGTERM)
    port = int(child.url.rpartition(":")[2])
    while True:  # until it takes nothing new, so that the two signals are two
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            break
    child.process.send_signal(signal.SIGTERM)
    status, out, _ = child.end()
    response.close()
    assert (status, out) == (128 + signal.SIGTERM, "")


# ------------------------------------------------------------------------------------------------- addresses


def test_addresses() -> None:
    assert run.resolve("127.0.0.1", 0).loopback
    assert run.resolve("localhost", 0).loopback
    everywhere = run.resolve("0.0.0.0", 0)
    assert not everywhere.loopback
    listener = run.bind(everywhere)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", run.url_of(everywhere, listener))
    listener.close()
    with pytest.raises(ConfigError, match="no port 70000"):
        run.resolve("127.0.0.1", 70000)
    with pytest.raises(ConfigError, match="is no address of this machine"):
        run.resolve("no such host", 0)
    with pytest.raises(ConfigError, match="cannot listen at 192.0.2.1"):
        run.bind(run.resolve("192.0.2.1", 0))


def test_a_port_in_use_is_one_sentence() -> None:
    listener = run.bind(run.resolve("127.0.0.1", 0))
    taken = listener.getsockname()[1]
    with pytest.raises(ConfigError, match=f"port {taken} of 127.0.0.1 is in use"):
        run.bind(run.resolve("127.0.0.1", taken))
    listener.close()


def test_nobody_is_exposed_by_accident() -> None:
    everywhere, here = run.resolve("0.0.0.0", 0), run.resolve("127.0.0.1", 0)
    with pytest.raises(ConfigError, match="--unsafe-public"):
        run.check_exposure(everywhere, keys=False, forced=False)
    for address, keys, forced in ((everywhere, True, False), (everywhere, False, True), (here, False, False)):
        run.check_exposure(address, keys=keys, forced=forced)


def test_parts_of_a_response_are_sent_at_once():
    """Connections inherit the protocol of the listener; without it asyncio leaves Nagle's delay on, 40 ms."""
    listener = run.bind(run.resolve("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    try:
        listener.setblocking(True)
        accepted, _ = listener.accept()
        assert accepted.proto == socket.IPPROTO_TCP
        accepted.close()
    finally:
        client.close()
        listener.close()
