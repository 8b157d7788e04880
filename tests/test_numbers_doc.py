"""docs/numbers.md says what the raw files say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_raw_files(figures: ModuleType) -> None:
    assert figures.PAGE.read_text(encoding="utf-8") == figures.page(), "run: python benchmarks/figures.py"


def test_every_recorded_case_is_equal() -> None:
    document = json.loads((ROOT / "benchmarks/results/parity.json").read_text(encoding="utf-8"))
    assert [row["what"] for row in document["rows"] if row["equal"] < row["cases"]] == []
    assert sum(row["cases"] for row in document["rows"]) > 1000


def test_missed_goals_are_said(figures: ModuleType) -> None:
    one = {
        "merge_over_copy": 1.31,
        "merge_checksums_over_copy": 2.0,
        "process_over_copy": 2.0,
        "peak_anonymous_bytes": 1_100_000_000,
        "medians": {"copy": 1.0, "merge": 1.31},
    }
    document = {"machine": "m", "layers": 1, "note": "", "bytes": {"base": 1, "delta": 1}}
    text = figures._merge(document | {"warm": one, "cold": one | {"merge_over_copy": 1.2}})
    assert "**missed** with 1.10 GB" in text
    assert "**missed** in this run (1.31 warm)" in text
    better = one | {"merge_over_copy": 1.3, "peak_anonymous_bytes": 10**9}
    assert "missed" not in figures._merge(document | {"warm": better, "cold": better})


def test_a_table_says_group_and_limit_once(figures: ModuleType) -> None:
    row = {"group": "G", "what": "w", "cases": 2, "equal": 1, "largest": 0.0, "limit": 1e-6, "note": ""}
    text = figures.table({"rows": [row, row | {"largest": 2e-7, "note": "n"}, row | {"largest": None}]})
    assert text.splitlines()[2:] == [
        "| G | w | 2 | 1 | 0 |",
        "|  | w; n | 2 | 1 | 2.0e-07 (limit 1e-06) |",
        "|  | w | 2 | 1 |  |",
        "| **All** | | **6** | **3** | |",
    ]


def test_an_estimate_that_is_off_is_said(figures: ModuleType) -> None:
    near, far = ({"median": value, "all": [value]} for value in (0.9, 1.2))
    ratio = {"seconds": far, "process_mb": near, "model_mb": far}
    document = {
        "command": "c",
        "machine": {"cpus": 2, "python": "3", "load": 0.0},
        "steps": 1,
        "results": [{"stage": 1, "precision": "bf16", "ratio": ratio}],
    }
    assert "**missed**: seconds of stage 1 bf16." in figures._estimate(document)


def test_peers_that_were_not_asked_are_left_out(figures: ModuleType) -> None:
    document = {"machine": "m", "note": "", "peers": {"lmms_eval": "1"}, "not_compared": "others"}
    assert "questions/s" not in figures._peers(document)
    scoring = {
        "median_seconds": {"ours": {"anls": 0.5}, "lmms-eval": {"anls": 20.0}},
        "times_faster": {"anls": 40.0},
        "rules": {"anls": {"answers": 20349, "unequal_scores": 0}},
    }
    text = figures._peers(document | {"scoring": scoring})
    assert "| anls | 20,349 | 0.50 | 20.00 | 40.0 | 0 |" in text


@pytest.fixture(scope="module")
def figures_corpus(figures: ModuleType) -> ModuleType:
    return figures.figures_corpus


MACHINE = {"cpu": "c", "cores": 2, "python": "3", "load_before": 0.0}


def test_parts_of_a_corpus_that_were_not_run_are_left_out(figures_corpus: ModuleType) -> None:
    assert figures_corpus.corpus({}) == figures_corpus.HEAD
    part = {
        "machine": MACHINE,
        "pictures_each": 1,
        "side": 384,
        "rotated_degrees": 7.0,
        "engines": {
            "e": {
                "accuracy": {kind: {"9 px": 0.5} for kind in ("flat", "photo", "rotated")},
                "seconds_a_picture": 0.125,
            }
        },
        "left_out": {"other": "it is not installed"},
    }
    text = figures_corpus.corpus({"ocr": part, "agreement": {"left_out": "one engine"}})
    assert "| e | 9 px | 0.500 | 0.500 | 0.500 | 0.12 |" in text
    assert "Not run: other: it is not installed." in text
    assert "was not measured: one engine." in text
    assert "### Fetching" not in text


@pytest.mark.parametrize(("overhead", "goal"), [(0.03, "met"), (0.031, "**missed**")])
def test_overhead_above_its_goal_is_said(figures_corpus: ModuleType, overhead: float, goal: str) -> None:
    part = {
        "machine": MACHINE,
        "pictures": 4,
        "pictures_an_hour": 5000,
        "pictures_an_hour_a_core": 4000,
        "lines_a_picture": 2.0,
        "stage1_rows": 3,
        "stage2_rows": 2,
        "kept_by_stage": {"select": 4, "teach": 3},
        "overhead_over_opening_and_engine": overhead,
        "overhead_over_the_engine": 0.04,
        "overhead_with_start": 0.5,
        "milliseconds_a_picture_by_stage": {"open": 4.0, "elsewhere": 0.5},
    }
    text = figures_corpus.corpus({"end": part})
    assert f"(goal: at most 3 %, {goal})" in text
    assert "kept: 4 by `select`, 3 by `teach`" in text
    assert "4.0 `open`, 0.5 elsewhere." in text


def test_a_peer_that_did_not_fetch_is_named(figures_corpus: ModuleType) -> None:
    rate = {"pictures_a_second": 60.5, "pictures_a_second_without_start": 80.0}
    part = {"machine": MACHINE, "pictures": 40, "mean_kilobytes": 100, "latency": 0.02, "at_once": 32}
    part |= {"repeat": 3, "llavar": rate}
    alone = figures_corpus.corpus({"fetch": part | {"left_out": "img2dataset did not run"}})
    assert "| 60.5 | 80.0 |" in alone
    assert "\nimg2dataset did not run.\n" in alone
    beside = figures_corpus.corpus({"fetch": part | {"img2dataset": rate, "img2dataset_version": "1.0"}})
    assert "| img2dataset 1.0 | 60.5 | 80.0 |" in beside


def test_rows_without_support_are_said(figures_corpus: ModuleType) -> None:
    lengths = {"characters": [30.0, 20.0], "words": [6.0, 4.0]}
    part = {
        "rows": {"stage2": 10},
        "turns_a_row": 2.0,
        "answers_supported": 1,
        "answers_checked": 20,
        "words_that_were_read": 0.99,
        "words_of_support": 100,
        "questions_asked_twice_in_a_row": 0,
        "equal_conversations": 1,
        "tokenizer": "",
        "lengths": {
            "stage1": lengths,
            "stage2": lengths,
            "paper_llama_tokens": {"stage1": [17.2, 48.8], "stage2": [15.1, 40.5]},
        },
    }
    text = figures_corpus.corpus({"teacher": part})
    assert "99.00% of 100 (goal: 100 %, **missed**)" in text
    assert "| stage1 | 30.0 / 20.0 | 6.0 / 4.0 | - | 17.2 / 48.8 |" in text
    assert "tokens (no tokenizer was named)" in text
