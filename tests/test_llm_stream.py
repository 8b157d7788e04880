"""Answers in pieces: events however they are cut, and a client that reads them from a scripted endpoint."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import BudgetError, FetchError
from llavar.llm import Budget, Client, Delta, Endpoint, Message
from llavar.llm.stream import DONE, events


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def piece(text: str | None, finish: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    document = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


WHOLE = piece("") + piece("8 ") + b": a comment\n\n" + piece("9") + piece(None, "stop") + b"data: [DONE]\n\n"


def ask(
    fake_endpoint: Any, *bodies: bytes | Any, attempts: int = 1, **options: Any
) -> tuple[list[Delta], Any]:
    """The pieces, and the server with what it was asked."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    answers = [
        fake_endpoint.Answer(body=body, headers=headers) if isinstance(body, bytes) else body
        for body in bodies
    ]
    server = fake_endpoint.serve(answers)
    endpoint = Endpoint(base_url=server.url, model="m", attempts=attempts)
    with Client(endpoint, pause=lambda seconds: None, **options) as client:
        return list(client.stream([Message(role="user", text="hello")], max_tokens=9)), server


# --- events ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=8), st.booleans())
def test_events_do_not_depend_on_how_the_body_was_cut(places: list[int], carriage: bool) -> None:
    body = WHOLE.replace(b"\n", b"\r\n") if carriage else WHOLE
    edges = [0, *sorted(places), len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]
    assert list(events(chunks, limit=10_000)) == list(events([WHOLE], limit=10_000))


def test_nothing_is_read_after_the_end() -> None:
    def chunks() -> Any:
        yield b"data: 1\n\ndata: [DONE]\n\ndata: 2\n"
        raise AssertionError("read on")

    assert list(events(chunks(), limit=100)) == [b"1", DONE]


def test_a_body_without_a_last_line_end_is_read_whole() -> None:
    assert list(events([b"event: x\nid: 3\ndata: 1\n\ndata: 2"], limit=100)) == [b"1", b"2"]


def test_an_endless_body_is_refused() -> None:
    with pytest.raises(FetchError, match="more than 10 bytes"):
        list(events([b"data: 1\n"] * 9, limit=10))


# --- the client -----------------------------------------------------------------------------------------


def test_pieces_come_in_order_and_the_last_says_why(fake_endpoint: Any) -> None:
    pieces, server = ask(fake_endpoint, WHOLE)
    assert pieces == [Delta(text="8 "), Delta(text="9"), Delta(text="", finish="stop")]
    assert server.requests[0].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "stream": True,
    }


def test_the_end_mark_is_not_needed(fake_endpoint: Any) -> None:
    pieces, _ = ask(fake_endpoint, piece("8", "length"))
    assert pieces == [Delta(text="8", finish="length")]


def test_reported_usage_is_no_piece(fake_endpoint: Any) -> None:
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n'
    assert len(ask(fake_endpoint, piece("8", "stop") + usage)[0]) == 1


def test_a_server_that_does_not_stream_gives_one_piece(fake_endpoint: Any) -> None:
    pieces, _ = ask(fake_endpoint, fake_endpoint.say("8 9", finish="length"))
    assert pieces == [Delta(text="8 9", finish="length")]


def test_what_may_pass_is_asked_again_before_anything_came(fake_endpoint: Any) -> None:
    pieces, server = ask(fake_endpoint, fake_endpoint.refuse(503, "loading"), WHOLE, attempts=2)
    assert "".join(piece.text for piece in pieces) == "8 9"
    assert len(server.requests) == 2
    with pytest.raises(FetchError, match="no reply in 2 attempts .*loading"):
        ask(fake_endpoint, fake_endpoint.refuse(503, "loading"), attempts=2)


def test_an_answer_that_began_is_not_asked_again(fake_endpoint: Any) -> None:
    with pytest.raises(FetchError, match="broke off"):
        ask(fake_endpoint, piece("8 "), WHOLE, attempts=3)


def test_refusals_keep_the_words_of_the_server(fake_endpoint: Any) -> None:
    with pytest.raises(FetchError, match="HTTP 400: too many tokens"):
        ask(fake_endpoint, fake_endpoint.refuse(400, "too many tokens"))


def test_another_name_for_the_limit_is_taken_up(fake_endpoint: Any) -> None:
    refusal = fake_endpoint.refuse(400, "use max_completion_tokens instead")
    pieces, server = ask(fake_endpoint, refusal, WHOLE)
    assert "".join(piece.text for piece in pieces) == "8 9"
    assert server.requests[1].body["max_completion_tokens"] == 9


@pytest.mark.parametrize(
    "event",
    [b"data: {\n\n", b"data: []\n\n", b'data: {"error": {"message": "out of memory"}}\n\n', piece(["x"])],  # type: ignore[arg-type]
)
def test_what_is_no_piece_is_told(fake_endpoint: Any, event: bytes) -> None:
    with pytest.raises(FetchError, match="no piece of an answer"):
        ask(fake_endpoint, event)


def test_a_long_answer_is_cut_off(fake_endpoint: Any) -> None:
    with pytest.raises(FetchError, match="more than 50 bytes"):
        ask(fake_endpoint, WHOLE, max_bytes=50)


def test_requests_count(fake_endpoint: Any) -> None:
    with pytest.raises(BudgetError):
        ask(fake_endpoint, WHOLE, budget=Budget(max_requests=0))
