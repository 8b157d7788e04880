"""A training job from files to files: what ``llavar train`` runs.

A :class:`Job` says everything that a run depends on but the number of its processes; it is written into the
folder of the run, so that the folder alone is enough to go on.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from llavar import files
from llavar.data.vision import Pixels
from llavar.errors import ConfigError
from llavar.images import WHOLE
from llavar.models._hf_training import compile_layers, fuse_layers, recompute
from llavar.models.nf4 import uncounted
from llavar.train import adapters, export, home, hub_job, material, story
from llavar.train.config import LoopConfig, Precision, Recompute, StageConfig
from llavar.train.estimate import cost_of
from llavar.train.foretell import Expected, foretell, shape_of
from llavar.train.hub import HubModel
from llavar.train.llava import DECODER, PROJECTOR, Cost, EpochPlan, FeedConfig, InstructionObjective
from llavar.train.look import Look, Looks, Watch, Watched
from llavar.train.loop import Fitted, fit, freeze_all_but, summed_loss
from llavar.train.material import Model, Rows
from llavar.train.metrics import Tick
from llavar.train.parallel import Parallel, parallel_of
from llavar.train.run import Resumed
from llavar.train.scope import determinism, interruptible
from llavar.train.settings import Job, document, read_job, record
from llavar.train.track import Trackers, opened
from llavar.train.world import World

__all__ = ["Expected", "Job", "Watcher", "read_job", "record", "run"]

Say = Callable[[str], None]
Trainable = Model | HubModel


class Watcher(Protocol):
    """Makes the function that asks a model in training: what evaluates is above this layer and handed in."""

    def __call__(self, model: Trainable, data: str, out: Path, say: Say) -> Watch:
        """The questions are those of the folder ``data``, or drawn below ``out`` where none is named."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Here:
    """A job as this process does it: its folder, how it works with others, whom it tells.

    ``workers`` processes prepare its batches.
    """

    job: Job
    out: Path
    parallel: Parallel
    tell: Say
    watcher: Watcher | None
    workers: int

    @property
    def world(self) -> World:
        return self.parallel.world


def run(
    job: Job,
    out: Path,
    *,
    world: World | None = None,
    say: Say | None = None,
    watcher: Watcher | None = None,
    workers: int = 0,
) -> Fitted:
    """Do ``job`` in the folder ``out``, or go on with it where it was stopped.

    Leaves ``config.json``, ``rejects.jsonl``, ``metrics.jsonl``, ``checkpoints/``, the trained model as
    ``model/`` and, where the projector alone was trained, ``mm_projector.bin``; where the model was looked
    at, ``validation.jsonl`` and ``samples.jsonl``. ``watcher`` makes what asks it questions. ``workers``
    processes read, encode and decode ahead; no number depends on how many they are.

    Raises:
        LlavarError: something cannot be used; what was finished before can be gone on from.
        KeyboardInterrupt: the run was interrupted or told to end (SIGTERM); its last step is saved.
    """
    world = world or World()
    (hub_job if job.own_processor else adapters).check(job)
    with (
        _begun(job, out, world),
        home.writable(out),
        interruptible(world),
        determinism(job.deterministic),
    ):
        here = _Here(
            job=job,
            out=out,
            parallel=parallel_of(job.stage, world),
            tell=say if say is not None and world.first else _silent,
            watcher=watcher,
            workers=workers,
        )
        model = _load(here)
        rows = _read(here, model)

        objective = _objective(here, model, rows)
        trained = freeze_all_but(objective.parts(), job.stage.parts)
        here.tell(story.parts_table(objective.parts(), job.stage, {DECODER: uncounted(model.module)}))
        _place(model, objective, job.stage, world)
        held_out = _held_out(here, model)

        epoch = objective.epoch_plan()
        loop = job.stage.loop(steps=_steps(job.stage, epoch), tags=_tags(job, model, rows))
        here.tell(story.plan(epoch, loop, job.stage, world.size))

        _foretell(here, objective, loop, epoch)
        fitted = _fit(here, model, objective, held_out, loop)
        card = story.card(job.recipe, job.model, job.data, job.stage, rows.rejects, fitted, epoch)
        _leave(here, model, card, trained.values())
    return fitted


