"""The processes of a run: what they tell each other, and how all of them end when one does.

Under ``torchrun`` each process computes its share of a step; alone, nothing here does anything. Messages
travel over gloo between CPUs, gradients and gathered weights over NCCL where there are GPUs.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn

from llavar.errors import ConfigError, LlavarError

_BUCKET = 1 << 25
"""Numbers that are summed in one message: 128 MiB of gradients."""

_ENDED = "llavar/ended"
"""Where a process that leaves says why."""

_FIRST = (
    *("torch.distributed.nn.functional", "torch.distributed.device_mesh", "torch.distributed.tensor"),
    *("torch.distributed.fsdp", "torch.distributed.checkpoint"),
)
"""Imported before there is a group.

Functions in these modules take the group of the moment they are imported as a default and would keep it alive
beyond destroy_process_group, with threads that abort the process where they outlive the interpreter.
"""


class World:
    """Process ``rank`` of ``size``, number ``local`` of the ``node`` on this machine; so is its GPU."""

    def __init__(self, *, rank: int = 0, size: int = 1, local: int = 0, node: int = 0) -> None:
        self.rank, self.size, self.local, self.node = rank, size, local, node or size
        self.asked = False
        """Whether somebody asked this process to stop."""
        self.broken = False
        """Whether this process and the others are no longer together: nothing can be agreed on any more."""
        self._meshes: dict[int, Any] = {}

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return torch.device("cuda", self.local) if torch.cuda.is_available() else torch.device("cpu")

    def mesh(self, shards: int) -> Any:
        """All processes as torch wants them where it divides tensors, in rows of ``shards``."""
        if shards not in self._meshes:
            module: Any = importlib.import_module("torch.distributed.device_mesh")
            rows = (self.size,) if shards == self.size else (self.size // shards, shards)
            names = ("machines", "shards")[-len(rows) :]
            self._meshes[shards] = module.init_device_mesh(self.device.type, rows, mesh_dim_names=names)
        return self._meshes[shards]

    @contextmanager
    def together(self, *, stoppable: bool = True) -> Generator[None]:
        """End the block in all processes alike: an error in one is an error in all.

        Nothing inside may wait for another process. What has to be done to its end is not ``stoppable``:
        whoever was asked to stop meanwhile does so at the end of another block.

        Raises:
            LlavarError: another process failed; its sentence is in the message.
            KeyboardInterrupt: one of them was asked to stop.
        """
        if self.size == 1:
            yield
            return
        own: BaseException | None = None
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - it is raised again below, once the others know
            own = error
        stopped = (self.asked and stoppable) or isinstance(own, KeyboardInterrupt | SystemExit)
        failed = own is not None and not stopped
        any_failed, any_stopped = self._most([float(failed), float(stopped)])
        if any_failed:
            sentences = self._gather(_sentence(own) if failed else "")
            if failed and own is not None:
                raise own
            rank = next(rank for rank, sentence in enumerate(sentences) if sentence)
            raise LlavarError(f"process {rank} of {self.size} ended the run: {sentences[rank]}")
        if any_stopped:
            raise KeyboardInterrupt

    @contextmanager
    def apart(self) -> Generator[None]:
        """A block in which processes wait for each other (for weights, say), so that none may leave it early.

        One that fails leaves the world for good, and says why where the others look when they miss it.

        Raises:
            LlavarError: another process is gone; its sentence is in the message if it left one.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except BaseException as error:
            if self.broken:
                raise
            if isinstance(error, RuntimeError) and _is_of_connection(error):
                raise _parted(self, error) from error
            self.broken = True
            _leave_word(self, error)
            raise

    def let_go(self, error: BaseException | None = None) -> None:
        """Give up what holds the group: a divided model, which an ``error`` may hold too, and the mesh.

        torch's own caches hold the mesh for good, so that it has to let go of the group itself.
        """
        if not self._meshes:
            return
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__
        gc.collect()
        for mesh in self._meshes.values():
            getattr(mesh, "_pg_registry", {}).clear()

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sums of ``values`` over all processes, in float64."""
        return list(values) if self.size == 1 else self._all(values, "SUM")

    def agree(self, value: int, what: str) -> None:
        """Raises:
        LlavarError: ``value`` is another in another process.
        """
        if self.size == 1:
            return
        low, high = self._most([-float(value), float(value)])
        if -low != high:
            raise LlavarError(
                f"the processes differ in their {what} ({int(-low)} to {int(high)}); "
                "give all of them the same files and the same --out"
            )

    def hear(self, number: int = 0) -> int:
        """The ``number`` that the first process says."""
        said = torch.tensor([number])
        distributed: Any = torch.distributed
        with _lost(self):
            distributed.broadcast(said, src=0)
        return int(said.item())

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.totals([0.0])

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients over all processes, in place.

        A parameter that has a gradient in no process keeps none; one that has it only elsewhere gets it.
        """
        if self.size == 1:
            return
        anywhere = self._all([float(p.grad is not None) for p in parameters], "MAX")
        shared = [p for p, found in zip(parameters, anywhere, strict=True) if found]
        for bucket in _buckets(shared):
            self._sum_gradients(bucket)

    def _sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [cast("Tensor", parameter.grad) for parameter in parameters]
        flat = self._reduced(torch.cat([gradient.flatten() for gradient in gradients]), "SUM")
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()

    def _most(self, values: Sequence[float]) -> list[float]:
        return self._all(values, "MAX")

    def _all(self, values: Sequence[float], how: str) -> list[float]:
        reduced: Any = self._reduced(torch.tensor(values, dtype=torch.float64), how)
        return [float(value) for value in reduced]

    def _reduced(self, tensor: Tensor, how: str) -> Tensor:
        distributed: Any = torch.distributed
        with _lost(self):
            distributed.all_reduce(tensor, op=getattr(distributed.ReduceOp, how))
        return tensor

    def _gather(self, sentence: str) -> list[str]:
        """The sentences of all processes, as bytes of equal length: nothing is unpickled."""
        distributed: Any = torch.distributed
        data = sentence.encode()[:2000]
        own = torch.zeros(2000, dtype=torch.uint8)
        own[: len(data)] = torch.tensor(list(data), dtype=torch.uint8)
        every = [torch.zeros_like(own) for _ in range(self.size)]
        with _lost(self):
            distributed.all_gather(every, own)
        return [each.numpy().tobytes().rstrip(b"\0").decode(errors="replace") for each in every]


