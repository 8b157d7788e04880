"""Our side of the training benchmark, in a process of its own: the loop of ``llavar train`` on given rows.

``variant`` takes one of the gains away: ``head`` computes the logits of all tokens, ``packing`` pads rows as
stock trainers do, ``recompute`` computes activations twice, ``eager`` and ``sdpa`` are other attentions,
``tower`` computes the layer of the tower that nothing uses, and ``none`` takes all of them away at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).resolve().parent)]
from train_child import Rounds, versions  # noqa: E402 - neighbours, wherever this is started from

from llavar.data.collate import Batch  # noqa: E402
from llavar.data.feed import FeedConfig  # noqa: E402
from llavar.data.vision import PixelFolder  # noqa: E402
from llavar.images import Transform  # noqa: E402
from llavar.models import _hf as hf  # noqa: E402
from llavar.models import loss as losses  # noqa: E402
from llavar.models._hf_training import attention_of  # noqa: E402
from llavar.records import IGNORE, Encoded  # noqa: E402
from llavar.train import job  # noqa: E402
from llavar.train.config import PartConfig, Precision, Recompute, Schedule, StageConfig  # noqa: E402
from llavar.train.llava import DECODER, PROJECTOR, InstructionObjective  # noqa: E402
from llavar.train.loop import fit, freeze_all_but  # noqa: E402
from llavar.train.metrics import Tick  # noqa: E402
from llavar.train.parallel import Replicated  # noqa: E402
from llavar.train.world import World  # noqa: E402

VARIANTS = ("", "head", "packing", "recompute", "eager", "sdpa", "tower", "none")


class Objective(InstructionObjective):
    """Counts the seconds that are waited for batches; the head on all tokens, if that is asked for."""

    waited, every_logit = 0.0, False

    def batches(self, step: int) -> Sequence[Batch]:
        before = time.perf_counter()
        found = super().batches(step)
        self.waited += time.perf_counter() - before
        return found

    def loss(self, batch: Batch) -> Tensor:
        if not self.every_logit:
            return super().loss(batch)
        batch = batch.to(self.model.get_input_embeddings().weight.device)
        hidden = losses.decode(self.model, losses.embed(self.model, batch), batch.positions)
        logits = self.model.lm_head(hidden)
        flat, targets = logits[:, :-1].float().flatten(0, 1), batch.targets.flatten()
        return cross_entropy(flat, targets, ignore_index=IGNORE, reduction="sum")


class Unsaved(Replicated):
    """Nothing of a benchmark is kept."""

    def writes(self, ready: bool) -> bool:  # noqa: ARG002
        return False


def stage_of(settings: dict[str, Any], variant: str) -> StageConfig:
    """Both stages at one rate, as the stock trainers know but one."""
    part = PartConfig(lr=settings["lr"])
    given = StageConfig(
        parts={PROJECTOR: part} if settings["stage"] == 1 else {PROJECTOR: part, DECODER: part},
        batch=settings["batch"],
        micro_batch=settings["micro_batch"],
        max_length=settings["max_length"],
        warmup=0.0,
        schedule=Schedule.TRAINER,
        precision=Precision(settings["precision"]),
        recompute=Recompute(settings["recompute"]),
        compiled=settings["compiled"],
        liger=settings["liger"],
        log_every=1,
        save_every=10**9,
    )
    if variant in ("packing", "none"):
        rows = settings["peer_micro_batch"]
        given = replace(given, packing=False, like_lengths=False, micro_batch=rows)
    if variant in ("recompute", "none"):
        given = replace(given, recompute=Recompute.FULL)
    return given


def whole_tower(tower: Any, pixels: Tensor, layer: int) -> Tensor:
    return tower(pixels, output_hidden_states=True).hidden_states[layer]


def objective_of(settings: dict[str, Any], variant: str, stage: StageConfig) -> Objective:
    """The model of the folder on the rows of the load, placed as ``llavar train`` places them."""
    attention = settings["attention"]
    if variant in ("eager", "sdpa", "none"):
        attention = "sdpa" if variant == "none" else variant
    if variant in ("tower", "none"):
        losses.tower_states = whole_tower
    model: Any = hf.load_llava(settings["model"], attention=attention).train()
    hf.disable_cache(model)
    held = json.loads(Path(settings["rows"]).read_text(encoding="utf-8"))
    rows = [
        Encoded(
            id=str(number),
            ids=tuple(row["input_ids"]),
            labels=tuple(row["labels"]),
            images=(row["image"],) if row["image"] else (),
        )
        for number, row in enumerate(held)
    ]
    size = model.config.vision_config.image_size
    pictures = PixelFolder(Path(settings["pictures"]), transform=Transform.PAD, size=size)
    feed = FeedConfig(
        batch=stage.batch,
        parts=stage.micro_batches,
        capacity=stage.max_length,
        packing=stage.packing,
        like_lengths=stage.like_lengths,
        seed=settings["seed"],
    )
    objective = Objective(model, rows, pictures, feed, pad_id=0, workers=settings["workers"])
    objective.every_logit = variant in ("head", "none")
    freeze_all_but(objective.parts(), stage.parts)
    job._place(SimpleNamespace(module=model), objective, stage, World())
    return objective


def shares(objective: Objective, parallel: Replicated, most: int = 6) -> dict[str, float]:
    """Of the time of a step's products and backward pass, the shares of the operators that take most."""
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU]) as found:
        for batch in objective.prepared(0):
            parallel.compute(partial(objective.loss, batch)).backward()
    for parameter in objective.model.parameters():
        parameter.grad = None
    took = {one.key.removeprefix("aten::"): one.self_cpu_time_total for one in found.key_averages()}
    whole = sum(took.values())
    return {
        name: round(took[name] / whole, 3) for name in sorted(took, key=took.__getitem__)[: -most - 1 : -1]
    }


def main() -> None:
    settings = json.loads(sys.argv[1])
    rounds = Rounds(settings)
    torch.set_num_threads(settings["threads"])
    variant = settings["variant"]
    stage = stage_of(settings, variant)
    objective = objective_of(settings, variant, stage)
    world = World()
    loop = stage.loop(steps=rounds.total)
    parallel = Unsaved(world, stage.precision, world.device.type)
    profiled = {"profile": shares(objective, parallel)} if settings.get("profile") else {}
    rounds.begin(
        versions=versions("torch", "transformers"),
        padding=objective.epoch_plan().padding,
        attention=attention_of(objective.model),
        **profiled,
    )

    def on_tick(tick: Tick) -> None:
        rounds.step(tick.loss, objective.waited)
        objective.waited = 0.0

    with objective.loader.until(loop.steps):
        fit(objective, loop, Path(settings["out"]), on_tick=on_tick, parallel=parallel)


if __name__ == "__main__":
    main()
