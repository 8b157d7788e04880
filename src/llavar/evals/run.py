"""Ask a model every question, and keep each answer on disk as it comes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llavar.errors import ConfigError, DataError, ImageError, LlavarError, ModelError, NotFoundError
from llavar.evals.exam import PairedReport, compare, is_right, summarise
from llavar.evals.journal import Journal, write_predictions
from llavar.generate.base import Decoding, Generator, Request, Streaming, fingerprint
from llavar.records import Prediction, Question, Status

__all__ = [
    "Asking",
    "PairedReport",
    "Verified",
    "compare",
    "evaluate",
    "is_right",
    "summarise",
    "verify",
]

Progress = Callable[[int, int], None]
"""Called with (questions done, questions in all), first with what an earlier run left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How questions are put, apart from the model: all of it decides the answers and is recorded with them.

    ``suffix`` is put on a line of its own after every question. ``delete_newlines`` takes line breaks out of
    the replies, as the original's MME script does.
    """

    max_new_tokens: int = 128
    decoding: Decoding = field(default_factory=Decoding)
    image_first: bool = True
    suffix: str = ""
    delete_newlines: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; an answer needs at least 1")

    def question(self, text: str) -> str:
        """The words that the model is asked."""
        return f"{text}\n{self.suffix}" if self.suffix else text


def evaluate(
    generator: Generator,
    questions: Sequence[Question],
    *,
    image_root: Path,
    out: Path,
    batch_size: int = 16,
    max_new_tokens: int = 128,
    asking: Asking | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    kept: Path | None = None,
) -> tuple[Prediction, ...]:
    """The model's predictions in the order of the questions, which are also appended to ``out`` (JSON lines).

    Questions on one picture are asked one after another, so that a generator encodes it once. An earlier
    run's answers in ``out`` are kept if they answer the same thing: same question id, wording, picture
    bytes, way of asking, generator name and what that says about itself. Failed ones are asked again; answers
    to something else stay in the file and are not used (``say`` is told). What cannot be answered (a
    :class:`LlavarError` or ``OSError``) is recorded as failed with its message; any other exception is a
    defect and passes through, with everything answered so far on disk.

    Args:
        asking: how the questions are put; by default greedily with ``max_new_tokens``.
        kept: a file for the predictions that are returned, written anew once all questions were asked.

    Raises:
        DataError: doubled ids, pictures outside ``image_root``, ``out`` is no journal or another run's.
        ModelError: the generator returns another number of answers than asked.
    """
    if batch_size < 1:
        raise DataError(f"batch size {batch_size} is below 1")
    how = asking or Asking(max_new_tokens=max_new_tokens)
    _unique(question.id for question in questions)
    asked = {q.id: _request(q, image_root, how) for q in questions}
    keys = _keys(generator, asked, how)
    report = progress or _silent
    with Journal(out) as journal:
        done, foreign = _sorted_out(journal, keys)
        if foreign and say:
            say(f"{foreign} earlier replies in {out} were made with other settings; kept there, not used")
        todo = _by_picture([question for question in questions if question.id not in done])
        report(len(done), len(questions))
        for prediction in _answers(generator, [asked[i] for i in todo], batch_size, how):
            journal.append(keys[prediction.question], prediction)
            done[prediction.question] = prediction
            report(len(done), len(questions))
    predictions = tuple(done[question.id] for question in questions)
    if kept:
        write_predictions(kept, [(keys[prediction.question], prediction) for prediction in predictions])
    return predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Questions asked again one by one: how many, and the ids of those answered otherwise than in a batch."""

    n: int
    unequal: tuple[str, ...]

    @property
    def equal(self) -> int:
        return self.n - len(self.unequal)


def verify(
    generator: Generator,
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    count: int,
    *,
    image_root: Path,
    asking: Asking,
) -> Verified:
    """Ask ``count`` of the answered questions, spread over all of them, again and alone."""
    right = [
        (question, prediction)
        for question, prediction in zip(questions, predictions, strict=True)
        if prediction.status is Status.OK
    ]
    step = max(1, len(right) / count)
    chosen = [right[int(i * step)] for i in range(min(count, len(right)))]
    unequal: list[str] = []
    for question, prediction in chosen:
        (again,) = _answers(generator, [_request(question, image_root, asking)], 1, asking)
        if (again.status, again.text) != (prediction.status, prediction.text):
            unequal.append(question.id)
    return Verified(n=len(chosen), unequal=tuple(unequal))


# --- asking ---------------------------------------------------------------------------------------------


