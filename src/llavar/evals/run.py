"""Ask a model every question, keep each answer on disk as it comes, and score what came back."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llavar.errors import DataError, LlavarError, ModelError
from llavar.evals import metrics
from llavar.evals.stats import Array, Statistic, bootstrap, double_ratio, paired, ratio
from llavar.generate.base import Generator, Request
from llavar.records import Comparison, Prediction, Question, Report, Score, Status, Task

Progress = Callable[[int, int], None]
"""Called with (questions done, questions in all), first with what an earlier run left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedReport:
    """Two models on the same questions: by metric name, how much ``with_`` differs from ``without``."""

    comparisons: Mapping[str, Comparison]
    n: int


# --- asking ---------------------------------------------------------------------------------------------


def evaluate(
    generator: Generator,
    questions: Sequence[Question],
    *,
    image_root: Path,
    out: Path,
    batch_size: int = 16,
    max_new_tokens: int = 128,
    progress: Progress | None = None,
) -> tuple[Prediction, ...]:
    """The model's predictions in the order of the questions, which are also appended to ``out`` (JSON lines).

    An earlier run's answers in ``out`` are kept if they answer the same thing: same question id, wording,
    picture bytes, answer length and generator name. Failed ones are asked again. What cannot be answered
    (a :class:`LlavarError` or ``OSError``) is recorded as failed with its message; any other exception is a
    defect and passes through, with everything answered so far on disk.

    Raises :class:`DataError` for doubled ids, pictures outside ``image_root``, or a file that is no log of
    predictions, and :class:`ModelError` if the generator returns another number of answers than asked.
    """
    if batch_size < 1:
        raise DataError(f"batch size {batch_size} is below 1")
    _unique(question.id for question in questions)
    asked = {q.id: _request(q, image_root, max_new_tokens) for q in questions}
    keys = _keys(generator.name, asked)
    done = {
        record.question: record
        for key, record in _earlier(out)
        if keys.get(record.question) == key and record.status is Status.OK
    }
    todo = [question.id for question in questions if question.id not in done]
    report = progress or _silent
    report(len(done), len(questions))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as log:
        for start in range(0, len(todo), batch_size):
            ids = todo[start : start + batch_size]
            for prediction in _answer(generator, ids, [asked[i] for i in ids]):
                log.write(json.dumps({"key": keys[prediction.question], **asdict(prediction)}) + "\n")
                done[prediction.question] = prediction
            log.flush()
            report(len(done), len(questions))
    return tuple(done[question.id] for question in questions)


def _answer(generator: Generator, ids: Sequence[str], requests: Sequence[Request]) -> list[Prediction]:
    """One prediction per request; a batch that fails is asked again one by one, to find which of it fails."""
    start = time.perf_counter()
    try:
        texts = generator.answer(requests)
    except (LlavarError, OSError) as error:
        if len(ids) > 1:
            return [p for i, r in zip(ids, requests, strict=True) for p in _answer(generator, [i], [r])]
        seconds = time.perf_counter() - start
        message = str(error) or type(error).__name__
        return [Prediction(question=ids[0], status=Status.FAILED, error=message, seconds=seconds)]
    if len(texts) != len(ids):
        raise ModelError(
            f"{generator.name} returned {len(texts)} answers to {len(ids)} requests; it must answer each"
        )
    seconds = (time.perf_counter() - start) / len(ids)
    return [
        Prediction(question=i, status=Status.OK, text=text, seconds=seconds)
        for i, text in zip(ids, texts, strict=True)
    ]


def _silent(_done: int, _total: int) -> None: ...


def _unique(ids: Iterator[str]) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"two questions have the id {name!r}; every question needs its own")
        seen.add(name)


def _request(question: Question, root: Path, max_new_tokens: int) -> Request:
    """A question file is data from elsewhere: it may name pictures under ``root`` only."""
    if not question.image:
        return Request(image=None, question=question.text, max_new_tokens=max_new_tokens)
    base = Path(os.path.abspath(root))  # noqa: PTH100 - data folders are often links, which must stay usable
    path = Path(os.path.abspath(base / question.image))  # noqa: PTH100
    if not path.is_relative_to(base):
        raise DataError(
            f"question {question.id!r} names the picture {question.image!r}, which is outside {base}; "
            "move it there, or name a folder that holds all pictures"
        )
    return Request(image=path, question=question.text, max_new_tokens=max_new_tokens)


def _keys(model: str, asked: Mapping[str, Request]) -> dict[str, str]:
    """By question id, a digest of everything that decides the answer."""
    digests: dict[Path, str] = {}
    keys: dict[str, str] = {}
    for name, request in asked.items():
        picture = ""
        if isinstance(request.image, Path):
            picture = digests.get(request.image) or digests.setdefault(request.image, _digest(request.image))
        content = json.dumps([model, request.question, request.max_new_tokens, picture])
        keys[name] = hashlib.sha256(content.encode()).hexdigest()[:24]
    return keys


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"  # the generator says why when it is asked


