"""Fixtures that every test may use."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    # A shell starts background jobs with SIGINT ignored, and tests interrupt themselves and their children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public files and recorded outputs of the original code, which do not travel with the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the recorded outputs of the original code are not at {folder}")
    return folder


@pytest.fixture
def fake_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes scripted servers of chat completions (see ``fake_endpoint.py``) and stops them afterwards."""
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    farm = importlib.import_module("fake_endpoint").Farm()
    yield farm
    farm.close()


@pytest.fixture(scope="session")
def tiny_sentencepiece() -> bytes:
    """A small ``tokenizer.model``, trained here."""
    return _beside("original_layout").sentencepiece_model()


@pytest.fixture
def originals() -> Any:
    """The module that writes small random checkpoints of the original (``original_layout.py``)."""
    return _beside("original_layout")


def _beside(name: str) -> Any:
    """A module of this folder, imported once."""
    full = f"tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, ROOT / "tests" / f"{name}.py")
        assert spec
        assert spec.loader
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture(scope="session")
def families() -> Any:
    """The module that writes small random decoders and towers (``families.py``)."""
    return _beside("families")


@pytest.fixture(scope="session")
def hub_models() -> Any:
    """The module that writes small random image-text-to-text models (``hub_models.py``)."""
    return _beside("hub_models")
