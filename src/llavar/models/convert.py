"""Checkpoints of the original LLaVA into folders that stock engines load, and back.

Tensors pass one at a time, so a model of any size needs the memory of its largest tensor. The folder is
written aside, loaded again and compared with the original, and only then renamed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from llavar import chat
from llavar.errors import ConfigError, ModelError
from llavar.images import Transform
from llavar.models import _hf as hf
from llavar.models import card, selftest
from llavar.models import folder as folders
from llavar.models import projector as projectors
from llavar.models.card import Converted
from llavar.models.original import (
    EMBEDDING,
    PROJECTOR_WEIGHT,
    Kind,
    Original,
    hub_name,
    is_v0,
    misfit,
    open_original,
    parts_of,
)
from llavar.models.restore import Restored, to_llava, to_projector
from llavar.models.shape import FeatureSelect, LlavaShape, ProjectorLayout, fold_refusal
from llavar.models.stored import check_out
from llavar.models.stream import MAX_SHARD_BYTES, Planned, Progress, write
from llavar.models.tokenizer import TextTokenizer
from llavar.models.tower import Tower, named_tower, open_tower

__all__ = ["Options", "Restored", "choose_conversation", "from_llava", "to_llava", "to_projector"]

Say = Callable[[str], None]
"""Told, in sentences, what is going to be done and what was decided."""

_PROJECTOR = "multi_modal_projector."


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to convert.

    ``layout`` is how the projector's one layer is kept in the two of the stock architecture; ``transform``
    how pictures are made square (None: as the config says, else ``pad``); ``start_end`` whether a projector
    alone gets ``<im_start>`` and ``<im_end>``; ``dtype`` that of everything written (None: each tensor's
    own); ``max_shard_bytes`` the most that one file of weights may have.
    """

    layout: ProjectorLayout = ProjectorLayout.FOLD
    conversation: str = ""
    transform: Transform | None = None
    start_end: bool = True
    dtype: torch.dtype | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES
    self_test: bool = True

    def __post_init__(self) -> None:
        if self.layout is ProjectorLayout.MLP:
            raise ConfigError("the original's projector is one layer; take layout fold or identity, not mlp")
        if self.conversation:
            chat.get(self.conversation)


_DEFAULTS = Options()


