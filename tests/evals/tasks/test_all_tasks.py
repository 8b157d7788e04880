from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.evals import metrics, tasks
from llavar.evals.tasks.base import Expected, locate
from llavar.records import Task

NAMES = tasks.names()


def test_the_tasks_of_the_paper_and_of_the_field_are_there() -> None:
    expected = {"textvqa", "docvqa", "stvqa", "ocrvqa", "infovqa", "chartqa", "ocrbench", "ocrbench-v2"}
    expected |= {"mme", "mme-ocr", "qa90", "text50", "scienceqa", "pope", "folder"}
    assert expected <= set(NAMES)
    assert sum(name.startswith("mmocr-") for name in NAMES) == 24
    assert list(NAMES) == sorted(NAMES)


def test_an_unknown_name_gets_the_close_ones_or_all() -> None:
    with pytest.raises(ConfigError, match="'textvqaa'; did you mean textvqa"):
        tasks.get("textvqaa")
    with pytest.raises(ConfigError, match="the tasks are chartqa, docvqa"):
        tasks.get("zzzz")


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_names_metrics_that_exist(name: str) -> None:
    benchmark = tasks.get(name)
    named = {benchmark.metric, *benchmark.also, *benchmark.metric_of.values()}
    assert named <= {*metrics.NAMES, "judge"}
    assert benchmark.about
    assert benchmark.max_new_tokens > 0


@pytest.mark.parametrize("name", NAMES)
def test_official_files_become_questions(name: str, official: Path) -> None:
    loaded = tasks.get(name).load(official)
    assert loaded.image_root.is_dir()
    ids = [question.id for question in loaded.questions]
    assert len(set(ids)) == len(ids) > 0
    for question in loaded.questions:
        assert question.id.strip()
        assert question.text.strip()
        assert ".." not in Path(question.image).parts
        assert not Path(question.image).is_absolute()
        assert all(isinstance(reference, str) for reference in question.references)
        assert any(reference.strip() for reference in question.references) or question.task is Task.OPEN
    tasks_metric = tasks.get(name).metric
    if tasks_metric != "judge":
        for question in loaded.questions:
            metric = tasks.get(name).metric_of.get(question.category, tasks_metric)
            best = metrics.score(metric, question.references[0], question.references)
            # MultimodalOCR's rule cannot find a bare "$5", for which it is known.
            assert best == (1 if metrics.higher_is_better(metric) else 0) or "$" in question.references[0]


def _shuffled(paths: Iterator[Path]) -> Iterator[Path]:
    return iter(sorted(paths, key=lambda path: path.name[::-1], reverse=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_is_not_that_of_the_file_system(
    name: str, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tasks.get(name).load(official)
    plain = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: _shuffled(plain(folder)))
    assert tasks.get(name).load(official) == before


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_are_all_named_with_their_source(name: str, tmp_path: Path) -> None:
    benchmark = tasks.get(name)
    with pytest.raises(NotFoundError) as caught:
        benchmark.load(tmp_path)
    for file in benchmark.files:
        present = any(place in str(caught.value) for place in file.path.split(" | "))
        assert present is file.required
        assert not file.required or file.source in str(caught.value)


def test_what_is_found_is_told_from_what_is_missing(official: Path) -> None:
    (official / "docVQA/val/val_v1.0.json").unlink()
    with pytest.raises(
        NotFoundError, match=r"\[MISSING\] docVQA/val/val_v1.0.json or .*\[found\] docVQA/val/"
    ):
        tasks.get("docvqa").load(official)
    with pytest.raises(NotFoundError, match="there is no folder at .*nowhere"):
        tasks.get("docvqa").load(official / "nowhere")


def test_the_first_of_several_places_counts(tmp_path: Path) -> None:
    file = Expected(path="a/x.json | b/x.json | c/*.json", what="rows", source="us")
    assert file.find(tmp_path) is None
    (tmp_path / "c").mkdir()
    (tmp_path / "c/1.json").write_text("[]")
    assert file.find(tmp_path) == tmp_path / "c"
    (tmp_path / "b/x.json").mkdir(parents=True)  # a folder is no file
    assert file.find(tmp_path) == tmp_path / "c"
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.json").write_text("[]")
    assert file.find(tmp_path) == tmp_path / "a/x.json"


def test_an_optional_file_may_be_missing(tmp_path: Path) -> None:
    file = Expected(path="x.json", what="rows", source="us", required=False)
    found = locate("t", (file,), tmp_path)
    assert found.paths == (None,)
    with pytest.raises(LookupError):
        found[0]


def test_doubled_ids_are_refused(official: Path) -> None:
    path = official / "docVQA/val/val_v1.0.json"
    row = json.loads(path.read_text())["data"][0]
    path.write_text(json.dumps({"data": [row, row]}))
    with pytest.raises(DataError, match="two questions of docvqa in .* have the id '3'"):
        tasks.get("docvqa").load(official)


def test_an_empty_file_is_refused(official: Path) -> None:
    (official / "docVQA/val/val_v1.0.json").write_text('{"data": []}')
    with pytest.raises(DataError, match="hold no question"):
        tasks.get("docvqa").load(official)


def test_benchmarks_are_frozen_and_pickle() -> None:
    benchmark = tasks.get("mmocr-estvqa-cn")
    with pytest.raises(dataclasses.FrozenInstanceError):
        benchmark.n = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(benchmark)).name == benchmark.name
