"""Wrong requests: a status, one sentence, and OpenAI's form."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llavar.errors import BudgetError, DataError, FetchError, ImageError, ModelError
from llavar.generate.dialogue import BusyError
from llavar.serve.refusals import Refusal, refused

JSON = {"content-type": "application/json"}
PICTURE = {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}


def complaint(reply: Any, status: int = 400) -> dict[str, Any]:
    """The error of a reply, which must have OpenAI's form and one sentence."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    document = reply.json()
    assert set(document) == {"error"}
    error = document["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]
    assert error["type"].endswith("_error")
    return error


@pytest.mark.parametrize(
    ("body", "said", "param"),
    [
        ({}, "messages is missing", "messages"),
        ({"messages": []}, "messages is empty; give at least 1", "messages"),
        ({"messages": "hello"}, "messages must be a list, not 'hello'", "messages"),
        ({"messages": [3]}, "messages[0] must be an object, not 3", "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is missing", "messages[0].content"),
        (
            {"messages": [{"role": "tool", "content": "a"}]},
            "messages[0].role must be 'system', 'developer', 'user' or 'assistant', not 'tool'",
            "messages[0].role",
        ),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages[0].content must be a text or a list of parts, not null",
            "messages[0].content",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": "x"}]}]},
            "messages[0].content[0] must have the type 'text' or 'image_url', not 'video_url'",
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url is missing",
            "messages[0].content[0].image_url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}]},
            "messages[0].content[0].image_url.url must be a text, not 1",
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_messages_of_a_wrong_form(door: Any, body: Any, said: str, param: str) -> None:
    error = complaint(door()("POST", "/v1/chat/completions", json=body))
    assert (error["message"], error["param"]) == (said, param)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0.0, not -0.1"),
        ({"temperature": "1"}, "temperature must be a number, not '1'"),
        ({"top_p": 0}, "top_p must be more than 0.0, not 0"),
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"n": 99}, "n is 99; at most 16 answers"),
        ({"n": 1.5}, "n must be a whole number, not 1.5"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        ({"max_tokens": True}, "max_tokens must be a whole number, not true"),
        ({"seed": 2**63}, "seed must be"),
        ({"seed": 10**400}, "seed must be"),
        ({"stop": ["a"] * 17}, "stop has 17 entries; give at most 16"),
        ({"stop": ""}, "stop is an empty text"),
        ({"stop": ["a", "b" * 300]}, "stop[1] is a text of more than 256 characters, the limit"),
        ({"stop": 5}, "stop must be a text or a list of texts, not 5"),
        ({"stream": "yes"}, "stream must be true or false, not 'yes'"),
        ({"top_logprobs": 3}, "set logprobs to true as well"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must be at most 20, not 21"),
        ({"tools": [{"type": "function"}]}, "tools cannot be used here"),
        ({"response_format": {"type": "json_object"}}, "response_format.type must be 'text'"),
        ({"model": 4}, "model must be a text, not 4"),
        ({"n": 0, "top_p": 7, "stream": 1}, "(2 more fields are wrong too)"),
    ],
)
def test_options_out_of_their_limits(door: Any, options: Any, said: str) -> None:
    assert said in complaint(door().chat("a", **options))["message"]


def test_the_order_of_messages(door: Any) -> None:
    user, assistant = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    system = {"role": "system", "content": "s"}
    ask = door()
    for messages, said in (
        ((user, assistant), "the last message is the assistant's"),
        ((system,), "the last message is the system's"),
        ((user, user), "messages[1] is the user's where the assistant's should be"),
        ((assistant, user), "messages[0] is the assistant's where the user's should be"),
        ((user, system, user), "messages[1] is the system's and stands between turns; put it first"),
        ((user, assistant, {"role": "user", "content": []}), "messages[2].content is empty"),
    ):
        assert said in complaint(ask.chat(*messages))["message"]


def test_pictures_belong_to_the_user(door: Any) -> None:
    for role in ("assistant", "system"):
        messages = [{"role": role, "content": [PICTURE]}, {"role": "user", "content": "b"}]
        messages[:0] = [{"role": "user", "content": "a"}] if role == "assistant" else []
        error = complaint(door().chat(*messages))
        assert f"is the {role}'s and holds a picture" in error["message"]


def test_pictures_that_cannot_be_opened(door: Any) -> None:
    ask = door()
    for url in (
        "data:image/png;base64,AAAA",
        "data:image/png;base64,%%%",
        "file:///etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1/x.png",
        "https://example.org/x.png",
        "",
    ):
        parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": url}}]
        error = complaint(ask.chat({"role": "user", "content": parts}))
        assert error["param"].removesuffix(".url") == "messages[0].content[1].image_url"
        assert "root:" not in error["message"]


def test_limits_name_the_value_and_the_limit(door: Any, png: str) -> None:
    ask = door(max_pictures=2, max_text=50, max_messages=3, max_pixels=30)
    pictures = [{"type": "image_url", "image_url": png}] * 3
    assert "3 pictures; at most 2" in complaint(ask.chat({"role": "user", "content": pictures}))["message"]
    assert "60 characters; at most 50" in complaint(ask.chat("a" * 60))["message"]
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant") * 2]
    assert "5 messages; at most 3" in complaint(ask.chat(*turns, "b"))["message"]
    two = [{"type": "image_url", "image_url": url} for url in (png, png.replace("image/png", "image/PNG"))]
    error = complaint(ask.chat({"role": "user", "content": two}))
    assert "more than 30 pixels together" in error["message"]


def test_a_prompt_that_does_not_fit_is_refused_with_counts(door: Any) -> None:
    error = complaint(door().chat("w " * 150))
    assert error["message"] == "the prompt has 150 tokens, and the model takes 100; shorten it"
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"messages": [1,]}', b"[" * 100_000, b'"\\ud800"', b"NaN x"]
)
def test_bodies_that_are_not_json(door: Any, body: bytes) -> None:
    error = complaint(door()("POST", "/v1/chat/completions", content=body, headers=JSON))
    assert error["message"].startswith("the body")


