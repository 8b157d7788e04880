"""The demo from end to end at its smallest: what it writes, that it is fair, that it can be stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from llavar.corpus.wordings import STAGE1_WORDINGS, WORDINGS, QuestionKind, plural
from llavar.errors import ConfigError, DataError, LlavarError, NotFoundError
from llavar.records import Conversation, Example, Role
from llavar.render.layouts import scene
from llavar.render.scene import Colour, Scene
from llavar.study import demo
from llavar.study.demo import PLAIN, DemoSettings, Outcome
from llavar.study.demo_corpus import REJECTS, Built
from llavar.study.demo_page import Rows, Scenes
from llavar.study.nano.questions import exam
from llavar.study.nano.scenes import SHAPE_NAMES
from llavar.study.progress import Watch
from llavar.study.reader import find
from llavar.study.report import DemoReport

SETTINGS = DemoSettings(
    text_pictures=6, control_pictures=8, exam_pictures=4, stage1_steps=2, stage2_steps=2, seeds=2
)
ARMS = ("without", "with", "seed-1/without", "seed-1/with")
"""Folders of both arms at both seeds."""

METRICS = {"transcription_cer", "vqa_accuracy", "yes_no_score", "scene_accuracy"}
SIGN = "OPEN SUNDAY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished demo, and what passed between its steps."""

    out: Path
    own: Path
    outcome: Outcome
    rows: Rows
    shown: DemoReport

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.outcome.result.read_text())


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """One worker and one thread, whatever else the machine does."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _process: {0}, raising=False)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a sign, the same photograph turned by EXIF, a torn file, and something else."""
    folder = tmp_path_factory.mktemp("own")
    sign = Image.new("RGB", (480, 240), "white")
    ImageDraw.Draw(sign).text((30, 80), SIGN, fill="black", font=ImageFont.load_default(64))
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "holiday").mkdir()
    sign.save(folder / "holiday" / "sign.png")
    sign.transpose(Image.Transpose.ROTATE_90).save(folder / "holiday" / "turned.jpg", quality=95, exif=exif)
    torn = (folder / "holiday" / "turned.jpg").read_bytes()
    (folder / "holiday" / "torn.jpg").write_bytes(torn[: len(torn) // 3])
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def finished(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("demo") / "run"
    kept: dict[str, Any] = {}

    def keep(name: str, make: Callable[..., object]) -> Callable[..., object]:
        return lambda *given: kept.setdefault(name, make(*given))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "mix", keep("rows", demo.mix))
        patch.setattr(demo, "demo_report", keep("shown", demo.demo_report))
        outcome = demo.run(out, SETTINGS, own=own, quiet=True)
    return Finished(out=out, own=own, outcome=outcome, rows=kept["rows"], shown=kept["shown"])


def copied(finished: Finished, out: Path) -> Path:
    """A run that was stopped right after OCR, the slow part."""
    shutil.copytree(finished.out / "pictures", out / "pictures")
    for name in ("corpus", "own"):
        shutil.copytree(finished.out / name, out / name)
    shutil.copy(finished.out / "demo.json", out)
    return out


def scores(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("without", "with", "paired", "runs")}


def weights_of(out: Path) -> list[bytes]:
    return [(out / arm / "model" / "model.safetensors").read_bytes() for arm in ARMS]


# --- what is written ------------------------------------------------------------------------------------


def test_the_result(finished: Finished):
    result = finished.result
    assert result.keys() == {"without", "with", "paired", "runs", "seconds", "steps"}
    for arm in ("without", "with"):
        assert result[arm].keys() == {"n", *METRICS}
        assert result[arm]["n"] == len(exam(4, seed="exam:0").questions)
        for name in METRICS:
            score = result[arm][name]
            assert score.keys() == {"value", "low", "high", "n"}
            assert score["low"] <= score["value"] <= score["high"]
            assert score["n"] >= 1
    assert result["paired"].keys() == METRICS
    for name, found in result["paired"].items():
        assert found.keys() == {"difference", "low", "high", "p", "n"}
        assert 0 <= found["p"] <= 1
        assert found["difference"] == pytest.approx(
            result["with"][name]["value"] - result["without"][name]["value"]
        )
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    for name in ("transcription_cer", "vqa_accuracy", "scene_accuracy"):
        runs = [run["with"][name] for run in result["runs"]]
        assert sum(runs) / 2 == pytest.approx(result["with"][name]["value"])
    assert result["seconds"] == pytest.approx(sum(result["steps"].values()), abs=1)
    assert result["seconds"] > 0


def test_the_report_needs_nothing_from_elsewhere(finished: Finished):
    page = finished.outcome.report.read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]+)""", page)
    assert any(link.startswith("data:image/") for link in links)
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|url\(\s*['\"]?http|<script", page)
    assert finished.outcome.verdict in page.replace("&#x27;", "'")


def test_nothing_half_written_is_left(finished: Finished):
    names = [path.name for path in finished.out.rglob("*")]
    assert not [name for name in names if name.endswith((".part", ".partial")) or name.startswith(".")]


def test_the_models_can_be_asked(finished: Finished):
    assert find(str(finished.out)) == finished.out / "with" / "model"


# --- that it is fair ------------------------------------------------------------------------------------


def test_both_arms_take_equal_steps_on_equally_many_rows(finished: Finished):
    for stage, steps in (("stage1", 2), ("stage2", 2)):
        logs = [(finished.out / arm / stage / "metrics.jsonl").read_text().splitlines() for arm in ARMS]
        assert [json.loads(log[-1])["step"] for log in logs] == [steps] * 4
    rows = finished.rows
    assert len(rows.without.stage1) == len(rows.with_.stage1) == 8
    assert len(rows.without.stage2) == len(rows.with_.stage2) == 8


def test_both_arms_start_alike_and_seeds_do_not(finished: Finished):
    """Before the first step an arm has its base's projector, which a seed has drawn."""
    bases = [(finished.out / name / "model.safetensors").read_bytes() for name in ("base", "seed-1/base")]
    assert bases[0] != bases[1]
    assert len(set(weights_of(finished.out))) == 4


