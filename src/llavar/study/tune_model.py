"""The model that is tuned: what it is and sees, how its adapter is trained, and who answers for it.

A Llava of this project or of the original takes the way of its recipes, so that the native server and the
answers without transformers are there for what is left. Every other image-text-to-text model, a Llava with
another tokenizer included, goes through its own processor. Both are one kind of job
(:class:`llavar.train.settings.Job`) on the same rows, and all the rest is the same.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import torch

from llavar.chat import IMAGE_PATCH
from llavar.generate.hub import HubGenerator, load_any
from llavar.generate.local import LocalGenerator, setup_of
from llavar.models import _hub as hub
from llavar.models import folder as folders
from llavar.models._hub_processor import OwnProcessor
from llavar.models.stored import open_tensors
from llavar.models.tokenizer import TextTokenizer, load_tokenizer
from llavar.recipes.hub import lora_hub, tuning
from llavar.recipes.nano import nano_recipe2_lora
from llavar.study.nano import weights
from llavar.train import adapters, hub_job
from llavar.train.config import Policy, Precision, Recompute, StageConfig
from llavar.train.material import identity_of
from llavar.train.settings import Job

_SMALL = 100_000_000
"""Parameters below which a Llava is trained as nano is: what suits billions hardly moves it."""

_OWN_SIDE = 1024
"""Pixels of the longer side at which text has to be legible for models with a resolution of their own."""

_LEAST_STEPS, _MOST_EPOCHS, _EPOCHS = 60, 10, 3

_GENTLER = 1 / 3
"""Of the rates of nano's recipe, which are for a projector that knows nothing yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A model as it is found.

    ``name`` is the user's for it; ``model`` the folder with its whole path, or the hub id; ``sees`` are
    pixels of the longer side of a picture; ``context`` is in tokens; ``stored`` are the bytes of its weights;
    ``identity`` tells it from others. ``writes`` says whether its tokenizer has all characters of a text.
    """

    name: str
    model: str
    folder: Path
    kind: str
    own_processor: bool
    sees: int
    context: int
    parameters: int
    stored: int
    identity: str
    writes: Callable[[str], bool]

    @property
    def is_small(self) -> bool:
        return not self.own_processor and self.parameters < _SMALL


def base_of(name: str) -> Base:
    """The model called ``name``: nano, a folder, or a hub id, which is fetched.

    Raises:
        NotFoundError, FetchError, ModelError: there is none, or it cannot be tuned.
        MissingExtraError: peft is not installed.
    """
    given = weights.folder(name) if name in weights.NAMES else name
    folder = folders.resolve(given)
    kind = str(folders.read_document(folder, "config.json").get("model_type"))
    own = not _is_ours(folder, kind)
    sees, context, writes = _own(folder) if own else _llava(folder)
    tensors = open_tensors(folder).values()
    found = Base(
        name=name,
        model=str(folder.absolute()) if Path(given).is_dir() else name,
        folder=folder,
        kind=kind,
        own_processor=own,
        sees=sees,
        context=context,
        parameters=sum(tensor.numel for tensor in tensors),
        stored=sum(tensor.nbytes for tensor in tensors),
        identity=identity_of(folder),
        writes=writes,
    )
    check = hub_job.check if own else adapters.check
    check(job_of(found, Path("rows.json"), Path(), stage_of(found, 1)))
    return found


def _is_ours(folder: Path, kind: str) -> bool:
    """Whether it is a Llava whose pictures stand in a text as the original's do."""
    if kind != "llava" or hub.is_for_own_processor(folders.read_document(folder, "config.json")):
        return False
    return load_tokenizer(folder).lookup(IMAGE_PATCH) is not None


def _own(folder: Path) -> tuple[int, int, Callable[[str], bool]]:
    """These tokenizers fall back to bytes; a character that one lacks is refused when its row is encoded."""
    OwnProcessor(folder)  # what cannot be trained with is said before any picture is read
    return _OWN_SIDE, hub.context_in(hub.load_config(folder)), lambda _text: True


def _llava(folder: Path) -> tuple[int, int, Callable[[str], bool]]:
    tokenizer = load_tokenizer(folder)
    setup = setup_of(folder, tokenizer)
    side = setup.size * max(setup.tiles.rows, setup.tiles.columns)
    return side, setup.max_positions, _writer(tokenizer)


def _writer(tokenizer: TextTokenizer) -> Callable[[str], bool]:
    unknown = tokenizer.unk_id

    def writes(text: str) -> bool:
        return unknown is None or unknown not in tokenizer.encode(text)

    return writes


# ------------------------------------------------------------------------------------------ training


def steps_of(rows: int, batch: int) -> int:
    """Three epochs; where they are few steps, as many as 60, but no more than ten epochs."""
    epoch = ceil(rows / batch)
    return max(_EPOCHS * epoch, min(_LEAST_STEPS, _MOST_EPOCHS * epoch))


def stage_of(base: Base, rows: int, *, steps: int = 0, seed: int = 0) -> StageConfig:
    """How the adapter is trained on so many rows; ``steps`` of 0 are :func:`steps_of`."""
    on_gpu = torch.cuda.is_available()
    recipe = nano_recipe2_lora() if base.is_small else lora_hub()
    parts = recipe.stage.parts
    if base.is_small:
        parts = {name: replace(part, lr=_GENTLER * part.lr) for name, part in parts.items()}
    batch = 4 if rows < 200 else 8 if rows < 1000 else recipe.stage.batch
    wanted = steps or steps_of(rows, batch)
    return replace(
        recipe.stage,
        parts=parts,
        batch=batch,
        micro_batch=min(batch, recipe.stage.micro_batch),
        max_length=min(recipe.stage.max_length, base.context),
        steps=wanted,
        precision=Precision.BF16 if on_gpu else Precision.FP32,
        recompute=recipe.stage.recompute if on_gpu else Recompute.NONE,
        log_every=max(1, wanted // 50),
        seed=seed,
    )


def job_of(base: Base, data: Path, images: Path, stage: StageConfig) -> Job:
    """The job on the rows of a file. Rows that the model cannot take are left out, with their reasons."""
    job = Job(stage=stage, model=base.model, data=(str(data),), images=str(images), recipe="tune")
    if base.own_processor:
        job = tuning(base.model, [str(data)], str(images), stage=stage)
    return replace(job, bad_rows=Policy.SKIP, bad_images=Policy.SKIP)


# ------------------------------------------------------------------------------------------ answering


def generator_of(folder: Path, name: str) -> LocalGenerator | HubGenerator:
    """Who answers for a model folder; in the numbers that a GPU has room for, else in fp32."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return load_any(folder, dtype=dtype, name=name)


def forget() -> None:
    """Give the memory of a model back that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_name() -> str:
    """What computes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"


def memory_there() -> int:
    """Bytes of the GPU, or of the machine where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info(0)[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