def test_numbers_that_are_none(door: Any) -> None:
    body = b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}'
    error = complaint(door()("POST", "/v1/chat/completions", content=body, headers=JSON))
    assert error["message"].startswith("temperature must be")


def test_bodies_of_another_type(door: Any) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "a"}]}).encode()
    ask = door()
    for headers in (
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
    ):
        complaint(ask("POST", "/v1/chat/completions", content=body, headers=headers), 415)
    packed = JSON | {"content-encoding": "gzip"}
    assert (
        "gzip" in complaint(ask("POST", "/v1/chat/completions", content=body, headers=packed), 415)["message"]
    )
    named = {"content-type": "Application/JSON; charset=utf-8", "content-encoding": "identity"}
    assert ask("POST", "/v1/chat/completions", content=body, headers=named).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_is_not_read_beyond_the_limit(door: Any, declared: bool) -> None:
    given = 0

    async def chunks() -> Any:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield b"x" * 100

    headers = JSON | ({"content-length": "100000"} if declared else {})
    reply = door(max_body_bytes=1000)("POST", "/v1/chat/completions", content=chunks(), headers=headers)
    error = complaint(reply, 413)
    assert "1,000 bytes, the limit" in error["message"]
    assert reply.headers["connection"] == "close"
    assert given <= 11


def test_bodies_have_a_bound_together(door: Any) -> None:
    ask = door(max_bodies_bytes=500)
    reply = ask.chat("x" * 600)
    error = complaint(reply, 429)
    assert "500 bytes, the limit of all together" in error["message"]
    assert reply.headers["retry-after"] == "1"
    for _ in range(5):  # each gives its room back
        assert ask.chat("x" * 300).status_code == 200
        complaint(ask.chat(5, "x" * 200))