def test_text_rich_rows_take_the_places_of_control_rows(finished: Finished):
    for count, without, with_ in zip(
        finished.rows.text_rich,
        (finished.rows.without.stage1, finished.rows.without.stage2),
        (finished.rows.with_.stage1, finished.rows.with_.stage2),
        strict=True,
    ):
        assert 0 < count <= 8
        assert with_[: 8 - count] == without[count:]
        assert not {row.id for row in with_[8 - count :]} & {row.id for row in without}


def test_pictures_of_the_exam_are_not_trained_on(finished: Finished):
    arms = (finished.rows.without, finished.rows.with_)
    used = {image for arm in arms for row in (*arm.stage1, *arm.stage2) for image in row.images}
    assert used
    assert not [image for image in used if "exam" in image]


def asked(rows: Sequence[Example]) -> list[str]:
    turns = (turn for row in rows for turn in row.conversation.turns if turn.role is Role.USER)
    return [turn.text.replace("<image>", "").strip() for turn in turns]


def about_text(questions: Sequence[str]) -> list[str]:
    """Those that ask for text, by every wording there is."""
    kinds = [kind for kind in QuestionKind if kind.about_text]
    templates = [*STAGE1_WORDINGS, *(text for kind in kinds for part in WORDINGS[kind] for text in part)]
    patterns = [re.sub(r"\\\{\w+\\\}", ".+", re.escape(template)) for template in templates]
    return [question for question in questions if re.fullmatch("|".join(patterns), question)]


@pytest.fixture(scope="module")
def control() -> dict[str, Scene]:
    return {f"{index}.png": scene(f"fair:{index}", PLAIN) for index in range(120)}


