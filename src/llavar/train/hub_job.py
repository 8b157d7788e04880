"""What a training job does otherwise for a model that is trained through its own processor."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from llavar import files
from llavar.data.feed import FeedConfig
from llavar.errors import ConfigError
from llavar.models import _hub as hub
from llavar.models import _hub_merge as merging
from llavar.models import _peft as peft
from llavar.models import folder as folders
from llavar.models._hub_processor import OwnProcessor
from llavar.models.stored import COMPANIONS, copy_companions
from llavar.train import export, home, material
from llavar.train.config import ADAPTER, Precision, Recompute, StageConfig
from llavar.train.hub import HubModel, HubObjective
from llavar.train.hub_rows import read_rows
from llavar.train.material import Rows
from llavar.train.settings import Job
from llavar.train.world import World

_OF_LLAVA = ("vision_tower", "projector", "conversation", "transform", "tiles", "tower_size", "feature_layer")
"""Settings that change what only a Llava has, or what the model's own processor decides."""


def check(job: Job) -> None:
    """Refuse at once what such a job cannot do.

    Raises:
        ConfigError: a setting is for Llava models, or asks for more than an adapter or for packed rows.
        MissingExtraError: peft or bitsandbytes is not installed.
    """
    stage = job.stage
    for name in _OF_LLAVA:
        if getattr(job, name):
            raise ConfigError(
                f"--{name.replace('_', '-')} is for Llava models; {job.model} is trained through its own "
                "processor and chat template, which decide that"
            )
    if stage.lora is None or set(stage.parts) != {ADAPTER}:
        raise ConfigError(
            f"such a model is trained by an adapter alone, and the parts are {', '.join(stage.parts)}; leave "
            "the other rates out"
        )
    if stage.packing:
        raise ConfigError("rows are padded where packing is not proven, so --packing cannot be; leave it out")
    if stage.compiled or stage.liger:
        flag = "--compile" if stage.compiled else "--liger"
        raise ConfigError(f"{flag} has been tried with Llava models alone; leave it out")
    hub.check_attention(job.attention.value, job.model)
    peft.require(stage.lora)


def load(job: Job, world: World) -> HubModel:
    """The model of ``job`` with its adapter on it.

    Raises:
        NotFoundError, FetchError: there is no such model.
        ModelError: it is no image-text-to-text model, its processor or chat template cannot be trained with,
            or an adapter could not be merged into it.
        ConfigError: rows may be longer than the model takes, or no layer is called as a target is.
    """
    assert job.stage.lora is not None
    folder = folders.resolve(job.model)
    kind = str(hub.load_config(folder).model_type)
    processor = OwnProcessor(folder)
    compute = torch.bfloat16 if job.stage.precision is Precision.BF16 else torch.float32
    module = hub.load(folder, dtype=compute, attention=hub.check_attention(job.attention.value, kind))
    if job.stage.max_length > hub.context_of(module):
        raise ConfigError(
            f"--max-length is {job.stage.max_length} and the {kind} takes {hub.context_of(module)} tokens; "
            "give at most that"
        )
    if job.stage.recompute is not Recompute.NONE and not module.supports_gradient_checkpointing:
        raise ConfigError(
            f"a {kind} keeps all its activations, and --recompute is set; give --recompute none"
        )
    within = hub.decoder_of(module)
    layers = peft.chosen_layers(module, job.stage.lora.targets, within)
    stored = hub.stored_names(module, folder, [f"{layer}.weight" for layer in layers])
    peft.adapt(
        module,
        job.stage.lora,
        within=within,
        seed=job.stage.seed,
        device=world.device,
        compute=compute,
    )
    return HubModel(
        module=module.train(),
        folder=folder,
        processor=processor,
        stored={name.removesuffix(".weight"): tensor for name, tensor in stored.items()},
    )


def told(model: HubModel) -> str:
    """What a user should know of how ``model`` is trained."""
    said = [f"Rows are padded: that packed ones stay apart has not been proven for a {model.kind}."]
    if not model.processor.ending.written:
        said.append(
            f"Its chat template ends answers with nothing; {model.processor.ending.token} is put after the "
            "last answer of each row."
        )
    if model.processor.opens_otherwise:
        said.append(
            "Its chat template begins an answer within a conversation otherwise than when it asks for one; "
            "learned is from the answer's first character on."
        )
    return "\n".join(said)


def rows(job: Job, data: Sequence[str], model: HubModel, workers: int) -> Rows:
    """The rows of the files ``data``; see :func:`llavar.train.hub_rows.read_rows`."""
    return read_rows(
        data,
        job.images,
        model,
        max_length=job.stage.max_length,
        bad_rows=job.bad_rows,
        bad_images=job.bad_images,
        workers=workers,
        seed=job.stage.seed,
    )


def objective(model: HubModel, found: Rows, feed: FeedConfig, world: World, workers: int) -> HubObjective:
    """What is trained, and on what."""
    return HubObjective(model, found.encoded, found.pictures, feed, world=world, workers=workers)


def tags(stage: StageConfig, model: HubModel, found: Rows) -> dict[str, str]:
    """What else the numbers depend on: another model or other rows are another run."""
    assert stage.lora is not None
    return {
        "rows": found.digest,
        "model": material.identity_of(model.folder),
        "processor": model.processor.digest,
        "lora": stage.lora.describe(),
        "feed": f"{stage.batch}/{stage.micro_batch}/{stage.max_length}/{stage.like_lengths}",
    }


# What is left.


def is_finished(job: Job, out: Path) -> bool:
    """Whether everything that the run is to leave is there; each folder is whole or absent."""
    merged = (out / home.MODEL / "config.json").is_file()
    return (out / home.ADAPTER).is_dir() and (merged or not job.merge)


def save(model: HubModel, job: Job, out: Path, card: str) -> None:
    """Write ``out/adapter`` in peft's format and, unless ``job`` does without, ``out/model``.

    That is the model that the run started from, its tensors by the names and in the types that they had, with
    the adapter merged into them; everything beside the weights is copied.
    """
    for left in out.glob(f".{home.MODEL}.*"):  # by a kill while the folder was written
        shutil.rmtree(left)
    base = str(model.folder.absolute()) if Path(job.model).exists() else job.model
    card = card.replace("LlavaForConditionalGeneration", type(model.module).__name__)
    _write_adapter(model, out / home.ADAPTER, base, card)
    if job.merge:

        def finish(folder: Path) -> None:
            files.write_text(folder / export.CARD, card + _about(job, base))

        merging.merge(
            model.folder,
            out / home.ADAPTER,
            out / home.MODEL,
            model.stored,
            dtype=export.DTYPES.get(job.saved_as),
            finish=finish,
        )


def _write_adapter(model: HubModel, folder: Path, base: str, card: str) -> None:
    with home.whole(folder) as aside:
        peft.write_adapter(model.module, aside, base=base)
        companions = [name for name in COMPANIONS if name not in ("config.json", "generation_config.json")]
        copy_companions(model.folder, aside, companions)
        front = f"---\nbase_model: {base}\nlibrary_name: peft\npipeline_tag: image-text-to-text\n---\n"
        files.write_text(aside / export.CARD, front + card.split("---\n", 2)[2])


def _about(job: Job, base: str) -> str:
    assert job.stage.lora is not None
    return (
        f"\n## Adapter\n\nThe weights are those of `{base}` plus a LoRA adapter "
        f"({job.stage.lora.describe()}), summed in fp32. It was trained through the model's own processor "
        "and chat template.\n"
    )
