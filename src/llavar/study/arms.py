"""Arms of a comparison: a base through stage 1 and stage 2 on given rows, to a model folder each.

Side by side every arm has one thread of a process: models this small gain little from a second thread, lose
much when it has to wait, and give the same numbers on every machine without one. There are as many processes
as processors; each takes the next arm when it is done with one, since to start one takes seconds.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

import torch

from llavar.data.encode import encode_all
from llavar.data.vision import FeatureStore
from llavar.errors import LlavarError, ModelError
from llavar.models import _hf as hf
from llavar.models.tokenizer import TextTokenizer, load_tokenizer
from llavar.recipes.nano import Stage
from llavar.records import IGNORE, Encoded, Example, Reject
from llavar.study.nano.weights import LAST_FILE
from llavar.train.llava import InstructionObjective
from llavar.train.loop import Fitted, fit
from llavar.train.metrics import Tick

MODEL = "model"
"""Folder of the finished model inside the folder of an arm."""

_MOST = 8
"""Processes at a time: each holds a model, its optimizer and the features of all pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRows:
    """Rows of both stages; image names are those of the feature store."""

    stage1: tuple[Example, ...]
    stage2: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A finished arm."""

    model: Path
    stage1: Fitted
    stage2: Fitted


def train_arm(
    base: Path,
    rows: ArmRows,
    stages: tuple[Stage, Stage],
    features: FeatureStore,
    out: Path,
    *,
    on_tick: Callable[[int, Tick], None] | None = None,
) -> Arm:
    """Train ``base`` into ``out``; called again, go on where it was stopped.

    ``on_tick`` is called with the stage (1 or 2) and what the log holds.
    """
    # On a CPU and at these lengths, plain matrix products are faster than the fused attention.
    model: Any = hf.load_llava(base, attention="sdpa" if torch.cuda.is_available() else "eager")
    hf.disable_cache(model)
    model.train()
    tokenizer = load_tokenizer(base)
    fitted: list[Fitted] = []
    for number, (stage, examples) in enumerate(zip(stages, (rows.stage1, rows.stage2), strict=True), start=1):
        encoded, _ = encode_rows(examples, tokenizer, image_tokens=model.config.image_seq_length)
        objective = InstructionObjective(model, encoded, features, stage.feed, pad_id=tokenizer.pad_id or 0)

        def tell(tick: Tick, number: int = number) -> None:
            if on_tick:
                on_tick(number, tick)

        # Another run in the same folder is refused if its rows are others, not only its settings.
        loop = replace(stage.loop, tags={**stage.loop.tags, "rows": _digest(encoded)})
        fitted.append(fit(objective, loop, out / f"stage{number}", on_tick=tell))
    if not (out / MODEL / LAST_FILE).exists():
        hf.save_llava(model, out / MODEL, dtype=torch.float32)
        tokenizer.save(out / MODEL)
    del model
    gc.collect()
    return Arm(model=out / MODEL, stage1=fitted[0], stage2=fitted[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an arm is made of: the model that it starts from, its rows, and how it is trained."""

    base: Path
    rows: ArmRows
    stages: tuple[Stage, Stage]


Then = Callable[[str, Arm], None]
"""What is done with a finished arm, by its name, in the process that has trained it; it has to pickle."""


def train_arms(
    plans: Mapping[str, Plan],
    features: FeatureStore,
    out: Path,
    *,
    then: Then | None = None,
    on_tick: Callable[[str, int, Tick], None] | None = None,
) -> dict[str, Arm]:
    """Every arm into the folder of its name below ``out``, side by side; called again, it goes on.

    Raises:
        ModelError: a process died. What the loop or ``then`` raises in one of them is raised here.
    """
    stored = out / "features.safetensors"
    features.save(stored)
    crew = _crew(_Work(plans=dict(plans), stored=stored, out=out, then=then))
    _start(list(crew.workers))
    try:
        return _gathered(crew, plans, on_tick)
    except BaseException:
        for worker in crew.workers:
            worker.terminate()  # it saves its last step before it ends
        raise
    finally:
        for worker in crew.workers:
            worker.join(30)
            worker.kill()
        stored.unlink(missing_ok=True)