def test_control_rows_never_ask_about_text(control: dict[str, Scene], finished: Finished):
    captions, talks = demo.control_rows(control, 0)
    assert len(captions) == len(talks) == 120
    assert about_text(asked(captions)) == []
    assert about_text(asked(talks)) == []
    # The same look at the text-rich rows does find such questions.
    assert about_text(asked(finished.rows.with_.stage1))
    assert about_text(asked(finished.rows.with_.stage2))


def test_answers_of_control_rows_hold_nothing_of_the_text(control: dict[str, Scene]):
    shown = {*Colour, *SHAPE_NAMES, *map(plural, SHAPE_NAMES), "background"}
    captions, talks = demo.control_rows(control, 0)
    for row in (*captions, *talks):
        answers = " ".join(t.text for t in row.conversation.turns if t.role is Role.ASSISTANT).lower().split()
        written = control[Path(row.id).name].text.lower().split()
        assert not {word for word in written if len(word) > 3 and word not in shown} & set(answers)
        assert all(word.strip(",") in shown or len(word) < 4 for word in answers)


def built(count: int) -> Built:
    rows = tuple(
        Example(
            id=f"{i}.png", images=(f"{i}.png",), conversation=Conversation.of("<image>\nWhat?", f"text {i}")
        )
        for i in range(count)
    )
    return Built(readings={}, stage1=rows, stage2=rows[:2], rejects=())


def test_rows_that_find_no_place_are_rejects(control: dict[str, Scene]):
    scenes = Scenes(text={}, control=dict(list(control.items())[:5]), exam=exam(1))
    rows = demo.mix(scenes, built(9), None, 0)
    assert rows.text_rich == (5, 2)
    assert len(rows.with_.stage1) == len(rows.with_.stage2) == 5
    assert [reject.id for reject in rows.rejects] == ["5.png", "6.png", "7.png", "8.png"]
    assert {reject.detail for reject in rows.rejects} == {"there are 5; raise --control-pictures"}


# --- the user's pictures --------------------------------------------------------------------------------


def test_the_users_pictures_are_read_and_answered(finished: Finished):
    shown = {picture.image.name: picture for picture in finished.shown.own}
    assert shown.keys() == {"sign.png", "torn.jpg", "turned.jpg"}
    for name in ("sign.png", "turned.jpg"):
        made = shown[name].made
        assert made is not None
        assert made.reading.text == SIGN
        assert [row.conversation.turns[-1].text for row in made.stage1] == [SIGN]
        assert not shown[name].answers[0].with_.failed
    assert shown["torn.jpg"].made is None
    assert "damaged or cut short" in shown["torn.jpg"].problem
    assert "damaged or cut short" in shown["torn.jpg"].answers[0].with_.failed


def test_the_page_shows_them(finished: Finished):
    page = finished.outcome.report.read_text(encoding="utf-8")
    assert SIGN in page
    assert "torn.jpg" in page
    assert "damaged or cut short" in page


def test_other_files_are_rejects(finished: Finished):
    lines = (finished.out / "own" / REJECTS).read_text().splitlines()
    reasons = {Path(reject["id"]).name: reject["reason"] for reject in map(json.loads, lines)}
    assert reasons["notes.txt"] == "not a picture by its extension"
    assert "torn.jpg" in reasons


# --- stopped, and gone on -------------------------------------------------------------------------------


