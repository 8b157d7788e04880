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
