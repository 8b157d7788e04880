"""OCRBench (MultimodalOCR, ``OCRBench/``), and the questions of OCRBench v2 that a few words answer."""

from __future__ import annotations

from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, loader
from llavar.evals.tasks.reading import Row, rows
from llavar.records import Question, Task

_FORMULAS = "Handwritten Mathematical Expression Recognition"
_SHORT = (
    "APP agent en",
    "ASCII art classification en",
    "cognition VQA en",
    "diagram QA en",
    "document classification en",
    "math QA en",
    "reasoning VQA en",
    "science QA en",
    "text recognition en",
)
"""The types that v2's ``eval.py`` scores with its VQA rule; the others ask for layout, boxes, long texts."""


def _ocrbench(found: Found) -> Loaded:
    """``[{"dataset_name", "type", "question", "answers": str | list, "image_path"}]``, category by type.

    Ids are positions: the ``id`` of a row repeats between its sets.
    """
    questions = tuple(
        _question(row, str(index), row.text("type")) for index, row in enumerate(rows(found[0]))
    )
    return Loaded(questions=questions, image_root=found[1])


def _ocrbench_v2(found: Found) -> Loaded:
    """As v1, with further fields; the rows of the types above that ask for words, not for a choice.

    Rows with ``eval`` have rules of their own (multiple choice, case sensitive) and are not in the subset.
    Answers may be numbers, which the original writes out as well.
    """
    questions = tuple(
        _question(row, str(index), row.text("type"))
        for index, row in enumerate(rows(found[0]))
        if row.text("type") in _SHORT and "eval" not in row.value
    )
    return Loaded(questions=questions, image_root=found[1])


def _question(row: Row, name: str, category: str) -> Question:
    return Question(
        id=name,
        task=Task.VQA,
        image=row.image("image_path"),
        text=row.text("question"),
        references=row.references("answers", numbers=True),
        category=category,
    )


_SITE = "OCRBench (github.com/Yuliang-Liu/MultimodalOCR; research only)"
_FILES = (
    Expected(
        path="OCRBench/OCRBench.json | OCRBench/OCRBench/OCRBench.json | OCRBench/json_files/OCRBench.json",
        what="the 1000 questions",
        source=_SITE,
    ),
    Expected(path="OCRBench/OCRBench_Images/ | OCRBench/images/", what="pictures by set", source=_SITE),
)
_SITE_V2 = "OCRBench v2 (github.com/Yuliang-Liu/MultimodalOCR; research only)"
_FILES_V2 = (
    Expected(path="OCRBench_v2/OCRBench_v2.json", what="the 10,000 questions", source=_SITE_V2),
    Expected(path="OCRBench_v2/", what="EN_part/ with the pictures", source=_SITE_V2),
)

BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        name="ocrbench",
        about="recognition, scene and document questions, key information, formulas",
        metric="ocrbench",
        metric_of={_FORMULAS: "ocrbench-hme"},
        also=("ocrbench-lmms", "mmocr"),
        files=_FILES,
        load=loader("ocrbench", _FILES, _ocrbench),
        max_new_tokens=128,
        n=1000,
    ),
    Benchmark(
        name="ocrbench-v2",
        about="OCRBench v2, the English questions answered in a few words",
        metric="ocrbench-v2",
        also=("ocrbench", "anls", "mmocr"),
        files=_FILES_V2,
        load=loader("ocrbench-v2", _FILES_V2, _ocrbench_v2),
        max_new_tokens=128,
    ),
)
