from __future__ import annotations

import json
import random
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import BudgetError, ConfigError, DataError, FetchError, NotFoundError
from llavar.llm import Budget, Cache, Client, Endpoint, Message, many, whole
from llavar.llm.client import _retry_after, _wait

PICTURE = "data:image/png;base64,AAAA"
SECRET = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def client(server: Any, pauses: list[float] | None = None, **options: Any) -> Client:
    endpoint = {k: options.pop(k) for k in ("timeout", "attempts", "api_key") if k in options}
    pauses = [] if pauses is None else pauses
    return Client(Endpoint(base_url=server.url, model="m", **endpoint), pause=pauses.append, **options)


def ask(asker: Client, text: str = "hello", **options: Any) -> Any:
    with asker:
        return asker.chat([Message(role="user", text=text)], **({"max_tokens": 9} | options))


# --- what is sent and read ------------------------------------------------------------------------------


def test_a_reply_says_who_answered_and_at_what_cost(fake_endpoint: Any) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("8 9", finish="length")])
    reply = ask(client(server))
    assert (reply.text, reply.model, reply.finish) == ("8 9", "scripted-1", "length")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cached) == (7, 3, False)
    assert reply.seconds > 0


def test_only_what_is_set_is_sent(fake_endpoint: Any) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("x")])
    ask(client(server))
    ask(client(server), temperature=0.2, top_p=0.5, seed=0, stop=("</s>",))
    plain, full = (asked.body for asked in server.requests)
    user = [{"role": "user", "content": "hello"}]
    assert plain == {"model": "m", "messages": user, "max_tokens": 9, "temperature": 0.0}
    assert full == plain | {"temperature": 0.2, "top_p": 0.5, "seed": 0, "stop": ["</s>"]}
    assert server.requests[0].path == "/v1/chat/completions"
    assert "Authorization" not in server.requests[0].headers


@pytest.mark.parametrize("first", [True, False])
def test_pictures_stand_before_or_after_the_text(fake_endpoint: Any, first: bool) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("x")])
    with client(server) as asker:
        message = Message(role="user", text="read", images=(PICTURE,), images_first=first)
        asker.chat([Message(role="system", text="s"), message], max_tokens=9)
    parts = server.requests[0].body["messages"][1]["content"]
    picture, text = {"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "read"}
    assert parts == ([picture, text] if first else [text, picture])


def test_the_key_comes_from_the_argument_or_the_environment(
    fake_endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("x")])
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    ask(client(server))
    ask(client(server, api_key=SECRET))
    sent = [asked.headers["Authorization"] for asked in server.requests]
    assert sent == ["Bearer from-environment", f"Bearer {SECRET}"]
    assert SECRET not in repr(Endpoint(base_url=server.url, model="m", api_key=SECRET))


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_no_text_is_a_reply_where_the_server_says_why(fake_endpoint: Any, finish: str) -> None:
    server = fake_endpoint.serve([fake_endpoint.say(None, finish=finish)])
    assert ask(client(server)).text == ""


def test_text_in_parts_is_joined(fake_endpoint: Any) -> None:
    parts = [{"type": "text", "text": "8 "}, {"type": "text", "text": "9"}]
    body = json.dumps({"choices": [{"message": {"content": parts}}]}).encode()
    reply = ask(client(fake_endpoint.serve([fake_endpoint.Answer(body=body)])))
    assert (reply.text, reply.model, reply.finish, reply.prompt_tokens) == ("8 9", "m", "", 0)


@settings(deadline=None)
@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_sent(text: str) -> None:
    sent = whole(text)
    sent.encode("utf-8")
    assert whole(sent) == sent
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert sent == text


def test_halves_of_a_pair_are_joined_and_lone_ones_replaced() -> None:
    assert whole("a\ud83d\ude00b\ud83d") == "a\U0001f600b\ufffd"


def test_a_lone_surrogate_goes_over_the_wire(fake_endpoint: Any) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("x")])
    ask(client(server), "a\ud83d")
    assert server.requests[0].text == "a\ufffd"


# --- failures -------------------------------------------------------------------------------------------


