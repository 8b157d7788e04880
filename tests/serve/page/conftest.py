"""A browser at the page, and servers of canned answers behind it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"serve_page_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


browser = _beside("browser")
page_server = _beside("page_server")


class Page(browser.Browser):
    """A browser that knows its way around the page. The constants are conditions to wait for."""

    READY = "document.body.classList.contains('ready') && document.querySelector('#model-0').value"
    HELD = "!document.querySelector('#filled').hidden"
    LAST = "[...document.querySelectorAll('.answer')].at(-1)"
    ENDED = f"{LAST} && !{LAST}.hasAttribute('aria-busy')"

    def hold(self, path: Path) -> None:
        """Choose a picture."""
        self.choose_file("#file", path)
        self.wait(
            f"{self.HELD} && document.querySelector('#caption').textContent.includes({json.dumps(path.name)})"
        )

    def ask(self, question: str, *, until: str = ENDED) -> None:
        count = self.js("document.querySelectorAll('.turn').length")
        self.js("document.querySelector('#question').focus()")
        self.type(question)
        self.press("Enter")
        self.wait(f"document.querySelectorAll('.turn').length === {count + 1} && {until}")

    def text(self, selector: str) -> str:
        """Of the last such element."""
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1)?.textContent ?? ''")

    def opened(self, dialog: str, focus: str = "") -> None:
        """A dialog stands still, and what has the focus in it is settled."""
        box = f"document.querySelector('#{dialog}').shadowRoot.querySelector('dialog')"
        self.wait(f"{box}.open && !{box}.getAnimations().length && getComputedStyle({box}).opacity === '1'")
        if focus:
            self.wait(f"document.activeElement.id === '{focus}'")

    def forget(self, url: str) -> None:
        """Takes what was asked of another server, as it was meant, out of what the page is checked for."""
        self.js("0")
        self.events = [event for event in self.events if url not in json.dumps(event)]


class Servers:
    """Starts servers, and stops them all."""

    def __init__(self) -> None:
        self._started: list[Any] = []

    def start(self, *arguments: Any, **options: Any) -> Any:
        self._started.append(page_server.PageServer(*arguments, **options))
        return self._started[-1]

    def close(self) -> None:
        for one in self._started:
            one.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = browser.find()
    if not program:
        pytest.skip("no Chromium is installed; on Debian and Ubuntu: apt-get install chromium")
    running = Page(program, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    started = Servers()
    yield started
    started.close()


@pytest.fixture
def server(servers: Servers) -> Any:
    return servers.start()


@pytest.fixture
def page(chromium: Page, server: Any) -> Iterator[Page]:
    """The page, freshly opened; afterwards it must not have complained, nor asked anyone else."""
    chromium.size(1280, 860)
    chromium.colours("light")
    chromium.open(server.url + "/")
    chromium.wait(chromium.READY)
    yield chromium
    refused = [one for one in chromium.complaints() if "status of 4" not in one]
    assert refused == []
    assert [url for url in chromium.requests() if not url.startswith((server.url, "blob:", "data:"))] == []


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    path = tmp_path / "sign.png"
    Image.new("RGB", (120, 80), (10, 120, 200)).save(path)
    return path
