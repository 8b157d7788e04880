"""References for answers that come without: read from another file, and matched by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llavar.errors import DataError
from llavar.evals import rows
from llavar.evals.rows import Row
from llavar.records import Answered, Status


def read_references(path: Path) -> tuple[Answered, ...]:
    """Questions with their references, each as an answer that failed, because nobody gave one yet.

    Rows may be LLaVA's answers (their text is the reference), annotations in the style of TextVQA, DocVQA and
    ST-VQA (``data`` with ``answers``), or this package's questions and answers. Raises :class:`DataError`.
    """
    table = rows.parse(rows.decode(rows.read_bytes(path), path), path)
    references = tuple(_reference(row) for row in table)
    rows.unique(references, path)
    return references


def _reference(row: Row) -> Answered:
    key = next((key for key in ("references", "answers", "answer") if key in row), "")
    if not key and ("text" not in row or "image" in row):
        raise DataError(
            f"{row.place} holds no reference; give 'references', 'answers', 'answer', or the 'text' of "
            "LLaVA's answers (its question files hold questions alone)"
        )
    return Answered(
        id=row.text("id", "question_id", "questionId"),
        prediction="",
        references=row.texts(key or "text"),
        question=row.any_text("question", "text") if key else row.any_text("prompt"),
        image=row.any_text("image", "image_id", "file_name"),
        group=row.any_text("group"),
        category=row.any_text("category"),
        status=Status.FAILED,
    )


def join(
    answers: Sequence[Answered], wanted: Sequence[Answered], *, source: Path, references: Path
) -> list[Answered]:
    """Each answer with what its question has in ``wanted``, found by id, else by picture and wording.

    Raises :class:`DataError`, naming the files, for an answer to no question, or two to one.
    """
    by_id = {question.id: question for question in wanted}
    by_text = {(question.image, _fold(question.question)): question for question in wanted}
    joined: dict[str, Answered] = {}
    for answer in answers:
        question = by_id.get(answer.id) or _by_text(answer, by_text)
        if question is None:
            raise DataError(
                f"question {answer.id!r:.80} of {source} is not in {references}; give the references that "
                "belong to these answers"
            )
        if question.id in joined:
            raise DataError(f"{source} holds two answers to question {question.id!r:.80}; keep one of them")
        joined[question.id] = replace(
            question,
            prediction=answer.prediction,
            status=answer.status,
            question=question.question or answer.question,
        )
    return list(joined.values())


def _by_text(answer: Answered, by_text: Mapping[tuple[str, str], Answered]) -> Answered | None:
    """LLaVA's TextVQA answers have the picture as id, and the question as one line of the prompt."""
    found = (by_text.get((answer.id, _fold(line))) for line in answer.question.split("\n")[:8])
    return next((question for question in found if question), None)


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
