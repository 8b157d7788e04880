"""Open questions for a judge: LLaVA's 90 on COCO, LLaVAR's 50 on text-rich pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, loader
from llavar.evals.tasks.reading import image_name, json_lines
from llavar.records import Question, Task

COCO_PREFIX = "COCO_val2014_"
"""What LLaVA's ``model_vqa.py`` puts before the names of ``qa90_questions.jsonl``."""


def _open_questions(prefix: str, found: Found) -> Loaded:
    """JSONL ``{"question_id", "image", "text", "category"}``; the references are GPT-4's answers, by id.

    A file of answers that is not there leaves the references empty: a judge may bring its own.
    """
    answers = _answers(found.paths[2])
    questions: list[Question] = []
    for row in json_lines(found[0]):
        name = row.identity("question_id")
        if answers and name not in answers:
            raise row.error(
                f"question {name} has no answer in {found.paths[2]}; give files that belong together"
            )
        image = row.identity("image")
        prefixed = image if image.startswith(prefix) else prefix + image
        questions.append(
            Question(
                id=name,
                task=Task.OPEN,
                image=image_name(prefixed, row),
                text=row.text("text"),
                references=answers.get(name, ()),
                category=row.text("category"),
            )
        )
    return Loaded(questions=tuple(questions), image_root=found[1])


def _answers(path: Path | None) -> dict[str, tuple[str, ...]]:
    if path is None:
        return {}
    return {row.identity("question_id"): row.references("text") for row in json_lines(path)}


_LLAVA = "LLaVA (github.com/haotian-liu/LLaVA, playground/data/coco2014_val_qa_eval)"
_QA90 = (
    Expected(path="qa90/qa90_questions.jsonl", what="90 questions on 30 pictures", source=_LLAVA),
    Expected(
        path="qa90/val2014/ | coco/val2014/", what="COCO val2014 pictures", source="COCO (cocodataset.org)"
    ),
    Expected(
        path="qa90/qa90_gpt4_answer.jsonl",
        what="GPT-4's answers from captions",
        source=_LLAVA,
        required=False,
    ),
)
_LLAVAR = "LLaVAR (github.com/SALT-NLP/LLaVAR, files; pictures from LAION)"
_TEXT50 = (
    Expected(path="text50/qa50_questions.jsonl", what="50 questions on 50 pictures", source=_LLAVAR),
    Expected(path="text50/images/ | text50/REval/", what="the pictures, 1.png to 50.png", source=_LLAVAR),
    Expected(
        path="text50/qa50_gpt4_answer.jsonl", what="GPT-4's answers from OCR", source=_LLAVAR, required=False
    ),
)

BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        name="qa90",
        about="conversation, detail and reasoning about photographs, judged",
        metric="judge",
        files=_QA90,
        load=loader("qa90", _QA90, partial(_open_questions, COCO_PREFIX)),
        max_new_tokens=1024,
        n=90,
    ),
    Benchmark(
        name="text50",
        about="text-rich pictures of LAION, judged",
        metric="judge",
        files=_TEXT50,
        load=loader("text50", _TEXT50, partial(_open_questions, "")),
        max_new_tokens=1024,
        n=50,
    ),
)
