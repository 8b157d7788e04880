"""Checkpoints that a kill cannot spoil: written aside, flushed, then renamed.

A checkpoint holds the trained tensors, the optimizer's state, the number of finished steps and what the log
is still owed. Data order is a function of the step, so nothing else is needed to go on. Here all of it is in
one file; :mod:`llavar.train.shards` writes what is divided among processes. Either kind is read by any number
of processes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llavar.errors import ModelError
from llavar.models.spread import local, made_like, part_of
from llavar.train import moment as moments
from llavar.train import shards
from llavar.train.moment import Moment
from llavar.train.shards import Shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Moment):
    """A moment with all of its tensors."""

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]


def of(moment: Moment, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Checkpoint:
    """The state of a run at ``moment``, of which this process holds everything."""
    weights = {name: parameter.detach() for name, parameter in trained.items()}
    return Checkpoint(**asdict(moment), weights=weights, optimizer=optimizer.state_dict())


def save(checkpoint: Checkpoint, folder: Path, *, keep: int = 2) -> Path:
    """Write ``checkpoint`` into ``folder`` and remove all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{moments.PREFIX}{checkpoint.step:08d}.pt"
    aside = final.with_suffix(moments.ASIDE)
    state = {
        "step": checkpoint.step,
        "fingerprint": checkpoint.fingerprint,
        "weights": dict(checkpoint.weights),
        "optimizer": dict(checkpoint.optimizer),
        "unlogged": tuple(checkpoint.unlogged),
        "processes": checkpoint.processes,
    }
    if aside.is_dir():  # left by several processes
        moments.remove(aside)
    try:
        with aside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(final)
    finally:
        aside.unlink(missing_ok=True)
    moments.prune(folder, keep)
    return final


def newest(folder: Path) -> Checkpoint | Shards | None:
    """The newest checkpoint that can be read, or None where there is none.

    One that a crash left damaged is renamed to ``.unreadable`` and passed over for the one before it.
    """
    for path in reversed(moments.complete(folder)):
        try:
            return shards.opened(path) if path.is_dir() else _read(path)
        except PermissionError:  # nothing is wrong with the file
            raise
        except Exception:  # noqa: BLE001 - the unpickler can raise anything over damaged bytes
            moments.set_aside(path)
    return None


def _read(path: Path) -> Checkpoint:
    """What is in a file stays there until it is asked for: a process may need a part of it alone."""
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return Checkpoint(
        step=int(state["step"]),
        fingerprint=str(state["fingerprint"]),
        weights=state["weights"],
        optimizer=state["optimizer"],
        unlogged=tuple(state.get("unlogged", ())),
        processes=int(state.get("processes", 0)),
    )


def clear(folder: Path) -> None:
    """Remove every checkpoint, once what they were for is finished."""
    shutil.rmtree(folder, ignore_errors=True)


def restore(
    found: Checkpoint | Shards, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Copy the state of ``found`` into ``parameters`` (by name) and ``optimizer``, what is held here of them.

    Raises:
        ModelError: the names or shapes differ from those the checkpoint was made with; nothing is changed.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    saved = _shapes(found)
    if shapes.keys() != saved.keys():
        odd = ", ".join(sorted(shapes.keys() ^ saved.keys())[:3])
        raise ModelError(f"the checkpoint trains other tensors than this run ({odd} ...); use a new folder")
    for name, shape in shapes.items():
        if saved[name] != shape:
            raise ModelError(
                f"{name} in the checkpoint is {saved[name]}, this run's is {shape}; use a new folder"
            )
    if isinstance(found, Shards):
        shards.restore(found, parameters, optimizer)
        return
    with torch.no_grad():
        for name, parameter in parameters.items():
            local(parameter).copy_(part_of(found.weights[name], parameter))
    optimizer.load_state_dict(_own(found.optimizer, optimizer))


def _shapes(found: Checkpoint | Shards) -> dict[str, tuple[int, ...]]:
    if isinstance(found, Shards):
        return dict(found.shapes)
    return {name: tuple(tensor.shape) for name, tensor in found.weights.items()}


def _own(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state as far as this process holds the parameters that it belongs to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = {
        index: {
            name: value.clone() if value.dim() == 0 else made_like(like, part_of(value, like).clone())
            for name, value in state["state"][index].items()
        }
        for index, like in enumerate(parameters)
        if index in state["state"]
    }
    return {**state, "state": own}
