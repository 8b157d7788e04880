"""Whatever the original's flags call a model, as a folder that today's code loads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from llavar.errors import NotFoundError
from llavar.models import build, convert
from llavar.models import folder as folders
from llavar.models.shape import ORIGINAL_CLASSES, ProjectorLayout
from llavar.study.reader import find

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model as the original's flags describe it; "" and None where a flag was not given."""

    model: str
    vision_tower: str = ""
    projector: str = ""
    start_end: bool = True
    conversation: str = ""
    select_layer: int | None = None


def cache() -> Path:
    """Where converted checkpoints are kept, so that the next call finds them."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "llavar" / "converted"


def cached(wanted: Wanted, say: Say) -> str | Path:
    """A model to ask: as it is if today's code loads it, else converted once into :func:`cache`.

    Raises:
        LlavarError: something named is not there, or the parts do not belong together.
    """
    if is_stock(wanted.model) and not wanted.projector:
        return find(wanted.model)
    folder = folders.resolve(wanted.model, binaries=True)
    parts = [_identity(folder), wanted.vision_tower, wanted.start_end, wanted.conversation]
    parts += [_identity(Path(wanted.projector))] if wanted.projector else []
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return made(wanted, cache() / f"{folder.name}-{digest}", say)


def made(wanted: Wanted, out: Path, say: Say) -> Path:
    """``wanted`` as a stock folder at ``out``; one that is there from an earlier call is taken as it is.

    A checkpoint of the original is converted, a LLaMA alone is put together with the tower (and with the
    projector, where one is named).

    Raises:
        LlavarError: something named is not there, or the parts do not belong together.
    """
    if (out / "config.json").is_file():
        say(f"going on with {out}, which an earlier call made of {wanted.model}")
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    if wanted.projector:
        convert.from_llava(
            wanted.projector,
            out,
            vision_tower=_tower(wanted),
            base=folders.resolve(wanted.model, binaries=True),
            options=_options(wanted),
        )
    elif _architecture(wanted.model) in ORIGINAL_CLASSES:
        convert.from_llava(
            wanted.model, out, vision_tower=wanted.vision_tower or None, options=_options(wanted)
        )
    else:
        build.build(
            wanted.model,
            _tower(wanted),
            out,
            select_layer=-2 if wanted.select_layer is None else wanted.select_layer,
            start_end=wanted.start_end,
            conversation=wanted.conversation,
        )
    say(f"made {out} of {wanted.model}; it loads as it is from now on")
    return out


def is_stock(model: str) -> bool:
    """Whether today's code loads ``model`` as it is: nano, a run or a stock Llava, here or on the hub."""
    found = find(model)
    if not Path(found).is_dir():
        return False
    if not (Path(found) / "config.json").is_file():
        raise NotFoundError(f"{model} holds no config.json; name the folder of a checkpoint")
    document = folders.read_document(Path(found), "config.json")
    return document.get("model_type") == "llava" and _architecture(model) not in ORIGINAL_CLASSES


def _architecture(model: str) -> str:
    folder = folders.resolve(find(model), binaries=True)
    named = folders.read_document(folder, "config.json").get("architectures")
    return str(cast("list[object]", named)[0]) if isinstance(named, list) and named else ""


def _options(wanted: Wanted) -> convert.Options:
    # Identity holds for any width, and what is trained is in it anyway.
    return convert.Options(
        layout=ProjectorLayout.IDENTITY,
        conversation=wanted.conversation,
        start_end=wanted.start_end,
        self_test=False,
    )


def _tower(wanted: Wanted) -> str:
    if not wanted.vision_tower:
        raise NotFoundError(
            f"{wanted.model} is a decoder alone; name the CLIP tower that belongs to it with --vision_tower"
        )
    return wanted.vision_tower


def _identity(path: Path) -> list[list[str | int]]:
    """Names, sizes and times of the files: enough to tell one checkpoint from another."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return [[str(file.absolute()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]
