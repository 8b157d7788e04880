"""What is asked of an adapter on the command line, and what is refused before anything is loaded. No peft."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llavar.cli import main
from llavar.errors import ConfigError
from llavar.models import _peft
from llavar.models.adapter import Frozen, Lora
from llavar.recipes import catalogue
from llavar.recipes.llavar import llavar_13b_stage2, with_lora
from llavar.train import job as jobs
from llavar.train.config import ADAPTER, PartConfig, Recompute, StageConfig
from llavar.train.job import Job
from llavar.train.llava import DECODER, PROJECTOR


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    talk = [{"from": "human", "value": "Say hi."}, {"from": "gpt", "value": "Hi."}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": "0", "conversations": talk}]))
    return path


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that would have been run."""
    found: list[Job] = []

    def note(job: Job, out: Path, **_: Any) -> None:
        found.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run", note)
    return found


def asked(caught: list[Job], rows: Path, recipe: str, *flags: str) -> StageConfig:
    assert main(["train", recipe, "--model", "m", "--data", str(rows), "--out", "r", *flags]) == 130
    return caught[-1].stage


def refusal(capsys: pytest.CaptureFixture[str], rows: Path, recipe: str, *flags: str) -> str:
    out = str(rows.parent / "out")
    assert main(["train", recipe, "--data", str(rows), "--out", out, *flags]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_recipes_have_the_numbers_of_llava():
    for size in ("13b", "7b"):
        stage = catalogue.get(f"llavar-{size}-stage2-lora").stage
        assert stage.lora == Lora(rank=128, alpha=256, dropout=0.05, targets=("all-linear",))
        assert stage.parts == {PROJECTOR: PartConfig(lr=2e-5), ADAPTER: PartConfig(lr=2e-4)}
        assert (stage.batch, stage.micro_batch, stage.epochs, stage.max_length) == (32, 1, 3, 2048)
        four = catalogue.get(f"llavar-{size}-stage2-qlora").stage
        assert four.lora == Lora(rank=128, alpha=256, dropout=0.05, frozen=Frozen.NF4)
        assert (four.parts, four.batch, four.micro_batch) == (stage.parts, 32, 1)
        assert four.recompute is Recompute.FULL
    nano = catalogue.get("nano-stage2-lora")
    assert {name: part.lr for name, part in nano.stage.parts.items()} == {PROJECTOR: 2e-3, ADAPTER: 3e-3}
    assert nano.model == "nano"


def test_flags_change_the_adapter_of_a_recipe(rows: Path, caught: list[Job]):
    stage = asked(caught, rows, "llavar-7b-stage2-lora", "--lora-rank", "16")
    assert stage.lora == Lora(rank=16, alpha=32, dropout=0.05)
    flags = "--lora-alpha 16 --lora-dropout 0 --lora-targets q_proj v_proj --quantize bnb --lr adapter=1e-4"
    stage = asked(caught, rows, "llavar-7b-stage2-lora", *flags.split())
    assert stage.lora == Lora(rank=128, alpha=16, targets=("q_proj", "v_proj"), frozen=Frozen.BNB)
    assert stage.parts[ADAPTER].lr == 1e-4
    stage = asked(caught, rows, "llavar-7b-stage2-qlora", "--quantize", "none", "--no-merge")
    assert stage.lora is not None
    assert stage.lora.frozen is Frozen.PLAIN
    assert caught[-1].merge is False
    assert caught[0].merge is True


def test_an_adapter_takes_the_place_and_the_decay_of_the_decoder():
    stage = llavar_13b_stage2().stage
    decayed = StageConfig(
        parts={DECODER: PartConfig(lr=3e-5, weight_decay=0.1)}, batch=2, micro_batch=1, max_length=9
    )
    lora = Lora(rank=4, alpha=8)
    assert with_lora(stage, lora).parts == {PROJECTOR: PartConfig(lr=2e-5), ADAPTER: PartConfig(lr=2e-4)}
    assert with_lora(decayed, lora).parts == {ADAPTER: PartConfig(lr=3e-4, weight_decay=0.1)}
    assert with_lora(with_lora(decayed, lora), lora).parts[ADAPTER].lr == 3e-4
    assert with_lora(stage, lora, rate=1e-3).parts[ADAPTER].lr == 1e-3


REFUSED = {
    "rank 0": (["--lora-rank", "0"], "lora rank is 0; it must be from 1 to 8192"),
    "a negative rank": (["--lora-rank", "-4"], "lora rank is -4"),
    "an alpha alone": (["--lora-alpha", "8"], "--lora-alpha is for an adapter and the recipe has none"),
    "four bits alone": (["--quantize", "nf4"], "--quantize is for an adapter and the recipe has none"),
    "no adapter to leave alone": (["--no-merge"], "--no-merge is for a run with LoRA"),
    "a rate without an adapter": (["--lr", "adapter=1e-3"], "the model has no part 'adapter'; it has tower"),
    "the decoder too": (
        ["--lora-rank", "4", "--lr", "decoder=1e-5"],
        "the decoder is frozen beneath its adapter and was given a rate; give --lr adapter=RATE",
    ),
    "another tower": (["--lora-rank", "4", "--tower-size", "192"], "--tower-size changes the model that"),
    "another size of a tower that is put in": (
        ["--lora-rank", "4", "--tower-size", "192", "--vision-tower", "t"],
        "--tower-size changes the model that",
    ),
    "another layer": (["--lora-rank", "4", "--feature-layer", "-2"], "--feature-layer changes the model"),
    "dropout of all": (["--lora-rank", "4", "--lora-dropout", "1"], "lora dropout is 1.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_at_once(case: str, rows: Path, capsys: pytest.CaptureFixture[str]):
    flags, message = REFUSED[case]
    assert message in refusal(capsys, rows, "nano-stage2", *flags)


def test_without_peft_nothing_is_begun(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "peft", None)
    said = refusal(capsys, rows, "nano-stage2-lora")
    assert said.endswith("LoRA needs peft, which is not installed; pip install 'llavar[lora]'")
    assert not (rows.parent / "out").exists()


def test_without_bitsandbytes_nothing_is_begun(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr(_peft, "_peft", lambda: None)
    assert "needs bitsandbytes" in refusal(capsys, rows, "nano-stage2-lora", "--quantize", "bnb")
    assert not (rows.parent / "out").exists()


def test_rate_and_adapter_go_together():
    parts = {ADAPTER: PartConfig(lr=1e-3)}
    with pytest.raises(ConfigError, match="the adapter has a rate and there is none"):
        StageConfig(parts=parts, batch=1, micro_batch=1, max_length=9)
    with pytest.raises(ConfigError, match="its adapter is not trained; give --lr adapter=RATE"):
        StageConfig(
            parts={PROJECTOR: PartConfig(lr=1e-3)},
            batch=1,
            micro_batch=1,
            max_length=9,
            lora=Lora(rank=2, alpha=4),
        )
