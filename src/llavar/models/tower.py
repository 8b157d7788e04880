"""The CLIP tower that an original checkpoint only names: found, checked, and opened without being loaded.

The original kept its tower outside the checkpoint, as a hub id or a path in ``config.json``. A path there
was relative to wherever training ran; here it is looked for from the checkpoint's own folder upwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llavar.errors import ConfigError, LlavarError, ModelError
from llavar.models import folder as folders
from llavar.models.original import as_planned, files_of
from llavar.models.shape import VisionShape, read_vision
from llavar.models.stored import LazyTensor, open_tensors
from llavar.models.stream import Planned

PREFIX = "vision_tower."
_PARENTS = 4
_LONGEST = 1000
_NOT_VISION = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """A tower on disk.

    ``name`` is what it was called by whoever named it, ``stored`` is under the names of the hub's Llava
    checkpoints (``vision_tower.vision_model.*``).
    """

    name: str
    folder: Path
    shape: VisionShape
    stored: Mapping[str, LazyTensor]

    @property
    def called(self) -> str:
        """What it was called, and where it was found if that is not the same."""
        place = os.path.normpath(self.folder)
        return self.name if self.name == place else f"{self.name} ({place})"

    @property
    def tensors(self) -> dict[str, Planned]:
        """As they are to be written."""
        return {key: as_planned(tensor) for key, tensor in self.stored.items()}

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read."""
        return files_of(self.folder, self.stored.values())


def open_tower(name: str | Path, *, called: str = "") -> Tower:
    """The tower that the user names: a folder (CLIPVisionModel or a whole CLIPModel) or a hub id.

    Raises:
        NotFoundError, FetchError: there is no such folder or hub id.
        ModelError: it is no CLIP, or incomplete.
    """
    folder = folders.resolve(name, binaries=True)
    document = folders.read_document(folder, "config.json")
    if document.get("model_type") not in ("clip", "clip_vision_model"):
        raise ModelError(
            f"{folder} holds a {document.get('model_type')!r:.60} and no CLIP vision tower; LLaVA used "
            "openai/clip-vit-large-patch14 or openai/clip-vit-large-patch14-336"
        )
    tensors: dict[str, LazyTensor] = {}
    for stored, tensor in open_tensors(folder).items():
        key = folders.hub_key(PREFIX + stored)
        if key is not None and not stored.startswith(_NOT_VISION):
            tensors[key] = tensor
    try:
        shape = read_vision(document)
    except (ModelError, ConfigError) as error:
        raise ModelError(f"{folder} cannot be used as a vision tower: {error}") from error
    return Tower(name=called or str(name), folder=folder, shape=shape, stored=tensors)


def named_tower(checkpoint: Path, config: Mapping[str, object]) -> Tower:
    """The tower that the ``config.json`` of an original checkpoint names (``mm_vision_tower``).

    A path is taken from the checkpoint's folder, then from the folders above it, then from the working
    directory, and only if none has it the name is a hub id. What a stranger writes there is read as a CLIP
    checkpoint and as nothing else, wherever it points.

    Raises:
        ModelError: nothing is named, or what is named cannot be had; ``--vision-tower`` is the remedy.
    """
    named = config.get("mm_vision_tower") or config.get("vision_tower")
    if not isinstance(named, str) or not 0 < len(named) < _LONGEST or "\0" in named:
        raise ModelError(
            f"{checkpoint / 'config.json'} names no vision tower (mm_vision_tower is {named!r:.60}); "
            "say --vision-tower DIR, for LLaVA a folder of openai/clip-vit-large-patch14 or its -336"
        )
    place = next((path for path in places(checkpoint, named) if (path / "config.json").is_file()), None)
    try:
        return open_tower(place or named, called=named)
    except LlavarError as error:
        raise ModelError(
            f"{checkpoint / 'config.json'} names the vision tower {named!r:.120}, which cannot be used: "
            f"{error}; say --vision-tower DIR"
        ) from error


def places(checkpoint: Path, named: str) -> Iterator[Path]:
    """Where the folder of a tower may lie that ``checkpoint`` calls ``named``, in the order of preference."""
    here = checkpoint.absolute()
    for folder in (here, *here.parents[:_PARENTS], Path.cwd()):
        yield folder / named