class _Message(NamedTuple):
    """What a process tells: that it begins an arm, a tick of a stage, the finished arm, or its last error."""

    worker: int
    arm: str
    stage: int = 0
    tick: Tick | None = None
    done: Arm | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """All that a process needs to train any of the arms."""

    plans: Mapping[str, Plan]
    stored: Path
    out: Path
    then: Then | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crew:
    """Processes, the arms that they are given, and what they tell."""

    workers: tuple[BaseProcess, ...]
    names: Queue[str]  # held here, or it would be gone before a process has opened it
    told: Queue[_Message]


def _crew(work: _Work) -> _Crew:
    """As many processes as can run at a time, not yet started."""
    context = multiprocessing.get_context("spawn")
    count = min(_MOST, processors(), len(work.plans))
    told: Queue[_Message] = context.Queue()
    names: Queue[str] = context.Queue()
    for name in (*work.plans, *[""] * count):
        names.put(name)
    workers = tuple(
        context.Process(target=_work, args=(number, work, names, told), daemon=True)
        for number in range(count)
    )
    return _Crew(workers=workers, names=names, told=told)


def processors() -> int:
    """How many of this machine's processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(number: int, work: _Work, names: Queue[str], told: Queue[_Message]) -> None:
    """Train the arms whose names come, until an empty one does."""
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(1)
    name, parent = "", os.getppid()

    def tell(stage: int, tick: Tick) -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt  # nobody listens any more, and the next run will want this folder
        told.put(_Message(number, name, stage, tick))

    try:
        features = FeatureStore.load(work.stored)
        while name := names.get():
            told.put(_Message(number, name))
            plan = work.plans[name]
            arm = train_arm(plan.base, plan.rows, plan.stages, features, work.out / name, on_tick=tell)
            if work.then:
                work.then(name, arm)
            told.put(_Message(number, name, done=arm))
    except (LlavarError, OSError) as error:
        told.put(_Message(number, name, error=error))
    except KeyboardInterrupt:
        told.cancel_join_thread()  # the loop has saved, and there is nothing left to tell
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _start(workers: Sequence[BaseProcess]) -> None:
    """Start processes that do not hear Ctrl-C in the terminal: who started them passes it on in order."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
    try:
        for worker in workers:
            worker.start()
    finally:
        if here:
            signal.signal(signal.SIGINT, before)


def _gathered(
    crew: _Crew, wanted: Mapping[str, Plan], on_tick: Callable[[str, int, Tick], None] | None
) -> dict[str, Arm]:
    finished: dict[str, Arm] = {}
    busy: dict[int, str] = {}
    while len(finished) < len(wanted):
        try:
            message = crew.told.get(timeout=1)
        except Empty:
            _look_for_the_dead(crew, busy)
            continue
        busy[message.worker] = message.arm
        if message.error is not None:
            raise message.error
        if message.done is not None:
            finished[message.arm] = message.done
            del busy[message.worker]
        elif message.tick is not None and on_tick:
            on_tick(message.arm, message.stage, message.tick)
    return {name: finished[name] for name in wanted}


def _look_for_the_dead(crew: _Crew, busy: Mapping[int, str]) -> None:
    """Raise if a process has ended that had an arm to train, or if all have before the end."""
    ended = [place for place, worker in enumerate(crew.workers) if worker.exitcode is not None]
    lost = [place for place in ended if place in busy]
    if len(ended) == len(crew.workers):
        lost = lost or ended
    if lost and crew.told.empty():
        place = lost[0]
        what = f"trains {busy[place]!r}" if place in busy else "was to train"
        raise ModelError(
            f"the process that {what} ended with status {crew.workers[place].exitcode}; it may have run out "
            "of memory, and the same command goes on from its last checkpoint"
        )


def encode_rows(
    examples: Sequence[Example], tokenizer: TextTokenizer, *, image_tokens: int
) -> tuple[list[Encoded], list[Reject]]:
    """Rows that the model can learn from, and rejects: those whose answers its tokenizer cannot write."""
    encoded, rejects = encode_all(
        examples,
        tokenizer,
        tokenizer.template(),
        image_tokens=image_tokens,
        start_end=tokenizer.has_start_end,
        max_length=1024,
    )
    unknown = tokenizer.unk_id
    odd = {
        row.id
        for row in encoded
        if any(i == unknown for i, k in zip(row.ids, row.labels, strict=True) if k != IGNORE)
    }
    rejects += [
        Reject(id=id, stage="encode", reason="characters that the tokenizer lacks", detail="in an answer")
        for id in sorted(odd)
    ]
    return [row for row in encoded if row.id not in odd], rejects


def _digest(rows: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.id, row.ids, row.labels, row.images)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]
