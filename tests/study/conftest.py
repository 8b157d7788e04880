"""Small evaluations, made by the code that makes large ones, with a scripted model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavar.errors import ImageError
from llavar.generate.base import Request
from llavar.study import evaluation

COLOURS = ("red", "green", "blue", "orange", "teal", "pink")


@dataclass
class Parrot:
    """Says what the replies hold for a question's wording; None fails."""

    replies: Mapping[str, str | None]
    name: str = "parrot"
    about: Mapping[str, str] = field(default_factory=lambda: {"transform": "pad"})

    def answer(self, requests: Sequence[Request]) -> list[str]:
        said = [self.replies[request.question] for request in requests]
        if None in said:
            raise ImageError("the picture hurts")
        return [text for text in said if text is not None]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two questions about each of six pictures (``folder``), and MME's OCR with two pictures."""
    folder = tmp_path / "data"
    ocr = folder / "MME" / "OCR"
    ocr.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (64, 48), colour).save(folder / f"{number}.png")
        for kind in ("first", "last"):
            asked = f"Which is the {kind} word of {number}?"
            rows.append({"id": f"{kind}-{number}", "image": f"{number}.png", "question": asked})
            rows[-1] |= {"answers": [colour, f"dark {colour}"], "category": kind}
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(2):
        Image.new("RGB", (64, 48), "grey").save(ocr / f"{number}.png")
        (ocr / f"{number}.txt").write_text(f"Is it {number}?\tYes\nIs {number} absent?\tNo\n")
    return folder


@pytest.fixture
def made_run(data: Path) -> Callable[..., Path]:
    """Makes a run: ``wrong`` (a reply by wording, None for one that fails) over right answers."""

    def make(name: str, wrong: Mapping[str, str | None] | None = None, **settings: Any) -> Path:
        replies: dict[str, str | None] = {f"Is it {n}?": "Yes" for n in range(2)}
        replies |= {f"Is {n} absent?": "No" for n in range(2)}
        for number, colour in enumerate(COLOURS):
            for kind in ("first", "last"):
                replies[f"Which is the {kind} word of {number}?"] = colour
        chosen = evaluation.Settings(
            model="m", data=data, out=data.parent / name, **{"tasks": ("folder", "mme-ocr"), **settings}
        )
        evaluation.run(chosen, generator=Parrot(replies | (wrong or {})), stream=io.StringIO())
        return chosen.out

    return make
