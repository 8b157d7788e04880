"""What a model says to the questions of a tuning, kept as it comes, and how two models compare by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from llavar import files
from llavar.evals import metrics
from llavar.evals.journal import Journal
from llavar.evals.run import Asking, evaluate
from llavar.evals.score import Compared, answer_values, compare_answers
from llavar.generate.base import Generator
from llavar.records import Answered, Comparison, Prediction, Question, Score, Status
from llavar.study.progress import Watch
from llavar.study.report import Measure
from llavar.study.tune_rows import Exam, Part, exam_digest

DONE = "done.json"
_BATCH = 16
_LEAST_TOKENS, _MOST_TOKENS = 48, 768
_FOR_SOFT = 3
"""References from which on VQA's soft accuracy means something."""

Load = Callable[[], Generator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """What one model said, by part, in the order of the questions."""

    model: str
    parts: Mapping[Part, tuple[Answered, ...]]

    @property
    def failed(self) -> int:
        return sum(one.status is Status.FAILED for part in self.parts.values() for one in part)


def ask(exam: Exam, load: Load, out: Path, watch: Watch, *, identity: str, by_letter: bool) -> Replies:
    """Ask all questions, going on from what an earlier call left in ``out``.

    A model that was asked everything before is not loaded again: ``identity`` says which it is. With
    ``by_letter`` its tokens are letters, else about half as many.
    """
    stamp = {"model": identity, "exam": exam_digest(exam)}
    if _stamp(out) != stamp:
        generator, done = load(), 0
        for part, questions in exam.parts.items():
            _ask(generator, exam, part, questions, out, watch, by_letter, done)
            done += len(questions)
        files.write_text(out / DONE, json.dumps(stamp))
    parts = {part: _answered(questions, _kept(out, part)) for part, questions in exam.parts.items()}
    return Replies(model=identity, parts=parts)


def _ask(
    generator: Generator,
    exam: Exam,
    part: Part,
    questions: Sequence[Question],
    out: Path,
    watch: Watch,
    by_letter: bool,
    before: int,
) -> None:
    asking = Asking(max_new_tokens=most_tokens(questions, by_letter=by_letter))
    evaluate(
        generator,
        questions,
        image_root=exam.root / part,
        out=out / f"{part}.jsonl",
        batch_size=_BATCH,
        asking=asking,
        progress=lambda done, _total: watch.count(before + done, exam.count),
        kept=_place(out, part),
    )


def most_tokens(questions: Sequence[Question], *, by_letter: bool) -> int:
    """Enough for the longest known answer and half as much again."""
    longest = max(len(text) for asked in questions for text in asked.references)
    return min(_MOST_TOKENS, max(_LEAST_TOKENS, int((1.5 if by_letter else 0.75) * longest) + 16))


def first_pictures(exam: Exam, count: int) -> Exam:
    """The questions about the first pictures of each part that OCR's reading is the truth of."""
    parts: dict[Part, tuple[Question, ...]] = {}
    for part in (part for part in exam.parts if part is not Part.OWN):
        few = set(islice(dict.fromkeys(asked.image for asked in exam.parts[part]), count))
        parts[part] = tuple(asked for asked in exam.parts[part] if asked.image in few)
    return replace(exam, parts=parts)


def _stamp(out: Path) -> object:
    try:
        return json.loads((out / DONE).read_bytes())
    except (OSError, ValueError):
        return None


def _place(out: Path, part: Part) -> Path:
    return out / f"{part}.answers.jsonl"


def _kept(out: Path, part: Part) -> dict[str, Prediction]:
    with Journal(_place(out, part)) as journal:
        return {prediction.question: prediction for _, prediction in journal.earlier}


def _answered(questions: Sequence[Question], said: Mapping[str, Prediction]) -> tuple[Answered, ...]:
    return tuple(
        Answered(
            id=asked.id,
            prediction=said[asked.id].text,
            references=asked.references,
            question=asked.text,
            image=asked.image,
            category=asked.category,
            status=said[asked.id].status,
        )
        for asked in questions
    )


# ------------------------------------------------------------------------------------------ compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measure before and after; ``values`` of single answers are (before, after), in their order."""

    part: Part
    measure: Measure
    compared: Compared
    values: tuple[tuple[float, float], ...]

    @property
    def scores(self) -> tuple[Score, Score]:
        return self.compared.first, self.compared.second

    @property
    def comparison(self) -> Comparison:
        return self.compared.comparison


def measured(before: Replies, after: Replies) -> tuple[Measured, ...]:
    """Every measure, the user's own questions first."""
    return tuple(
        _measured(part, measure, before.parts[part], after.parts[part])
        for part in before.parts
        for measure in measures_of(part, before.parts[part])
    )


def _measured(
    part: Part, measure: Measure, before: Sequence[Answered], after: Sequence[Answered]
) -> Measured:
    values = zip(*(answer_values(side, measure.name) for side in (before, after)), strict=True)
    compared = compare_answers(before, after, measure.name)
    return Measured(part=part, measure=measure, compared=compared, values=tuple(values))


def measures_of(part: Part, answers: Sequence[Answered]) -> tuple[Measure, ...]:
    """How answers of a part are scored; the first one leads."""
    if part is Part.TEXT:
        return (_TEXT,)
    if part is Part.FACTS:
        return (_FACTS,)
    soft = all(len(answer.references) >= _FOR_SOFT for answer in answers)
    return _OWN_NEAR, (_OWN_SOFT if soft else _OWN_EXACT)


def _share(name: str, title: str, explained: str, *, lower_is_better: bool = False) -> Measure:
    assert metrics.higher_is_better(name) is not lower_is_better
    return Measure(
        name=name, title=title, explained=explained, limit=1, percent=True, lower_is_better=lower_is_better
    )


_OWN_NEAR = _share(
    "anls",
    "Nearness to your answers",
    "ANLS, higher is better: 1 less the edits to the nearest answer of yours over the length; 0 below half.",
)
_OWN_EXACT = _share(
    "exact",
    "Your questions answered right",
    "Share of answers that are one of yours, apart from case and punctuation; higher is better.",
)
_OWN_SOFT = _share(
    "textvqa",
    "VQA accuracy on your questions",
    "VQA's soft accuracy against your answers; higher is better.",
)
_TEXT = _share(
    "cer",
    "Text that differs from OCR",
    "Characters to change until the answer is what OCR read, over its length; lower is better.",
    lower_is_better=True,
)
_FACTS = _share(
    "exact",
    "Questions answered as OCR has it",
    "Share of answers about lines, words and numbers that equal OCR's; higher is better.",
)
