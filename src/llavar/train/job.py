"""A training job from files to files: what ``llavar train`` runs.

A :class:`Job` says everything that a run depends on but the number of its processes; it is written into the
folder of the run, so that the folder alone is enough to go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType
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
    tell: Say = say if say is not None and world.first else _silent
    if job.own_processor:
        hub_job.check(job)
    else:
        adapters.check(job)
    with (
        _begun(job, out, world),
        home.writable(out),
        _interruptible(world),
        _determinism(job.deterministic),
    ):
        parallel = parallel_of(job.stage, world)
        model = _load(job, out, parallel, tell)
        rows = _read(job, model, out, world, tell, workers)

        objective = _objective(job, model, rows, parallel, workers)
        trained = freeze_all_but(objective.parts(), job.stage.parts)
        tell(story.parts_table(objective.parts(), job.stage, {DECODER: uncounted(model.module)}))
        _place(model, objective, job.stage, world)
        held_out = _held_out(job, model, out, parallel, tell, workers)

        epoch = objective.epoch_plan()
        loop = job.stage.loop(steps=_steps(job.stage, epoch), tags=_tags(job, model, rows))
        tell(story.plan(epoch, loop, job.stage, world.size))

        if not _is_finished(job, out):
            expected = foretell(objective, loop, job.stage, epoch, parallel, tell, workers)
            if world.first:
                files.write_text(out / home.EXPECTED, json.dumps(asdict(expected), indent=1) + "\n")

        with _tracked(job, out, world, tell) as trackers:

            def on_tick(tick: Tick) -> None:
                tell(story.tick(tick, loop.steps))
                trackers.log(tick.step, asdict(tick), group="train")

            def on_look(look: Look, watched: Watched | None) -> None:
                tell(story.look(look, watched))
                trackers.log(look.step, asdict(look), group="validation")

            def on_resume(resumed: Resumed) -> None:
                tell(story.resumed(resumed, world.size))

            looks = _looks(job, model, held_out, out, loop, watcher, on_look, parallel, tell)
            peak = job.peak_tflops * 1e12 * world.size
            with objective.loader.until(loop.steps):
                fitted = fit(
                    objective,
                    loop,
                    out,
                    on_resume=on_resume,
                    on_tick=on_tick,
                    looks=looks,
                    parallel=parallel,
                    peak=peak,
                )
            tell(story.end(fitted, loop.steps))

        if not world.totals([float(world.first and _is_finished(job, out))])[0]:
            card = story.card(job.recipe, job.model, job.data, job.stage, rows.rejects, fitted, epoch)

            def write(ask: Callable[[str], Tensor]) -> None:
                _write(job, model, out, card, trained.values(), ask, tell)

            parallel.lend(model.module.state_dict(), write)
        if job.stage.lora:
            tell(f"The adapter is in {out / home.ADAPTER}.")
        if job.merge:
            tell(f"The model is in {out / home.MODEL}.")
    return fitted


def _silent(_text: str) -> None:
    pass


def _write(
    job: Job,
    model: Model | HubModel,
    out: Path,
    card: str,
    trained: Iterable[Tensor],
    ask: Callable[[str], Tensor],
    tell: Say,
) -> None:
    """What the run leaves, by the kind of job; ``ask`` gives a tensor of the model by its name."""
    if isinstance(model, HubModel):
        hub_job.save(model, job, out, card)
    elif job.stage.lora:
        adapters.save(model, job, out, card)
    else:
        if set(job.stage.parts) == {PROJECTOR} and export.save_projector(model, out):
            tell(f"The projector alone is in {out / home.PROJECTOR}.")
        export.save_model(model, out, card, ask, saved_as=job.saved_as, trained=trained)


def _is_finished(job: Job, out: Path) -> bool:
    if job.own_processor:
        return hub_job.is_finished(job, out)
    if job.stage.lora:
        return adapters.is_finished(out, merged=job.merge)
    return export.is_finished(out)


# The folder, and how a run ends early.


@contextlib.contextmanager
def _begun(job: Job, out: Path, world: World) -> Generator[None]:
    """The folder is this run's alone and holds its settings."""
    with contextlib.ExitStack() as stack:
        with world.together():
            if world.first:
                stack.enter_context(home.claimed(out))
                record(job, out)
        yield


