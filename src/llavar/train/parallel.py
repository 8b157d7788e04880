"""How the processes of a run share it: each with everything, or each with a part of the weights.

The loop asks one of two for whatever depends on that: :class:`Replicated`, where every process holds the
whole model and gradients are summed after a step, and :class:`Sharded`, where the decoder's weights,
gradients and moments are divided (ZeRO stage 3, torch's ``fully_shard``), weights are gathered layer by layer
when they are needed, and gradients are summed on the way back. Nothing else in training knows which it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from llavar.errors import ConfigError
from llavar.models import _hf as hf
from llavar.models import _hf_sharded as sharded
from llavar.models.spread import gathered, is_spread, local
from llavar.train import checkpoint, shards
from llavar.train.checkpoint import Moment
from llavar.train.config import Precision, Shard, StageConfig
from llavar.train.world import World

T = TypeVar("T")
Trained = Mapping[str, nn.Parameter]


class Parallel(Protocol):
    """What the loop asks of the way in which processes work together."""

    @property
    def world(self) -> World: ...

    @property
    def even(self) -> bool:
        """Whether all processes have to compute equally many micro-batches."""
        ...

    @property
    def shards(self) -> int:
        """Among how many processes the decoder is divided."""
        ...

    def load(self, folder: Path, attention: str, *, trained: bool) -> nn.Module:
        """The stock model in ``folder``, whose decoder will be ``trained`` or not.

        Raises:
            ModelError: the folder is no whole model.
            ConfigError: its decoder is one that cannot be divided.
        """
        ...

    def computing(self) -> AbstractContextManager[None]:
        """A block in which micro-batches are computed, forwards and backwards."""
        ...

    def compute(self, function: Callable[[], T]) -> T:
        """What ``function`` gives, which the model computes in the run's precision."""
        ...

    def reduce(self, trained: Trained) -> None:
        """Sum the gradients over all processes, as far as the backward pass has not."""
        ...

    def clip(self, trained: Trained, longest: float) -> float:
        """Shorten the whole gradient to ``longest`` (0: as it is); returns its norm before."""
        ...

    def saving(self) -> AbstractContextManager[object]:
        """A block in which a checkpoint may be written, after which all go on or none."""
        ...

    def writes(self, ready: bool) -> bool:
        """Whether this process takes part in writing a checkpoint, being ``ready`` to."""
        ...

    def save(
        self, moment: Moment, trained: Trained, optimizer: torch.optim.Optimizer, folder: Path, keep: int
    ) -> None:
        """Write down a moment of the run, and remove all but the newest ``keep``."""
        ...

    def lend(self, tensors: Mapping[str, Tensor], use: Callable[[Callable[[str], Tensor]], None]) -> None:
        """Let the first process ``use`` any of ``tensors``, by name, each of them whole."""
        ...


class Replicated:
    """Every process holds the whole model; also a process alone. The first one writes."""

    even, shards = False, 1

    def __init__(self, world: World, precision: Precision = Precision.FP32, device: str = "") -> None:
        self.world = world
        self._precision, self._device = precision, device or world.device.type

    def load(self, folder: Path, attention: str, *, trained: bool) -> nn.Module:  # noqa: ARG002
        return hf.load_llava(folder, attention=attention)

    def computing(self) -> AbstractContextManager[None]:
        return self.world.together()

    def compute(self, function: Callable[[], T]) -> T:
        with arithmetic(self._precision, self._device):
            return function()

    def reduce(self, trained: Trained) -> None:
        self.world.reduce(list(trained.values()))

    def clip(self, trained: Trained, longest: float) -> float:
        return nn.utils.clip_grad_norm_(trained.values(), longest or math.inf).item()

    def saving(self) -> AbstractContextManager[object]:
        return self.world.together()

    def writes(self, ready: bool) -> bool:
        return ready and self.world.first

    def save(
        self, moment: Moment, trained: Trained, optimizer: torch.optim.Optimizer, folder: Path, keep: int
    ) -> None:
        checkpoint.save(checkpoint.of(moment, trained, optimizer), folder, keep=keep)

    def lend(self, tensors: Mapping[str, Tensor], use: Callable[[Callable[[str], Tensor]], None]) -> None:
        with self.world.together():
            if self.world.first:
                use(tensors.__getitem__)


