"""Servers in front of models that answer by a script."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from llavar.errors import LlavarError
from llavar.serve import run
from llavar.serve.api import build
from llavar.serve.settings import Settings


@pytest.fixture(scope="session")
def fakes() -> Any:
    """The module with the model that answers by a script (``fake_model.py``)."""
    spec = importlib.util.spec_from_file_location(
        "tests_serve_fake_model", Path(__file__).with_name("fake_model.py")
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def png() -> str:
    """A picture of 6 x 4 pixels as a data URL."""
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (200, 30, 30)).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Door:
    """Asks an application without a network, one request at a time."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def chat(self, *messages: Any, **options: Any) -> httpx.Response:
        """A request for an answer; a text is a message of the user."""
        said = [{"role": "user", "content": text} if isinstance(text, str) else text for text in messages]
        return self("POST", "/v1/chat/completions", json={"messages": said, **options})


@pytest.fixture
def door(fakes: Any) -> Iterator[Any]:
    """Makes doors: ``door(model, model, max_n=2)``; without models, one that echoes."""
    made: list[Any] = []

    def make(*models: Any, **settings: Any) -> Door:
        models = models or (fakes.FakeModel(),)
        made.extend(models)
        return Door(build({model.name: model for model in models}, Settings(**settings)))

    yield make
    for model in made:
        model.close(0)


class Live:
    """A real server on a free port of loopback, in a thread."""

    def __init__(
        self, models: dict[str, Any], settings: Settings, *, grace: float = 5.0, load: Any = None
    ) -> None:
        address = run.resolve("127.0.0.1", 0)
        listener = run.bind(address)
        self.url = run.url_of(address, listener)
        self.ready = threading.Event()
        self.failure: Exception | None = None
        served: dict[str, Any] = {}
        self.server = run.Server(build(served, settings), served, grace=grace)
        self._thread = threading.Thread(
            target=self._answer, args=(listener, load or (lambda: models)), name="live server"
        )
        self._thread.start()

    def _answer(self, listener: Any, load: Any) -> None:
        try:
            self.server.answer(listener, load, self.ready.set)
        except LlavarError as error:
            self.failure = error

    def stop(self) -> None:
        self.server.stop()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def live(fakes: Any) -> Iterator[Any]:
    """Makes servers: ``live(model, timeout=1)``, ready when it returns unless there is a ``load``."""
    made: list[Live] = []

    def make(*models: Any, grace: float = 5.0, load: Any = None, **settings: Any) -> Live:
        named = {model.name: model for model in models}
        server = Live(named, Settings(**({"names": tuple(named)} | settings)), grace=grace, load=load)
        made.append(server)
        if load is None:
            assert server.ready.wait(20)
        return server

    yield make
    for server in made:
        server.stop()
    for server in made:
        server.join()
