"""More requests than a server takes: who is answered, who is refused, and how wrong answers would be noticed.

Seconds of it; ``benchmarks/serve_load.py`` does it for minutes with a model, and kills it.
"""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest

from llavar.serve.desk import Desk
from llavar.serve.refusals import Refusal
from llavar.serve.settings import Settings

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module ``benchmarks/serve_load.py``."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serve_load")


def asked(load: Any, png: str) -> list[Any]:
    return [load.Question(text=f"one two {number}", picture=png) for number in range(5)]


def test_more_than_a_server_takes(live: Any, fakes: Any, load: Any, png: str) -> None:
    """Every answer is the right one, and everybody else is told to come again."""
    model = fakes.FakeModel("nano", slots=2, may_wait=2)
    port = int(live(model).url.rpartition(":")[2])
    material = load.prepared(port, asked(load, png))
    assert material.right == tuple(f"one two {number} [6x4]" for number in range(5))
    rate, calm = asyncio.run(load.closed_loop(port, material, 2, 0.2))
    assert rate > 0
    assert set(calm.seen) == {"right"}
    tally, model.gate = load.Tally(), type(model.gate)()  # nobody is answered until all have asked

    async def story() -> None:
        loading = asyncio.create_task(load.open_loop(port, material, 500, 0.3, tally, asyncio.Event()))
        while not tally.seen["busy"]:
            await asyncio.sleep(0.01)
        model.gate.set()
        await loading

    asyncio.run(story())
    assert set(tally.seen) == {"right", "busy"}
    assert sum(tally.seen.values()) == tally.asked
    assert not tally.faults
    assert model.idle.wait(10)


@pytest.mark.parametrize("wrong", ["mixed up", "shorter"])
def test_wrong_answers_are_noticed(live: Any, fakes: Any, load: Any, png: str, wrong: str) -> None:
    model = fakes.FakeModel("nano")
    port = int(live(model).url.rpartition(":")[2])
    material = load.prepared(port, asked(load, png))
    model.script = lambda one: fakes.echo(one)[:-1] if wrong == "shorter" else ["somebody", "else"]
    _, tally = asyncio.run(load.closed_loop(port, material, 1, 0.05))
    assert set(tally.seen) == {"wrong"}
    assert "not 'one two" in tally.faults[0]
    assert len(tally.faults) == tally.seen["wrong"]


def test_an_answer_that_fails_in_the_middle_never_looks_finished(
    live: Any, fakes: Any, load: Any, png: str
) -> None:
    model = fakes.FakeModel("nano")
    port = int(live(model).url.rpartition(":")[2])
    material = load.prepared(port, asked(load, png)[:1])
    model.fails = load_error()
    for raw in material.bodies[0]:
        said = asyncio.run(load.talk(port, raw))
        assert load.kind_of(said, material.right[0]) in ("cut short, and seen to be", "odd")
        assert load.answer_of(said.heard[0]) is None


def load_error() -> Exception:
    from llavar.errors import ModelError

    return ModelError("out of memory")


STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENT = b'data: {"choices": [{"delta": {"content": "yes"}, "finish_reason": %s}]}\n\n'


def chunked(*parts: bytes, end: bool = True) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, *([b""] if end else [])))


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "closed without a response"),
        (b"HTTP/1.1 20", "cut short, and seen to be"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "cut short, and seen to be"),
        (b"HTTP/1.1 429 Busy\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}", "busy"),
        (b"HTTP/1.1 429 Busy\r\ncontent-length: 2\r\n\r\n{}", "odd"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}", "odd"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\n{}", "unavailable"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n" * 2, "odd"),
        (STREAM + chunked(EVENT % b"null", EVENT % b'"stop"', b"data: [DONE]\n\n"), "wrong"),
        (STREAM + chunked(EVENT % b'"stop"', b"data: [DONE]\n\n"), "right"),
        (STREAM + chunked(EVENT % b'"stop"', b"data: [DONE]\n\n", end=False), "cut short, and seen to be"),
        (STREAM + chunked(EVENT % b'"stop"'), "cut short, and seen to be"),
        (STREAM + chunked(EVENT % b"null", b"data: [DONE]\n\n"), "cut short, and seen to be"),
        (STREAM + chunked(b'data: {"error": {}}\n\n', b"data: [DONE]\n\n"), "cut short, and seen to be"),
        (STREAM + b"f\r\ndata", "cut short, and seen to be"),
    ],
)
def test_what_a_client_takes_a_response_for(load: Any, raw: bytes, kind: str) -> None:
    client = importlib.import_module("serve_child")
    assert load.kind_of(client.Talk(raw=raw, heard=client.responses(raw)), "yes") == kind


def test_verdicts(load: Any) -> None:
    assert load.slowest([float(second) for second in range(101)]) == 1
    assert load.slowest([at / 2 for at in range(100)] + [50.0 + at / 8 for at in range(400)]) == 2
    assert load.slowest([1.0, 2.0, 3.0, 5.0]) == 1
    usage = importlib.import_module("serve_child").Usage
    flat = [
        (second, usage(megabytes=100 + (second < 10) * second, threads=1, files=1)) for second in range(60)
    ]
    assert load.slope(flat) == 0
    rising = [(second, usage(megabytes=second / 6, threads=1, files=1)) for second in range(60)]
    assert load.slope(rising) == pytest.approx(10)
    good = load.Tally(seconds=[1.0] * 99 + [1.5])
    good.seen.update(right=100, busy=50)
    assert load.judged(good, 1.0, 0.0, True) == []
    bad = load.Tally(seconds=[1.0] * 90 + [9.0] * 10, faults=["wrong answer"])
    bad.seen.update(right=100, silence=1)
    assert len(load.judged(bad, 1.0, 10.0, True)) == 5


def test_no_more_requests_are_in_hand_than_run_and_wait(fakes: Any) -> None:
    """So that nobody waits outside of the queue, with pictures open."""
    desk = Desk({"one": fakes.FakeModel(slots=1, may_wait=1)}, Settings(), None)  # pyright: ignore
    with desk.turn(), desk.turn():
        with pytest.raises(Refusal, match="2 requests are in hand") as caught, desk.turn():
            pass
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
    with pytest.raises(ZeroDivisionError), desk.turn():
        _ = 1 / 0
    with desk.turn(), desk.turn():
        pass


@pytest.mark.parametrize("n", [17, 2**31, 2**62, 10**4000])
def test_no_memory_is_taken_for_more_answers_than_are_given(door: Any, n: int) -> None:
    answer = door().chat("one two", n=n)
    assert answer.status_code == 400
    assert f"n is {n if n < 2**63 else 'enormous'}; at most 16" in answer.json()["error"]["message"]
