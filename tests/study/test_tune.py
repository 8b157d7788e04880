"""``llavar tune`` from end to end: nano as docs/tune.md walks it, and small models of other families."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("peft", reason="LoRA needs peft, which is not installed")
pytest.importorskip("rapidocr")

from llavar.cli import main
from llavar.errors import ConfigError, DataError, ModelError
from llavar.study import tune
from llavar.study.progress import Watch
from llavar.study.reader import find
from llavar.study.tune import Settings

DOC = Path(__file__).resolve().parents[2] / "docs" / "tune.md"
RECEIPTS = 9


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """One worker and one thread, whatever else the machine does."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _process: {0}, raising=False)
        yield
    torch.set_num_threads(threads)


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def walked(options: str = "") -> list[str]:
    """The document's commands about receipts, in their order, the first made small."""
    commands = [
        line.removeprefix("llavar ")
        for block in blocks("")
        for line in re.sub(r" *\\\n *", " ", block).splitlines()
        if line.startswith("llavar ") and "receipts" in line
    ]
    first = next(line for line in commands if line.startswith("tune receipts"))
    assert commands[0] == first
    return [f"{line} {options}" if line == first else line for line in commands]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The folder in which the document was walked, with receipts and some odd files among them."""

    root: Path
    command: list[str]

    @property
    def out(self) -> Path:
        return self.root / "runs" / "receipts"

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.out / "result.json").read_text())


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    root = tmp_path_factory.mktemp("walk")
    (drawing,) = blocks("python")
    small = re.sub(r"^COUNT = \d+$", f"COUNT = {RECEIPTS}", drawing, flags=re.MULTILINE)
    assert small != drawing
    command = shlex.split(walked("--steps 3 --held-out 2")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        exec(compile(small, str(DOC), "exec"), {"__name__": "walk"})
        folder = root / "receipts"
        (folder / "more").mkdir()
        first = sorted(folder.glob("*.png"))[0]
        shutil.copy(first, folder / "more" / "same file.png")
        edited = Image.open(first).convert("RGB").resize((350, 350))
        edited.save(folder / "more" / "smaller.jpg", quality=90)
        Image.new("RGB", (300, 200), "navy").save(folder / "blank.png")
        (folder / "torn.png").write_bytes(first.read_bytes()[:2000])
        (folder / "notes.txt").write_text("milk")
        assert main(command) == 0
    return Walk(root=root, command=command)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reject_of(walk: Walk, name: str) -> str:
    found = [one["reason"] for one in lines(walk.out / "rejects.jsonl") if one["id"].endswith(name)]
    return "; ".join(found)


# --- what is made ---------------------------------------------------------------------------------------


def test_the_result_has_both_scores_and_what_they_are_against(walk: Walk) -> None:
    result = walk.result
    parts = [(one["part"], one["metric"], one["truth"]) for one in result["measures"]]
    assert parts == [
        ("own", "anls", "your answers"),
        ("own", "exact", "your answers"),
        ("text", "cer", "OCR"),
        ("facts", "exact", "OCR"),
    ]
    for one in result["measures"]:
        for side in ("before", "after"):
            score = one[side]
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert one["difference"] == pytest.approx(one["after"]["value"] - one["before"]["value"])
        assert 0 <= one["p"] <= 1
    assert result["steps"] == 3
    assert result["pictures"]["held_out"] == 2
    assert result["memory_gb"] > 0


def test_no_picture_is_on_both_sides(walk: Walk) -> None:
    trained = {row["image"] for row in lines(walk.out / "rows.jsonl")}
    assert trained
    for part in ("own", "text", "facts"):
        for asked in lines(walk.out / "exam" / part / "questions.jsonl"):
            picture = (walk.out / "exam" / part / asked["image"]).resolve()
            assert picture.relative_to(walk.root / "receipts").as_posix() not in trained


def test_copies_of_pictures_asked_about_are_not_learned(walk: Walk) -> None:
    asked = {Path(one["image"]).name for one in lines(walk.root / "mine.jsonl")}
    assert sorted((walk.root / "receipts").glob("*.png"))[0].name in asked
    assert reject_of(walk, "same file.png") == "same file as another"
    assert reject_of(walk, "smaller.jpg") == "edited copy of another"


def test_what_is_left_out_is_counted_with_its_reason(walk: Walk) -> None:
    assert reject_of(walk, "torn.png") == "the picture cannot be opened"
    assert reject_of(walk, "notes.txt") == "not a picture by its extension"
    assert "no text" in reject_of(walk, "blank.png")
    assert walk.result["rejects"] >= len(lines(walk.out / "rejects.jsonl"))


def test_the_page_says_what_the_truth_is_and_needs_nothing_from_elsewhere(walk: Walk) -> None:
    page = (walk.out / "report.html").read_text(encoding="utf-8")
    assert walk.result["verdict"] in page.replace("&#x27;", "'")
    assert "agreement with OCR, not accuracy" in page
    assert "2 questions are scored against your answers" in page
    assert "worst after tuning" in page
    links = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]+)""", page)
    assert any(link.startswith("data:image/") for link in links)
    assert all(link.startswith(("data:", "#")) for link in links)