def test_the_bodies_of_others_count_until_their_pictures_are_open(door: Any) -> None:
    desk = door(max_bodies_bytes=500).app.state.desk
    with desk.body() as take:
        take(400)
        with desk.body() as other, pytest.raises(Refusal, match="500 bytes"):
            other(101)
        with desk.body() as other:
            other(100)
    with desk.body() as take:
        take(500)


def test_empty_texts_are_taken_and_empty_lists_are_not(door: Any) -> None:
    for content in ("", [{"type": "text", "text": ""}]):
        assert door().chat({"role": "user", "content": content}).status_code == 200
    described = door()("GET", "/openapi.json").json()["components"]["schemas"]
    assert described["ImageUrl"]["properties"]["url"]["minLength"] == 1
    texts, parts = described["Message"]["properties"]["content"]["oneOf"]
    assert (texts.get("minLength", 0), parts["minItems"]) == (0, 1)


def test_head_is_get_without_a_body(door: Any) -> None:
    ask = door()
    for path in ("/health", "/v1/models", "/metrics", "/openapi.json", "/nothing"):
        whole, head = ask("GET", path), ask("HEAD", path)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]
    assert ask("HEAD", "/v1/chat/completions").status_code == 405


def test_a_body_that_does_not_arrive_is_given_up(door: Any) -> None:
    import asyncio

    async def chunks() -> Any:
        yield b"{"
        await asyncio.sleep(60)
        yield b"}"

    reply = door(upload_seconds=0.05)("POST", "/v1/chat/completions", content=chunks(), headers=JSON)
    assert "0.05 s, the limit" in complaint(reply, 408)["message"]


def test_paths_and_methods_that_are_not_there(door: Any) -> None:
    ask = door()
    for path in ("/", "/v1", "/chat/completions", "/v1/models/", "/docs", "/v1/../etc/passwd"):
        complaint(ask("GET", path), 404)
    reply = ask("GET", "/v1/chat/completions")
    assert complaint(reply, 405)["message"] == "GET cannot be used here; use POST"
    assert reply.headers["allow"] == "POST"
    complaint(ask("DELETE", "/v1/models"), 405)


def test_an_unknown_model_is_answered_with_those_that_are_there(door: Any) -> None:
    error = complaint(door().chat("a", model="gpt-9"), 404)
    assert error["message"] == "there is no model 'gpt-9' here; this server has fake"
    assert error["code"] == "model_not_found"
    assert len(complaint(door().chat("a", model="x" * 10_000), 404)["message"]) < 300


def test_keys(door: Any) -> None:
    ask = door(keys=("right", "other"))
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": "Basic right"},
        {"authorization": "right"},
        {"authorization": b"Bearer r\xe9ght"},
    ):
        for method, path in (
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/seen"),
            ("GET", "/v1/models"),
            ("GET", "/v1/models/fake"),
            ("GET", "/metrics"),
        ):
            reply = ask(method, path, headers=headers)
            error = complaint(reply, 401)
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "right" not in error["message"]
    for key in ("right", "other"):
        assert ask("GET", "/v1/models", headers={"authorization": f"bearer {key}"}).status_code == 200
    for path in ("/health", "/ready"):
        assert ask("GET", path).status_code == 200


def test_pages_from_elsewhere_may_not_ask_a_server_of_this_machine(door: Any) -> None:
    ask = door(local_pages_only=True, origins=("https://chat.example.org",))
    body = {"messages": [{"role": "user", "content": "a"}]}
    for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example", "http://[", "file://"):
        reply = ask("POST", "/v1/chat/completions", json=body, headers={"origin": origin})
        assert complaint(reply, 403)["type"] == "permission_error"
    for origin in (
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "https://chat.example.org",
    ):
        reply = ask("POST", "/v1/chat/completions", json=body, headers={"origin": origin})
        assert reply.status_code == 200
    assert ask("POST", "/v1/chat/completions", json=body).status_code == 200