def _earlier(out: Path) -> Iterator[tuple[str, Prediction]]:
    """(key, prediction) of every line of an earlier run. A torn last line is cut off the file."""
    if not out.exists():
        return
    content = out.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with out.open("r+b") as file:
            file.truncate(whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            record: Any = json.loads(line)
            yield (
                str(record["key"]),
                Prediction(
                    question=str(record["question"]),
                    status=Status(record["status"]),
                    text=str(record["text"]),
                    error=str(record["error"]),
                    seconds=float(record["seconds"]),
                ),
            )
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(
                f"line {number} of {out} is not a prediction ({error!r}); delete it or the file to go on"
            ) from error


# --- scoring --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """One metric of one model, per question: what :mod:`llavar.evals.stats` resamples, grouped by picture."""

    values: Array
    groups: tuple[str, ...]
    statistic: Statistic


def summarise(questions: Sequence[Question], predictions: Sequence[Prediction], model: str) -> Report:
    """``transcription_cer`` (0-1, lower is better), ``vqa_accuracy`` (0-1), ``yes_no_score`` (0-200),
    ``scene_accuracy`` (0-1).

    Each is computed over the questions of its task and is absent if there are none. A question that failed
    or has no prediction counts as wrong. Intervals resample pictures.
    """
    answers = _answers(questions, predictions)
    scores: dict[str, Score] = {}
    for name, columns in _metrics(questions, answers).items():
        scores[name] = bootstrap(columns.values, columns.statistic, columns.groups)
    failed = sum(answer is None for answer in answers.values())
    notes = [f"{failed} of {len(questions)} questions have no answer and count as wrong"] if failed else []
    notes += [
        f"{name}: every picture scored alike, so its interval has no width and understates the uncertainty"
        for name, score in scores.items()
        if score.low == score.high
    ]
    return Report(model=model, n=len(questions), scores=scores, failed=failed, notes=tuple(notes))


def compare(
    questions: Sequence[Question], without: Sequence[Prediction], with_: Sequence[Prediction]
) -> PairedReport:
    """Every metric of :func:`summarise` as a paired difference, ``with_ - without``."""
    first = _metrics(questions, _answers(questions, without))
    second = _metrics(questions, _answers(questions, with_))
    comparisons = {
        name: paired(a.values, second[name].values, a.statistic, a.groups) for name, a in first.items()
    }
    return PairedReport(comparisons=comparisons, n=len(questions))


def is_right(question: Question, prediction: Prediction | None) -> bool:
    """Whether an answer is fully right: a transcription without an error, a match, the expected yes or no."""
    text = prediction.text if prediction and prediction.status is Status.OK else None
    match question.task:
        case Task.TRANSCRIPTION:
            return text is not None and metrics.transcription_counts(text, question.references)[0] == 0
        case Task.VQA | Task.SCENE:
            return text is not None and bool(metrics.vqa_match(text, question.references))
        case Task.YES_NO:
            return _expected(question) is metrics.parse_yes_no(text or "")


def _expected(question: Question) -> metrics.YesNo:
    parsed = {metrics.parse_yes_no(reference) for reference in question.references}
    if parsed not in ({metrics.YesNo.YES}, {metrics.YesNo.NO}):
        raise DataError(
            f"yes/no question {question.id!r} has the references {list(question.references)!r}; "
            "they must say yes or no, and only one of them"
        )
    return parsed.pop()


def _answers(
    questions: Sequence[Question], predictions: Sequence[Prediction]
) -> dict[str, Prediction | None]:
    """By question id; ``None`` where there is no answer. Raises for ids that are doubled or unknown."""
    _unique(question.id for question in questions)
    answers: dict[str, Prediction | None] = {question.id: None for question in questions}
    for prediction in predictions:
        if prediction.question not in answers:
            raise DataError(f"a prediction answers {prediction.question!r}, which is not among the questions")
        if prediction.status is Status.OK:
            answers[prediction.question] = prediction
    return answers


def _metrics(questions: Sequence[Question], answers: Mapping[str, Prediction | None]) -> dict[str, _Columns]:
    """The metrics whose task occurs, by name."""
    makers = (
        ("transcription_cer", Task.TRANSCRIPTION, _transcription),
        ("vqa_accuracy", Task.VQA, _vqa),
        ("yes_no_score", Task.YES_NO, _yes_no),
        ("scene_accuracy", Task.SCENE, _vqa),
    )
    found: dict[str, _Columns] = {}
    for name, task, make in makers:
        mine = [question for question in questions if question.task is task]
        if mine:
            found[name] = make(mine, answers)
    return found


def _transcription(questions: Sequence[Question], answers: Mapping[str, Prediction | None]) -> _Columns:
    texts = [answer.text if (answer := answers[q.id]) else "" for q in questions]
    counts = [metrics.transcription_counts(t, q.references) for t, q in zip(texts, questions, strict=True)]
    return _Columns(values=np.array(counts, float), groups=tuple(q.image for q in questions), statistic=ratio)


def _vqa(questions: Sequence[Question], answers: Mapping[str, Prediction | None]) -> _Columns:
    counts = [(is_right(q, answers[q.id]), 1) for q in questions]
    return _Columns(values=np.array(counts, float), groups=tuple(q.image for q in questions), statistic=ratio)


def _yes_no(questions: Sequence[Question], answers: Mapping[str, Prediction | None]) -> _Columns:
    """A row per scored group; without a group name the questions on one picture are one."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.group or question.image, []).append(question)
    rights = [[is_right(q, answers[q.id]) for q in group] for group in groups.values()]
    counts = [(sum(right), len(right), all(right), 1) for right in rights]
    pictures = tuple(group[0].image for group in groups.values())
    return _Columns(values=np.array(counts, float), groups=pictures, statistic=double_ratio)
