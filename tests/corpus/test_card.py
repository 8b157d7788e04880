"""The data card: what a corpus holds, in words and on a page."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from llavar.cli import main
from llavar.corpus.card import write_card
from llavar.corpus.card_facts import gather, kind_of
from llavar.corpus.engines import rapidocr
from llavar.corpus.shards import existing
from llavar.errors import NotFoundError

RECIPE = "source: {folder: pictures}\nworkers: 1\nselect: null\nlayout: {min_height: 0}\nnear: null\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of four pictures and three things that are none, one of them called like a tag."""
    base = tmp_path_factory.mktemp("card")
    folder = base / "pictures"
    folder.mkdir()
    for width in (60, 70, 80, 90):
        Image.new("RGB", (width, 50), "white").save(folder / f"{width}.png")
    (folder / "<b>|x.png").write_bytes(b"no picture")
    Image.new("RGB", (400, 40), "white").save(folder / "long.png")
    (folder / "notes.txt").write_text("none")
    (base / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        fake = importlib.import_module("fake_engines").FakeEngine
        patch.setattr(rapidocr, "factory", lambda models, languages: fake)
        assert main(["corpus", "run", str(base / "recipe.yaml"), "--out", str(base / "corpus")]) == 0
    return base / "corpus"


def test_counts_lengths_and_reasons_stand_in_the_card(built: Path):
    markdown, _ = write_card(built, tokens=lambda text: len(text.split()), tokenizer="words")
    text = markdown.read_text()
    assert "| Stage 1: the visible text | 4 | 4 |" in text
    assert re.search(r"\| stage1, response tokens \| 4\.0 \| 4 \| 4 \| 4 \| 48\.8 \|", text)
    assert re.search(r"\| stage2, instruction tokens \| .* \| 15\.1 \|", text)
    assert "Tokens are those of words." in text
    assert "| open | 6 | 4 | 2 |" in text
    assert "| pictures | 6 |" in text
    assert "| fake 1 | 4 |" in text
    assert "| templates 1 | 4 |" in text
    assert "| open | too long and narrow | 1 | long.png" in text
    assert "| scan | not a picture by its extension | 1 |" in text
    assert "Pictures of evaluation sets were not looked for" in text
    assert "llavar corpus remove CORPUS" in text
    assert '"min_height": 0' in text


def test_without_a_tokenizer_only_characters_are_counted(built: Path):
    text = write_card(built)[0].read_text()
    assert "Tokens were not counted" in text
    assert "stage1, response characters" in text
    assert "response tokens" not in text


def test_the_page_shows_rows_with_pictures_and_loads_nothing(built: Path):
    page = write_card(built)[1].read_text()
    assert page.count("<img") == 5, "four rows and the one that is too long"
    assert "wide 70" in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "&lt;b&gt;" in page
    assert "<b>|x" not in page


def test_names_from_outside_are_no_markup(built: Path):
    text = write_card(built)[0].read_text()
    assert "&lt;b&gt;\\|x.png" in text
    assert "<b>" not in text


def test_equal_corpora_have_equal_cards(built: Path):
    first = [path.read_bytes() for path in write_card(built)]
    assert [path.read_bytes() for path in write_card(built)] == first


def test_a_picture_that_is_gone_is_told_and_the_card_is_made(built: Path, tmp_path: Path):
    folder = built.parent / "pictures"
    shutil.move(folder / "70.png", tmp_path / "70.png")
    try:
        assert "No picture: " in write_card(built)[1].read_text()
    finally:
        shutil.move(tmp_path / "70.png", folder / "70.png")


def test_masked_pieces_and_sources_are_counted(built: Path):
    facts = gather(existing(built))
    assert facts.sources == {"pictures": 6}
    assert facts.masked.total() == 0
    assert sum(one.rows for one in (facts.stage1, facts.stage2)) == 8


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Which text is visible here?", "all text (stage 1)"),
        ('Is the word "SALE" in the picture?', "word present"),
        ("How many red circles are there?", "shape count"),
        ("Count the lines of text.", "line count"),
        ("How old is the author?", "other: how old ..."),
        ("Who wrote it?", "other: who ..."),
        ("", "other"),
    ],
)
def test_a_question_is_of_the_kind_of_its_wording_or_begins_somehow(question: str, kind: str):
    assert kind_of(question) == kind


def test_the_command_says_where_the_card_is(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["corpus", "card", str(built)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(built / "products" / name) for name in ("card.md", "card.html")
    ]


def test_where_no_corpus_is_there_is_no_card(tmp_path: Path):
    with pytest.raises(NotFoundError, match="holds no corpus"):
        write_card(tmp_path)
