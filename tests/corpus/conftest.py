"""Fixtures of the corpus tests."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of fake engines under a name that worker processes can import as well."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("fake_engines")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of stages for tests of the runner, likewise."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("runner_stages")


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where those stages leave a line for each item that they compute."""
    path = tmp_path / "trace"
    monkeypatch.setenv("RUNNER_TRACE", str(path))
    return path


@pytest.fixture
def blank(tmp_path: Path) -> Callable[..., Path]:
    """Makes a white picture of a given width; the fake engines behave by it."""

    def make(width: int, name: str | None = None, height: int = 30) -> Path:
        path = tmp_path / "pictures" / (name or f"{width}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), "white").save(path)
        return path

    return make
