"""Connections that ask for nothing, or slowly, do not keep others out."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from llavar.serve import connections

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"


def connect(url: str, data: bytes = b"") -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    made.sendall(data)
    return made


def rest(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    answer = b""
    with connection:
        while part := connection.recv(4096):
            answer += part
    return answer


@pytest.mark.parametrize("sent", [b"", b"GET /health HTT", GET[:-2], GET + b"GET /he"])
def test_a_request_that_does_not_arrive_is_given_up(live: Any, fakes: Any, sent: bytes) -> None:
    server = live(fakes.FakeModel(), head_seconds=0.2)
    assert rest(connect(server.url, sent)).count(b"200 OK") == sent.count(b"\r\n\r\n")


def test_what_trickles_in_does_not_put_it_off(live: Any, fakes: Any) -> None:
    server = live(fakes.FakeModel(), head_seconds=0.3)
    connection = connect(server.url, b"GET /health HTTP/1.1\r\n")
    connection.settimeout(0.02)
    ended = False
    for _ in range(1000):
        try:
            connection.sendall(b"X: y\r\n")
            ended = connection.recv(1) == b""
        except TimeoutError:
            continue
        except OSError:
            ended = True
        if ended:
            break
    connection.close()
    assert ended


def test_the_rest_of_a_body_that_nobody_wants(live: Any, fakes: Any) -> None:
    server = live(fakes.FakeModel(), head_seconds=0.2)
    answer = rest(connect(server.url, POST + b"Content-Length: 100\r\n\r\nabc"))
    assert answer.startswith(b"HTTP/1.1 415 ")


def test_a_connection_is_used_again_and_an_answer_may_take_longer(live: Any, fakes: Any) -> None:
    model = fakes.FakeModel(held=True)
    server = live(model, head_seconds=0.1)
    with httpx.Client(trust_env=False, timeout=20) as client:
        for _ in range(3):
            assert client.get(f"{server.url}/health").status_code == 200
        with client.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json={"stream": True, "messages": [{"role": "user", "content": "one two"}]},
        ) as reply:
            assert not server.failure
            with pytest.raises(TimeoutError):  # longer than a head may take
                connect_and_wait(server.url)
            model.gate.set()
            assert reply.read().endswith(b"data: [DONE]\n\n")


def connect_and_wait(url: str) -> None:
    """Wait until the server has given up one that says nothing."""
    assert rest(connect(url)) == b""
    raise TimeoutError


def test_connections_have_a_bound(live: Any, fakes: Any) -> None:
    server = live(fakes.FakeModel(), connections=3)
    held = [connect(server.url, GET) for _ in range(3)]
    for connection in held:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK")
    answer = rest(connect(server.url))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert b"connect again later" in answer
    for connection in held:
        connection.close()
    while not rest_of_one(server.url).startswith(b"HTTP/1.1 200 OK"):
        pass


def rest_of_one(url: str) -> bytes:
    return rest(connect(url, GET.replace(b"Host", b"Connection: close\r\nHost")))


@pytest.mark.parametrize(("files", "most"), [(1024, 896), (100, 1), (10**6, 1000)])
def test_the_bound_leaves_files_for_the_rest(monkeypatch: pytest.MonkeyPatch, files: int, most: int) -> None:
    monkeypatch.setattr(connections, "_files", lambda: files)
    made = connections.limited(1000, 5.0)
    assert (made.most, made.head_seconds) == (most, 5.0)
