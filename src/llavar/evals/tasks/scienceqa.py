"""ScienceQA, the questions of the test split that have a picture, asked as LLaVA asks them.

The prompt is that of LLaVA's ``llava_test_CQM-A.json`` with ``--single-pred-prompt``: context, question,
options, and the request to answer with a letter. The context is the hint alone, as LLaVA's is.
"""

from __future__ import annotations

from typing import cast

from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, loader
from llavar.evals.tasks.reading import Row, image_name, read_object
from llavar.records import Question, Task

_LETTERS = "ABCDE"
_REQUEST = "Answer with the option's letter from the given choices directly."


def _scienceqa(found: Found) -> Loaded:
    """``problems.json``: problems by id; ``pid_splits.json``: ids by split."""
    problems, splits = read_object(found[0]), read_object(found[1])
    questions: list[Question] = []
    for value in splits.items("test"):
        name = splits.string(value, "test")
        if name not in problems.value:
            raise splits.error(f"problem {name!r:.40} of the test split is not in {found[0]}")
        row = problems.child(problems.value[name], f"problem {name!r:.40}")
        if row.get("image") is not None:
            questions.append(_question(row, name))
    return Loaded(questions=tuple(questions), image_root=found[2])


def _question(row: Row, name: str) -> Question:
    choices = tuple(row.string(choice, "choices") for choice in row.items("choices"))
    answer = row.get("answer")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise row.error(
            f"the answer is {answer!r:.40}; it must be the position of a choice, below {len(choices)}"
        )
    if len(choices) > len(_LETTERS):
        raise row.error(f"it has {len(choices)} choices; there are letters for {len(_LETTERS)}")
    return Question(
        id=name,
        task=Task.VQA,
        image=image_name(f"{name}/{row.identity('image')}", row),
        text=f"{_prompt(row, choices)}\n{_REQUEST}",
        references=(_LETTERS[answer],),
        category=cast("str", row.value.get("subject")) if isinstance(row.value.get("subject"), str) else "",
    )


def _prompt(row: Row, choices: tuple[str, ...]) -> str:
    context = row.string(row.value.get("hint", ""), "hint").strip() or "N/A"
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(_LETTERS, choices, strict=False))
    # The original takes doubled blanks out of the whole prompt, once.
    whole = f"Context: {context}\nQuestion: {row.text('question')}\nOptions: {options}\n"
    return whole.replace("  ", " ").strip()


_SITE = "ScienceQA (scienceqa.github.io; CC BY-NC-SA 4.0)"
_FILES = (
    Expected(
        path="scienceqa/problems.json | scienceqa/data/scienceqa/problems.json",
        what="problems by id",
        source=_SITE,
    ),
    Expected(
        path="scienceqa/pid_splits.json | scienceqa/data/scienceqa/pid_splits.json",
        what="ids by split",
        source=_SITE,
    ),
    Expected(
        path="scienceqa/images/test/ | scienceqa/test/ | scienceqa/data/scienceqa/images/test/",
        what="pictures, as <id>/image.png",
        source=_SITE,
    ),
)

BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        name="scienceqa",
        about="school science, multiple choice, the questions with a picture",
        metric="scienceqa",
        also=("exact",),
        files=_FILES,
        load=loader("scienceqa", _FILES, _scienceqa),
        max_new_tokens=128,
        n=2017,
    ),
)
