"""What the API answers, without a network."""

from __future__ import annotations

import io
import json
import logging
import math
from typing import Any

import pytest
from PIL import Image

from llavar.errors import DataError, ModelError
from llavar.generate.dialogue import Asked


def events(text: str) -> list[Any]:
    """The data of server-sent events."""
    lines = [block.removeprefix("data: ") for block in text.split("\n\n") if block.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_an_answer_has_all_that_the_protocol_names(door: Any) -> None:
    reply = door().chat("one two three")
    assert reply.status_code == 200
    document = reply.json()
    assert document["object"] == "chat.completion"
    assert document["model"] == "fake"
    assert document["id"].startswith("chatcmpl-")
    assert document["created"] > 1.7e9
    assert document["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "one two three", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert document["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def test_parts_come_in_the_order_in_which_they_were_given(door: Any, png: str) -> None:
    parts = [
        {"type": "text", "text": "before"},
        {"type": "image_url", "image_url": {"url": png, "detail": "high"}},
        {"type": "text", "text": "after"},
        {"type": "image_url", "image_url": png},
    ]
    reply = door().chat({"role": "user", "content": parts})
    assert reply.json()["choices"][0]["message"]["content"] == "before [6x4] after [6x4]"


def test_what_is_asked_reaches_the_model(door: Any, fakes: Any) -> None:
    model = fakes.FakeModel()
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "and polite"}]},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c", "name": "ann"},
    ]
    options = {
        "max_tokens": 5,
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": -1,
        "stop": ["x", "yy"],
        "logprobs": True,
        "top_logprobs": 2,
        "user": "me",
        "frequency_penalty": 0,
        "something_new": {"deep": [1]},
        "tools": [],
        "response_format": {"type": "text"},
        "stream_options": None,
    }
    assert door(model).chat(*messages, **options).status_code == 200
    (asked,) = model.asked
    assert asked.dialogue.system == "be brief\nand polite"
    assert [(said.role, said.parts) for said in asked.dialogue.turns] == [
        ("user", ("a",)),
        ("assistant", ("b",)),
        ("user", ("c",)),
    ]
    assert asked.max_new_tokens == 7
    assert (asked.decoding.temperature, asked.decoding.top_p) == (0.5, 0.9)
    assert asked.decoding.seed == 2**63 - 1
    assert asked.stop == ("x", "yy")
    assert asked.top_logprobs == 2


def test_defaults_are_greedy_and_bounded(door: Any, fakes: Any) -> None:
    model = fakes.FakeModel(max_tokens=5000)
    assert door(model, default_tokens=33).chat("a", stop="end").status_code == 200
    (asked,) = model.asked
    assert asked.decoding.greedy
    assert asked.max_new_tokens == 33
    assert asked.stop == ("end",)
    assert asked.top_logprobs is None
    assert asked.dialogue.system is None


def test_more_tokens_than_the_model_takes_are_cut_to_what_it_takes(door: Any, fakes: Any) -> None:
    model = fakes.FakeModel(script=lambda asked: ["w"] * 500, max_tokens=50)
    choice = door(model).chat("a b", max_tokens=32768, n=1).json()["choices"][0]
    assert model.asked[0].max_new_tokens == 50
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"]) == 48


def test_drawn_answers_have_seeds_of_their_own_unless_one_is_given(door: Any, fakes: Any) -> None:
    model = fakes.FakeModel()
    ask = door(model)
    for seed in (None, None, 7, 7):
        ask.chat("a", temperature=1, seed=seed)
    first, second, third, fourth = (asked.decoding.seed for asked in model.asked)
    assert first != second
    assert third == fourth == 7


def test_several_answers_to_one_question(door: Any, fakes: Any) -> None:
    model = fakes.FakeModel(script=lambda asked: ["id:", asked.id or "none"], slots=3)
    document = door(model).chat("a b", n=3).json()
    texts = [choice["message"]["content"] for choice in document["choices"]]
    assert texts == ["id:none", "id:1", "id:2"]  # the first one is that of n=1
    assert [choice["index"] for choice in document["choices"]] == [0, 1, 2]
    assert document["usage"] == {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8}


