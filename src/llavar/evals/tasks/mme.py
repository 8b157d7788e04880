"""MME: two yes/no questions about each picture, of which both must be right for the second half of the score.

Two layouts exist, and a subtask may have either: pictures and texts side by side, or in ``images/`` and
``questions_answers_YN/``. A text holds two lines, ``question <tab> Yes|No``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from llavar.errors import DataError
from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, loader
from llavar.evals.tasks.reading import image_name, listed, text_lines, text_row
from llavar.records import Question, Task

PERCEPTION = {
    "existence": 60,
    "count": 60,
    "position": 60,
    "color": 60,
    "posters": 294,
    "celebrity": 340,
    "scene": 400,
    "landmark": 400,
    "artwork": 400,
    "OCR": 40,
}
"""Subtasks and their numbers of questions; MME's perception score is the sum of theirs."""
COGNITION = {
    "commonsense_reasoning": 140,
    "numerical_calculation": 40,
    "text_translation": 40,
    "code_reasoning": 40,
}
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_SITE = "MME (github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, on request; research only)"


def _load(subtasks: tuple[str, ...], found: Found) -> Loaded:
    """The pictures of several subtasks have different folders, so that their names hold the subtask."""
    root = found[0].parent
    if any(found[index].parent != root for index in range(len(subtasks))):
        raise DataError(f"the subtasks of MME are not all in {root}; put their folders side by side")
    questions = tuple(
        question for index, subtask in enumerate(subtasks) for question in _subtask(found[index], subtask)
    )
    return Loaded(questions=questions, image_root=root)


def _subtask(folder: Path, subtask: str) -> Iterator[Question]:
    split = (folder / "questions_answers_YN").is_dir() and (folder / "images").is_dir()
    texts = listed(folder / "questions_answers_YN" if split else folder, ".txt")
    inner = f"{subtask}/images" if split else subtask
    pictures = {
        path.stem: path.name
        for suffix in _SUFFIXES
        for path in (folder / "images" if split else folder).iterdir()
        if path.suffix.lower() == suffix
    }
    if not texts:
        raise DataError(f"{folder} holds no text with questions; give MME's folder of {subtask}")
    for path in texts:
        if path.stem not in pictures:
            raise DataError(
                f"{path} has no picture {path.stem} beside it ({', '.join(_SUFFIXES)}); "
                "MME leaves some subtasks' pictures to be fetched from their own sets"
            )
        yield from _pair(path, f"{inner}/{pictures[path.stem]}", subtask)


def _pair(path: Path, image: str, subtask: str) -> Iterator[Question]:
    lines = list(text_lines(path))
    if len(lines) != 2:
        raise DataError(f"{path} has {len(lines)} lines; MME asks two questions about a picture")
    for index, (number, line) in enumerate(lines):
        row = text_row(path, number)
        text, tab, label = line.rpartition("\t")
        label = label.strip()
        if not tab or not text.strip() or label.lower().rstrip(".") not in ("yes", "no"):
            raise row.error(f"{line!r:.80} is not a question, a tab, and Yes or No")
        yield Question(
            id=f"{subtask}/{path.stem}/{index}",
            task=Task.YES_NO,
            image=image_name(image, row),
            text=text,
            references=(label,),
            group=f"{subtask}/{path.stem}",
            category=subtask,
        )


def _expected(subtask: str) -> Expected:
    release = "MME/MME_Benchmark_release_version"
    places = (f"MME/{subtask}/", f"{release}/{subtask}/", f"{release}/MME_Benchmark/{subtask}/")
    return Expected(path=" | ".join(places), what="pictures and texts with two questions", source=_SITE)


def _benchmark(name: str, about: str, subtasks: dict[str, int]) -> Benchmark:
    files = tuple(_expected(subtask) for subtask in subtasks)
    return Benchmark(
        name=name,
        about=about,
        metric="mme",
        also=("mme-lmms", "mme-vlmevalkit"),
        files=files,
        load=loader(name, files, partial(_load, tuple(subtasks))),
        max_new_tokens=128,
        n=sum(subtasks.values()),
    )


BENCHMARKS: tuple[Benchmark, ...] = (
    _benchmark("mme", "yes/no in pairs, all 14 subtasks", PERCEPTION | COGNITION),
    _benchmark("mme-perception", "yes/no in pairs, the 10 of perception", PERCEPTION),
    _benchmark("mme-cognition", "yes/no in pairs, the 4 of cognition", COGNITION),
    *(
        _benchmark(f"mme-{name.lower().replace('_', '-')}", f"yes/no in pairs, {name}", {name: n})
        for name, n in (PERCEPTION | COGNITION).items()
    ),
)