def _silent(_text: str) -> None:
    pass


@contextlib.contextmanager
def _begun(job: Job, out: Path, world: World) -> Generator[None]:
    """The folder is this run's alone and holds its settings."""
    with contextlib.ExitStack() as stack:
        with world.together():
            if world.first:
                stack.enter_context(home.claimed(out))
                record(job, out)
        yield


# What it starts from.


def _load(here: _Here) -> Trainable:
    """The first process puts a decoder and a tower together where they are named apart."""
    job, parallel, world = here.job, here.parallel, here.world
    here.tell(f"Loading {job.model} ...")
    with world.together():
        if job.own_processor and parallel.even:
            raise ConfigError("a model with a processor of its own is held whole; take --shard none")
        if job.own_processor:
            found = hub_job.load(job, world)
            here.tell(hub_job.told(found))
            return found
    with world.together():
        if world.first:
            _start(job, here.out)
    with world.together():
        model = material.load_model(
            _start(job, here.out),
            load=partial(parallel.load, trained=DECODER in job.stage.parts),
            projector=job.projector,
            conversation=job.conversation,
            transform=job.transform,
            tiles=job.tiles,
            tower_size=job.tower_size,
            feature_layer=job.feature_layer,
            attention=job.attention,
            precision=job.stage.precision,
            deterministic=job.deterministic,
            longest=job.stage.max_length if job.stage.packing else 0,
            seed=job.stage.seed,
        )
        material.check_pictures(model, job.stage.max_length, "--max-length")
        adapters.attach(model, job, world.device)
        return model
    raise AssertionError("together ends the run where loading fails")


def _start(job: Job, out: Path) -> Path:
    return material.start_of(
        job.model, job.vision_tower, out, conversation=job.conversation, select_layer=job.feature_layer
    )


def _read(here: _Here, model: Trainable) -> Rows:
    """The first process makes the indices that the others find in the cache."""
    job, world = here.job, here.world
    here.tell(f"Reading {', '.join(job.data)} ...")
    rows: Rows | None = None
    with world.together():
        if world.first:
            rows = _rows(job, job.data, model, here.workers)
            _report(rows, here.out / home.REJECTS, here.tell)
            here.tell(story.indexed(rows.indexed, rows.measured))
    with world.together():
        return rows if rows is not None else _rows(job, job.data, model, here.workers)
    raise AssertionError("together ends the run where reading fails")


def _report(rows: Rows, rejects: Path, tell: Say) -> None:
    """Write down what was left out, and say how much that is and what is left."""
    home.write_rejects(rows.rejects, rejects)
    tell(story.rows(len(rows.encoded), rows.tokens, rows.rejects, rows.supervised, rejects))


def _rows(job: Job, data: tuple[str, ...], model: Trainable, workers: int) -> Rows:
    if isinstance(model, HubModel):
        return hub_job.rows(job, data, model, workers)
    return material.read_rows(
        data,
        job.images,
        model,
        max_length=job.stage.max_length,
        bad_rows=job.bad_rows,
        bad_images=job.bad_images,
        workers=workers,
        seed=job.stage.seed,
    )


def _objective(here: _Here, model: Trainable, rows: Rows) -> InstructionObjective:
    stage, world = here.job.stage, here.world
    feed = FeedConfig(
        batch=stage.batch,
        parts=stage.micro_batches,
        capacity=stage.max_length,
        packing=stage.packing,
        like_lengths=stage.like_lengths,
        seed=stage.seed,
    )
    if isinstance(model, HubModel):
        return hub_job.objective(model, rows, feed, world, here.workers)
    shape = shape_of(model.module)
    pictures = Pixels(
        rows.pictures, transform=model.transform, size=model.image_size, norm=model.norm, tiles=model.tiles
    )
    return InstructionObjective(
        model.module,
        rows.encoded,
        pictures,
        feed,
        pad_id=model.tokenizer.pad_id or 0,
        world=world,
        cost=cost_of(shape, stage.parts, stage.lora) if shape else Cost(),
        workers=here.workers,
        even=here.parallel.even,
    )


