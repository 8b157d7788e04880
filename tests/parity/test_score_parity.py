"""LLaVAR's released answers through the command line, against the paper and the recorded baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llavar.cli import main
from llavar.evals.interchange import read_answers
from llavar.evals.score import compare_answers

FILES = ("STVQA", "ocrVQA", "textVQA", "docVQA")
TABLE: dict[str, tuple[float, float, float, float]] = {
    "mmocr": (0.3916, 0.2376, 0.4854, 0.1157),  # the paper: 39.2, 23.8, 48.5, 11.6
    "mmocr-strict": (0.3890, 0.2376, 0.4820, 0.1168),
    "ocrbench": (0.4002, 0.2702, 0.5058, 0.1294),
    "anls": (0.0034, 0.0079, 0.0111, 0.0132),
    "stvqa": (0.0002, 0.0000, 0.0004, 0.0004),
    "exact-vlmevalkit": (0.0000, 0.0000, 0.0002, 0.0002),
    "relaxed": (0.0000, 0.0000, 0.0002, 0.0002),
    "exact": (0.0002, 0.0000, 0.0004, 0.0002),
}
COMMON = {"STVQA": 0.0660, "ocrVQA": 0.6808, "textVQA": 0.2254, "docVQA": 0.0561}
QUESTION = {"STVQA": 0.0162, "ocrVQA": 0.0, "textVQA": 0.0202, "docVQA": 0.0069}


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Any:
    """The object that ``llavar score ... --json`` prints."""

    def run(*argv: object) -> dict[str, Any]:
        assert main(["score", *map(str, argv), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(scope="module")
def released(shared_data: Path) -> Path:
    return shared_data / "llavar"


@pytest.mark.parametrize("metric", TABLE)
@pytest.mark.parametrize("name", FILES)
def test_the_table_of_the_paper_and_its_rules(name: str, metric: str, score: Any, released: Path) -> None:
    document = score(released / "MultimodalOCR" / f"{name}.json", "--metric", metric, "--no-baselines")
    assert round(document["score"], 4) == TABLE[metric][FILES.index(name)]
    assert document["n"] == (5349 if name == "docVQA" else 5000)
    low, high = document["interval"]
    assert low <= document["score"] <= high


@pytest.mark.parametrize("name", FILES)
def test_answers_that_look_at_no_picture(name: str, score: Any, released: Path) -> None:
    baselines = score(released / "MultimodalOCR" / f"{name}.json", "--metric", "mmocr")["baselines"]
    assert round(baselines["ten most common references"], 4) == COMMON[name]
    assert round(baselines["repeating the question"], 4) == QUESTION[name]
    if name == "ocrVQA":
        assert round(baselines["yes no"], 4) == 0.2748


def test_soft_accuracy_of_textvqa(score: Any, released: Path) -> None:
    path = released / "MultimodalOCR" / "textVQA.json"
    for metric in ("textvqa", "textvqa-vlmevalkit"):
        assert round(score(path, "--metric", metric, "--no-baselines")["score"], 4) == 0.0001


@pytest.mark.parametrize("metric", ["mme", "mme-lmms", "mme-vlmevalkit"])
@pytest.mark.parametrize(("model", "expected"), [("llava", 50.0), ("llavar", 80.0)])
def test_mme(model: str, expected: float, metric: str, score: Any, released: Path) -> None:
    document = score(released / "MME" / f"OCR_{model}.txt", "--metric", metric)
    assert document["score"] == pytest.approx(expected)
    assert document["n"] == 40
    assert document["baselines"] == {"always yes": 50, "always no": 50}


def test_the_gain_on_mme_is_not_significant(released: Path) -> None:
    llava, llavar = (read_answers(released / "MME" / f"OCR_{name}.txt") for name in ("llava", "llavar"))
    compared = compare_answers(llava.answers, llavar.answers, "mme")
    assert (len(compared.gained), len(compared.lost)) == (7, 3)
    assert compared.mcnemar == pytest.approx(0.344, abs=5e-4)
    assert compared.comparison.difference == pytest.approx(30)
    assert compared.comparison.p > 0.05