def test_what_may_pass_is_asked_again(fake_endpoint: Any) -> None:
    script = [
        fake_endpoint.refuse(429, "slow down", retry_after="7"),
        fake_endpoint.refuse(503),
        fake_endpoint.Answer(body=b"<html>bad gateway</html>"),
        fake_endpoint.Answer(body=b"x" * 1000, cut=True),
        fake_endpoint.say("at last"),
    ]
    server, pauses = fake_endpoint.serve(script), list[float]()
    assert ask(client(server, pauses)).text == "at last"
    assert len(server.requests) == 5
    assert pauses[0] == 7.0  # as the server asked
    assert 0.75 <= pauses[1] <= 1.25
    assert 1.5 <= pauses[2] <= 2.5
    assert 3 <= pauses[3] <= 5


def test_pauses_leave_the_global_random_numbers_alone() -> None:
    before = random.getstate()
    assert len({_wait(1, 0.0) for _ in range(20)}) > 1
    assert random.getstate() == before


def test_patience_ends_with_a_sentence(fake_endpoint: Any) -> None:
    server, pauses = fake_endpoint.serve([fake_endpoint.refuse(500, "out of memory")]), list[float]()
    with pytest.raises(FetchError, match="no reply in 3 attempts .HTTP 500: out of memory."):
        ask(client(server, pauses, attempts=3))
    assert (len(server.requests), len(pauses)) == (3, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 307])
def test_a_refusal_is_final_and_in_the_servers_words(fake_endpoint: Any, status: int) -> None:
    server = fake_endpoint.serve([fake_endpoint.refuse(status, "context\x1b[31m is\n\ttoo long")])
    with pytest.raises(FetchError, match=rf"HTTP {status}: context \[31m is too long") as caught:
        ask(client(server))
    assert len(server.requests) == 1
    assert str(caught.value).isprintable()


def test_a_key_without_credit_is_not_tried_again(fake_endpoint: Any) -> None:
    server = fake_endpoint.serve([fake_endpoint.refuse(429, "no credit", code="insufficient_quota")])
    with pytest.raises(FetchError, match="no credit"):
        ask(client(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"detail": "not here"}', "not here"),
        (b'{"message": "vllm says"}', "vllm says"),
        (b'{"error": "just text"}', "just text"),
        (b'{"detail": [{"loc": ["body"]}]}', '"loc"'),
        (b"plain text", "plain text"),
        (b"[" * 100_000, "HTTP 400"),
        (b"", "(HTTP 400)"),
    ],
)
def test_errors_of_any_shape_are_shown(fake_endpoint: Any, body: bytes, said: str) -> None:
    server = fake_endpoint.serve([fake_endpoint.Answer(status=400, body=body)])
    with pytest.raises(FetchError) as caught:
        ask(client(server))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_key_is_never_repeated(fake_endpoint: Any, tmp_path: Path) -> None:
    server = fake_endpoint.serve([fake_endpoint.refuse(401, f"bad key {SECRET}"), fake_endpoint.say("x")])
    with pytest.raises(FetchError) as caught:
        ask(client(server, api_key=SECRET))
    assert "bad key ***" in str(caught.value)
    cache = Cache(tmp_path / "c.jsonl")
    ask(client(server, api_key=SECRET, cache=cache))
    assert SECRET not in (tmp_path / "c.jsonl").read_text()


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"message": {}}]}',
        b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": ["x"]}}]}',
        b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}',
        b'{"error": {"message": "rate limited upstream"}}',
    ],
)
def test_what_is_no_completion_is_an_error(fake_endpoint: Any, body: bytes) -> None:
    server = fake_endpoint.serve([fake_endpoint.Answer(body=body)])
    with pytest.raises(FetchError, match="no chat completion"):
        ask(client(server))
    assert len(server.requests) == 1


def test_a_slow_server_is_not_waited_for(fake_endpoint: Any) -> None:
    late = fake_endpoint.Answer(delay=30.0)
    server = fake_endpoint.serve([late])
    with pytest.raises(FetchError, match=r"no answer within 0\.05 s"):
        ask(client(server, timeout=0.05, attempts=2))
    assert len(server.requests) == 2


def test_an_endless_answer_is_not_read(fake_endpoint: Any) -> None:
    server = fake_endpoint.serve([fake_endpoint.Answer(body=b"x" * 5000)])
    with pytest.raises(FetchError, match="more than 1000 bytes"):
        ask(client(server, max_bytes=1000))


def test_nobody_listens(fake_endpoint: Any) -> None:
    server = fake_endpoint.serve([])
    server.close()
    fake_endpoint._servers.clear()
    with pytest.raises(FetchError, match="check that the server runs"):
        ask(client(server, attempts=2))