def test_log_probabilities(door: Any) -> None:
    choice = door().chat("é never", logprobs=True, top_logprobs=2).json()["choices"][0]
    first, second = choice["logprobs"]["content"]
    assert first["token"] == "é"
    assert first["bytes"] == [0xC3, 0xA9]
    assert first["logprob"] == -0.5
    assert [(top["token"], top["logprob"]) for top in first["top_logprobs"]] == [("é0", -1), ("é1", -2)]
    assert second["logprob"] == -0.5  # its text begins with a space


def test_the_logarithm_of_zero_is_a_number(door: Any) -> None:
    choice = door().chat("never", logprobs=True).json()["choices"][0]
    assert choice["logprobs"]["content"][0]["logprob"] == -9999
    assert math.isfinite(choice["logprobs"]["content"][0]["logprob"])


def test_a_stream_says_the_same_in_pieces(door: Any) -> None:
    reply = door().chat("one two", stream=True)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(reply.text)
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "one"}, {"content": " two"}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert all(chunk["usage"] is None for chunk in chunks)


def test_a_stream_of_several_answers_with_counts_and_log_probabilities(door: Any) -> None:
    reply = door().chat("one two", stream=True, n=2, logprobs=True, stream_options={"include_usage": True})
    *chunks, last, done = events(reply.text)
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    for index in (0, 1):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == "one two"
        tokens = [e["token"] for c in own if c["logprobs"] for e in c["logprobs"]["content"]]
        assert tokens == ["one", " two"]


def test_the_picture_as_the_model_sees_it(door: Any, png: str) -> None:
    for body in ({"image_url": png}, {"model": "fake", "image_url": {"url": png}}):
        reply = door()("POST", "/v1/seen", json=body)
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(reply.content)).size == (8, 8)
    assert door()("POST", "/v1/seen", json={"image_url": "data:image/png;base64,AAAA"}).status_code == 400


def test_models_are_listed_and_chosen_by_name(door: Any, fakes: Any) -> None:
    ask = door(fakes.FakeModel("a/one"), fakes.FakeModel("two", max_tokens=77))
    listed = ask("GET", "/v1/models").json()["data"]
    assert [(card["id"], card["max_model_len"]) for card in listed] == [("a/one", 100), ("two", 77)]
    assert ask("GET", "/v1/models/a/one").json()["id"] == "a/one"
    assert ask.chat("x", model="two").json()["model"] == "two"
    assert ask("GET", "/v1/models/three").status_code == 404
    nameless = ask.chat("x")
    assert nameless.status_code == 400
    assert "a/one, two" in nameless.json()["error"]["message"]


def test_health_and_readiness(door: Any, fakes: Any) -> None:
    model = fakes.FakeModel()
    ask = door(model)
    assert ask("GET", "/health").json() == {"status": "ok"}
    assert ask("GET", "/ready").json() == {"status": "ready"}
    model.is_alive = False
    assert ask("GET", "/health").status_code == 200
    reply = ask("GET", "/ready")
    assert reply.status_code == 503
    assert "restart the server" in reply.json()["error"]["message"]
    assert ask.chat("a").status_code == 503


def test_a_model_that_is_being_loaded_is_told_from_one_that_is_unknown(door: Any) -> None:
    ask = door(names=("fake", "large"))
    reply = ask("GET", "/ready")
    assert reply.status_code == 503
    assert "'large' is being loaded" in reply.json()["error"]["message"]
    assert ask.chat("a", model="large").status_code == 503
    assert ask.chat("a", model="other").status_code == 404
    assert ask.chat("a", model="fake").status_code == 200
    assert [card["id"] for card in ask("GET", "/v1/models").json()["data"]] == ["fake"]


def test_a_server_that_is_closing_takes_nothing_new(door: Any) -> None:
    ask = door()
    ask.app.state.desk.closing = True
    for reply in (ask.chat("a"), ask("GET", "/ready")):
        assert reply.status_code == 503
        assert "shutting down" in reply.json()["error"]["message"]
        assert reply.headers["retry-after"]
    assert ask("GET", "/health").status_code == 200