def _answers(
    generator: Generator, requests: Sequence[Request], batch_size: int, how: Asking
) -> Iterator[Prediction]:
    """A prediction for each request, as they come; of a streaming generator in any order."""
    if isinstance(generator, Streaming):
        for outcome in generator.stream(requests):
            name, error = requests[outcome.index].id, outcome.error
            if error is not None:
                yield _failed(name, error, outcome.seconds)
            else:
                yield _said(name, outcome.text, outcome.seconds, how)
        return
    for start in range(0, len(requests), batch_size):
        yield from _batch(generator, requests[start : start + batch_size], how)


def _batch(generator: Generator, requests: Sequence[Request], how: Asking) -> list[Prediction]:
    """A batch that fails is asked again one by one, to find which of it fails."""
    start = time.perf_counter()
    try:
        texts = generator.answer(requests)
    except (LlavarError, OSError) as error:
        if len(requests) > 1:
            return [prediction for request in requests for prediction in _batch(generator, [request], how)]
        return [_failed(requests[0].id, error, time.perf_counter() - start)]
    if len(texts) != len(requests):
        raise ModelError(
            f"{generator.name} returned {len(texts)} answers to {len(requests)} requests; it must answer each"
        )
    seconds = (time.perf_counter() - start) / len(requests)
    return [_said(r.id, text, seconds, how) for r, text in zip(requests, texts, strict=True)]


def _said(question: str, text: str, seconds: float, how: Asking) -> Prediction:
    text = text.replace("\n", "") if how.delete_newlines else text
    return Prediction(question=question, status=Status.OK, text=text, seconds=seconds)


def _failed(question: str, error: Exception, seconds: float) -> Prediction:
    message = str(error) or type(error).__name__
    return Prediction(question=question, status=Status.FAILED, error=message, seconds=seconds)


def _silent(_done: int, _total: int) -> None: ...


def _unique(ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"two questions have the id {name!r}; every question needs its own")
        seen.add(name)


def _by_picture(questions: Sequence[Question]) -> list[str]:
    """Ids in their order, but questions on one picture together, at its first."""
    pictures: dict[str, list[str]] = {}
    for question in questions:
        pictures.setdefault(question.image, []).append(question.id)
    return [name for names in pictures.values() for name in names]


def _request(question: Question, root: Path, how: Asking) -> Request:
    """A question file is data from elsewhere: it may name pictures under ``root`` only."""
    path = _inside(question, root) if question.image else None
    return Request(
        image=path,
        question=how.question(question.text),
        max_new_tokens=how.max_new_tokens,
        decoding=how.decoding,
        image_first=how.image_first,
        id=question.id,
    )


def _inside(question: Question, root: Path) -> Path:
    base = Path(os.path.abspath(root))  # noqa: PTH100 - data folders are often links, which must stay usable
    path = Path(os.path.abspath(base / question.image))  # noqa: PTH100
    if not path.is_relative_to(base):
        raise DataError(
            f"question {question.id!r} names the picture {question.image!r}, which is outside {base}; "
            "move it there, or name a folder that holds all pictures"
        )
    return path


# --- what was asked before ------------------------------------------------------------------------------


def _sorted_out(journal: Journal, keys: Mapping[str, str]) -> tuple[dict[str, Prediction], int]:
    """Earlier answers to what is asked now, by question id, and how many answer something else."""
    done: dict[str, Prediction] = {}
    foreign = 0
    for key, prediction in journal.earlier:
        if keys.get(prediction.question) != key:
            foreign += prediction.question in keys
        elif prediction.status is Status.OK:
            done[prediction.question] = prediction
    return done, foreign


def _keys(generator: Generator, asked: Mapping[str, Request], how: Asking) -> dict[str, str]:
    """By question id, a digest of everything that decides the answer."""
    model = [generator.name, sorted(generator.about.items())]
    digests: dict[Path, str] = {}
    keys: dict[str, str] = {}
    for name, request in asked.items():
        picture = ""
        if isinstance(request.image, Path):
            picture = digests.get(request.image) or digests.setdefault(request.image, _digest(request.image))
        put = [request.question, request.max_new_tokens, request.decoding.document, request.image_first]
        content = json.dumps([model, put, how.delete_newlines, picture])
        keys[name] = hashlib.sha256(content.encode()).hexdigest()[:24]
    return keys


def _digest(path: Path) -> str:
    try:
        return fingerprint(path)
    except (ImageError, NotFoundError):
        return "unreadable"  # the generator says why when it is asked
