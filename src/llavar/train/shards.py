"""Checkpoints whose parts lie with many processes, by torch's distributed checkpoints (DCP).

Every process writes what it holds into one folder, aside; when all have finished, the first one adds
``moment.json``, which names every file with its size, and renames the folder. Tensors are stored by name, and
so are the optimizer's moments. A process reads of them what it holds, however many wrote them: DCP knows
which rows are where. Nothing is ever gathered.
"""

from __future__ import annotations

import importlib
import json
import logging
import pickle
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from llavar import files
from llavar.errors import ModelError, StorageError
from llavar.models.spread import local, made_like
from llavar.train import home
from llavar.train import moment as moments
from llavar.train.moment import Moment
from llavar.train.world import World

_ABOUT = "moment.json"
_METADATA = ".metadata"
_WEIGHT, _STEP = "weight", "step"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_ALLOWED = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_PLAIN = (
    *(("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")),
    *(("pathlib", "PosixPath"), ("pathlib._local", "PosixPath")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards(Moment):
    """A moment whose tensors lie in ``folder``; ``shapes`` are those of the trained tensors by name."""

    folder: Path
    shapes: Mapping[str, tuple[int, ...]]


def save(
    moment: Moment,
    trained: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    folder: Path,
    world: World,
    *,
    keep: int = 2,
) -> None:
    """Write ``moment`` into ``folder``, each process its part, and remove all but the newest ``keep``.

    Raises:
        LlavarError: one of the processes could not write; all of them raise, and what was there is still.
    """
    final = folder / f"{moments.PREFIX}{moment.step:08d}"
    aside = final.with_name(final.name + moments.ASIDE)
    with world.together(stoppable=False):
        if world.first:
            moments.remove(aside)
            aside.mkdir(parents=True)
    with world.apart():
        _write(_tensors(trained, optimizer), aside)
    with world.together(stoppable=False):
        if world.first:
            sizes = {path.name: path.stat().st_size for path in sorted(aside.iterdir())}
            shapes = {name: list(parameter.shape) for name, parameter in trained.items()}
            about = {**asdict(moment), "shapes": shapes, "files": sizes}
            files.write_text(aside / _ABOUT, json.dumps(about) + "\n")
            moments.flush(aside)
            moments.remove(final)
            aside.rename(final)
            moments.flush(folder)
            moments.prune(folder, keep)


def _tensors(trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything of a moment by one name each, as it is held: in parts or whole."""
    held: dict[str, Tensor] = {}
    for name, parameter in trained.items():
        held[f"{_WEIGHT}:{name}"] = parameter.detach()
        state: Mapping[str, Tensor] = optimizer.state.get(parameter, {})
        held |= {f"{kind}:{name}": tensor for kind, tensor in state.items()}
    return held


def _write(tensors: Mapping[str, Tensor], folder: Path) -> None:
    dcp: Any = importlib.import_module("torch.distributed.checkpoint")

    class Writer(dcp.FileSystemWriter):
        def write_data(self, *given: Any) -> Any:
            try:
                written: Any = super()
                return written.write_data(*given)
            except Exception as error:
                reason = home.refused(error)  # what is behind an error does not travel to other processes
                raise (OSError(reason) if reason else error) from error

    try:
        with _quiet():
            dcp.save(dict(tensors), storage_writer=Writer(folder, sync_files=True))
    except dcp.CheckpointException as error:
        rank, cause = _cause(error)
        reason = " ".join(str(cause).split())[:200]
        raise StorageError(
            f"process {rank} could not write its part of {folder.name} ({reason}); make room in "
            f"{folder.parent}, and start the same command again: it goes on from the checkpoint before"
        ) from cause


def _cause(error: Any) -> tuple[int, BaseException]:
    """Of DCP's own exception, which of the processes failed first, and why."""
    rank, (cause, _) = next(iter(error.failures.items()))
    return int(rank), cause


def opened(folder: Path) -> Shards:
    """What lies in ``folder``, which was found complete.

    Raises:
        ModelError: a file is missing or has another size than it was written with.
        ValueError, KeyError, TypeError, OSError: its description is damaged.
    """
    about = json.loads((folder / _ABOUT).read_bytes())
    for name, size in about["files"].items():
        if PurePosixPath(name).name != name or (folder / name).stat().st_size != size:
            raise ModelError(f"{folder} is damaged: {name} is not as it was written")
    return Shards(
        step=int(about["step"]),
        fingerprint=str(about["fingerprint"]),
        unlogged=tuple(about["unlogged"]),
        processes=int(about["processes"]),
        folder=folder,
        shapes={str(name): tuple(map(int, shape)) for name, shape in about["shapes"].items()},
    )


def restore(found: Shards, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Read of ``found`` what this process holds of ``parameters`` and of the optimizer's moments of them.

    No process waits for another one here. Nothing is changed unless all could be read.

    Raises:
        ModelError: a file is damaged; the folder is set aside, and the checkpoint before it counts.
    """
    try:
        stored = _names(found.folder)
        read = {key: tensor for key, tensor in _room(parameters).items() if key in stored}
        _read(read, found.folder)
    except PermissionError:
        raise
    except Exception as error:  # torch's readers can raise anything over damaged bytes
        moments.set_aside(found.folder)
        raise ModelError(
            f"{found.folder} is damaged ({' '.join(str(error).split())[:160]}) and was set aside; start the "
            "same command again: it goes on from the checkpoint before"
        ) from error
    with torch.no_grad():
        for name, parameter in parameters.items():
            local(parameter).copy_(local(read[f"{_WEIGHT}:{name}"]))
            if f"{_STEP}:{name}" in read:
                optimizer.state[parameter] = {kind: read[f"{kind}:{name}"] for kind in (_STEP, *_MOMENTS)}


def _room(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Tensors to read into, spread as the parameters are."""
    room: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for kind in (_WEIGHT, *_MOMENTS):
            empty = torch.empty_like(local(parameter), requires_grad=False)
            room[f"{kind}:{name}"] = made_like(parameter.detach(), empty)
        room[f"{_STEP}:{name}"] = torch.zeros(())
    return room


def _read(tensors: dict[str, Tensor], folder: Path) -> None:
    dcp: Any = importlib.import_module("torch.distributed.checkpoint")
    try:
        with _quiet():
            dcp.load(tensors, storage_reader=_reader(folder), no_dist=True)
    except dcp.CheckpointException as error:
        raise _cause(error)[1] from error


def _names(folder: Path) -> set[str]:
    return set(_reader(folder).read_metadata().state_dict_metadata)


def _reader(folder: Path) -> Any:
    """DCP's reader, which takes a pickle for granted; this one builds nothing but DCP's own records."""
    dcp: Any = importlib.import_module("torch.distributed.checkpoint")

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *_: Any, **__: Any) -> Any:
            with (folder / _METADATA).open("rb") as file:
                return _Records(file).load()

    return Reader(folder)


class _Records(pickle.Unpickler):
    """Reads DCP's description of a checkpoint, and nothing that would run."""

    def find_class(self, module: str, name: str) -> Any:
        described = module in _ALLOWED or (module, name) in _PLAIN
        if described or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, and only tensors are described there")


@contextmanager
def _quiet() -> Generator[None]:
    """torch remarks that one process reads alone, and counts what is stored twice."""
    log = logging.getLogger("torch.distributed.checkpoint")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)
            yield
    finally:
        log.setLevel(before)
