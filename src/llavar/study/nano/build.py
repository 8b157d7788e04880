"""``llavar nano build``: the shipped files from nothing but a seed.

Five steps, each resumable and each in a folder of its own: the tower learns to see letters (``tower``), the
decoder to answer questions about grids of symbols (``decoder``), the tower to show what it sees in a form
that a linear layer can turn into such symbols (``join``); then both go through stage 1 (``stage1``) and
stage 2 (``stage2``) of LLaVA on scenes drawn afresh. ``nano`` is the result.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llavar.errors import ConfigError
from llavar.evals import run as evals
from llavar.generate.local import LocalGenerator
from llavar.models import _hf as hf
from llavar.models.folder import replacing
from llavar.models.tokenizer import TextTokenizer, nano_tokenizer
from llavar.recipes import nano as recipe
from llavar.records import Report
from llavar.render.grid import CHARACTERS
from llavar.study.nano import weights
from llavar.study.nano.decoder import DecoderData, GridObjective, SymbolTables
from llavar.study.nano.finding import Finder
from llavar.study.nano.join import JoinObjective
from llavar.study.nano.questions import HELD_OUT, exam, write_pictures
from llavar.study.nano.tower import DenseHead, DenseObjective, TowerData
from llavar.study.nano.tune import SceneObjective, TuneData
from llavar.study.progress import Watch
from llavar.train import metrics
from llavar.train.config import LoopConfig, PartConfig, Precision
from llavar.train.llava import DECODER, PROJECTOR
from llavar.train.loop import Fitted, Objective, fit
from llavar.train.metrics import Tick

_BETAS = (0.9, 0.98)
_MORE, _BLANK = 0.3, 0.05
"""Shares of conversations that also ask what has no answer, and of scenes without text."""
_GRID_QUIZZES, _SCENE_QUIZZES = 0.4, 0.2
"""Shares of scenes about which nothing else is asked, of the decoder and in the stages."""

_JOINED = {
    "tower": PartConfig(lr=3e-4, weight_decay=0.01, muon=0.02),
    "head": PartConfig(lr=6e-4),
    "projector": PartConfig(lr=2e-3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """Steps of each part; the defaults made the shipped files.

    ``threads`` changes the order of sums, so it is fixed.
    """

    tower_steps: int = 6000
    decoder_steps: int = 2200
    join_steps: int = 3700
    stage1_steps: int = 150
    stage2_steps: int = 2600
    exam_pictures: int = 300
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "seed" and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A finished build."""

    nano: Path
    report: Report
    seconds: float


def run(out: Path, settings: BuildSettings, *, quiet: bool = False) -> Made:
    """Make nano under ``out``; called again, go on where it was stopped."""
    out.mkdir(parents=True, exist_ok=True)
    _same_build(out, settings)
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        return _run(out, settings, quiet=quiet)
    finally:
        torch.set_num_threads(before)


def _run(out: Path, settings: BuildSettings, *, quiet: bool) -> Made:
    watch = Watch(out / "seconds.json", quiet=quiet)
    tokenizer = nano_tokenizer()
    shape = recipe.nano_shape(vocab=tokenizer.vocab_size, image_token_id=tokenizer.image_patch_id)

    with watch.step("Tower: name every letter"):
        tower, head = _tower(shape.vision, out / "tower", settings, watch)
    with watch.step("Decoder: answer questions about grids"):
        decoder, tables, finder = _decoder(shape.text, tokenizer, out / "decoder", settings, watch)
    model: Any = hf.build_llava(shape, seed=settings.seed, attention="eager")
    with watch.step("Join: show letters as the decoder's symbols"):
        loop = _loop(settings.join_steps, _JOINED, settings.seed, log_every=20)
        joint = JoinObjective(tower, head, hf.linear_projector(model), tables, TowerData(seed="join"))
        _fit(joint, loop, out / "join", watch)
        hf.scale_features(tower, 1 / joint.scale)
    hf.put_parts(model, tower=tower, decoder=decoder)
    hf.disable_cache(model)
    for number, loop, data in _stages(settings):
        with watch.step(f"Stage {number} on scenes"):
            _fit(SceneObjective(model, tokenizer, data, finder), loop, out / f"stage{number}", watch)
    _save(model, tokenizer, out / "nano")
    with watch.step("Exam"):
        report = _exam(out, settings, watch)
    (out / "nano" / "README.md").write_text(_card(out, settings, report, watch), encoding="utf-8")
    watch.say(f"nano: {out / 'nano'}")
    return Made(nano=out / "nano", report=report, seconds=watch.total)