def _sentence(error: BaseException | None) -> str:
    name = "" if isinstance(error, LlavarError) else f"{type(error).__name__}: "
    return name + (" ".join(str(error).split()) or type(error).__name__)


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters in order, of one type and place each, cut at :data:`_BUCKET` numbers."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        full = sum(p.numel() for p in bucket) + parameter.numel() > _BUCKET
        if bucket and (full or parameter.dtype != bucket[0].dtype or parameter.device != bucket[0].device):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


@contextmanager
def _lost(world: World) -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        raise _parted(world, error) from error


def _parted(world: World, error: RuntimeError) -> LlavarError:
    """What to say of a connection that broke: the word that was left, or else what torch says."""
    world.broken = True
    reason = " ".join(str(error).split())[:160]
    return LlavarError(
        _word()
        or f"process {world.rank} of {world.size} lost the others ({reason}); look at what ended them, and "
        "start the same command again: it goes on from the last checkpoint"
    )


def _is_of_connection(error: RuntimeError) -> bool:
    distributed: Any = torch.distributed
    names = ("gloo", "nccl", "socket")
    return isinstance(error, distributed.DistError) or any(name in str(error).lower() for name in names)


def _leave_word(world: World, error: BaseException) -> None:
    """Say why this process leaves. Where the place to say it is gone too, there is nobody to tell."""
    with suppress(RuntimeError):
        said = f"process {world.rank} of {world.size} ended the run: {_sentence(error)}"
        _store().set(_ENDED, said.encode()[:2000])


def _word() -> str:
    """What a process that left has said, if it had the time."""
    with suppress(RuntimeError):
        store = _store()
        return store.get(_ENDED).decode(errors="replace") if store.check([_ENDED]) else ""
    return ""


def _store() -> Any:
    """Short messages that outlive the process which wrote them."""
    module: Any = torch.distributed.distributed_c10d
    return module._get_default_store()


@contextmanager
def connected() -> Generator[World]:
    """The world that ``torchrun`` describes in the environment; a process alone without it.

    In a world of several, SIGINT and SIGTERM no longer interrupt at once: they are remembered, and the next
    :meth:`World.together` ends all processes at the same step.

    Raises:
        ConfigError: the environment is no whole description.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield World()
        return
    distributed: Any = torch.distributed
    world = World(
        rank=_number("RANK"),
        size=size,
        local=_number("LOCAL_RANK", 0),
        node=_number("LOCAL_WORLD_SIZE", 0),
    )
    if torch.cuda.is_available():
        torch.cuda.set_device(world.device)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    for name in _FIRST:
        importlib.import_module(name)
    with _lost(world):
        distributed.init_process_group(backend)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(_number: int, _frame: FrameType | None) -> None:
        world.asked = True

    try:
        for number in before:
            signal.signal(number, remember)
        yield world
    except BaseException as error:
        world.let_go(error)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, cast("Any", handler))
        world.let_go()
        distributed.destroy_process_group()


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r} in the environment; start several processes with torchrun")
    return int(text)
