"""Which rows an item gets, why one is missing, and what of it is masked; from recipes too."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llavar.corpus.item import Item, Masked
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.pairs import PairSettings
from llavar.corpus.products import write_products
from llavar.corpus.recipe import read_recipe, save_recipe, saved_recipe, stages_of
from llavar.corpus.rows import PairsSettings, PairsStage, TeachSettings, TemplateTeachStage
from llavar.corpus.shards import SCAN, Corpus
from llavar.corpus.stage import Stage
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.teaching.stage import EndpointTeachStage
from llavar.corpus.teaching.teacher import EndpointTeacher
from llavar.corpus.wordings import SceneFacts
from llavar.errors import ConfigError, NotFoundError
from llavar.records import Conversation, Line, Reading, Reject

LAYOUT = LayoutSettings(min_height=0)
SHORT = PairSettings(max_chars=12)


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("teaching_helpers")


def pairs(*, required: bool, mask: bool = True, settings: PairSettings = SHORT) -> PairsStage:
    return PairsStage(settings=PairsSettings(layout=LAYOUT, pairs=settings, required=required, mask=mask))


def teach(seed: int = 0, **options: Any) -> TemplateTeachStage:
    teacher = TemplateTeacher(seed=seed, max_pairs=8)
    return TemplateTeachStage(settings=TeachSettings(layout=LAYOUT, teacher=teacher, **options))


# ------------------------------------------------------------------------------------------ one row or both


def test_an_item_without_a_stage_1_row_still_reaches_the_teacher(helpers: ModuleType) -> None:
    long = helpers.item("a", "GRAND OPENING", "Fresh bread", with_row=False)
    assert isinstance(pairs(required=True).paired(long), Reject)
    noted = pairs(required=False).paired(long)
    assert isinstance(noted, Item)
    assert [(note.stage, note.reason) for note in noted.notes] == [("pairs", "text too long")]
    taught = teach().taught(noted)
    assert isinstance(taught, Item)
    assert taught.stage1 is None
    assert taught.stage2 is not None
    assert taught.notes == noted.notes


def test_an_item_with_neither_row_ends_with_the_teachers_reason_and_its_note(helpers: ModuleType) -> None:
    noted = pairs(required=False).paired(helpers.item("a", " ", with_row=False))
    assert isinstance(noted, Item)
    ended = teach().taught(noted)
    assert isinstance(ended, Reject)
    assert (ended.id, ended.stage, ended.reason) == ("a", "teach", "nothing to ask about")
    assert [note.reason for note in noted.notes] == ["no text"]


def test_an_item_with_a_row_goes_on_without_the_other(helpers: ModuleType) -> None:
    kept = teach().taught(helpers.item("a", " "))
    assert isinstance(kept, Item)
    assert (kept.stage2, [note.stage for note in kept.notes]) == (None, ["teach"])


class _Items:
    def __init__(self, items: list[Item]) -> None:
        self._items = items
        self.settings = {"count": len(items)}

    def fingerprint(self) -> str:
        return "1"

    def items(self) -> Any:
        return iter(self._items)


def test_a_row_that_is_missing_stands_among_the_rejects_with_its_reason(
    helpers: ModuleType, tmp_path: Path
) -> None:
    texts = {"both": ("BREAD",), "second": ("GRAND OPENING", "Fresh bread"), "none": (" ",)}
    items = []
    for name, lines in texts.items():
        (tmp_path / f"{name}.png").write_bytes(b"x")
        items.append(helpers.item(name, *lines, with_row=False))
    stages: list[Stage] = [pairs(required=False), teach()]
    corpus = Corpus(tmp_path)
    corpus.run(_Items(items), stages)
    made = write_products(corpus, [SCAN, "pairs", "teach"])
    assert (made.stage1, made.stage2) == (1, 2)
    lines = (tmp_path / "products" / "rejects.jsonl").read_text().splitlines()
    found = {
        (one["reject"]["id"], one["reject"]["stage"], one["reject"]["reason"])
        for one in map(json.loads, lines)
    }
    assert found == {
        ("none", "teach", "nothing to ask about"),
        ("second", "pairs", "text too long"),
    }
    (ended,) = (one for one in map(json.loads, lines) if one["reject"]["id"] == "none")
    assert [note["reason"] for note in ended["item"]["notes"]] == ["no text"]


# ------------------------------------------------------------------------------------------ masked


def test_rows_and_what_goes_on_are_masked_unless_the_recipe_says_not(helpers: ModuleType) -> None:
    item = helpers.item("a", "Call 212-555-0123", "for bread", with_row=False)
    made = pairs(required=True, settings=PairSettings()).paired(item)
    assert isinstance(made, Item)
    assert made.stage1 is not None
    assert made.stage1.turns[1].text == "Call [phone]\nfor bread"
    assert "555" not in made.readings[0].text
    assert made.masked == Masked(phone=1)
    plain = pairs(required=True, mask=False, settings=PairSettings()).paired(item)
    assert isinstance(plain, Item)
    assert plain.stage1 is not None
    assert "212-555-0123" in plain.stage1.turns[1].text
    assert plain.masked == Masked()


def test_a_number_in_two_boxes_of_one_line_is_masked_as_well(helpers: ModuleType) -> None:
    from dataclasses import replace

    from llavar.records import Box

    reading = helpers.reading("+49 30", "1234567")
    one, two = reading.lines
    beside = replace(two, box=Box(left=105, top=one.box.top, right=190, bottom=one.box.bottom))
    item = helpers.item("a", readings=(replace(reading, lines=(one, beside)),), with_row=False)
    made = pairs(required=True, settings=PairSettings()).paired(item)
    assert isinstance(made, Item)
    assert made.stage1 is not None
    assert made.stage1.turns[1].text == "[phone]"


def test_nothing_is_asked_about_a_masked_line(helpers: ModuleType) -> None:
    """Not for its words, not for its place, and not for the only number beside it."""
    item = helpers.item("a", "Call 212-555-0123", "Fresh bread", "open from 9")
    for seed in range(20):
        made = teach(seed).taught(item)
        assert isinstance(made, Item)
        assert made.stage2 is not None
        asked = [turn.text for turn in made.stage2.conversation.turns]
        assert not any("phone" in text or "Call" in text or text == "9" for text in asked)
        assert not any("first line" in text for text in asked)


# ------------------------------------------------------------------------------------------ recipes

BASE = "source: {folder: p}\nselect: null\n"


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE + text)
    return path


def names(tmp_path: Path, text: str) -> list[str]:
    return [stage.name for stage in stages_of(read_recipe(recipe(tmp_path, text)), tmp_path)]


def test_a_recipe_says_which_rows_there_are(tmp_path: Path) -> None:
    assert names(tmp_path, "")[-2:] == ["pairs", "teach"]
    assert names(tmp_path, "rows: stage1")[-1] == "pairs"
    assert "pairs" not in names(tmp_path, "rows: stage2")
    found = [
        stage.settings.required
        for text in ("", "rows: stage1")
        for stage in stages_of(read_recipe(recipe(tmp_path, text)), tmp_path)
        if isinstance(stage, PairsStage)
    ]
    assert found == [False, True]


def test_the_template_teacher_needs_no_name_and_the_endpoint_has_one(tmp_path: Path) -> None:
    plain = read_recipe(recipe(tmp_path, "teacher: {seed: 3, max_pairs: 2}")).teacher
    assert plain == TemplateTeacher(seed=3, max_pairs=2)
    assert read_recipe(recipe(tmp_path, "teacher: {kind: template, seed: 1}")).teacher.seed == 1
    (tmp_path / "my.txt").write_text("Ask.")
    text = (
        "mask: false\nteacher:\n  kind: endpoint\n  url: http://127.0.0.1:8000/v1\n  model: m\n"
        "  prompt: my.txt\n  prices: {prompt: 2.5, completion: 10}\n  max_cost: 5\n"
    )
    found = read_recipe(recipe(tmp_path, text))
    assert isinstance(found.teacher, EndpointTeacher)
    assert found.teacher.prompt == tmp_path / "my.txt"
    stage = stages_of(found, tmp_path)[-1]
    assert isinstance(stage, EndpointTeachStage)
    assert (stage.prompt.text, stage.mask) == ("Ask.", False)
    save_recipe(found, tmp_path / "corpus")
    assert saved_recipe(tmp_path / "corpus") == found


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("{kind: oracle}", "the kind of a teacher is template or endpoint"),
        ("{kind: endpoint}", "model: Field required"),
        ("{max_pairs: 99}", "max_pairs is 99"),
        ("{kind: endpoint, model: m, url: x}", "'x' is not the URL of an endpoint"),
        ("{kind: endpoint, model: m, url: 'http://a/v1', api_key: sk-1}", "api_key: Unexpected keyword"),
        ("{kind: endpoint, model: m, url: 'http://a/v1', key_variable: sk-1}", "no name of an environment"),
        ("{kind: endpoint, model: m, url: 'http://a/v1', max_cost: 3}", "the prices are 0"),
        ("[]", "should be a dictionary"),
        ("three", "teacher"),
    ],
)
def test_a_teacher_that_cannot_work_is_refused_and_keys_are_not_repeated(
    teacher: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(recipe(tmp_path, f"teacher: {teacher}"))
    assert said in str(caught.value)
    assert "sk-1" not in str(caught.value)


def test_a_corpus_without_a_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no corpus"):
        saved_recipe(tmp_path)


# ------------------------------------------------------------------------------------------ the last gate


@dataclass(frozen=True)
class Careless:
    """A teacher whose conversations are not fit to be learned."""

    said: tuple[str, str]

    def teach(
        self, reading: Reading, facts: SceneFacts | None = None, *, dropped: Sequence[Line] = ()
    ) -> Conversation | Reject:
        return Conversation.of(*self.said)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (("<image>\nWhat does the OCR say?", "GRAND"), "question names OCR or a caption"),
        (("<image>\nWhat does it say?", "GRAND</s>"), "control string in an answer"),
        (("<image>\nWhat does it say?", 'It says "nothing"'), "quoted string does not match the picture"),
        (("What does it say?", "GRAND"), "image tags do not match images"),
    ],
)
def test_a_conversation_with_a_fault_is_no_row(
    said: tuple[str, str], reason: str, helpers: ModuleType
) -> None:
    stage = TemplateTeachStage(settings=TeachSettings(layout=LAYOUT, teacher=Careless(said)))
    taught = stage.taught(helpers.item("a", "GRAND OPENING"))
    assert isinstance(taught, Item)
    assert taught.stage2 is None
    assert [(note.id, note.stage, note.reason) for note in taught.notes] == [("a", "check", reason)]
    ended = stage.taught(helpers.item("a", "GRAND OPENING", with_row=False))
    assert isinstance(ended, Reject)
    assert ended.reason == reason