def _place(model: Trainable, objective: InstructionObjective, stage: StageConfig, world: World) -> None:
    """What is frozen goes into the type that it is computed in; then everything to the device."""
    module: Any = model.module
    if stage.precision is Precision.BF16:
        for part, parameters in objective.parts().items():
            # A projector may not be that of the model's folder, so it is written as it is held.
            for parameter in parameters.values() if part not in (*stage.parts, PROJECTOR) else ():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(torch.bfloat16)
    if stage.recompute is not Recompute.NONE:
        recompute(module, selective=stage.recompute is Recompute.SELECTIVE)
    if stage.liger:
        fuse_layers(module)
    if stage.compiled:
        compile_layers(module)
    module.to(world.device)


# What is done with it.


def _foretell(here: _Here, objective: InstructionObjective, loop: LoopConfig, epoch: EpochPlan) -> None:
    """Try a few steps and write down what the run will need, unless all of it is there."""
    if _is_finished(here.job, here.out):
        return
    stage = here.job.stage
    expected = foretell(objective, loop, stage, epoch, here.parallel, here.tell, here.workers)
    if here.world.first:
        files.write_text(here.out / home.EXPECTED, json.dumps(asdict(expected), indent=1) + "\n")


def _fit(
    here: _Here,
    model: Trainable,
    objective: InstructionObjective,
    held_out: InstructionObjective | None,
    loop: LoopConfig,
) -> Fitted:
    """All steps, of which the user and the trackers are told."""
    tell = here.tell
    with _tracked(here) as trackers:

        def on_tick(tick: Tick) -> None:
            tell(story.tick(tick, loop.steps))
            trackers.log(tick.step, asdict(tick), group="train")

        def on_look(look: Look, watched: Watched | None) -> None:
            tell(story.look(look, watched))
            trackers.log(look.step, asdict(look), group="validation")

        def on_resume(resumed: Resumed) -> None:
            tell(story.resumed(resumed, here.world.size))

        looks = _looks(here, model, held_out, loop, on_look)
        with objective.loader.until(loop.steps):
            fitted = fit(
                objective,
                loop,
                here.out,
                on_resume=on_resume,
                on_tick=on_tick,
                looks=looks,
                parallel=here.parallel,
                peak=here.job.peak_tflops * 1e12 * here.world.size,
            )
        tell(story.end(fitted, loop.steps))
    return fitted


def _leave(here: _Here, model: Trainable, card: str, trained: Iterable[Tensor]) -> None:
    """Write what the run leaves, unless it is there, and say where it is."""
    job, out, world = here.job, here.out, here.world
    if not world.totals([float(world.first and _is_finished(job, out))])[0]:

        def write(ask: Callable[[str], Tensor]) -> None:
            _write(here, model, card, trained, ask)

        here.parallel.lend(model.module.state_dict(), write)
    if job.stage.lora:
        here.tell(f"The adapter is in {out / home.ADAPTER}.")
    if job.merge:
        here.tell(f"The model is in {out / home.MODEL}.")


def _write(
    here: _Here,
    model: Trainable,
    card: str,
    trained: Iterable[Tensor],
    ask: Callable[[str], Tensor],
) -> None:
    """What the run leaves, by the kind of job; ``ask`` gives a tensor of the model by its name."""
    job, out = here.job, here.out
    if isinstance(model, HubModel):
        hub_job.save(model, job, out, card)
    elif job.stage.lora:
        adapters.save(model, job, out, card)
    else:
        if set(job.stage.parts) == {PROJECTOR} and export.save_projector(model, out):
            here.tell(f"The projector alone is in {out / home.PROJECTOR}.")
        export.save_model(model, out, card, ask, saved_as=job.saved_as, trained=trained)


