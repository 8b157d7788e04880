"""The plan for a large corpus: its arithmetic, where its numbers come from, and that the page has it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plans() -> Iterator[ModuleType]:
    """The module ``benchmarks/corpus_plan.py``."""
    spec = importlib.util.spec_from_file_location("corpus_plan", ROOT / "benchmarks" / "corpus_plan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "corpus_plan", module)
        spec.loader.exec_module(module)
        yield module


def test_the_page_has_the_plan_of_the_recorded_numbers(plans: ModuleType):
    held = json.loads((ROOT / "benchmarks/results/corpus_plan.json").read_text(encoding="utf-8"))
    said = plans.text(plans.Rates(**held["rates"]), plans.Setup(**held["setup"]))
    assert said in plans.PAGE.read_text(encoding="utf-8"), "run: python benchmarks/corpus_plan.py --docs"


def test_what_a_stage_keeps_is_what_the_next_one_gets_and_the_paper_s_number_comes_out(plans: ModuleType):
    made = plans.plan(plans.Rates(), plans.Setup())
    assert made.steps[0].rows == 170e6
    for before, after in zip(made.steps, made.steps[1:], strict=False):
        assert before.kept == after.rows
        assert after.kept <= after.rows
    assert made.steps[-1].kept == pytest.approx(422_315)
    assert made.hours == pytest.approx(sum(step.hours for step in made.steps))


def test_twice_the_rows_take_twice_of_everything(plans: ModuleType):
    one = plans.Setup()
    two = replace(one, urls=2 * one.urls, target=2 * one.target)
    made, more = (plans.plan(plans.Rates(), setup) for setup in (one, two))
    for name in ("hours", "core_hours", "terabytes", "machines_cost", "storage_cost", "driver_gigabytes"):
        assert getattr(more, name) == pytest.approx(2 * getattr(made, name))


def test_workers_help_until_the_drivers_are_the_limit(plans: ModuleType):
    def hours(cores: float) -> float:
        made = plans.plan(plans.Rates(), plans.Setup(worker_cores=cores))
        return next(step.hours for step in made.steps if step.stage == "open")

    assert hours(20) == pytest.approx(2 * hours(40))
    assert hours(10**6) == hours(10**7) > 0
    drivers = plans.plan(plans.Rates(), plans.Setup(worker_cores=10**7, parts=16)).steps
    assert next(step.hours for step in drivers if step.stage == "open") == pytest.approx(hours(10**7) / 2)


def test_fetching_is_limited_by_waiting_or_by_the_processor(plans: ModuleType):
    def hours(**changes: float) -> float:
        made = plans.plan(plans.Rates(), plans.Setup(slowest=0.0, **changes))
        return next(step.hours for step in made.steps if step.stage == "fetch")

    assert hours(at_once=128) == pytest.approx(2 * hours(at_once=256))
    assert hours(at_once=10**6) == hours(at_once=10**7) > 0


def test_measured_rates_come_from_the_files_as_far_as_they_go(plans: ModuleType, tmp_path: Path):
    assert plans.measured(tmp_path) == plans.Rates()
    rates = {
        "ocr": {"cpu_seconds": 0.2},
        "open": {"cpu_seconds": 0.05, "mean_bytes": 100, "mean_bytes_written": 150},
        "driver": {"scan": {"cpu_seconds": 1e-4}, "memory": {"exact": 321}},
    }
    (tmp_path / "corpus_rates.json").write_text(json.dumps(rates))
    found = plans.measured(tmp_path)
    assert (found.ocr, found.open, found.encoded, found.scan, found.exact_memory) == (
        0.2,
        0.05,
        1.5,
        1e-4,
        321,
    )
    assert found.fetch == plans.Rates().fetch
    engines = {"rapidocr 3": {"seconds_a_picture": 0.9}, "tesseract 5": {"seconds_a_picture": 3.0}}
    (tmp_path / "corpus.json").write_text(json.dumps({"ocr": {"engines": engines}}))
    assert plans.measured(tmp_path).ocr == 0.9


def test_every_input_says_what_it_is_and_is_an_option(plans: ModuleType, capsys: pytest.CaptureFixture[str]):
    plans.main(["--worker-cores", "64", "--ocr", "2"])
    said = capsys.readouterr().out
    said = " ".join(said.split())
    assert "cores of all workers together: 64;" in said.split("**Assumed.**")[1].split("**")[0]
    assert "worker: RapidOCR at 384 pixels (s): 2;" in said.split("**Measured.**")[1]
    assert all(
        one.metadata["what"].removesuffix(" (s)") in said
        for one in (*fields(plans.Rates), *fields(plans.Setup))
    )


def test_a_page_without_a_place_for_the_plan_is_left_alone(plans: ModuleType):
    page = f"before\n{plans.BEGIN}\nold\n{plans.END}\nafter\n"
    assert plans.with_plan(page, "new") == f"before\n{plans.BEGIN}\nnew\n{plans.END}\nafter\n"
    with pytest.raises(SystemExit, match="no place for the plan"):
        plans.with_plan("before\nafter\n", "new")