def test_other_origins_are_allowed_one_by_one(door: Any) -> None:
    wish = {"origin": "https://a.example", "access-control-request-method": "POST"}
    closed = door()("OPTIONS", "/v1/chat/completions", headers=wish)
    assert "access-control-allow-origin" not in closed.headers
    ask = door(origins=("https://a.example",), keys=("k",))
    opened = ask("OPTIONS", "/v1/chat/completions", headers=wish)
    assert opened.status_code == 200
    assert opened.headers["access-control-allow-origin"] == "https://a.example"
    other = ask("OPTIONS", "/v1/chat/completions", headers=wish | {"origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


def test_every_response_carries_an_id_and_what_keeps_browsers_from_guessing(door: Any) -> None:
    ask = door()
    for path in ("/health", "/nothing", "/metrics"):
        reply = ask("GET", path)
        assert len(reply.headers["x-request-id"]) == 16
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert ask("GET", "/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for odd in ("a b", "a" * 65, "a\tb", '"'):
        assert ask("GET", "/health", headers={"x-request-id": odd}).headers["x-request-id"] != odd


def test_logs_hold_counts_and_nothing_of_what_was_asked(door: Any, png: str, caplog: Any) -> None:
    ask = door(keys=("hushhush",))
    parts = [{"type": "text", "text": "grandmother"}, {"type": "image_url", "image_url": png}]
    body = {"messages": [{"role": "user", "content": parts}], "stop": "knitting"}
    key = {"authorization": "Bearer hushhush"}
    with caplog.at_level(logging.DEBUG):
        reply = ask("POST", "/v1/chat/completions?q=teapot", json=body, headers=key | {"x-request-id": "r1"})
        ask("POST", "/v1/chat/completions", json=body | {"n": "walnut"}, headers=key)
        ask("GET", "/a%0Ab%1b[31m", headers=key)
    assert reply.status_code == 200
    lines = [record.getMessage() for record in caplog.records if record.name == "llavar.serve"]
    assert lines[0].startswith("id=r1 POST /v1/chat/completions 200 ")
    assert lines[0].endswith("prompt=11 completion=2 pictures=1")
    for word in ("grandmother", "knitting", "teapot", "walnut", "hushhush", "6x4", png[30:60], "\x1b", "\n"):
        assert not any(word in line for line in lines)
    assert " /a?b??31m 404 " in lines[2]


def test_a_defect_of_the_server_is_a_sentence_too(door: Any, fakes: Any, caplog: Any) -> None:
    def broken(asked: Any, on_piece: Any) -> Any:
        raise RuntimeError("the words grandmother said")

    model = fakes.FakeModel()
    model.submit = broken
    with caplog.at_level(logging.DEBUG):
        error = complaint(door(model).chat("grandmother"), 500)
    assert error["message"] == "the server failed on this request; its log says how"
    assert "RuntimeError at " in caplog.text
    assert "grandmother" not in caplog.text


@pytest.mark.parametrize(
    ("error", "closing", "status", "code"),
    [
        (BusyError("full", 2.2), False, 429, "queue_full"),
        (BusyError("closing"), True, 503, "unavailable"),
        (DataError("bad"), False, 400, "invalid_request"),
        (ImageError("bad"), False, 400, "invalid_image"),
        (FetchError("bad"), False, 400, "invalid_image"),
        (ModelError("bad"), False, 500, "internal_error"),
        (BudgetError("bad"), False, 500, "internal_error"),
    ],
)
def test_errors_of_ours_have_a_status(error: Any, closing: bool, status: int, code: str) -> None:
    found = refused(error, closing=closing)
    assert (found.status, found.code) == (status, code)
    assert ("Retry-After" in found.headers) == isinstance(error, BusyError)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = ["messages", "n", "model", "stop", "stream", "seed", "top_p", "logprobs", "tools", "stream_options"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(_FIELDS), _VALUES, min_size=1))
def test_any_json_gets_a_sentence(door: Any, body: dict[str, Any]) -> None:
    reply = door()("POST", "/v1/chat/completions", content=json.dumps(body).encode(), headers=JSON)
    complaint(reply, 400)
