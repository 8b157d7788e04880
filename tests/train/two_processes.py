"""What two processes do for ``test_world.py``, started by torchrun; every outcome goes to a file."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llavar import chat
from llavar.data.encode import encode
from llavar.errors import DataError, LlavarError
from llavar.models._hf import build_llava
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.models.tokenizer import nano_tokenizer
from llavar.records import Conversation, Encoded, Example
from llavar.train.config import LoopConfig, Mean, PartConfig
from llavar.train.llava import DECODER, PROJECTOR, FeedConfig, InstructionObjective
from llavar.train.loop import fit
from llavar.train.world import World, connected

WORDS = ("STOP", "GO", "EXIT", "OPEN 24 h", "Mind the gap", "NO")


class Noise:
    """A picture of noise for each name."""

    is_features = False

    def get(self, names: Sequence[str]) -> Tensor:
        made = [torch.Generator().manual_seed(sum(map(ord, name))) for name in names]
        return torch.stack([torch.randn(3, 16, 16, generator=generator) for generator in made])


def row(number: int, pictures: int) -> Encoded:
    text = WORDS[number % len(WORDS)]
    example = Example(
        id=str(number),
        images=(f"{number}.png",) * pictures,
        conversation=Conversation.of("<image>\n" * pictures + f"Read number {number}.", text),
    )
    return encode(example, nano_tokenizer(), chat.get("llava_v1"), image_tokens=4)


def rows() -> list[Encoded]:
    """Every third is about text alone."""
    return [row(number, pictures=int(number % 3 > 0)) for number in range(10)]


def objective(world: World, *, packing: bool = False) -> InstructionObjective:
    tokens = nano_tokenizer()
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
        text=TextShape(
            vocab=tokens.vocab_size, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512
        ),
        image_token_id=tokens.image_patch_id,
        vision_feature_layer=-1,
    )
    model = build_llava(shape, seed=2)
    feed = FeedConfig(batch=4, parts=2, capacity=128, packing=packing)
    return InstructionObjective(model, rows(), Noise(), feed, pad_id=0, world=world)


def settings(*parts: str, **changes: Any) -> LoopConfig:
    named = {part: PartConfig(lr=2e-3) for part in parts}
    return LoopConfig(**({"steps": 6, "parts": named, "log_every": 1, "save_every": 2} | changes))


def digest(trained: InstructionObjective) -> str:
    held = hashlib.sha256()
    for _, tensor in sorted(trained.model.state_dict().items()):
        held.update(tensor.numpy().tobytes())
    return held.hexdigest()


def outcome(trained: InstructionObjective, config: LoopConfig, out: Path, world: World) -> dict[str, Any]:
    fitted = fit(trained, config, out, world=world)
    ticks = [(tick.step, tick.loss, tick.grad_norm) for tick in fitted.ticks]
    return {"ticks": ticks, "weights": digest(trained), "resumed_at": fitted.resumed_at}


BOTH = (PROJECTOR, DECODER)
STRAIGHT: dict[str, tuple[LoopConfig, bool]] = {
    "token mean": (settings(*BOTH), False),
    "batch mean": (settings(*BOTH, mean=Mean.BATCH), False),
    "packed": (settings(*BOTH), True),
    "projector": (settings(PROJECTOR), False),
}


def interrupted(world: World, out: Path) -> dict[str, Any]:
    """The second process is asked to stop in the fourth step; then both go on."""
    stopped = objective(world)
    deal = stopped.batches

    def asked(step: int) -> Any:
        world.asked = world.rank == 1 and step == 3
        return deal(step)

    stopped.batches = asked
    try:
        fit(stopped, settings(*BOTH), out, world=world)
    except KeyboardInterrupt:
        world.asked = False
        return outcome(objective(world), settings(*BOTH), out, world)
    return {}


def failed(world: World, out: Path) -> dict[str, Any]:
    """The second process cannot compute its third step; afterwards both can be used again."""
    broken = objective(world)
    compute, at = broken.loss, iter(range(99))

    def loss(batch: Any) -> Tensor:
        if next(at) == 2 and world.rank == 1:
            raise DataError("row 'x' is odd; mend it")
        return compute(batch)

    broken.loss = loss
    try:
        fit(broken, settings(*BOTH), out, world=world)
    except LlavarError as error:
        kind = type(error).__name__
        again = outcome(objective(world), settings(*BOTH), out, world)
        return {"kind": kind, "sentence": str(error), **again}
    return {}


def disagreed(world: World) -> str:
    try:
        world.agree(world.rank, "opinions")
    except LlavarError as error:
        return str(error)
    return ""


def native_threads() -> list[str]:
    """Names of this process's threads, those of libraries too; none where the system does not list them."""
    return sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with connected() as world:
        found: dict[str, Any] = {
            name: outcome(objective(world, packing=packing), config, out / name, world)
            for name, (config, packing) in STRAIGHT.items()
        }
        found["interrupted"] = interrupted(world, out / "interrupted")
        found["failed"] = failed(world, out / "failed")
        found["disagreed"] = disagreed(world)
    found["threads"] = native_threads()
    (out / f"{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
