"""The metrics against what the peers' own code returned, and against published numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llavar.evals import metrics
from llavar.evals.metrics import mmocr, ocrbench, vqa

# File of recorded cases -> our name. lmms-eval and VLMEvalKit share a rule with somebody more than once.
RECORDED = {
    "anls_m4c": "anls",
    "anls_lmms": "anls-raw",
    "anls_vlmevalkit": "anls-raw",
    "exact_ci_vlmevalkit_ocrvqa": "exact-vlmevalkit",
    "mmocr_vqa": "mmocr@9f0ffdf",
    "ocrbench_official": "ocrbench",
    "ocrbench_vlmevalkit": "ocrbench",
    "ocrbench_lmms": "ocrbench-lmms",
    "relaxed_lmms": "relaxed",
    "relaxed_vlmevalkit": "relaxed-vlmevalkit",
    "stvqa_acc_m4c": "stvqa",
    "textvqa_m4c": "textvqa",
    "textvqa_lmms": "textvqa",
    "textvqa_vlmevalkit": "textvqa-vlmevalkit",
}
NORMALISERS: dict[str, Callable[[str], str]] = {
    "m4c": vqa.m4c_normalise,
    "lmms": vqa.m4c_normalise,
    "vlmevalkit": vqa.vlmevalkit_normalise,
    "mmocr": vqa.mmocr_normalise,
    "mmocr_recognition": mmocr.plain,
    "ocrbench_lmms_fold": ocrbench.half_width,
}
SETS = ("STVQA", "ocrVQA", "textVQA", "docVQA")
# Rows of one table: released predictions of LLaVAR-336 scored with each peer's own code.
GOLDEN = {
    "mmocr": (0.3916, 0.2376, 0.4854, 0.1157),
    "mmocr-strict": (0.3890, 0.2376, 0.4820, 0.1168),
    "ocrbench": (0.4002, 0.2702, 0.5058, 0.1294),
    "ocrbench-lmms": (0.4002, 0.2702, 0.5058, 0.1294),
    "anls": (0.0034, 0.0079, 0.0111, 0.0132),
    "anls-raw": (0.0034, 0.0079, 0.0111, 0.0132),
    "textvqa": (None, None, 0.0001, None),
    "textvqa-vlmevalkit": (None, None, 0.0001, None),
    "stvqa": (0.0002, 0.0000, 0.0004, 0.0004),
    "exact-vlmevalkit": (0.0000, 0.0000, 0.0002, 0.0002),
    "exact": (0.0002, 0.0000, 0.0004, 0.0002),
    "relaxed": (0.0000, 0.0000, 0.0002, 0.0002),
    "relaxed-vlmevalkit": (0.0000, 0.0000, 0.0002, 0.0002),
}


@pytest.fixture(scope="session")
def recorded(shared_data: Path) -> Callable[[str], list[dict[str, Any]]]:
    """The recorded cases of a file, or a skip."""

    def read(name: str) -> list[dict[str, Any]]:
        path = shared_data / "metrics" / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"the recorded metric cases are not at {path}")
        cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
        assert cases
        return cases

    return read


@pytest.fixture(scope="session")
def released(shared_data: Path) -> dict[str, list[tuple[str, str | list[str]]]]:
    """LLaVAR's released answers with their references, by set."""
    folder = shared_data / "llavar" / "MultimodalOCR"
    if not folder.is_dir():
        pytest.skip(f"LLaVAR's released predictions are not at {folder}")
    rows = {name: json.loads((folder / f"{name}.json").read_text()) for name in SETS}
    return {name: [(row["answer"], row["gt_answers"]) for row in found] for name, found in rows.items()}


@pytest.mark.parametrize("file", RECORDED)
def test_the_recorded_scores(recorded: Callable[[str], list[dict[str, Any]]], file: str) -> None:
    for case in recorded(file):
        score = metrics.score(RECORDED[file], case["prediction"], case["ground_truths"])
        if case["expected"] is None:  # the peer raises (M4C wants exactly 10 references); ours is documented
            assert len(case["ground_truths"]) != 10
            assert 0 <= score <= 1
        else:
            assert score == pytest.approx(case["expected"], abs=1e-6), case


def test_the_recorded_scores_of_the_other_multimodalocr_rules(
    recorded: Callable[[str], list[dict[str, Any]]],
) -> None:
    cases = recorded("mmocr_recognition_rects_hme")
    assert {case["metric"] for case in cases} == {"mmocr_recognition", "mmocr_rects", "mmocr_hme"}
    for case in cases:
        name = case["metric"].replace("_", "-")
        assert metrics.score(name, case["prediction"], case["ground_truths"]) == case["expected"], case


def test_the_recorded_formula_scores(recorded: Callable[[str], list[dict[str, Any]]]) -> None:
    """All three kits agree on formulas, so there is one name for them."""
    for case in recorded("ocrbench_hme"):
        score = metrics.score("ocrbench-hme", case["prediction"], case["ground_truths"])
        assert set(case["expected"].values()) == {score}, case


