"""What several processes do for ``test_sharded.py``; every outcome goes to a file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
import two_processes as two
from torch import Tensor

from llavar.data.feed import FeedConfig
from llavar.errors import DataError, LlavarError
from llavar.models import _hf as hf
from llavar.models import _hf_training as training
from llavar.models import spread
from llavar.train import job, loop, parallel
from llavar.train.config import LoopConfig, Precision
from llavar.train.llava import DECODER, PROJECTOR, InstructionObjective
from llavar.train.parallel import Parallel, Replicated, Sharded
from llavar.train.settings import read_job
from llavar.train.world import World, connected

BOTH = (PROJECTOR, DECODER)
SETTINGS: dict[str, LoopConfig] = {
    "both": two.settings(*BOTH),
    "projector": two.settings(PROJECTOR),
    "bf16": two.settings(*BOTH, precision=Precision.BF16),
    "selective": two.settings(*BOTH),
    "hybrid": two.settings(*BOTH),
}


def begun(name: str, model: Path, world: World) -> tuple[InstructionObjective, Parallel]:
    """Nine rows, every other with a picture: the last step has one micro-batch, and one process none."""
    config = SETTINGS[name]
    how: Parallel = Replicated(world, config.precision)
    if world.size > 1:  # a machine has one process, so that with hybrid each holds the whole decoder
        how = Sharded(world, config.precision, shards=world.node if name == "hybrid" else 0)
    module: Any = how.load(model, "eager", trained=DECODER in config.parts)
    hf.disable_cache(module)
    if config.precision is Precision.BF16:  # as a job holds what is frozen
        module.model.vision_tower.to(torch.bfloat16)
    if name == "selective":
        training.recompute(module, selective=True)
    rows = [two.row(number, pictures=int(number % 2 > 0)) for number in range(9)]
    feed = FeedConfig(batch=4, parts=2, capacity=128, packing=name == "selective")
    trained = InstructionObjective(
        module.train(), rows, two.Noise(), feed, pad_id=0, world=world, even=how.even
    )
    return trained, how


def outcome(name: str, model: Path, out: Path, world: World, **given: Any) -> dict[str, Any]:
    trained, how = begun(name, model, world)
    fitted = loop.fit(trained, SETTINGS[name], out, parallel=how, **given)
    state = trained.model.state_dict()
    weights = {name: spread.gathered(tensor).detach().clone() for name, tensor in state.items()}
    if world.first:
        torch.save(weights, out / "weights.pt")
    ticks = [(tick.step, tick.loss, tick.grad_norm) for tick in fitted.ticks]
    rows = [[batch_of(batch) for batch in trained.batches(step)] for step in range(trained.steps_per_epoch)]
    return {"ticks": ticks, "resumed_at": fitted.resumed_at, "held": held(trained.model), "rows": rows}


def batch_of(batch: Any) -> str:
    """What a micro-batch holds."""
    return "nothing" if not batch.rows else "text" if batch.vision is None else "pictures"


def held(model: Any) -> dict[str, int]:
    """Bytes of the decoder in this process, and of all of it."""
    named = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    return {
        "here": sum(spread.local(parameter).nbytes for parameter in named),
        "all": sum(parameter.numel() * parameter.element_size() for parameter in named),
    }


# What passes through a process.


class Watched:
    """The most bytes of tensors that were there at one time, of those that it was shown."""

    def __init__(self) -> None:
        self.now = self.most = self.largest = 0

    def see(self, tensor: Tensor) -> Tensor:
        size = tensor.nbytes
        self.largest = max(self.largest, size)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(tensor, self._gone, size)
        return tensor

    def _gone(self, size: int) -> None:
        self.now -= size


@contextlib.contextmanager
def watched(module: Any, name: str) -> Generator[Watched]:
    """Everything that ``module.name`` gives within the block."""
    seen, function = Watched(), getattr(module, name)
    setattr(module, name, lambda *given: seen.see(function(*given)))
    try:
        yield seen
    finally:
        setattr(module, name, function)


def counted(model: Path, world: World) -> dict[str, int]:
    """What reading the decoder takes in this process."""
    from llavar.models import _hf_sharded as sharded

    read = sharded._rows
    parts = Watched()

    def rows(file: Any, source: Any, wanted: slice | None) -> Tensor:
        return read(file, source, wanted) if wanted is None else parts.see(read(file, source, wanted))

    sharded._rows = rows
    try:
        Sharded(world).load(model, "eager", trained=True)
    finally:
        sharded._rows = read
    return {"largest": parts.largest, "most": parts.most}


# Whole jobs, and how they end.


def whole(out: Path, world: World) -> dict[str, Any]:
    """The job in ``out``, with what was gathered when its model was written."""
    said: list[str] = []
    with watched(parallel, "gathered") as seen:
        fitted = job.run(read_job(out), out, world=world, say=said.append, watcher=asking)
    return {"said": said, "most": seen.most, "largest": seen.largest, "steps": fitted.steps}


def asking(model: Any, data: str, out: Path, say: Any) -> Any:
    """Asks the model for its most likely next token: all processes have to help."""
    from llavar.train.look import Watched as Answered

    def ask() -> Answered:
        logits = model.module(input_ids=torch.tensor([[1, 5, 9]])).logits
        return Answered(metric="anls", score=float(logits[0, -1].argmax()), samples=())

    return ask


def stopped(model: Path, out: Path, world: World) -> dict[str, Any]:
    """The second process is asked to stop in the fourth step; then both go on."""
    trained, how = begun("both", model, world)
    deal = trained.batches

    def asked(step: int) -> Any:
        world.asked = world.rank == 1 and step == 3
        return deal(step)

    trained.batches = asked
    try:
        loop.fit(trained, SETTINGS["both"], out, parallel=how)
    except KeyboardInterrupt:
        world.asked = False
        return outcome("both", model, out, world)
    return {}


def killed(model: Path, out: Path, world: World, told: dict[str, Any]) -> None:
    """The second process is killed in the middle of its sixth step."""
    trained, how = begun("both", model, world)
    compute, done = trained.loss, iter(range(99))

    def loss(batch: Any) -> Tensor:
        if next(done) == 5 and world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(batch)

    trained.loss = loss
    try:
        loop.fit(trained, SETTINGS["both"], out, parallel=how)
    except LlavarError as error:
        told["killed"] = str(error)


def failed(model: Path, out: Path, world: World) -> dict[str, str]:
    """The second process cannot compute its third micro-batch, while the first waits for its weights."""
    trained, how = begun("both", model, world)
    compute, done = trained.loss, iter(range(99))

    def loss(batch: Any) -> Tensor:
        if next(done) == 2 and world.rank == 1:
            raise DataError("row 'x' is odd; mend it")
        return compute(batch)

    trained.loss = loss
    try:
        loop.fit(trained, SETTINGS["both"], out, parallel=how)
    except LlavarError as error:
        return {"kind": type(error).__name__, "sentence": str(error)}
    return {}


def first(out: Path, world: World, found: dict[str, Any]) -> None:
    model = out / "tiny"
    for name in SETTINGS:
        found[name] = outcome(name, model, out / name, world)
    found["counted"] = counted(model, world)
    found["stopped"] = stopped(model, out / "stopped", world)
    found["job"] = whole(out / "job", world)
    save(out, world, found)
    killed(model, out / "killed", world, found)


def second(out: Path, world: World, found: dict[str, Any]) -> None:
    model = out / "tiny"
    found["resumed"] = outcome("both", model, out / "killed", world)
    resumed: list[tuple[int, int]] = []
    found["more"] = outcome(
        "both", model, out / "alone", world, on_resume=lambda at: resumed.append((at.step, at.processes))
    )
    found["more"]["resumed"] = resumed
    found["failed"] = failed(model, out / "failed", world)


def save(out: Path, world: World, found: dict[str, Any]) -> None:
    (out / f"{world.rank}.json").write_text(json.dumps(found))


def main(out: Path, what: str) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with connected() as world:
        found["address"] = two.native_threads() and address()
        (first if what == "first" else second)(out, world, found)
    found["threads"] = two.native_threads()
    save(out, world, found)
    if "killed" in found:
        sys.exit(2)  # as the command does: torchrun waits minutes for a machine that ended badly


def address() -> list[str]:
    """The addresses of this machine, or network namespace, as the kernel lists them."""
    table = Path("/proc/net/fib_trie").read_text()
    return sorted(set(table.split()) & {"10.77.0.1", "10.77.0.2"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
