"""Pictures of evaluation sets, and edited copies of them, stay out of a corpus."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llavar.cli import main
from llavar.corpus.decontaminate import (
    DecontaminateStage,
    EvalHash,
    LeakChoice,
    LeakReason,
    leaks,
    read_hashes,
    write_hashes,
)
from llavar.corpus.item import Item, Origin
from llavar.corpus.opening import OpenSettings, OpenStage, measured
from llavar.corpus.recipe import read_recipe, stages_of
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.sources import Folder
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Reject


def noise(number: int) -> Image.Image:
    """Large spots that no two numbers share, as a picture has them."""
    spots = hashlib.shake_256(f"spots {number}".encode()).digest(12 * 9 * 3)
    return Image.frombytes("RGB", (12, 9), spots).resize((240, 180), Image.Resampling.BICUBIC)


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "textvqa"
    (folder / "sub").mkdir(parents=True)
    for number in range(3):
        noise(number).save(folder / "sub" / f"{number}.png")
    return folder


@pytest.fixture
def hashes(evaluation: Path, tmp_path: Path) -> tuple[EvalHash, ...]:
    write_hashes(evaluation, "textvqa", tmp_path / "hashes.jsonl")
    return tuple(read_hashes(tmp_path / "hashes.jsonl"))


def item(folder: Path, name: str, image: Image.Image, **how: int) -> Item:
    image.save(folder / name, **how)  # pyright: ignore[reportArgumentType]
    found = measured(
        Item(id=name, origin=Origin(source="s", path=name)), root=folder, settings=OpenSettings()
    )
    assert isinstance(found, Item)
    return found


def test_a_line_says_what_a_picture_is_known_by(hashes: tuple[EvalHash, ...], evaluation: Path):
    assert [one.set for one in hashes] == ["textvqa"] * 3
    data = (evaluation / "sub" / "0.png").read_bytes()
    assert hashes[0].sha256 == hashlib.sha256(data).hexdigest()


def test_equal_files_equal_pixels_and_edited_copies_are_kept_out_and_others_pass(
    hashes: tuple[EvalHash, ...], tmp_path: Path
):
    items = [
        item(tmp_path, "file.png", noise(0)),
        item(tmp_path, "pixels.bmp", noise(1)),
        item(tmp_path, "smaller.jpg", noise(2).resize((180, 135)), quality=80),
        item(tmp_path, "other.png", noise(9)),
    ]
    fetched = replace(items[3], id="fetched.png")
    assert fetched.file is not None
    fetched = replace(fetched, file=replace(fetched.file, original_sha256=hashes[1].sha256))
    bare = Item(id="bare", origin=Origin(source="s"))
    stage = DecontaminateStage(known=hashes)
    shards = [items[:2], [*items[2:], fetched, bare]]
    decision = stage.decide(shards)
    judge = stage.judge(decision)
    outcomes = [outcome for shard in shards for outcome in judge(shard)]
    found = {one.id: one.reason for one in outcomes if isinstance(one, Reject)}
    assert found == {
        "file.png": LeakReason.FILE,
        "pixels.bmp": LeakReason.PIXELS,
        "smaller.jpg": LeakReason.NEAR,
        "fetched.png": LeakReason.FILE,
    }
    near = next(one for one in outcomes if isinstance(one, Reject) and one.id == "smaller.jpg")
    assert near.detail.startswith("textvqa: ")
    assert near.detail.endswith(" of 256 bits differ")
    strict = replace(stage, max_bits=0)
    assert "other.png" not in json.loads(strict.decide(shards))


def test_shards_are_searched_as_if_there_were_one(hashes: tuple[EvalHash, ...], tmp_path: Path):
    items = [item(tmp_path, f"{n}.jpg", noise(n).resize((180, 135)), quality=80) for n in range(6)]
    for known in (hashes, hashes[:1]):
        stage = DecontaminateStage(known=known)
        whole = stage.decide([items])
        assert set(json.loads(whole)) == {f"{n}.jpg" for n in range(len(known))}
        for size in (1, 2, 4):
            assert stage.decide([items[at : at + size] for at in range(0, 6, size)]) == whole
    assert DecontaminateStage(known=hashes).decide([[]]) == b"{}"


def test_the_set_that_is_most_alike_is_named(hashes: tuple[EvalHash, ...], tmp_path: Path):
    flipped = int(hashes[0].perceptual, 16) ^ 0b111
    other = replace(hashes[0], set="docvqa", sha256="0" * 64, pixels="0" * 64, perceptual=f"{flipped:064x}")
    copy = item(tmp_path, "copy.png", noise(0))
    assert copy.fingerprint is not None
    assert copy.file is not None
    edited = replace(
        copy,
        file=replace(copy.file, sha256="1" * 64),
        fingerprint=replace(copy.fingerprint, pixels="2" * 64),
    )
    decided = json.loads(DecontaminateStage(known=(other, hashes[0])).decide([[edited]]))
    assert decided["copy.png"][0] == "textvqa"


def test_a_changed_set_of_hashes_is_another_stage_and_their_order_is_not(hashes: tuple[EvalHash, ...]):
    one = DecontaminateStage(known=hashes)
    assert DecontaminateStage(known=hashes[::-1]).settings == one.settings
    assert DecontaminateStage(known=hashes[:2]).settings != one.settings


def test_a_corpus_reports_what_was_kept_out_by_set(
    evaluation: Path, hashes: tuple[EvalHash, ...], tmp_path: Path
):
    noise(7).save(evaluation / "new.png")
    corpus = Corpus(tmp_path / "corpus")
    stages = [OpenStage(root=corpus.root, time_limit=None), DecontaminateStage(known=hashes)]
    summary = corpus.run(Folder(path=evaluation), stages, settings=RunSettings(shard_rows=3))
    assert summary.kept == 1
    assert leaks(corpus) == {("textvqa", LeakReason.FILE): 3}


def test_a_recipe_names_files_of_hashes(hashes: tuple[EvalHash, ...], tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("source: {folder: x}\nselect: null\ndecontaminate: {hashes: [hashes.jsonl]}")
    stages = stages_of(read_recipe(recipe), tmp_path / "corpus")
    names = [stage.name for stage in stages]
    assert names.index("exact") + 1 == names.index("decontaminate") < names.index("ocr")
    with pytest.raises(ConfigError, match="0 files of hashes"):
        LeakChoice(hashes=())


@pytest.mark.parametrize("line", ["{", "[]", '{"set": "a"}', '{"set": "a", "sha256": "zz"}'])
def test_a_line_that_is_none_is_named(line: str, hashes: tuple[EvalHash, ...], tmp_path: Path):
    path = tmp_path / "hashes.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match="line 4 of .* is no hash"):
        read_hashes(path)
    short = replace(hashes[0]).__class__
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        short(set="a", sha256="ab", pixels="0" * 64, perceptual="0" * 64)


def test_no_hashes_keep_nothing_out_and_that_is_an_error(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no hashes"):
        read_hashes(tmp_path / "empty.jsonl")
    with pytest.raises(NotFoundError, match="make one with"):
        read_hashes(tmp_path / "none.jsonl")


def test_the_command_hashes_a_folder_beside_other_sets_and_tells_what_it_cannot(
    evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "h.jsonl"
    (evaluation / "broken.png").write_bytes(b"no")
    asked = ["corpus", "hashes", str(evaluation), "--out", str(out), "--workers", "1"]
    assert main([*asked, "--name", "one"]) == 1
    said = capsys.readouterr().out
    assert "not hashed: broken.png: " in said
    assert f"3 pictures of one in {out}" in said
    (evaluation / "broken.png").unlink()
    assert main([*asked, "--name", "two", "--add"]) == 0
    assert main([*asked, "--name", "two", "--add"]) == 0
    assert [one.set for one in read_hashes(out)] == ["one"] * 3 + ["two"] * 3
    assert main([*asked, "--name", "a: b"]) == 2