def ship(out: Path, where: Path) -> None:
    """Copy what ``run`` made under ``out`` to where the package keeps it: a model folder."""
    with replacing(where / "nano") as aside:
        weights.copy_model(out / "nano", aside)


def _same_build(out: Path, settings: BuildSettings) -> None:
    path = out / "build.json"
    wanted = json.dumps(asdict(settings), indent=1)
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != wanted:
        raise ConfigError(
            f"{out} holds a build with other settings (see {path.name}); use another --out, or remove it to "
            "begin anew"
        )
    aside = path.with_suffix(".part")
    aside.write_text(wanted, encoding="utf-8")
    aside.replace(path)


def _tower(shape: Any, out: Path, settings: BuildSettings, watch: Watch) -> tuple[nn.Module, DenseHead]:
    torch.manual_seed(settings.seed)  # pyright: ignore[reportUnknownMemberType]
    tower = hf.build_tower(shape, attention="eager")
    head = DenseHead(shape.hidden, recipe.PATCHES)
    parts = {"tower": PartConfig(lr=1.2e-3, weight_decay=0.01, muon=0.04), "head": PartConfig(lr=1.2e-3)}
    loop = _loop(settings.tower_steps, parts, settings.seed, log_every=20)
    _fit(DenseObjective(tower, head, TowerData()), loop, out, watch)
    return tower, head


def _decoder(
    shape: Any, tokenizer: TextTokenizer, out: Path, settings: BuildSettings, watch: Watch
) -> tuple[Any, SymbolTables, Finder]:
    torch.manual_seed(settings.seed)  # pyright: ignore[reportUnknownMemberType]
    decoder = hf.build_decoder(shape, attention="eager")
    tables, finder = SymbolTables(shape.hidden, recipe.PATCHES), Finder(shape.hidden)
    embeddings = decoder.get_input_embeddings().weight
    # Head and symbols start as the embeddings, so that copying is learned once and not for every character.
    decoder.lm_head.weight.data.copy_(embeddings.data)
    tables.start_from(embeddings.data, [tokenizer.token_id(char) for char in CHARACTERS])
    parts = {
        "decoder": PartConfig(lr=1e-3, weight_decay=0.01, muon=0.02),
        "tables": PartConfig(lr=1e-3),
        "finder": PartConfig(lr=1e-3),
    }
    loop = _loop(settings.decoder_steps, parts, settings.seed)
    data = DecoderData(more=_MORE, blank=_BLANK, quizzes=_GRID_QUIZZES)
    _fit(GridObjective(decoder, tables, finder, tokenizer, data), loop, out, watch)
    return decoder, tables, finder.requires_grad_(False)


def _stages(settings: BuildSettings) -> tuple[tuple[int, LoopConfig, TuneData], ...]:
    first = {PROJECTOR: PartConfig(lr=4e-3)}
    second = {PROJECTOR: PartConfig(lr=1e-3), DECODER: PartConfig(lr=3e-4, muon=0.008)}
    data = TuneData(more=_MORE, blank=_BLANK, quizzes=_SCENE_QUIZZES)
    return (
        (1, _loop(settings.stage1_steps, first, settings.seed), replace(data, seed="stage1")),
        (2, _loop(settings.stage2_steps, second, settings.seed), replace(data, seed="stage2")),
    )


