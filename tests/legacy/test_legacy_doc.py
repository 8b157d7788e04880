"""docs/legacy.md names every command and flag that the code has, and no other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from llavar import legacy
from llavar.errors import ConfigError
from llavar.legacy import answers, deltas, flags, training

PAGE = Path(__file__).resolve().parents[2] / "docs" / "legacy.md"
ROW = re.compile(r"^\| `--([\w-]+)` \|", re.MULTILINE)


def documented(heading: str) -> list[str]:
    """The flags in the table below a heading, in order."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")[2]
    return ROW.findall(re.split(r"^##+ ", text, maxsplit=1, flags=re.MULTILINE)[0])


def given(monkeypatch: pytest.MonkeyPatch, module: object, command: str) -> list[str]:
    """The flags that a command reads."""
    seen: list[str] = []

    def parse(_command: str, known: Sequence[flags.Flag], _argv: Sequence[str], *, about: str) -> None:
        assert about
        seen.extend(flag.name for flag in known)
        raise ConfigError("seen")

    monkeypatch.setattr(module, "parse", parse)
    with pytest.raises(ConfigError, match="seen"):
        getattr(module, command)([])
    return seen


@pytest.mark.parametrize(
    ("module", "command", "heading"),
    [
        (training, "train_mem", "train_mem"),
        (answers, "model_vqa", "model_vqa"),
        (answers, "run_llava", "run_llava"),
        (deltas, "make_delta", "apply_delta, make_delta"),
    ],
)
def test_every_flag_is_documented(
    monkeypatch: pytest.MonkeyPatch, module: object, command: str, heading: str
) -> None:
    found = documented(heading)
    assert sorted(found) == sorted(given(monkeypatch, module, command))
    assert len(found) == len(set(found))


def test_flags_of_apply_delta_are_among_those_of_make_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    names = given(monkeypatch, deltas, "apply_delta")
    assert set(names) < set(documented("apply_delta, make_delta"))


def test_every_command_is_documented() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for name in ("train_mem", "model_vqa", "run_llava", "apply_delta", "make_delta"):
        assert f"llavar legacy {name} " in text
    for name, today in legacy.ELSEWHERE.items():
        assert f"`{name}`" in text
        assert " ".join(today.split()[:3]).removesuffix(" MODEL") in text
