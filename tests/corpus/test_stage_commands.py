"""``llavar corpus fetch|select|cluster|dedup|ocr|pairs|teach|merge``: a recipe one stage at a time."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from llavar.cli import main
from llavar.corpus.crews import LocalCrews
from llavar.corpus.engines import rapidocr
from llavar.corpus.parts import Part, last_stage
from llavar.corpus.recipe import CorpusRecipe, SourceChoice, read_recipe
from llavar.corpus.shards import Corpus

RECIPE = """
source: {folder: pictures}
workers: 1
layout: {min_height: 0}
select: {text: {min_text: 0.1}}
"""


@dataclass(slots=True, kw_only=True)
class Place:
    """A recipe and its corpus, and the commands on them."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    recipe: Path = field(init=False)
    corpus: Path = field(init=False)

    def __post_init__(self) -> None:
        self.recipe, self.corpus = self.folder / "recipe.yaml", self.folder / "c"
        self.write(RECIPE)

    def write(self, text: str) -> None:
        self.recipe.write_text(text)

    def command(self, *arguments: object) -> int:
        return main(["corpus", *map(str, arguments)])

    def stage(self, name: str) -> list[tuple[str, int, int]]:
        """Run a command of the recipe; stages with the shards that it computed and the items they kept."""
        self.capsys.readouterr()
        assert self.command(name, self.recipe, "--out", self.corpus, "--json") == 0
        found: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return [(one["stage"], one["computed"], one["kept"]) for one in found["stages"]]

    def refused(self, *arguments: object) -> str:
        """What a command says that ends with status 2."""
        self.capsys.readouterr()
        assert self.command(*arguments) == 2
        return self.capsys.readouterr().err

    def said(self) -> str:
        return self.capsys.readouterr().out


@pytest.fixture
def place(
    tmp_path: Path,
    engines: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Place:
    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: engines.FakeEngine)
    monkeypatch.setattr(LocalCrews, "crew", importlib.import_module("inline_crew").crew)
    (tmp_path / "pictures").mkdir()
    for width in (60, 70, 90):
        image = Image.new("RGB", (width, 50), "white")
        ImageDraw.Draw(image).ellipse((5, 5, width - 20, 40), fill="navy")
        image.save(tmp_path / "pictures" / f"{width}.png")
    Image.open(tmp_path / "pictures" / "60.png").save(tmp_path / "pictures" / "same.bmp")
    return Place(folder=tmp_path, capsys=capsys)


def test_each_command_goes_on_where_the_last_one_stopped(place: Place) -> None:
    assert place.stage("ocr") == [("scan", 1, 4), ("open", 1, 4), ("exact", 1, 3), ("ocr", 1, 3)]
    assert place.stage("select")[-2:] == [("ocr", 0, 3), ("select", 1, 3)]
    assert place.stage("dedup")[-3:] == [("ocr", 0, 3), ("select", 0, 3), ("near", 1, 3)]
    assert place.stage("pairs")[-2:] == [("near", 0, 3), ("pairs", 1, 3)]
    assert place.stage("teach")[-2:] == [("pairs", 0, 3), ("teach", 1, 3)]
    assert not (place.corpus / "products").exists()
    assert place.command("merge", place.recipe, "--out", place.corpus, "--json") == 0
    assert json.loads(place.said())["rows"] == {"stage1": 3, "stage2": 3, "rejects": 1}
    assert len(json.loads((place.corpus / "products" / "stage1.json").read_text())) == 3
    assert {computed for _, computed, _ in place.stage("run")} == {0}


def test_people_are_told_what_was_done(place: Place) -> None:
    assert place.command("dedup", place.recipe, "--out", place.corpus) == 0
    assert "   exact  4 in, 3 kept  (1 of 1 shards computed, " in place.said()
    assert place.command("dedup", place.recipe, "--out", place.corpus) == 0
    assert "    near  3 in, 3 kept  (0 of 1 shards computed, " in place.said()
    assert place.command("run", place.recipe, "--out", place.corpus) == 0
    assert place.command("merge", place.recipe, "--out", place.corpus) == 0
    assert "1 left out at exact: same pixels as another\n3 stage-1 and 3 stage-2 rows in" in place.said()