def from_llava(
    src: str | Path,
    out: Path,
    *,
    vision_tower: str | Path | None = None,
    base: Path | None = None,
    options: Options = _DEFAULTS,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Converted:
    """Convert a checkpoint of the original into a folder for ``LlavaForConditionalGeneration``.

    Args:
        src: A checkpoint folder or hub id; with ``base``, that of a delta, or a file that holds a projector.
        out: The folder to write; it appears when it is whole and tested.
        vision_tower: Folder or hub id of the CLIP tower; by default what the checkpoint's config names.
        base: The LLaMA that a delta or a projector belongs to.
        options: How.
        progress: Told the bytes written so far, and those in all.
        say: Told what is going to be done.

    Raises:
        NotFoundError, FetchError: something named is not there.
        ModelError: a file is damaged, parts do not belong together, or the self-test fails.
        ConfigError: the conversation contradicts the folder's name, or the numbers do not fit together.
    """
    source = Path(src) if Path(src).exists() else folders.resolve(src, binaries=True)
    check_out(out, source if source.is_dir() else source.parent, *([base] if base else []))
    original = open_original(source, base, out, start_end=options.start_end)
    tower = open_tower(vision_tower) if vision_tower else named_tower(original.folder, original.config)
    check_out(out, tower.folder)
    template = choose_conversation(Path(src).absolute().name, original, options.conversation)
    shape = _shape_of(original, tower, options.layout)
    skeleton = hf.skeleton(shape)
    plan = _plan(original, tower, options)
    _check_plan(original, tower, plan, hf.hub_shapes(skeleton))
    done = Converted(
        folder=out,
        kind=original.kind,
        layout=options.layout,
        conversation=template.name,
        transform=options.transform or _transform_of(original.config),
        tower=tower.called,
        dtype=options.dtype or original.tensors[EMBEDDING].dtype,
        parameters=sum(torch.Size(planned.shape).numel() for planned in plan),
        feature_layer=shape.vision_feature_layer,
        notes=original.notes,
    )
    _announce(done, source, say)
    tokenizer = replace(
        original.tokenizer, chat_template=chat.jinja_source(template, start_end=original.start_end)
    )
    with folders.replacing(out) as aside:
        written = write(aside, plan, options.max_shard_bytes, progress=progress)
        _write_documents(aside, skeleton, done, tokenizer, original.tokenizer_model)
        if options.self_test:
            tested = selftest.run(aside, original, tower, plan, tokenizer, template, options.dtype)
            done = replace(done, tested=tested)
        card.write_card(aside, done, source=Path(src).name, inputs=(*original.inputs, *tower.inputs))
        card.write_checksums(aside, {file.name: file.sha256 for file in written})
    return done


def _announce(done: Converted, source: Path, say: Say | None) -> None:
    if say is None:
        return
    say(
        f"{source} ({done.kind}) becomes {done.folder}: {done.parameters:,} parameters, projector layout "
        f"{done.layout}, conversation {done.conversation}, image transform {done.transform}"
    )
    say(f"vision tower: {done.tower}")
    for note in done.notes:
        say(f"note: {note}")


def _write_documents(
    aside: Path,
    skeleton: torch.nn.Module,
    done: Converted,
    tokenizer: TextTokenizer,
    tokenizer_model: Path | None,
) -> None:
    act = "linear" if done.layout is ProjectorLayout.IDENTITY else "gelu"
    hf.write_documents(skeleton, aside, act=act, dtype=done.dtype, transform=done.transform)
    aspect = {Transform.PAD: "pad", Transform.CROP: "square"}.get(done.transform)
    if aspect is not None:
        # SGLang cuts pictures into tiles where nothing is said here, whatever the processor's file says.
        config = folders.read_document(aside, "config.json")
        folders.write_document(aside, "config.json", {**config, "image_aspect_ratio": aspect})
    tokenizer.save(aside)
    if tokenizer_model is not None:
        shutil.copyfile(tokenizer_model, aside / "tokenizer.model")


# ---------------------------------------------------------------- decisions


def choose_conversation(name: str, original: Original, given: str = "") -> chat.Template:
    """The conversation of a checkpoint in a folder called ``name``.

    The original went by that name alone. It still decides where it says ``v0``, ``v1`` or ``mpt``; where it
    says nothing, ``given`` does, and then the vocabulary: only v0 added a token for padding.

    Raises:
        ConfigError: two of them say different things.
    """
    spoken = re.search(r"v0|v1|mpt", name.lower()) and original.kind is not Kind.PROJECTOR
    by_name = chat.for_checkpoint_name(name).name if spoken else ""
    by_tokens = "multimodal" if is_v0(original.tokenizer) else "llava_v1"
    if given and by_name and given != by_name:
        raise ConfigError(
            f"--conversation says {given!r} and the folder's name {name!r} says {by_name!r}, which the "
            "original would have used; leave --conversation out, or rename the folder"
        )
    if by_name and not given and by_name != by_tokens:
        raise ConfigError(
            f"the folder's name {name!r} says conversation {by_name!r} and its vocabulary says "
            f"{by_tokens!r} (only v0 has a token [PAD]); say --conversation {by_name} if the name is right, "
            "or rename the folder"
        )
    return chat.get(given or by_name or by_tokens)


def _transform_of(config: Mapping[str, object]) -> Transform:
    """The original trained with ``pad`` and, in the versions that matter here, did not write it down."""
    known = {"pad": Transform.PAD, "square": Transform.CROP, None: Transform.PAD}
    aspect = config.get("image_aspect_ratio")
    if not (aspect is None or isinstance(aspect, str)) or aspect not in known:
        raise ModelError(
            f"config.json has image_aspect_ratio {aspect!r:.40}; pad and square are known, so say --transform"
        )
    return known[aspect]


def _shape_of(original: Original, tower: Tower, layout: ProjectorLayout) -> LlavaShape:
    width, text = original.projector_width, original.text.hidden
    if width != tower.shape.hidden:
        raise ModelError(
            f"the projector takes features of width {width} and the vision tower {tower.called} gives "
            f"{tower.shape.hidden}; name the tower that it was trained with: --vision-tower DIR"
        )
    if layout is ProjectorLayout.FOLD and text < 2 * width:
        raise ModelError(fold_refusal(width, text))
    layer = original.config.get("mm_vision_select_layer", -2)
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise ModelError(f"config.json has mm_vision_select_layer {layer!r:.40}; a whole number was expected")
    return LlavaShape(
        vision=tower.shape,
        text=original.text,
        image_token_id=original.tokenizer.image_patch_id,
        vision_feature_layer=layer,
        select=FeatureSelect.DEFAULT,
        projector=layout,
    )


# ---------------------------------------------------------------- tensors


def _plan(original: Original, tower: Tower, options: Options) -> list[Planned]:
    """Every tensor to write, by the hub's name, in the order of names."""
    plan = [
        replace(planned, name=key)
        for name, planned in original.tensors.items()
        if (key := hub_name(name)) is not None
    ]
    plan += [replace(planned, name=key) for key, planned in tower.tensors.items()]
    plan += _planned_projector(original, options.layout)
    return sorted((_cast(planned, options.dtype) for planned in plan), key=lambda planned: planned.name)


def _planned_projector(original: Original, layout: ProjectorLayout) -> Iterator[Planned]:
    """The two layers; their values are made when they are written, which for a wide decoder are many."""
    text, vision = original.tensors[PROJECTOR_WEIGHT].shape
    dtype = original.tensors[PROJECTOR_WEIGHT].dtype
    make = projectors.identity if layout is ProjectorLayout.IDENTITY else projectors.fold
    shapes = {"weight_1": (text, vision), "bias_1": (text,), "weight_2": (text, text), "bias_2": (text,)}

    def maker(field: str) -> Callable[[], Tensor]:
        return lambda: getattr(make(original.projector()), field)

    for field, shape in shapes.items():
        kind, number = field.split("_")
        name = f"{_PROJECTOR}linear_{number}.{kind}"
        yield Planned(name=name, shape=shape, dtype=dtype, make=maker(field))


def _cast(planned: Planned, dtype: torch.dtype | None) -> Planned:
    if dtype is None or dtype == planned.dtype or not planned.dtype.is_floating_point:
        return planned
    return replace(planned, dtype=dtype, make=lambda: (part.to(dtype) for part in parts_of(planned)))


def _check_plan(
    original: Original, tower: Tower, plan: list[Planned], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a checkpoint or a tower that is not what its own ``config.json`` describes."""
    planned = {one.name: one.shape for one in plan}
    for side, prefix in ((tower.folder, "vision_tower."), (original.folder, "")):
        names = sorted(
            name
            for name in planned.keys() | expected.keys()
            if name.startswith("vision_tower.") == bool(prefix)
        )
        for name in names:
            found, wanted = planned.get(name), expected.get(name)
            if found != wanted:
                raise ModelError(misfit(side, name, found, wanted))
    for one in plan:
        if not one.dtype.is_floating_point:
            side = tower.folder if one.name.startswith("vision_tower.") else original.folder
            raise ModelError(
                f"{side} holds {one.name} as {str(one.dtype).removeprefix('torch.')}; floating point was "
                "expected, so fetch weights that are not quantized"
            )