def _is_finished(job: Job, out: Path) -> bool:
    if job.own_processor:
        return hub_job.is_finished(job, out)
    if job.stage.lora:
        return adapters.is_finished(out, merged=job.merge)
    return export.is_finished(out)


# What is looked at meanwhile.


def _held_out(here: _Here, model: Trainable) -> InstructionObjective | None:
    """The rows that are validated on, as an objective that is never trained."""
    job, world = here.job, here.world
    if not job.validate:
        return None
    here.tell(f"Reading {', '.join(job.validate)} to validate on ...")
    with world.together():
        rows = _rows(job, job.validate, model, here.workers)
        if world.first:
            _report(rows, here.out / home.HELD_OUT_REJECTS, here.tell)
        share = replace(job.stage, batch=job.stage.micro_batch * world.size)
        return _objective(replace(here, job=replace(job, stage=share), workers=0), model, rows)
    raise AssertionError("together ends the run where reading fails")


def _looks(
    here: _Here,
    model: Trainable,
    held_out: InstructionObjective | None,
    loop: LoopConfig,
    on_look: Callable[[Look, Watched | None], None],
) -> Looks | None:
    job, watcher, parallel = here.job, here.watcher, here.parallel
    if held_out is None and not job.watch_every:
        return None
    if job.watch_every and watcher is None:
        raise ConfigError("the model is to be asked questions, and nothing here can; leave watch_every out")
    ask: Watch | None = None
    world, precision = parallel.world, job.stage.precision
    for turn in (world.first, parallel.even and not world.first):
        with world.together():
            if turn and job.watch_every and watcher:
                ask = watcher(model, job.watch_data, here.out, here.tell)

    def validate() -> tuple[float, int]:
        assert held_out is not None
        return summed_loss(held_out, held_out.steps_per_epoch, precision, parallel)

    def watch() -> Watched:
        assert ask is not None
        return ask()

    return Looks(
        here.out,
        model=model.module,
        steps=loop.steps,
        validate=validate if held_out else None,
        validate_every=job.validate_every,
        watch=watch if job.watch_every else None,
        watch_every=job.watch_every,
        on_look=on_look,
    )


@contextlib.contextmanager
def _tracked(here: _Here) -> Generator[Trackers]:
    """The first process reports to the trackers; one that cannot be started ends the run in all."""
    job, tell = here.job, here.tell
    with contextlib.ExitStack() as stack:
        trackers = Trackers({}, tell)
        with here.world.together():
            if here.world.first and job.track:
                settings = document(job)
                trackers = stack.enter_context(opened(job.track, here.out, settings, tell))
        yield trackers


# What will be done.


def _steps(stage: StageConfig, epoch: EpochPlan) -> int:
    return stage.steps or max(1, -(-round(stage.epochs * epoch.steps * 1000) // 1000))


def _tags(job: Job, model: Trainable, rows: Rows) -> dict[str, str]:
    """What else the numbers depend on: another model or other rows are another run."""
    stage = job.stage
    if isinstance(model, HubModel):
        return hub_job.tags(stage, model, rows)
    lora = {"lora": stage.lora.describe()} if stage.lora else {}
    return lora | {
        "rows": rows.digest,
        "model": material.identity_of(model.folder),
        "feed": f"{stage.batch}/{stage.micro_batch}/{stage.max_length}/{stage.packing}/{stage.like_lengths}",
        "pictures": model.transform.value + _resolution(job, model),
    }


def _resolution(job: Job, model: Model) -> str:
    """Nothing where pictures are seen whole at the size that the tower came with."""
    tiles = "" if model.tiles == WHOLE else f" {model.tiles}"
    return tiles + (f" {job.tower_size}" if job.tower_size else "")