@contextlib.contextmanager
def _interruptible(world: World) -> Generator[None]:
    """A batch system's SIGTERM ends a run as Ctrl-C does. Several processes have their own way."""
    if world.size > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _determinism(wanted: bool) -> Generator[None]:
    """On a GPU some sums are done in any order unless torch is told otherwise; on a CPU none is."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:  # read when the first product is computed
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted or before, warn_only=True)
    kernels = torch.backends.cuda
    fused = (kernels.flash_sdp_enabled(), kernels.mem_efficient_sdp_enabled())
    if wanted and torch.cuda.is_available():  # where torch only warns, their gradients keep their free order
        kernels.enable_flash_sdp(False)
        kernels.enable_mem_efficient_sdp(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        kernels.enable_flash_sdp(fused[0])
        kernels.enable_mem_efficient_sdp(fused[1])


# What it starts from.


def _load(job: Job, out: Path, parallel: Parallel, tell: Say) -> Trainable:
    """The first process puts a decoder and a tower together where they are named apart."""
    world = parallel.world
    tell(f"Loading {job.model} ...")
    with world.together():
        if job.own_processor and parallel.even:
            raise ConfigError("a model with a processor of its own is held whole; take --shard none")
        if job.own_processor:
            found = hub_job.load(job, world)
            tell(hub_job.told(found))
            return found
    with world.together():
        if world.first:
            _start(job, out)
    with world.together():
        model = material.load_model(
            _start(job, out),
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


def _read(job: Job, model: Trainable, out: Path, world: World, tell: Say, workers: int) -> Rows:
    """The first process makes the indices that the others find in the cache."""
    tell(f"Reading {', '.join(job.data)} ...")
    rows: Rows | None = None
    with world.together():
        if world.first:
            rows = _rows(job, job.data, model, workers)
            _report(rows, out / home.REJECTS, tell)
            tell(story.indexed(rows.indexed, rows.measured))
    with world.together():
        return rows if rows is not None else _rows(job, job.data, model, workers)
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


def _objective(
    job: Job, model: Trainable, rows: Rows, parallel: Parallel, workers: int = 0
) -> InstructionObjective:
    stage, world = job.stage, parallel.world
    feed = FeedConfig(
        batch=stage.batch,
        parts=stage.micro_batches,
        capacity=stage.max_length,
        packing=stage.packing,
        like_lengths=stage.like_lengths,
        seed=stage.seed,
    )
    if isinstance(model, HubModel):
        return hub_job.objective(model, rows, feed, world, workers)
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
        workers=workers,
        even=parallel.even,
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


# What is looked at meanwhile.


def _held_out(
    job: Job, model: Trainable, out: Path, parallel: Parallel, tell: Say, workers: int
) -> InstructionObjective | None:
    """The rows that are validated on, as an objective that is never trained."""
    if not job.validate:
        return None
    tell(f"Reading {', '.join(job.validate)} to validate on ...")
    world = parallel.world
    with world.together():
        rows = _rows(job, job.validate, model, workers)
        if world.first:
            _report(rows, out / home.HELD_OUT_REJECTS, tell)
        share = replace(job.stage, batch=job.stage.micro_batch * world.size)
        return _objective(replace(job, stage=share), model, rows, parallel)
    raise AssertionError("together ends the run where reading fails")


def _looks(
    job: Job,
    model: Trainable,
    held_out: InstructionObjective | None,
    out: Path,
    loop: LoopConfig,
    watcher: Watcher | None,
    on_look: Callable[[Look, Watched | None], None],
    parallel: Parallel,
    tell: Say,
) -> Looks | None:
    if held_out is None and not job.watch_every:
        return None
    if job.watch_every and watcher is None:
        raise ConfigError("the model is to be asked questions, and nothing here can; leave watch_every out")
    ask: Watch | None = None
    world, precision = parallel.world, job.stage.precision
    for turn in (world.first, parallel.even and not world.first):
        with world.together():
            if turn and job.watch_every and watcher:
                ask = watcher(model, job.watch_data, out, tell)

    def validate() -> tuple[float, int]:
        assert held_out is not None
        return summed_loss(held_out, held_out.steps_per_epoch, precision, parallel)

    def watch() -> Watched:
        assert ask is not None
        return ask()

    return Looks(
        out,
        model=model.module,
        steps=loop.steps,
        validate=validate if held_out else None,
        validate_every=job.validate_every,
        watch=watch if job.watch_every else None,
        watch_every=job.watch_every,
        on_look=on_look,
    )


@contextlib.contextmanager
def _tracked(job: Job, out: Path, world: World, tell: Say) -> Generator[Trackers]:
    """The first process reports to the trackers; one that cannot be started ends the run in all."""
    with contextlib.ExitStack() as stack:
        trackers = Trackers({}, tell)
        with world.together():
            if world.first and job.track:
                settings = document(job)
                trackers = stack.enter_context(opened(job.track, out, settings, tell))
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
