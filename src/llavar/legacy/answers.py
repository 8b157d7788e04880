"""``model_vqa`` and ``run_llava`` of the original (``llava/eval/``)."""

from __future__ import annotations

import json
import math
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.generate.base import Decoding, Request
from llavar.generate.local import LocalGenerator
from llavar.images import Transform
from llavar.legacy.flags import Arguments, Flag, Kind, parse, show
from llavar.legacy.prepare import Wanted, cached
from llavar.study.reader import open_any

_MODEL = Flag(
    name="model-name", today="--model: a checkpoint of the original is converted into a cache first"
)
_CONVERSATION = Flag(name="conv-mode", today="--conversation (without it: the checkpoint's own)")
_PROJECTOR = Flag(name="mm-projector", default="", today="a projector's file; --model-name is its LLaMA then")
_TOWER = Flag(name="vision-tower", default="", today="the tower of a checkpoint that does not bring its own")

_ASKED = (_MODEL, Flag(name="image-file", today="IMAGE_OR_URL"), Flag(name="query", today="QUESTION"))
_LISTED = (
    _MODEL,
    Flag(name="image-folder", default="", today="--data; COCO_val2014_ is put before names with 000"),
    Flag(name="question-file", default="tables/question.jsonl", today="questions, one JSON object a line"),
    Flag(name="answers-file", default="answer.jsonl", today="answers, in LLaVA's format"),
    _PROJECTOR,
    _TOWER,
    replace(_CONVERSATION, default="llava_v1"),
    Flag(name="num-chunks", kind=Kind.WHOLE, default=1, today="takes every n-th part of the questions"),
    Flag(name="chunk-idx", kind=Kind.WHOLE, default=0, today="which of the parts, from 0"),
)

_LONGEST = 1024
"""Tokens of an answer, if the model takes that many after the question."""
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A row of a question file, and how its picture was made square by the original."""

    id: object
    text: str
    image: Path | None
    transform: Transform


def run_llava(argv: Sequence[str]) -> int:
    """One question about one picture; the answer alone goes to the standard output.

    The picture as the original took it: aspect kept, black below or to the right (``fit``); temperature 0.2.
    """
    flags = (*_ASKED, _CONVERSATION, _PROJECTOR, _TOWER)
    given = parse("run_llava", flags, argv, about="Ask one question about one picture.")
    image, query = given.required("image-file"), given.required("query")
    today = f"llavar ask {image} {query!r} --model MODEL  (greedy; MODEL as converted below, if it is)"
    show("run_llava", [*given.mapping(), "temperature 0.2, seed 0; picture after the question"], today)
    picture = open_any(image)
    generator = _load(given).with_transform(Transform.FIT)
    request = Request(image=picture, question=query, decoding=Decoding(temperature=0.2), image_first=False)
    print(generator.answer([_fitting(generator, request)])[0])
    return 0


def model_vqa(argv: Sequence[str]) -> int:
    """Answer a file of questions into a file of answers in LLaVA's format; temperature 0.7, seed 0."""
    given = parse("model_vqa", _LISTED, argv, about="Answer a file of questions.")
    name, out = given.required("model-name"), Path(given.required("answers-file"))
    questions = list(_questions(given))
    mine = _chunk(questions, given.whole("num-chunks"), given.whole("chunk-idx"))
    show("model_vqa", [*given.mapping(), "temperature 0.7, seed 0; picture after the question"])
    generator = _load(given)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as file:
        for start in range(0, len(mine), _BATCH):
            for row in _answered(generator, mine[start : start + _BATCH], name):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            print(f"{min(start + _BATCH, len(mine))}/{len(mine)} answered", file=sys.stderr)
    return 0


def _load(given: Arguments) -> LocalGenerator:
    wanted = Wanted(
        model=given.required("model-name"),
        vision_tower=given.text("vision-tower"),
        projector=given.text("mm-projector"),
        conversation=given.text("conv-mode"),
    )
    model = cached(wanted, lambda line: print(line, file=sys.stderr))
    return LocalGenerator.load(model, name=wanted.model, template=wanted.conversation)


def _fitting(generator: LocalGenerator, request: Request) -> Request:
    """``request`` with as long an answer as the model takes, as the original's generation did."""
    return replace(request, max_new_tokens=max(1, min(_LONGEST, generator.room(request))))


def _answered(generator: LocalGenerator, asked: Sequence[_Asked], model: str) -> Iterator[dict[str, object]]:
    """A row for each question, in their order; equal transforms go through the model together."""
    texts: dict[int, str] = {}
    for transform in dict.fromkeys(one.transform for one in asked):
        places = [place for place, one in enumerate(asked) if one.transform is transform]
        requests = [
            _fitting(
                generator,
                Request(
                    image=asked[place].image,
                    question=asked[place].text,
                    decoding=Decoding(temperature=0.7),
                    image_first=False,
                    id=str(asked[place].id),
                ),
            )
            for place in places
        ]
        texts |= dict(zip(places, generator.with_transform(transform).answer(requests), strict=True))
    for place, one in enumerate(asked):
        yield {
            "question_id": one.id,
            "prompt": one.text,
            "text": texts[place],
            "answer_id": uuid.uuid4().hex[:22],
            "model_id": model,
            "metadata": {},
        }


def _questions(given: Arguments) -> Iterator[_Asked]:
    path = Path(given.text("question-file"))
    folder = Path(given.text("image-folder"))
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise NotFoundError(f"there is no question file {path}; give --question-file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); give a JSONL file in UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _question(line, folder, f"line {number} of {path}")


def _question(line: str, folder: Path, where: str) -> _Asked:
    try:
        row: Any = json.loads(line)
        image, text = row.get("image"), row["text"]
        name = str(row["question_id"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise DataError(f"{where} is no question; it needs question_id, image and text") from None
    if not isinstance(text, str) or not (image is None or isinstance(image, str)):
        raise DataError(f"{where} has a text or an image that is no text; give both as strings")
    identity = row["question_id"] if isinstance(row["question_id"], int) else name
    if image is None:
        return _Asked(id=identity, text=text, image=None, transform=Transform.FIT)
    # The original's rule: twelve-digit names are COCO's, shown as CLIP does; all others whole, on black.
    coco = "000" in image
    picture = folder / (f"COCO_val2014_{image}" if coco else image)
    if not picture.is_file() and (folder / image).is_file():
        picture = folder / image
    return _Asked(id=identity, text=text, image=picture, transform=Transform.CROP if coco else Transform.FIT)


def _chunk(questions: Sequence[_Asked], count: int, index: int) -> Sequence[_Asked]:
    """Part ``index`` of ``count`` of about equal length, as the original divided them."""
    if count < 1 or not 0 <= index < count:
        raise ConfigError(
            f"--chunk-idx {index} of --num-chunks {count}: give an index from 0 below the number"
        )
    size = max(1, math.ceil(len(questions) / count))
    return questions[index * size : (index + 1) * size]
