from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llavar.evals.judge import (
    Review,
    ReviewStatus,
    Rule,
    agree,
    parse_scores,
    read_cases,
    read_reviews,
    read_rules,
    review_prompt,
    summarise,
)
from llavar.evals.judge.files import read_questions

FILES = ("p0f0", "p0f1", "p1f0", "p1f1", "p1f1_ablation_OCR")


def cases(shared_data: Path, name: str) -> list[dict[str, Any]]:
    found = json.loads((shared_data / "metrics" / f"{name}.json").read_text())["cases"]
    assert found
    return found


def reviews(shared_data: Path, name: str) -> tuple[Review, ...]:
    return read_reviews(shared_data / "llavar" / "reviews" / f"review_{name}.json")


def test_scores_are_read_as_by_the_original(shared_data: Path) -> None:
    for case in cases(shared_data, "gpt_review_parse"):
        expected = None if case["expected"] == [-1, -1] else pytest.approx(tuple(case["expected"]))
        assert parse_scores(case["review"]) == expected, case["review"]


def test_every_input_can_be_read_both_ways(shared_data: Path) -> None:
    """The rule of the original, written out again, on all recorded inputs."""
    inputs = json.loads((shared_data / "metrics/inputs/gpt_review_parse.json").read_text())["cases"]
    both = 0
    for case in inputs:
        parts = case["review"].split("\n")[0].replace(",", " ").split(" ")
        strict, tolerant = parse_scores(case["review"]), parse_scores(case["review"], strict=False)
        assert len(parts) == 2 or strict is None
        if strict is not None and all(0 <= score <= 10 for score in strict):
            assert tolerant == strict
            both += 1
    assert both > 10


def test_prompts_are_the_originals(shared_data: Path, tmp_path: Path) -> None:
    for case in cases(shared_data, "gpt_review_prompt"):
        rule = Rule(prompt=case["rule"]["prompt"], role=case["rule"]["role"])
        paths = {name: tmp_path / f"{name}.jsonl" for name in ("question", "context", "answer1", "answer2")}
        for name, path in paths.items():
            path.write_text(json.dumps(case[name]))
        (found,) = read_cases(*paths.values())
        answers = (found.reference.text, found.answer.text)
        prompt = review_prompt(found.question.context, found.question.text, answers, rule)
        assert prompt == case["expected"]


def test_summaries_are_the_originals(shared_data: Path) -> None:
    failures = 0
    for case in cases(shared_data, "gpt_review_summary"):
        rows = [
            Review(
                question_id=number,
                category=name,
                status=ReviewStatus.OK if pair != [-1, -1] else ReviewStatus.UNPARSED,
                scores=(pair[0], pair[1]),
            )
            for name, pairs in case["tuples"].items()
            for number, pair in enumerate(pairs)
        ]
        found = summarise(rows, compatible=True)
        plain = summarise(rows)
        for name, expected in case["expected"].items():
            row = found[name]
            values = (row.n, row.reference, row.model, row.relative)
            assert values == (
                expected["n"],
                expected["gpt4_mean"],
                expected["model_mean"],
                expected["relative"],
            )
            failures += plain[name].failed
    assert failures == 1 + 30 + 15


TABLE = {
    "p0f0": ((8.300, 6.967, 83.9), (7.867, 6.150, 78.2), (8.133, 7.750, 95.3), (8.100, 6.956, 85.9)),
    "p0f1": ((8.367, 6.633, 79.3), (7.900, 6.267, 79.3), (8.300, 8.117, 97.8), (8.189, 7.006, 85.6)),
    "p1f0": ((8.400, 7.300, 86.9), (7.867, 6.233, 79.2), (8.067, 7.683, 95.2), (8.111, 7.072, 87.2)),
    "p1f1": ((8.367, 7.067, 84.5), (7.833, 6.183, 78.9), (8.167, 7.883, 96.5), (8.122, 7.044, 86.7)),
    "p1f1_ablation_OCR": (
        (8.233, 6.900, 83.8),
        (7.833, 6.000, 76.6),
        (8.133, 7.950, 97.7),
        (8.067, 6.950, 86.2),
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("compatible", [True, False])
def test_the_released_reviews_give_the_published_numbers(
    shared_data: Path, name: str, compatible: bool
) -> None:
    found = summarise(reviews(shared_data, name), compatible=compatible)
    assert list(found) == ["conv", "detail", "complex", "all"]
    for row, expected, n in zip(found.values(), TABLE[name], (30, 30, 30, 90), strict=True):
        assert (row.reference, row.model, row.relative) == expected
        assert (row.n, row.failed) == (n, 0)
        assert compatible or (row.low is not None and row.low < expected[2] < row.high)


@pytest.mark.parametrize("name", FILES)
def test_stored_scores_are_those_of_the_text(shared_data: Path, name: str) -> None:
    for review in reviews(shared_data, name):
        assert parse_scores(review.content) == parse_scores(review.content, strict=False) == review.scores


def test_the_judge_does_not_agree_with_itself(shared_data: Path) -> None:
    found = agree([(name, reviews(shared_data, name)) for name in FILES])
    assert (found.reference.n, found.reference.differ, found.reference.largest) == (90, 46, 3.0)
    assert len(found.pairs) == 10
    (pair,) = [p for p in found.pairs if (p.first, p.second) == ("p0f0", "p1f1")]
    # Bounds of another bootstrap with other random numbers.
    expected = {
        "conv": (0.5, -6.3, 7.1),
        "detail": (0.8, -4.0, 5.6),
        "complex": (1.2, -3.6, 6.4),
        "all": (0.9, -2.4, 4.1),
    }
    for name, (difference, low, high) in expected.items():
        row = pair.relative[name]
        assert row is not None
        assert row.difference == pytest.approx(difference, abs=0.06)
        assert row.low == pytest.approx(low, abs=0.7)
        assert row.high == pytest.approx(high, abs=0.7)
        assert row.p > 0.05


def test_released_files_can_be_matched(shared_data: Path) -> None:
    for folder, questions, contexts, answers, n in (
        ("llavar/files", "qa50_questions", "caps_laion_50_val", "qa50_gpt4_answer", 50),
        ("llava", "qa90/qa90_questions", "caps_boxes_coco2014_val_80", "qa90/qa90_gpt4_answer", 90),
    ):
        paths = [shared_data / folder / f"{name}.jsonl" for name in (questions, contexts, answers)]
        assert len(read_questions(*paths[:2])) == len(read_cases(*paths, paths[2])) == n
    assert "read" in read_rules(shared_data / "llavar/files/rule_read_v3.json")
    assert read_rules(shared_data / "llava/rule.json")["conv"].role == "Assistant"