class Sharded:
    """The decoder is divided among the processes; tower and projector, 2 % of it, are whole in each.

    With fewer ``shards`` than processes, each row of so many holds all of it; gradients are summed over rows.

    So a process whose rows have no pictures does without tower and projector, and nobody waits for it there:
    only the decoder's layers are gathered, and each micro-batch goes through all of them.
    """

    even = True

    def __init__(self, world: World, precision: Precision = Precision.FP32, *, shards: int = 0) -> None:
        self.world, self.shards, self._precision = world, shards or world.size, precision
        self._computed = torch.bfloat16 if precision is Precision.BF16 else None
        self._root: Any = None

    def load(self, folder: Path, attention: str, *, trained: bool) -> nn.Module:
        """Of the decoder each process reads its part, which it holds in fp32 if it is ``trained``."""
        kept = torch.float32 if trained or self._computed is None else self._computed
        model = sharded.load(folder, self._divide, attention=attention, dtype=kept, device=self.world.device)
        return self._rooted(model)

    def spread(self, model: nn.Module) -> nn.Module:
        """Divide a model that every process holds whole, as :meth:`load` does with one on a disk."""
        self._divide(model)
        return self._rooted(model)

    def _divide(self, model: nn.Module) -> None:
        sharded.spread(model, self._mesh, computed=self._computed)

    def _rooted(self, model: nn.Module) -> nn.Module:
        self._root = sharded.root_of(model, self._mesh)
        return model

    @property
    def _mesh(self) -> Any:
        return self.world.mesh(self.shards)

    def lend(self, tensors: Mapping[str, Tensor], use: Callable[[Callable[[str], Tensor]], None]) -> None:
        """Let the first process ``use`` all of any of ``tensors``, by name, whenever it asks for one.

        The others come to lend their parts of it, until the first one is done.
        """
        names = list(tensors)
        with self.world.apart():
            if not self.world.first:
                while (number := self.world.hear()) >= 0:
                    gathered(tensors[names[number]])
                return

            def ask(name: str) -> Tensor:
                self.world.hear(names.index(name))
                return gathered(tensors[name])

            try:
                use(ask)
            finally:
                self.world.hear(-1)

    def computing(self) -> AbstractContextManager[None]:
        return self.world.apart()

    def compute(self, function: Callable[[], T]) -> T:
        with arithmetic(self._precision, self.world.device.type):  # tower and projector are cast as ever
            return self._root(function)

    def reduce(self, trained: Trained) -> None:
        with self.world.apart():
            self.world.reduce([parameter for parameter in trained.values() if not is_spread(parameter)])

    def clip(self, trained: Trained, longest: float) -> float:
        gradients = [(p, p.grad) for p in trained.values() if p.grad is not None]
        own = [local(grad) for parameter, grad in gradients if is_spread(parameter)]
        whole = [grad for parameter, grad in gradients if not is_spread(parameter)]
        (squares,) = self.world.totals([_norm(own) ** 2])
        norm = math.sqrt(squares * self.shards / self.world.size + _norm(whole) ** 2)
        factor = longest / (norm + 1e-6) if longest else 1.0
        for gradient in (*own, *whole) if factor < 1 else ():
            gradient.mul_(factor)
        return norm

    def saving(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()  # every process has its part in each save

    def writes(self, ready: bool) -> bool:
        """All or none: each has a part, and a process that is not together with the others can only leave."""
        return not self.world.broken and self.world.totals([float(ready)])[0] == self.world.size

    def save(
        self, moment: Moment, trained: Trained, optimizer: torch.optim.Optimizer, folder: Path, keep: int
    ) -> None:
        shards.save(moment, trained, optimizer, folder, self.world, keep=keep)


def parallel_of(stage: StageConfig, world: World) -> Parallel:
    """How the processes of ``world`` share ``stage``. One alone has nobody to divide anything with.

    Raises:
        ConfigError: machines have unequally many processes, and each is to hold everything.
    """
    if stage.shard is Shard.NONE or world.size == 1:
        return Replicated(world, stage.precision)
    if stage.shard is Shard.HYBRID and world.size % world.node:
        raise ConfigError(
            f"{world.size} processes do not fill machines of {world.node}; start equally many on each, or "
            "take --shard full"
        )
    shards = world.node if stage.shard is Shard.HYBRID else world.size
    return Sharded(world, stage.precision, shards=shards)


def arithmetic(precision: Precision, device: str) -> contextlib.AbstractContextManager[object]:
    """What forward passes are computed in."""
    return torch.autocast(device, torch.bfloat16, enabled=precision is Precision.BF16)


def _norm(gradients: list[Tensor]) -> float:
    return nn.utils.get_total_norm(gradients).item() if gradients else 0.0