def test_a_stopped_demo_goes_on_to_the_same_result(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C in the middle of training, then in the last examination, then not at all."""
    out = copied(finished, tmp_path / "run")

    def stopping_early(watch: Watch, done: int, total: int, note: str = "") -> None:
        if "stage 1" in note:
            raise KeyboardInterrupt

    def stopping(watch: Watch, done: int, total: int, note: str = "") -> None:
        if done == total and "stage 2" in note:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "count", stopping_early)
        with pytest.raises(KeyboardInterrupt):
            demo.run(out, SETTINGS, own=finished.own, quiet=True)
    assert not (out / "without" / "answers.jsonl").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "count", stopping)
        with pytest.raises(KeyboardInterrupt):
            demo.run(out, SETTINGS, own=finished.own, quiet=True)
    assert not (out / "result.json").exists()
    demo.run(out, SETTINGS, own=finished.own, quiet=True)
    assert weights_of(out) == weights_of(finished.out)
    assert scores(json.loads((out / "result.json").read_text())) == scores(finished.result)


def test_a_finished_demo_only_writes_its_page_again(finished: Finished):
    def state() -> dict[Path, int | bytes]:
        logs = [
            path for path in finished.out.rglob("*.jsonl") if path.name in ("answers.jsonl", "metrics.jsonl")
        ]
        models = finished.out.rglob("model.safetensors")
        return {path: path.read_bytes() for path in logs} | {path: path.stat().st_mtime_ns for path in models}

    before, earlier = state(), finished.result
    assert len(before) == 12 + 6  # four answers and eight logs, four models and their two bases
    again = demo.run(finished.out, SETTINGS, own=finished.own, quiet=True)
    assert state() == before
    assert scores(finished.result) == scores(earlier)
    assert again.seconds > finished.outcome.seconds


# --- refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (replace(SETTINGS, seed=1), r"another seed \(0, now 1\)"),
        (replace(SETTINGS, stage2_steps=3), r"another stage2_steps \(2, now 3\)"),
    ],
)
def test_other_settings_in_the_same_folder(finished: Finished, settings: DemoSettings, sentence: str):
    with pytest.raises(ConfigError, match=f"holds a demo with {sentence}; use another --out"):
        demo.run(finished.out, settings, own=finished.own, quiet=True)


def test_other_pictures_in_the_same_folder(finished: Finished, tmp_path: Path):
    with pytest.raises(ConfigError, match="holds a demo with another images"):
        demo.run(finished.out, SETTINGS, quiet=True)
    added = finished.own / "added.png"
    Image.new("RGB", (9, 9)).save(added)
    with pytest.raises(ConfigError, match="holds a demo with another content of images"):
        demo.run(finished.out, SETTINGS, own=finished.own, quiet=True)
    added.unlink()


@pytest.mark.parametrize("content", [b"{", b"[1]", b"7", b"\xff\xfe"])
def test_a_damaged_folder(tmp_path: Path, content: bytes):
    (tmp_path / "demo.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"demo.json is damaged .* use another --out"):
        demo.run(tmp_path, SETTINGS, quiet=True)


def test_folders_without_pictures(tmp_path: Path):
    out, empty, texts = tmp_path / "run", tmp_path / "empty", tmp_path / "texts"
    empty.mkdir()
    texts.mkdir()
    (texts / "a.txt").write_text("a")
    cases: tuple[tuple[Path, type[LlavarError], str], ...] = (
        (tmp_path / "absent", NotFoundError, "does not exist"),
        (empty, DataError, "holds 0 files and no picture among them"),
        (texts, DataError, "holds 1 files and no picture among them"),
        (texts / "a.txt", ConfigError, "is a file but a folder of pictures is needed"),
    )
    for folder, error, sentence in cases:
        with pytest.raises(error, match=sentence):
            demo.run(out, SETTINGS, own=folder, quiet=True)
    assert not out.exists()


def test_a_run_inside_the_pictures(own: Path):
    with pytest.raises(ConfigError, match="lies inside the folder of pictures"):
        demo.run(own / "run", SETTINGS, own=own, quiet=True)
    assert not (own / "run").exists()


@pytest.mark.parametrize(
    "name", ["text_pictures", "control_pictures", "exam_pictures", "stage1_steps", "stage2_steps"]
)
def test_sizes_too_small_to_compare(name: str):
    with pytest.raises(ConfigError, match=f"{name} is 1; at least 2 are needed"):
        DemoSettings(**{name: 1})


def test_no_run_at_all():
    with pytest.raises(ConfigError, match="seeds is 0; each arm needs at least one training run"):
        replace(SETTINGS, seeds=0)


def test_more_text_rich_pictures_than_places():
    with pytest.raises(ConfigError, match="text_pictures is 9, more than control_pictures, 8"):
        replace(SETTINGS, text_pictures=9)