def test_newer_models_name_the_limit_otherwise(fake_endpoint: Any) -> None:
    def script(asked: Any) -> Any:
        if "max_tokens" in asked.body:
            return fake_endpoint.refuse(400, "Unsupported 'max_tokens'; use 'max_completion_tokens' instead.")
        return fake_endpoint.say(str(asked.body["max_completion_tokens"]))

    server = fake_endpoint.serve(script)
    with client(server) as asker:
        assert [ask(asker).text, ask(asker).text] == ["9", "9"]
    assert len(server.requests) == 3  # remembered


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://x/v1",
        "http://",
        "http:///v1",
        "http://h/v1?k=1",
        "http://h/v1#f",
        "http://h a",
    ],
)
def test_urls_that_are_no_endpoint(url: str) -> None:
    with pytest.raises(ConfigError, match="not the URL of an endpoint"):
        Endpoint(base_url=url, model="m")


def test_settings_that_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Endpoint(base_url=" http://h/v1/chat/completions/ ", model="m").base_url == "http://h/v1"
    with pytest.raises(ConfigError, match="user name or password") as caught:
        Endpoint(base_url="http://me:hunter2@h/v1", model="m")
    assert "hunter2" not in str(caught.value)
    for options in ({"model": " "}, {"timeout": 0}, {"timeout": float("nan")}, {"attempts": 0}):
        with pytest.raises(ConfigError):
            Endpoint(**({"base_url": "http://h", "model": "m"} | options))
    with pytest.raises(ConfigError, match="API key") as caught:
        Endpoint(base_url="http://h", model="m", api_key="a\nb: c").key()
    assert "b: c" not in str(caught.value)
    with pytest.raises(ConfigError, match="role"):
        Message(role="gpt", text="")
    with pytest.raises(ConfigError, match="data:image"):
        Message(role="user", text="", images=("/etc/passwd",))


def test_how_long_a_server_may_ask_to_wait() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < _retry_after(soon) <= 30
    assert _retry_after("1.5") == 1.5
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    for value in ("", "-3", "soon", past, "nan", "1e9", "٣", "Wed, 99 Oct 99999999999"):
        assert _retry_after(value) == 0
    assert _wait(0, 1e9) == 60
    assert _wait(60, 0) == 60


# --- budget and cache -----------------------------------------------------------------------------------


def test_a_budget_of_requests_counts_retries(fake_endpoint: Any) -> None:
    budget = Budget(max_requests=3)
    server = fake_endpoint.serve([fake_endpoint.refuse(500), fake_endpoint.say("x")])
    asker = client(server, budget=budget)
    ask(asker)
    ask(asker)
    with pytest.raises(BudgetError, match="budget of 3 requests"):
        ask(asker)
    assert budget.requests == len(server.requests) == 3


def test_a_budget_of_tokens(fake_endpoint: Any) -> None:
    budget = Budget(max_tokens=15)
    server = fake_endpoint.serve([fake_endpoint.say("x")])
    asker = client(server, budget=budget)
    ask(asker)
    ask(asker)
    with pytest.raises(BudgetError, match="15 tokens"):
        ask(asker)
    assert budget.tokens == 20
    with pytest.raises(ConfigError):
        Budget(max_tokens=-1)


def test_tokens_that_are_not_reported_are_counted_too_high(fake_endpoint: Any) -> None:
    budget = Budget(max_tokens=10_000)
    ask(
        client(fake_endpoint.serve([fake_endpoint.say("x", usage=False)]), budget=budget),
        "four words are here",
    )
    assert budget.tokens >= len("four words are here") + 9


