"""The 24 sets as MultimodalOCR's ``eval.py`` runs them: how many questions, which rule, which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from llavar.evals import tasks
from llavar.records import Task

WORD = "what is written in the image?"
SETS = {
    "iiit5k": (3000, "mmocr-recognition", WORD),
    "svt": (647, "mmocr-recognition", WORD),
    "ic13": (857, "mmocr-recognition", WORD),
    "ic15": (1811, "mmocr-recognition", WORD),
    "svtp": (645, "mmocr-recognition", WORD),
    "ct80": (288, "mmocr-recognition", WORD),
    "cocotext": (9896, "mmocr-recognition", WORD),
    "ctw": (1572, "mmocr-recognition", WORD),
    "totaltext": (2201, "mmocr-recognition", WORD),
    "host": (2416, "mmocr-recognition", WORD),
    "wost": (2416, "mmocr-recognition", WORD),
    "wordart": (1511, "mmocr-recognition", WORD),
    "iam": (3000, "mmocr-recognition", WORD),
    "rects": (3000, "mmocr-rects", "What are the Chinese characters in the image?"),
    "stvqa": (5000, "mmocr", "What is on the sign?"),
    "ocrvqa": (5000, "mmocr", "Who wrote this book?"),
    "textvqa": (5000, "mmocr", "what does the van say?"),
    "docvqa": (5349, "mmocr", "What is the date?"),
    "estvqa-cn": (5000, "mmocr", "店名是什么?"),
    "estvqa-en": (5000, "mmocr", "What is sold?"),
    "sroie": (2503, "mmocr", "what is the name of the company that issued this receipt?"),
    "funsd": (588, "mmocr", 'what is "NAME:" information in the image?'),
    "poie": (6321, "mmocr", "what is Serving size in the image?"),
    "hme100k": (
        5000,
        "mmocr-hme",
        "Please write out the expression of the formula in the image using LaTeX format.",
    ),
}


def test_there_are_no_others() -> None:
    assert len(SETS) == 24
    assert {f"mmocr-{name}" for name in SETS} == {name for name in tasks.names() if name.startswith("mmocr-")}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_asked_as_the_original_asks_it(name: str, official: Path) -> None:
    n, metric, prompt = SETS[name]
    benchmark = tasks.get(f"mmocr-{name}")
    first = benchmark.load(official).questions[0]
    assert (benchmark.n, benchmark.metric, first.text) == (n, metric, prompt)
    assert benchmark.max_new_tokens == 256  # Eval_LLaVAR.py
    assert first.task is (Task.VQA if metric == "mmocr" else Task.TRANSCRIPTION)