def _loop(steps: int, parts: dict[str, PartConfig], seed: int, log_every: int = 10) -> LoopConfig:
    return LoopConfig(
        steps=steps,
        parts=parts,
        precision=Precision.BF16,
        betas=_BETAS,
        seed=seed,
        log_every=log_every,
        save_every=200,
    )


def _fit(objective: Objective[Any], loop: LoopConfig, out: Path, watch: Watch) -> Fitted:
    def tell(tick: Tick) -> None:
        watch.count(tick.step, loop.steps, f"loss {tick.loss:.4f}  {tick.samples_per_second:.0f} samples/s")

    return fit(objective, loop, out, on_tick=tell)


def _save(model: Any, tokenizer: TextTokenizer, folder: Path) -> None:
    if not (folder / weights.LAST_FILE).exists():
        hf.save_llava(model, folder, dtype=torch.bfloat16)
        tokenizer.save(folder)


def _exam(out: Path, settings: BuildSettings, watch: Watch) -> Report:
    asked = exam(settings.exam_pictures, seed="card", style=HELD_OUT)
    write_pictures(asked.scenes, out / "exam", 384)
    generator = LocalGenerator.load(out / "nano", name="nano")
    answers = evals.evaluate(
        generator,
        asked.questions,
        image_root=out / "exam",
        out=out / "answers.jsonl",
        batch_size=32,
        max_new_tokens=48,
        progress=watch.count,
    )
    return evals.summarise(asked.questions, answers, "nano")


def _curve(run: Path) -> str:
    """A row of the card: the mean loss in each eighth of a run."""
    losses = [tick.loss for tick in metrics.read(run / "metrics.jsonl")]
    parts = [losses[len(losses) * k // 8 : max(len(losses) * (k + 1) // 8, 1)] for k in range(8)]
    cells = (f"{sum(part) / len(part):.3f}" if part else "" for part in parts)
    return f"| {run.name} | {' | '.join(cells)} |"


def _card(out: Path, settings: BuildSettings, report: Report, watch: Watch) -> str:
    """The model card: what it is, how it was made, what it scores."""
    scores = "\n".join(
        f"| {name} | {score.value:.3f} | {score.low:.3f} to {score.high:.3f} | {score.n} |"
        for name, score in report.scores.items()
    )
    steps = "\n".join(f"| {name} | {seconds / 60:.1f} |" for name, seconds in watch.seconds.items())
    numbers = "\n".join(f"| {name} | {value} |" for name, value in asdict(settings).items())
    curves = "\n".join(_curve(out / name) for name in ("tower", "decoder", "join", "stage1", "stage2"))
    commit = os.environ.get("LLAVAR_COMMIT", "")
    return f"""---
license: apache-2.0
pipeline_tag: image-text-to-text
---
# nano

A `LlavaForConditionalGeneration` of 5.5 million parameters that reads short printed text in rendered scenes.
It was trained from nothing on pictures that llavar renders: no picture, text or weight from anywhere else is
in it. It is the first minute of a user, not a substitute for a full-size checkpoint: it sees 96 x 96 pixels,
printable ASCII, upright lines of at least an eighth of the picture's height, and answers the kinds of
questions it was trained on.

Made by `llavar nano build` in these settings{f" at {commit}" if commit else ""}:

| setting | value |
|---|---|
{numbers}

Machine: {platform.machine()}, {settings.threads} thread(s), Python {platform.python_version()}, \
torch {torch.__version__}.

| step | minutes |
|---|---|
{steps}

Loss, the mean over each eighth of a step. Steps differ in what they are asked, so rows cannot be compared.

| step | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |
|---|---|---|---|---|---|---|---|---|
{curves}

## Scores

On {settings.exam_pictures} held-out pictures ({report.n} questions): words, fonts and layouts that training
never shows. 95 % intervals from resampling pictures.

| metric | value | interval | n |
|---|---|---|---|
{scores}
"""