def test_a_cached_reply_is_not_asked_for_again(fake_endpoint: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.jsonl"
    server = fake_endpoint.serve([fake_endpoint.say(text) for text in ("one", "two", "three", "four")])
    cache = Cache(path)
    first = ask(client(server, cache=cache))
    assert not first.cached
    assert ask(client(server, cache=cache)).cached
    cache.close()
    again = ask(client(server, cache=Cache(path), budget=Budget(max_requests=0)))
    assert (again.text, again.model, again.cached) == (first.text, first.model, True)
    assert ask(client(server, cache=Cache(path)), temperature=0.5).text == "two"  # something else decides it
    assert ask(client(server, cache=Cache(path)), fresh=True).text == "three"
    assert ask(client(server, cache=Cache(path))).text == "three"  # the newest


def test_a_cache_belongs_to_an_endpoint(fake_endpoint: Any, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.jsonl")
    one, other = (fake_endpoint.serve([fake_endpoint.say(text)]) for text in ("one", "other"))
    assert [ask(client(server, cache=cache)).text for server in (one, other, one)] == ["one", "other", "one"]


def test_failures_are_not_cached(fake_endpoint: Any, tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    server = fake_endpoint.serve([fake_endpoint.refuse(400, "no"), fake_endpoint.say("yes")])
    with pytest.raises(FetchError):
        ask(client(server, cache=Cache(path)))
    assert path.read_bytes() == b""
    assert ask(client(server, cache=Cache(path))).text == "yes"


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(min_value=0, max_value=400))
def test_a_cache_torn_anywhere_can_be_used(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    from llavar.llm import Reply

    path = tmp_path_factory.mktemp("cache") / "c.jsonl"
    reply = Reply(text="a\nb", model="m", prompt_tokens=1, completion_tokens=2, finish="stop", seconds=0.5)
    cache = Cache(path)
    cache.put("k1", reply)
    cache.put("k2", reply)
    cache.close()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut])
    torn = Cache(path)
    kept = [key for key in ("k1", "k2") if torn.get(key)]
    torn.put("k3", reply)
    torn.close()
    again = Cache(path)
    assert [key for key in ("k1", "k2", "k3") if again.get(key)] == [*kept, "k3"]
    again.close()


@pytest.mark.parametrize(
    "content",
    [
        "hello\n",
        '{"question_id": 1}\n',
        '{"key": "k", "reply": {"text": 1}}\n',
        '{"key": "k", "reply": []}\n',
        "[]\n",
    ],
)
def test_another_file_is_not_taken_for_a_cache(tmp_path: Path, content: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="line 1 of .* no entry of a cache"):
        Cache(path)
    assert path.read_text() == content
    with pytest.raises(NotFoundError, match="folder"):
        Cache(tmp_path)


# --- many -----------------------------------------------------------------------------------------------


def test_results_come_as_they_are_done() -> None:
    gate = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            gate.wait(10)
        else:
            gate.set() if item == 5 else None
        return item * item

    found = [(done.index, done.result) for done in many(work, range(6), workers=2)]
    assert found[-1] == (0, 0) or found[-2] == (0, 0)
    assert sorted(found) == [(i, i * i) for i in range(6)]
    assert list(many(work, [])) == []


def test_an_error_belongs_to_its_item() -> None:
    def work(item: int) -> int:
        if item == 1:
            raise FetchError("not this one")
        return item

    found = {done.index: (done.result, str(done.error or "")) for done in many(work, range(3))}
    assert found == {0: (0, ""), 1: (None, "not this one"), 2: (2, "")}


def test_a_spent_budget_ends_the_work_after_what_is_under_way() -> None:
    budget = Budget(max_requests=4)
    results = many(lambda item: budget.take(), range(1000), workers=3)
    assert len([next(results) for _ in range(4)]) == 4
    with pytest.raises(BudgetError):
        next(results)


def test_a_defect_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        list(many(lambda item: 1 // item, [1, 0, 1], workers=1))
    with pytest.raises(ConfigError):
        list(many(str, [1], workers=0))


def test_closing_starts_nothing_more() -> None:
    started: list[int] = []
    gate = threading.Event()

    def work(item: int) -> None:
        started.append(item)
        if item:
            gate.wait(10)

    results = many(work, range(100), workers=2)
    assert next(results).index == 0
    results.close()
    gate.set()
    assert set(started) <= {0, 1, 2}


def test_threads_share_a_client_and_a_cache(fake_endpoint: Any, tmp_path: Path) -> None:
    server = fake_endpoint.serve(lambda asked: fake_endpoint.say(asked.text.upper()))
    cache = Cache(tmp_path / "c.jsonl")
    with client(server, cache=cache) as asker:
        words = [f"word {i}" for i in range(24)]
        found = list(
            many(lambda w: asker.chat([Message(role="user", text=w)], max_tokens=3), words, workers=8)
        )
    assert {done.index: done.result and done.result.text for done in found} == {
        i: word.upper() for i, word in enumerate(words)
    }
    assert len(Cache(tmp_path / "c.jsonl")._replies) == 24