def test_nothing_half_written_is_left(walk: Walk) -> None:
    names = [path.name for path in walk.out.rglob("*")]
    assert not [name for name in names if name.endswith((".part", ".partial")) or name.startswith(".")]
    assert not (walk.out / "trial").exists()


def test_the_commands_that_it_prints_and_the_document_has_work(
    walk: Walk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(walk.root)
    ask, again, serve = walk.result["commands"]
    picture = next((walk.root / "receipts").glob("*.png"))
    assert main([*shlex.split(ask.replace("PICTURE", str(picture)))[1:], "--max-new-tokens", "3"]) == 0
    assert main(shlex.split(again)[1:]) == 0
    assert serve == "llavar serve runs/receipts"
    assert find("runs/receipts") == Path("runs/receipts/train/model")
    capsys.readouterr()
    others = [line for line in walked()[1:] if not line.startswith(("serve", "tune"))]
    assert {line.split()[0] for line in others} >= {"ask", "eval"}
    for line in others:
        assert main(shlex.split(line)) == 0, line


# --- stopped, and gone on -------------------------------------------------------------------------------


def copied(walk: Walk, root: Path) -> Path:
    """The run as it was right after the pictures were read."""
    out = root / "run"
    shutil.copytree(walk.out / "corpus", out / "corpus")
    return out


def settings(walk: Walk, out: Path, **more: Any) -> Settings:
    settled: dict[str, Any] = {"pictures": walk.root / "receipts", "questions": walk.root / "mine.jsonl"}
    return Settings(out=out, **({**settled, "steps": 3, "held_out": 2} | more))


def weights(out: Path) -> bytes:
    return (out / "train" / "model" / "model.safetensors").read_bytes()


def test_a_stopped_tuning_goes_on_to_the_same_model(
    walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copied(walk, tmp_path)

    def stopping(_watch: Watch, text: str) -> None:
        if text.startswith("  step 2/3"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "say", stopping)
        with pytest.raises(KeyboardInterrupt):
            tune.run(settings(walk, out))
    assert not (out / "result.json").exists()
    with pytest.raises(ModelError, match="has not trained its model yet; go on with the llavar tune command"):
        find(str(out))
    made = tune.run(settings(walk, out), quiet=True)
    assert weights(out) == weights(walk.out)
    assert made.verdict == walk.result["verdict"]


def test_a_finished_tuning_asks_and_trains_nothing_again(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(walk.root)
    before = (walk.out / "train" / "model" / "model.safetensors").stat().st_mtime_ns, walk.result["verdict"]
    with monkeypatch.context() as patch:
        patch.setattr(
            "llavar.study.tune_model.generator_of", lambda *_: pytest.fail("a model was loaded to be asked")
        )
        assert main(walk.command) == 0
    assert (
        (walk.out / "train" / "model" / "model.safetensors").stat().st_mtime_ns,
        walk.result["verdict"],
    ) == before


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seed": 1}, r"holds a tuning with another seed \(0, now 1\)"),
        ({"steps": 4}, "another number of steps"),
        ({"questions": None}, "another set of questions"),
        ({"mask": True}, "another mask"),
        ({"hours": 1.0}, "training in .* has begun with --hours None, now 1.0"),
    ],
)
def test_changed_settings_are_refused(walk: Walk, changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        tune.run(settings(walk, walk.out, **changed), quiet=True)


def test_other_pictures_are_another_run(walk: Walk) -> None:
    extra = walk.root / "receipts" / "late.png"
    Image.new("RGB", (64, 64), "red").save(extra)
    with pytest.raises(ConfigError, match="the pictures have changed since training began"):
        tune.run(settings(walk, walk.out), quiet=True)
    extra.unlink()


# --- a budget -------------------------------------------------------------------------------------------


def test_a_budget_is_kept_by_what_is_measured_and_said(walk: Walk, tmp_path: Path) -> None:
    out = copied(walk, tmp_path)
    made = tune.run(settings(walk, out, hours=2.0, steps=4), quiet=True)
    plan = json.loads((out / "plan.json").read_text())
    assert (plan["hours"], plan["steps"], plan["asked"]) == (2.0, 4, 2)
    assert [reason.split()[0] for reason in plan["reasons"]] == ["Questions", "All"]
    assert not (out / "trial").exists()
    page = made.report.read_text(encoding="utf-8")
    assert all(reason in page for reason in plan["reasons"])


# --- a teacher ------------------------------------------------------------------------------------------


def test_a_teacher_is_sent_the_text_alone(walk: Walk, tmp_path: Path, fake_endpoint: Any) -> None:
    from llavar.corpus.teaching.teacher import EndpointTeacher
    from llavar.study import tune_rows
    from llavar.study.tune_model import base_of

    def quoting(asked: Any) -> Any:
        known = json.loads(asked.text.split("<data>")[1].split("</data>")[0])["lines"]
        key = next(iter(known))
        turn = {"question": "What is it?", "answer": f"{known[key]}, in print.", "support": [key]}
        return fake_endpoint.say(json.dumps({"turns": [turn]}))

    server = fake_endpoint.serve(quoting)
    teacher = EndpointTeacher(kind="endpoint", url=server.url, model="m")
    folder, out = walk.root / "receipts", copied(walk, tmp_path)
    recipe = tune_rows.recipe_of(base_of("nano"), folder, seed=0, mask=False, teacher=teacher)
    assert recipe.mask
    names, _ = tune_rows.found_in(folder, out)
    source = tune_rows.Gathered(folder=folder, names=names)
    made = tune_rows.compute(out / "corpus", source, recipe, Watch(out / "seconds.json", quiet=True))
    said = [item.stage2.conversation.turns[-1].text for item in made.kept if item.stage2]
    assert said
    assert all(text.endswith(", in print.") for text in said)
    assert len(server.requests) == len(said)
    assert not any("image_url" in json.dumps(asked.body) for asked in server.requests)


# --- refused --------------------------------------------------------------------------------------------


def test_what_cannot_be_used_is_said_before_anything_is_read(
    walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llavar.study.tune_rows.compute", lambda *_: pytest.fail("pictures were read"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 files and no picture among them"):
        tune.run(settings(walk, tmp_path / "run", pictures=tmp_path / "empty", questions=None))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ModelError, match="no image-text-to-text model"):
        tune.run(settings(walk, tmp_path / "run", model=str(tmp_path / "text")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--hours", "0"], "--hours is 0.0; give a number above 0"),
        (["--teacher-model", "m"], "--teacher-model and --teacher-tokens are of a teacher"),
        (["--teacher", "http://127.0.0.1:9/v1"], "the teacher has no model"),
        (["--questions", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    walk: Walk, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert main(["tune", str(walk.root / "receipts"), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"llavar: {reason}")
    assert said.count("\n") == 1


def test_pictures_without_text_leave_nothing_to_learn(tmp_path: Path) -> None:
    folder = tmp_path / "blank"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (90, 60), colour).save(folder / f"{number}.png")
    with pytest.raises(DataError, match="0 of 3 pictures have text that nano can learn to read"):
        tune.run(Settings(pictures=folder, out=tmp_path / "run"), quiet=True)


# --- other families -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_next", "idefics3", "llava"])
def test_small_models_of_other_families(
    walk: Walk,
    hub_models: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    model = hub_models.make(tmp_path / name, name, dtype=torch.bfloat16)
    out = tmp_path / "run"
    chosen = settings(walk, out, model=str(model), questions=None, held_out=1, steps=2)
    use_readings(walk, monkeypatch)
    stop(chosen, monkeypatch)
    made = tune.run(chosen, quiet=True)
    assert json.loads(made.result.read_text())["steps"] == 2
    assert (made.model / "config.json").is_file()
    assert made.commands[-1] == f"vllm serve {out / 'train' / 'model'}"
    picture = str(next((walk.root / "receipts").glob("*.png")))
    assert main(["ask", picture, "What does it say?", "--model", str(out), "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.endswith("\n")


def use_readings(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read nothing again: what was read for nano stands in, with lines of any size kept."""
    from llavar.corpus.layout import LayoutSettings
    from llavar.study import tune_rows

    def compute(root: Path, *_: object) -> Any:
        return kept(walk)

    monkeypatch.setattr(tune_rows, "compute", compute)
    monkeypatch.setattr(tune_rows, "layout_of", lambda _base: LayoutSettings(target_size=96, min_height=8.0))


def kept(walk: Walk) -> Any:
    from llavar.corpus.ocr import STAGE
    from llavar.corpus.shards import Corpus
    from llavar.study.demo_corpus import Computed

    corpus = Corpus(walk.out / "corpus")
    read = tuple(item for items in corpus.items(STAGE) for item in items)
    last = corpus.chain()[-1].stage
    return Computed(read=read, kept=tuple(item for items in corpus.items(last) for item in items), rejects=())


def stop(chosen: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt it after its first step."""

    def stopping(_watch: Watch, text: str) -> None:
        if text.startswith("  step 1/2"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "say", stopping)
        with pytest.raises(KeyboardInterrupt):
            tune.run(chosen)
    assert (chosen.out / "before" / "done.json").is_file()
