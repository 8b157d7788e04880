"""Checkpoints that a kill cannot spoil: written aside, flushed, then renamed.

A checkpoint holds the trained tensors, the optimizer's state, the number of finished steps and what the log
is still owed. Data order is a function of the step, so nothing else is needed to go on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llavar.errors import ModelError

_PREFIX = "step-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """``step`` steps are finished; ``fingerprint`` ties the state to the settings it was made with.

    ``unlogged`` are sums over the steps since the log's last entry (:class:`llavar.train.metrics.Owed`).
    """

    step: int
    fingerprint: str
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    unlogged: tuple[float, ...] = ()


def save(checkpoint: Checkpoint, folder: Path, *, keep: int = 2) -> Path:
    """Write ``checkpoint`` into ``folder`` and remove all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{_PREFIX}{checkpoint.step:08d}.pt"
    aside = final.with_suffix(".partial")
    state = {
        "step": checkpoint.step,
        "fingerprint": checkpoint.fingerprint,
        "weights": dict(checkpoint.weights),
        "optimizer": dict(checkpoint.optimizer),
        "unlogged": tuple(checkpoint.unlogged),
    }
    try:
        with aside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(final)
    finally:
        aside.unlink(missing_ok=True)
    left_by_kills = folder.glob(f"{_PREFIX}*.partial")
    for old in (*_complete(folder)[:-keep], *left_by_kills):
        old.unlink(missing_ok=True)
    return final


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read, or None where there is none.

    A file that a crash left damaged is renamed to ``.unreadable`` and passed over for the one before it.
    """
    for path in reversed(_complete(folder)):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return Checkpoint(
                step=int(state["step"]),
                fingerprint=str(state["fingerprint"]),
                weights=state["weights"],
                optimizer=state["optimizer"],
                unlogged=tuple(state.get("unlogged", ())),
            )
        except PermissionError:  # nothing is wrong with the file
            raise
        except Exception:  # noqa: BLE001 - the unpickler can raise anything over damaged bytes
            path.rename(path.with_suffix(".unreadable"))
    return None


def clear(folder: Path) -> None:
    """Remove every checkpoint, once what they were for is finished."""
    shutil.rmtree(folder, ignore_errors=True)


def restore(
    checkpoint: Checkpoint, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Copy the state of ``checkpoint`` into ``parameters`` (by name) and ``optimizer``.

    Raises:
        ModelError: the names or shapes differ from those the checkpoint was made with; nothing is changed.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    saved = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    if shapes.keys() != saved.keys():
        odd = ", ".join(sorted(shapes.keys() ^ saved.keys())[:3])
        raise ModelError(f"the checkpoint trains other tensors than this run ({odd} ...); use a new folder")
    for name, shape in shapes.items():
        if saved[name] != shape:
            raise ModelError(
                f"{name} in the checkpoint is {saved[name]}, this run's is {shape}; use a new folder"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.weights[name])
    optimizer.load_state_dict(dict(checkpoint.optimizer))


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*.pt")) if folder.is_dir() else []