def test_the_recorded_normalisations(recorded: Callable[[str], list[dict[str, Any]]]) -> None:
    for case in recorded("normalisers"):
        assert {name: NORMALISERS[name](case["text"]) for name in case["expected"]} == case["expected"], case


def test_the_recorded_yes_no_replies(recorded: Callable[[str], list[dict[str, Any]]]) -> None:
    parsers = {"official": "mme", "lmms": "mme-lmms", "vlmevalkit": "mme-vlmevalkit"}
    for case in recorded("mme_parse"):
        for peer, said in case["expected"].items():
            wanted = {"unknown": "other"}.get(said.lower(), said.lower())
            assert metrics.parse_yes_no(case["prediction"], parsers[peer]) == wanted, (case, peer)


def test_the_recorded_mme_tasks(recorded: Callable[[str], list[dict[str, Any]]], shared_data: Path) -> None:
    """Their answers are not there, so others with as many right, and as many pairs, stand for them."""
    cases = recorded("mme_tasks")
    assert cases
    texts = json.loads((shared_data / "metrics" / "inputs" / "mme_tasks.json").read_text())["cases"]
    assert not {case["name"] for case in texts if "tsv" in case} & {case["name"] for case in cases}
    for case in cases:
        score, expected = mme(alike(case), "mme"), case["expected"]
        assert score.score == pytest.approx(expected["score"], abs=1e-6)
        assert score.right / score.n == pytest.approx(expected["acc"])
        assert score.pairs_right / score.pairs == pytest.approx(expected["acc_plus"])
        assert score.other == expected["other_num"] == 0


def alike(case: dict[str, Any]) -> list[str]:
    """Lines of a task with the recorded numbers of right answers and of pairs with both right."""
    pairs = case["n_lines"] // 2
    both = round(case["expected"]["acc_plus"] * pairs)
    one = round(case["expected"]["acc"] * case["n_lines"]) - 2 * both
    assert 0 <= one <= pairs - both
    replies = [("Yes", "No")] * both + [("Yes", "Yes")] * one + [("No", "Yes")] * (pairs - both - one)
    return [
        f"i\tq\t{truth}\t{said}" for pair in replies for truth, said in zip(("Yes", "No"), pair, strict=True)
    ]


def mme(lines: list[str], parser: str) -> metrics.MmeScore:
    """MME pairs lines by their position, not by the image name."""
    cells = [line.split("\t") for line in lines]
    return metrics.mme_score(((str(i // 2), c[3], c[2]) for i, c in enumerate(cells)), parser)


@pytest.mark.parametrize("parser", ["mme", "mme-lmms", "mme-vlmevalkit"])
@pytest.mark.parametrize(
    ("file", "right", "pairs", "score"), [("OCR_llava", 20, 0, 50.0), ("OCR_llavar", 24, 4, 80.0)]
)
def test_the_published_mme_scores(
    shared_data: Path, parser: str, file: str, right: int, pairs: int, score: float
) -> None:
    path = shared_data / "llavar" / "MME" / f"{file}.txt"
    if not path.is_file():
        pytest.skip(f"LLaVAR's released MME answers are not at {path}")
    found = mme(path.read_text().splitlines(), parser)
    assert (found.right, found.n, found.pairs_right, found.pairs) == (right, 40, pairs, 20)
    assert found.score == pytest.approx(score)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_table_of_the_released_predictions(
    released: dict[str, list[tuple[str, str | list[str]]]], name: str
) -> None:
    for rows, expected in zip(released.values(), GOLDEN[name], strict=True):
        if expected is not None:
            scores = metrics.score_all(name, rows)
            assert round(sum(scores) / len(scores), 4) == expected


def test_the_hits_behind_the_paper(released: dict[str, list[tuple[str, str | list[str]]]]) -> None:
    hits = [sum(metrics.score_all("mmocr", rows)) for rows in released.values()]
    assert hits == [1958, 1188, 2427, 619]
    assert [len(rows) for rows in released.values()] == [5000, 5000, 5000, 5349]


def test_long_references_only(released: dict[str, list[tuple[str, str | list[str]]]]) -> None:
    """The authors later dropped references under 4 characters: the questions left, and their score."""
    found: list[tuple[int, float]] = []
    for rows in released.values():
        kept = [
            (answer, references)
            for answer, references in rows
            if all(len(text) >= 4 for text in ([references] if isinstance(references, str) else references))
        ]
        found.append((len(kept), round(sum(metrics.score_all("mmocr", kept)) / len(kept), 4)))
    assert found == [(4078, 0.3950), (3621, 0.2668), (3262, 0.4810), (4335, 0.1209)]


def test_a_constant_answer_beats_the_model_on_ocr_vqa(
    released: dict[str, list[tuple[str, str | list[str]]]],
) -> None:
    rows = [("yes no", references) for _, references in released["ocrVQA"]]
    assert sum(metrics.score_all("mmocr", rows)) / len(rows) == pytest.approx(0.2748)


def test_scoring_one_by_one_gives_the_same(
    released: dict[str, list[tuple[str, str | list[str]]]],
) -> None:
    rows = released["textVQA"][:300]
    for name in GOLDEN:
        assert metrics.score_all(name, rows) == [metrics.score(name, *row) for row in rows]
