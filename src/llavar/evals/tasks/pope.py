"""POPE: whether an object is in a COCO picture; absent ones drawn at random, by frequency, adversarially."""

from __future__ import annotations

from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, loader
from llavar.evals.tasks.reading import json_lines
from llavar.records import Question, Task

_KINDS = ("random", "popular", "adversarial")


def _pope(found: Found) -> Loaded:
    """JSONL ``{"question_id", "image", "text", "label": "yes"|"no"}``, a file a kind; ids repeat between."""
    questions: list[Question] = []
    for index, kind in enumerate(_KINDS):
        for row in json_lines(found[index]):
            label = row.text("label").strip()
            if label.lower() not in ("yes", "no"):
                raise row.error(f"the label is {label!r:.40}; it must be yes or no")
            questions.append(
                Question(
                    id=f"{kind}/{row.identity('question_id')}",
                    task=Task.YES_NO,
                    image=row.image("image"),
                    text=row.text("text"),
                    references=(label,),
                    category=kind,
                )
            )
    return Loaded(questions=tuple(questions), image_root=found[len(_KINDS)])


_SITE = "POPE (github.com/RUCAIBox/POPE, output/coco; MIT)"
_FILES = (
    *(
        Expected(
            path=f"pope/coco_pope_{kind}.json | pope/coco/coco_pope_{kind}.json",
            what=f"questions, absent objects: {kind}",
            source=_SITE,
        )
        for kind in _KINDS
    ),
    Expected(
        path="pope/val2014/ | coco/val2014/", what="COCO val2014 pictures", source="COCO (cocodataset.org)"
    ),
)

BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        name="pope",
        about="yes/no about objects in photographs: does the model see what is not there?",
        metric="pope",
        also=("exact",),
        files=_FILES,
        load=loader("pope", _FILES, _pope),
        max_new_tokens=128,
        n=9000,
    ),
)