def test_an_earlier_command_does_not_make_a_corpus_forget_what_comes_after(place: Place) -> None:
    assert place.command("run", place.recipe, "--out", place.corpus) == 0
    assert [computed for _, computed, _ in place.stage("ocr")] == [0, 0, 0, 0]
    assert [stage.stage for stage in Corpus(place.corpus).chain()][-1] == "teach"
    assert place.command("explain", place.corpus, "70.png") == 0
    assert json.loads(place.said())["stage"] == "teach"
    digest = json.loads(
        next(
            line
            for line in (place.corpus / "products/names.jsonl").read_text().splitlines()
            if "/70." in line
        )
    )["sha256"]
    assert place.command("remove", place.corpus, "--sha256", digest) == 0
    assert place.said().startswith("removed 70.png\n")
    assert len(json.loads((place.corpus / "products" / "stage1.json").read_text())) == 2


def test_a_picture_is_removed_from_a_corpus_that_is_half_made(place: Place) -> None:
    place.stage("ocr")
    items = [item for items in Corpus(place.corpus).items("ocr") for item in items]
    digest = next(item.file.sha256 for item in items if item.file is not None and item.id == "60.png")
    assert place.command("remove", place.corpus, "--sha256", digest) == 0
    assert place.said().splitlines()[:2] == ["removed 60.png", "removed same.bmp"]
    assert place.stage("ocr")[-1] == ("ocr", 0, 2)


def test_a_card_of_a_corpus_that_is_half_made_shows_what_there_is(place: Place) -> None:
    place.stage("ocr")
    assert place.command("card", place.corpus) == 0
    card = (place.corpus / "products" / "card.md").read_text()
    assert "| ocr | 3 | 3 |" in card
    assert "| teach |" not in card


# ------------------------------------------------------------------------------------------ cluster, teach


def test_cluster_computes_a_recipe_and_shows_a_corpus(place: Place) -> None:
    place.write(RECIPE + "cluster: {count: 2}\n")
    assert place.command("cluster", place.recipe, "--out", place.corpus) == 0
    said = place.said()
    assert " cluster  3 in, 3 kept  (1 of 1 shards computed" in said
    assert f"look at {place.corpus / 'clusters.html'}" in said
    assert [stage.kept for stage in Corpus(place.corpus).chain() if stage.stage == "ocr"] == [0]
    (place.corpus / "clusters.html").unlink()
    assert place.command("cluster", place.corpus) == 0
    assert (place.corpus / "clusters.html").is_file()
    assert "computed" not in place.said()


def test_teach_computes_a_recipe_or_handles_the_batches_of_a_corpus(place: Place) -> None:
    place.write(RECIPE + "teacher: {kind: endpoint, model: m, transport: batch}\n")
    assert "wait for answers of the teacher" in place.refused("teach", place.recipe, "--out", place.corpus)
    batch = place.folder / "b.jsonl"
    assert place.command("teach", place.corpus, "--write-batch", batch) == 0
    assert len(batch.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cluster", "R"], "is a recipe; say where its corpus lies: llavar corpus cluster"),
        (["teach", "R"], "is a recipe; say where its corpus lies: llavar corpus teach"),
        (["teach", "R", "--out", "C", "--write-batch", "b"], "batch files are of a corpus, not of a recipe"),
        (["teach", "F"], "is a corpus; give --write-batch or --read-batch, or ask the teacher with"),
        (["teach", "F", "--out", "C", "--read-batch", "b"], "is a corpus; give --write-batch"),
        (["cluster", "gone"], "gone holds no corpus and is no recipe; check the path"),
        (
            ["cluster", "F", "--cluster"],
            "is a corpus, of which nothing is computed; --cluster is for a recipe",
        ),
        (["cluster", "F"], "holds no corpus: there is no manifest.sqlite"),
        (["ocr", "gone.yaml", "--out", "C"], "there is no recipe 'gone.yaml'"),
        (["merge", "R", "--out", "C"], "holds no corpus: there is no manifest.sqlite"),
    ],
)
def test_a_wrong_use_says_what_to_do(arguments: Sequence[str], sentence: str, place: Place) -> None:
    names = {"R": place.recipe, "C": place.corpus, "F": place.folder}
    assert sentence in place.refused(*(names.get(word, word) for word in arguments))