def test_a_full_queue_says_when_to_come_again(door: Any, fakes: Any) -> None:
    model = fakes.FakeModel(slots=1, may_wait=1, held=True)
    ask = door(model)
    reply = ask.chat("a", n=3)  # the third does not fit, so none is asked
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "2"
    assert reply.json()["error"]["type"] == "rate_limit_error"
    assert model.idle.wait(5)
    assert model.finished == {"cancelled": 2}


def test_a_full_queue_is_seen_before_the_body_is_read(door: Any, fakes: Any) -> None:
    model = fakes.FakeModel(slots=1, may_wait=1, held=True)
    tickets = [model.submit(_asked(), lambda piece: None) for _ in range(2)]
    reply = door(model)("POST", "/v1/chat/completions", content=b"not json")
    assert reply.status_code == 429
    assert "1 answers wait" in reply.json()["error"]["message"]
    for ticket in tickets:
        ticket.cancel()


def _asked() -> Asked:
    from llavar.generate.dialogue import Dialogue, Said
    from llavar.records import Role

    return Asked(dialogue=Dialogue(turns=(Said(role=Role.USER, parts=("a",)),)))


def test_open_requests_have_a_bound(door: Any) -> None:
    ask = door(open_requests=1)
    desk = ask.app.state.desk
    with desk.place():
        assert ask.chat("a").status_code == 429
    assert ask.chat("a").status_code == 200


def test_an_answer_that_fails_is_an_error_and_not_a_text(door: Any, fakes: Any, caplog: Any) -> None:
    model = fakes.FakeModel(fails=ModelError("the weights in /home/ann/secret are gone"))
    with caplog.at_level(logging.DEBUG):
        reply = door(model).chat("one two three")
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error"
    assert "/home" not in reply.text  # for the operator, not for the world
    assert "ModelError: the weights in /home/ann/secret are gone" in caplog.text
    assert door(fakes.FakeModel(fails=DataError("no such token"))).chat("a b").status_code == 400


def test_a_stream_that_fails_ends_with_an_error_and_not_as_done(door: Any, fakes: Any) -> None:
    reply = door(fakes.FakeModel(fails=ModelError("gone"))).chat("one two", stream=True)
    found = events(reply.text)
    assert found[1]["choices"][0]["delta"] == {"content": "one"}
    assert found[-1]["error"]["type"] == "server_error"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(door: Any, fakes: Any, stream: bool) -> None:
    model = fakes.FakeModel(held=True)
    reply = door(model, timeout=0.05).chat("a", stream=stream)
    error = events(reply.text)[-1]["error"] if stream else reply.json()["error"]
    assert error["code"] == "timeout"
    assert "0.05 s, the limit" in error["message"]
    assert stream or reply.status_code == 503
    assert model.idle.wait(5)
    assert model.finished == {"cancelled": 1}


def test_measurements(door: Any, fakes: Any) -> None:
    ask = door(fakes.FakeModel("m"))
    ask.chat("a b")
    ask.chat("a b", model="unknown")
    ask("GET", "/invented/12345")
    reply = ask("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = reply.text.splitlines()
    for line in (
        'llavar_requests_total{route="/v1/chat/completions",status="200"} 1.0',
        'llavar_requests_total{route="/v1/chat/completions",status="404"} 1.0',
        'llavar_requests_total{route="other",status="404"} 1.0',
        'llavar_answers_total{finish="stop",model="m"} 1.0',
        'llavar_answers_running{model="m"} 0.0',
        'llavar_pictures_encoded_total{model="m"} 3.0',
        'llavar_prompt_tokens_reused_total{model="m"} 1.0',
        'llavar_time_to_first_token_seconds_count{model="m"} 1.0',
        'llavar_answer_seconds_count{model="m"} 1.0',
        "llavar_requests_open 0.0",
    ):
        assert line in lines
    assert "12345" not in reply.text


def test_the_description_is_whole(door: Any) -> None:
    ask = door(keys=("k",))
    document = ask("GET", "/openapi.json").json()
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]) == {
        str(status) for status in (200, 400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
    }
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "422" not in text
    assert chat["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/health"]["get"]
