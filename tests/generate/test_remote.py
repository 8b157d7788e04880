"""Questions to a scripted endpoint: what goes over the wire, and what comes back."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llavar.errors import ConfigError, FetchError, ImageError, NotFoundError
from llavar.generate.base import Decoding, Request, Streaming, request_seed
from llavar.generate.remote import RemoteGenerator, png_uri
from llavar.llm import Client, Endpoint


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


Make = Callable[..., RemoteGenerator]


@pytest.fixture
def remote() -> Iterator[Make]:
    """Makes generators for scripted servers, and closes their connections afterwards."""
    with ExitStack() as open_ones:

        def make(server: Any, workers: int = 4) -> RemoteGenerator:
            endpoint = Endpoint(base_url=server.url, model="reader", attempts=1)
            return RemoteGenerator(open_ones.enter_context(Client(endpoint)), workers=workers)

        yield make


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def parts(asked: Any) -> list[dict[str, Any]]:
    return asked.body["messages"][0]["content"]


@pytest.mark.parametrize("first", [True, False])
def test_pictures_go_as_they_are_and_where_they_are_wanted(
    remote: Make, fake_endpoint: Any, picture: Path, first: bool
) -> None:
    server = fake_endpoint.serve([fake_endpoint.say(" a sign\n")])
    request = Request(image=picture, question="What?", max_new_tokens=5, image_first=first)
    assert remote(server).answer([request]) == ["a sign"]
    (asked,) = server.requests
    assert [part["type"] for part in parts(asked)] == (
        ["image_url", "text"] if first else ["text", "image_url"]
    )
    (uri,) = (part["image_url"]["url"] for part in parts(asked) if part["type"] == "image_url")
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent, Image.open(picture) as own:
        assert np.array_equal(np.asarray(sent), np.asarray(own))
    assert asked.body["max_tokens"] == 5
    assert asked.body["temperature"] == 0
    assert "seed" not in asked.body
    assert asked.body["model"] == "reader"


def test_sampling_sends_a_seed_of_its_own_for_each_question(remote: Make, fake_endpoint: Any) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("x")])
    drawn = Decoding(temperature=0.9, top_p=0.5, seed=7)
    requests = [Request(image=None, question=f"q{i}", decoding=drawn) for i in range(2)]
    remote(server, workers=1).answer(requests)
    bodies = [asked.body for asked in server.requests]
    assert [body["seed"] for body in bodies] == [request_seed(request) for request in requests]
    assert {(body["temperature"], body["top_p"]) for body in bodies} == {(0.9, 0.5)}
    assert bodies[0]["messages"][0]["content"] == "q0"


def test_answers_come_in_the_order_of_the_requests(remote: Make, fake_endpoint: Any) -> None:
    server = fake_endpoint.serve(lambda asked: fake_endpoint.say(asked.text.upper()))
    requests = [Request(image=None, question=f"q{i}") for i in range(20)]
    assert remote(server).answer(requests) == [f"Q{i}" for i in range(20)]


def test_requests_run_side_by_side(remote: Make, fake_endpoint: Any) -> None:
    barrier = threading.Barrier(3, timeout=20)

    def together(asked: Any) -> Any:
        barrier.wait()
        return fake_endpoint.say("x")

    requests = [Request(image=None, question=f"q{i}") for i in range(3)]
    assert remote(fake_endpoint.serve(together), workers=3).answer(requests) == ["x"] * 3


def test_failures_are_outcomes_of_their_own(
    remote: Make, fake_endpoint: Any, picture: Path, tmp_path: Path
) -> None:
    def script(asked: Any) -> Any:
        if asked.text == "bad":
            return fake_endpoint.refuse(400, "too long")
        return fake_endpoint.say("fine")

    (tmp_path / "text.png").write_text("no picture")
    requests = [
        Request(image=picture, question="good"),
        Request(image=picture, question="bad"),
        Request(image=tmp_path / "absent.png", question="good"),
        Request(image=tmp_path / "text.png", question="good"),
    ]
    generator = remote(fake_endpoint.serve(script))
    assert isinstance(generator, Streaming)
    outcomes = sorted(generator.stream(requests), key=lambda outcome: outcome.index)
    assert [outcome.text for outcome in outcomes] == ["fine", "", "", ""]
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None), FetchError, NotFoundError, ImageError
    ]  # fmt: skip
    assert "too long" in str(outcomes[1].error)
    with pytest.raises(FetchError, match="too long"):
        generator.answer(requests[:2])


def test_what_is_recorded(remote: Make, fake_endpoint: Any) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("x")])
    generator = remote(server)
    assert generator.name == f"{server.url}#reader"
    assert generator.about["transform"] == "server's own"
    with pytest.raises(ConfigError, match="0 requests at a time"):
        remote(server, workers=0)


def test_a_picture_is_encoded_once_for_its_questions(
    remote: Make, fake_endpoint: Any, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr("llavar.generate.remote.png_uri", lambda image: made.append(image) or png_uri(image))
    server = fake_endpoint.serve([fake_endpoint.say("x")])
    remote(server, workers=1).answer([Request(image=picture, question=f"q{i}") for i in range(5)])
    assert len(server.requests) == 5
    assert len(made) == 1


def test_pictures_that_are_open_and_turned() -> None:
    grey = Image.new("L", (3, 2), 9)
    data = base64.b64decode(png_uri(grey).partition(",")[2])
    with Image.open(io.BytesIO(data)) as sent:
        assert (sent.mode, sent.size) == ("RGB", (3, 2))
