"""A model in training, asked as an evaluation asks it: what a run is watched by.

Training may not import evaluation, so that what composes both lives here and is handed to
:func:`llavar.train.job.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from llavar.evals import metrics, tasks
from llavar.generate.base import Generator, Request
from llavar.generate.hub import HubGenerator
from llavar.generate.local import LocalGenerator, setup_of
from llavar.records import Question, Task
from llavar.study.nano import questions as drawn
from llavar.train.hub import HubModel
from llavar.train.look import Sample, Watch, Watched
from llavar.train.material import Model

MOST = 32
"""Questions of a look: a look is to take seconds."""

_PICTURES = 24
_SIDE = 448
"""Pixels of drawn pictures for a model that says for itself how large it sees them."""

_METRIC = "anls"
_NEW_TOKENS = 48


def watcher(model: Model | HubModel, data: str, out: Path, say: Callable[[str], None]) -> Watch:
    """What asks ``model`` as it is by then: greedily, as the finished model would be asked.

    ``data`` is a folder of one's own questions (``llavar tasks`` describes ``folder``); without one, pictures
    with unseen words in unseen fonts are drawn into ``out/watch``.

    Raises:
        NotFoundError, DataError: the folder holds no questions, or one of them cannot be used.
    """
    asked, folder, metric = _own(Path(data), say) if data else _drawn(_side(model), out)
    requests = [_request(question, folder) for question in asked]

    def watch() -> Watched:
        # A generator of its own each time: the features that one remembers are those of an earlier step.
        return scored(asked, _generator(model).answer(requests), metric)

    return watch


def _generator(model: Model | HubModel) -> Generator:
    if isinstance(model, HubModel):
        return HubGenerator(model.module, model.processor, name="in training")
    setup = replace(
        setup_of(model.folder, model.tokenizer),
        transform=model.transform,
        tiles=model.tiles,
        size=model.image_size,
        image_tokens=model.image_tokens,
    )
    return LocalGenerator(model.module, model.tokenizer, setup, name="in training", remember=MOST)


def scored(asked: Sequence[Question], answers: Sequence[str], metric: str) -> Watched:
    """Every answer with its score, and their mean."""
    pairs = list(zip(answers, (question.references for question in asked), strict=True))
    samples = tuple(
        Sample(
            id=question.id,
            image=question.image,
            question=question.text,
            references=question.references,
            answer=answer,
            score=value,
        )
        for question, answer, value in zip(asked, answers, metrics.score_all(metric, pairs), strict=True)
    )
    mean = sum(sample.score for sample in samples) / len(samples)
    return Watched(metric=metric, score=mean, samples=samples)


def _request(question: Question, folder: Path) -> Request:
    return Request(
        image=folder / question.image,
        question=question.text,
        max_new_tokens=_NEW_TOKENS,
        id=question.id,
    )


def _own(data: Path, say: Callable[[str], None]) -> tuple[tuple[Question, ...], Path, str]:
    benchmark = tasks.get("folder")
    loaded = benchmark.load(data)
    if len(loaded.questions) > MOST:
        say(f"Watching the first {MOST} of the {len(loaded.questions)} questions of {data}.")
    return loaded.questions[:MOST], loaded.image_root, benchmark.metric


def _side(model: Model | HubModel) -> int:
    if isinstance(model, HubModel):
        return _SIDE
    return max(model.tiles.extent(model.image_size))


def _drawn(side: int, out: Path) -> tuple[tuple[Question, ...], Path, str]:
    exam = drawn.exam(_PICTURES, seed="watch")
    asked = [question for question in exam.questions if question.task is Task.VQA][:MOST]
    used = {question.image for question in asked}
    shown = {name: scene for name, scene in exam.scenes.items() if name in used}
    drawn.write_pictures(shown, out / "watch", side)
    return tuple(asked), out / "watch", _METRIC
