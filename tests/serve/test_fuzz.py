"""Bad requests of every kind to a real server, and requests made from the OpenAPI document.

A few hundred; ``benchmarks/serve_fuzz.py`` sends ten thousand to a model.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
KEY = "sk-of-the-tests"
EACH = 8


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module ``benchmarks/serve_fuzz.py``."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serve_fuzz")


def bad_requests(fuzz: Any, png: str) -> Any:
    data = base64.b64decode(png.partition(",")[2])
    return fuzz.Bad(5, key=KEY, picture=data, most_bytes=2**20, side=500, pause=0.02)


def measured(url: str) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {KEY}"}
    found: Counter[str] = Counter()
    for line in httpx.get(f"{url}/metrics", headers=headers, trust_env=False).text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0]] += float(value)
    return found


def test_bad_requests_get_a_sentence_and_leave_nothing(
    live: Any, fakes: Any, fuzz: Any, png: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = fakes.FakeModel("nano", slots=16, may_wait=64, max_tokens=500)
    server = live(model, keys=(KEY,), domains=("localhost", "127.0.0.1", "::1"), max_body_bytes=2**20)
    port = int(server.url.rpartition(":")[2])
    bad, found = bad_requests(fuzz, png), fuzz.Found()
    asked = fuzz.Question(text="one two", picture=png)
    assert fuzz.proper(port, asked, KEY) == "one two [6x4]"
    cases = [family() for family in bad.families.values() for _ in range(EACH)]
    asyncio.run(fuzz.send(port, cases, found, seconds=30))
    assert not found.faults
    assert (found.sent, len(found.statuses)) == (len(cases), len(bad.families))
    assert model.idle.wait(10)
    assert fuzz.proper(port, asked, KEY) == "one two [6x4]"
    server.stop()
    server.join()  # no request is in hand any more
    assert model.open == 0
    for secret in (fuzz.CANARY, KEY, "Traceback"):
        assert secret not in caplog.text


def test_a_body_that_is_no_http_is_refused_once(
    live: Any, fakes: Any, fuzz: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """While the application refuses the request for its key, the server refuses its body."""
    port = int(live(fakes.FakeModel(), keys=(KEY,)).url.rpartition(":")[2])
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for chunk in (b"zz\r\n", b"-5\r\n", b"fffffffffffffffffffff\r\n{}"):
        said = asyncio.run(fuzz.talk(port, head + chunk, end="half", seconds=20))
        assert [one.status for one in said.heard] == [400] or [one.status for one in said.heard] == [401]
    for word in ("Traceback", "Exception in ASGI", " failed: "):
        assert word not in caplog.text


def test_places_are_given_back(live: Any, fakes: Any, fuzz: Any, png: str) -> None:
    """Clients that leave in all ways, more of them than there are places."""
    model = fakes.FakeModel("nano", slots=1, may_wait=1, max_tokens=1000, script=lambda asked: ["word"] * 400)
    server = live(model, keys=(KEY,), open_requests=2)
    port = int(server.url.rpartition(":")[2])
    bad, found = bad_requests(fuzz, png), fuzz.Found()
    families = (bad.families["clients_that_leave"], bad.families["cut_bodies"], bad.families["slow_clients"])
    asyncio.run(fuzz.send(port, [family() for family in families for _ in range(15)], found, seconds=30))
    assert not found.faults
    assert model.idle.wait(10)
    model.script = fakes.echo
    asked = fuzz.Question(text="one two", picture=png)
    for _ in range(1000):  # the last ones are still being noticed
        if not measured(server.url)["llavar_requests_open"]:
            break
    assert fuzz.proper(port, asked, KEY) == "one two [6x4]"


def test_what_counts_as_a_fault(fuzz: Any) -> None:
    case = fuzz.Case(family="x", parts=(b"",))
    lenient = fuzz.Case(family="x", parts=(b"",), may_pass=True, may_be_silent=True)
    json = {"content-type": "application/json"}

    def heard(status: int, body: bytes, whole: bool = True) -> Any:
        return fuzz.Talk(heard=[fuzz.Heard(status=status, headers=json, body=body, whole=whole)])

    def said(talk: Any, case: Any = case) -> str:
        return " / ".join(fuzz.faults(case, talk))

    sentence = b'{"error": {"message": "no"}}'
    assert not said(heard(400, sentence))
    assert not said(heard(200, b"{}"), lenient)
    assert not said(fuzz.Talk(), lenient)
    assert "status 500" in said(heard(500, sentence), lenient)
    assert "status 200" in said(heard(200, b"{}"))
    assert "status 0" in said(heard(0, b"HTT"), lenient)
    assert "no response" in said(fuzz.Talk(failure="ConnectionResetError"))
    assert "no end" in said(fuzz.Talk(failure="silence"), lenient)
    assert "no sentence" in said(heard(400, b'{"error": {"message": ""}}'))
    assert "no sentence" in said(heard(400, b'{"error": {"message": "Traceback (most recent"}}'))
    assert "half a response" in said(heard(400, sentence, whole=False))
    assert "a file" in said(fuzz.Talk(heard=heard(400, sentence).heard, raw=b"root:x:0:0"))
    assert "2 responses" in said(fuzz.Talk(heard=heard(200, b"").heard * 2), lenient)


def test_leaks_are_found(fuzz: Any) -> None:
    def usage(megabytes: float, threads: int, files: int) -> Any:
        return fuzz.Usage(megabytes=megabytes, threads=threads, files=files)

    before = usage(100, 10, 10)
    assert not list(fuzz.leaks(before, usage(150, 11, 9)))
    assert len(list(fuzz.leaks(before, usage(500, 20, 30)))) == 3


def test_responses_are_what_the_openapi_document_says(door: Any, fakes: Any) -> None:
    """Requests that schemathesis makes from the document, right ones and wrong ones."""
    app = door(fakes.FakeModel(max_tokens=400), keys=(KEY,)).app
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checks = schemathesis.checks
    wanted = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    few = settings(
        max_examples=6,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seen: Counter[str] = Counter()

    def check(case: Any) -> None:
        case.call_and_validate(checks=wanted, headers={"Authorization": f"Bearer {KEY}"})
        seen[case.operation.path] += 1

    for operation in (result.ok() for result in schema.get_all_operations()):
        few(given(case=operation.as_strategy())(check))()
        if operation.method == "post":  # with the others nothing can be wrong
            spoiled = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
            few(given(case=spoiled)(check))()
    assert seen["/v1/chat/completions"] > 6
    assert len(seen) >= 5