@pytest.mark.parametrize(
    ("command", "changes", "sentence"),
    [
        ("fetch", "", "pictures are there already; name tables of URLs as its source, or go on with"),
        ("select", "select: null", "which takes all pictures; leave that out"),
        ("cluster", "", "nothing to do for 'cluster': write cluster: {count: 100}"),
        ("pairs", "rows: stage2", "it says rows: stage2; write rows: both"),
        ("teach", "rows: stage1", "it says rows: stage1; write rows: both"),
    ],
)
def test_a_recipe_without_the_stage_says_what_to_write(
    command: str, changes: str, sentence: str, place: Place
) -> None:
    place.write(f"source: {{folder: pictures}}\n{changes}\n")
    assert sentence in place.refused(command, place.recipe, "--out", place.corpus)
    assert not place.corpus.exists()


# ------------------------------------------------------------------------------------------ merge


def test_merge_computes_nothing_and_names_what_is_not_done(place: Place) -> None:
    merge = ("merge", place.recipe, "--out", place.corpus)
    place.stage("ocr")
    assert "the stage 'select' is to be computed; run llavar corpus run " in place.refused(*merge)
    place.stage("run")
    assert place.command(*merge) == 0
    place.write(RECIPE + "pairs: {max_chars: 9}\n")
    assert "the stage 'pairs' is to be computed" in place.refused(*merge)
    place.write(RECIPE)
    (place.folder / "pictures" / "90.png").unlink()
    assert "the stage 'scan' is to be computed" in place.refused(*merge)


def test_merge_writes_the_products_that_the_recipe_names_now(place: Place) -> None:
    place.stage("run")
    place.write(RECIPE + "products: {formats: [json, parquet]}\n")
    assert place.command("merge", place.recipe, "--out", place.corpus) == 0
    names = {path.suffix for path in (place.corpus / "products").glob("stage1*")}
    assert names == {".json", ".parquet"}


# ------------------------------------------------------------------------------------------ parts


def recipe(folder: Path, text: str) -> CorpusRecipe:
    (folder / "r.yaml").write_text(text)
    return read_recipe(folder / "r.yaml")


def test_the_stage_that_a_part_ends_with_depends_on_the_recipe(tmp_path: Path) -> None:
    plain = CorpusRecipe(source=SourceChoice(folder=tmp_path))
    assert [last_stage(plain, part) for part in (Part.DEDUP, Part.OCR)] == ["near", "ocr"]
    other = recipe(
        tmp_path,
        "source: {tables: [t.json]}\nnear: null\nocr: {engines: [rapidocr, tesseract]}\ncluster: {count: 3}",
    )
    assert {part.value: last_stage(other, part) for part in Part} == {
        "fetch": "fetch",
        "select": "select",
        "cluster": "cluster",
        "dedup": "exact",
        "ocr": "agree",
        "pairs": "pairs",
        "teach": "teach",
    }


def test_a_real_engine_reads_a_poster_into_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.new("RGB", (560, 240), "white")
    draw = ImageDraw.Draw(image)
    for place, text in enumerate(("GRAND OPENING", "Fresh bread", "open from 9")):
        draw.text((20, 20 + 70 * place), text, fill="black", font=ImageFont.load_default(size=40))
    (tmp_path / "pictures").mkdir()
    image.save(tmp_path / "pictures" / "poster.png")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert main(["corpus", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "c")]) == 0
    (row,) = json.loads((tmp_path / "c" / "products" / "stage1.json").read_text())
    assert row["conversations"][1]["value"] == "GRAND OPENING\nFresh bread\nopen from 9"
    assert "1 stage-1 and 1 stage-2 rows in" in capsys.readouterr().out
