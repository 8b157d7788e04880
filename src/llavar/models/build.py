"""A new Llava model from a decoder and a vision tower that never met: ``llavar convert build``.

The projector between them is random and everything else as it was found; stage 1 trains it. Tensors pass
one at a time, so that a decoder of any size needs the memory of its largest tensor.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from llavar.errors import ConfigError, ModelError
from llavar.images import Transform
from llavar.models import _hf as hf
from llavar.models import card
from llavar.models import folder as folders
from llavar.models import projector as projectors
from llavar.models.ingredients import EMBEDDING, HEAD, Part, Voice, open_decoder, open_tower, voice_of
from llavar.models.original import as_planned, misfit, parts_of, value_of
from llavar.models.shape import FeatureSelect, ProjectorLayout
from llavar.models.stored import check_out
from llavar.models.stream import MAX_SHARD_BYTES, Planned, Progress, write
from llavar.models.tokenizer import TextTokenizer
from llavar.version import __version__

_FORGOTTEN = ("_name_or_path", "auto_map", "transformers_version", "torch_dtype", "dtype", "use_cache")
_PROJECTOR = "multi_modal_projector."
_CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model that was built.

    ``image_tokens`` is what one picture takes, ``vocabulary`` the rows of the embedding, ``new_tokens`` those
    that the tokenizer did not have, ``end`` the token that ends an answer; ``notes`` are sentences on what
    was decided.
    """

    folder: Path
    decoder: str
    family: str
    tower: str
    projector: ProjectorLayout
    conversation: str
    transform: Transform
    image_tokens: int
    vocabulary: int
    new_tokens: tuple[str, ...]
    end: str
    dtype: torch.dtype
    parameters: int
    seed: int
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "folder": str(self.folder),
            "decoder": self.decoder,
            "family": self.family,
            "vision_tower": self.tower,
            "projector": self.projector.value,
            "conversation": self.conversation,
            "image_transform": self.transform.value,
            "image_tokens": self.image_tokens,
            "vocabulary": self.vocabulary,
            "new_tokens": list(self.new_tokens),
            "end_token": self.end,
            "dtype": str(self.dtype).removeprefix("torch."),
            "parameters": self.parameters,
            "seed": self.seed,
            "notes": list(self.notes),
        }


def build(
    decoder: Path | str,
    tower: Path | str,
    out: Path,
    *,
    projector: ProjectorLayout | str = "linear",
    seed: int = 0,
    select_layer: int = -2,
    start_end: bool = True,
    conversation: str = "",
    dtype: torch.dtype | None = None,
    transform: Transform = Transform.PAD,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> Built:
    """Write a Llava folder made of a decoder, a tower and an untrained projector.

    Args:
        decoder: Folder or hub id of a Llama, Qwen 2, Qwen 3 or Mistral for causal language modelling.
        tower: Folder or hub id of a CLIP or SigLIP, whole or its vision tower alone.
        out: The folder to write; it appears when it is whole.
        projector: ``linear`` (or ``identity``): one layer, the original's; ``mlp``: two, LLaVA-1.5's.
        seed: Of the projector's random values.
        select_layer: Which hidden state of the tower is projected; the original takes the last but one.
        start_end: Whether pictures stand between ``<im_start>`` and ``<im_end>``.
        conversation: A named conversation; by default the decoder's own chat template, and ``llava_v1`` for
            a LLaMA or Vicuna that has none.
        dtype: Of everything written; by default that of the decoder's embedding.
        transform: How pictures are made square.
        max_shard_bytes: The most that one file of weights may have.
        progress: Told the bytes written so far, and those in all.

    Raises:
        NotFoundError, FetchError: decoder or tower are not there.
        ModelError: damaged, of another kind, or parts of a folder contradict each other.
        ConfigError: a setting does not go with this decoder or tower.
    """
    layout = _layout_of(projector)
    text, vision = open_decoder(decoder), open_tower(tower)
    check_out(out, text.folder, vision.folder)
    voice = voice_of(text, start_end=start_end, conversation=conversation)
    tied = bool(text.config.get("tie_word_embeddings"))
    kept = dtype or text.tensors[EMBEDDING].dtype
    rows = max(text.tensors[EMBEDDING].shape[0], _last_id(voice.tokenizer) + 1)
    skeleton = hf.skeleton_of(_config(text, vision, voice.tokenizer, rows, select_layer, layout))
    config = hf.config_of(skeleton)
    _check_tower(vision, config)
    config.image_seq_length = hf.image_tokens(skeleton)
    plan = _plan(text, vision, voice, rows, tied=tied)
    plan += _random_projector(config.vision_config.hidden_size, config.text_config.hidden_size, layout, seed)
    plan = sorted((_cast(planned, kept) for planned in plan), key=lambda planned: planned.name)
    _check_plan(text, vision, plan, hf.hub_shapes(skeleton), tied=tied)
    done = Built(
        folder=out,
        decoder=str(decoder),
        family=str(text.config["model_type"]),
        tower=str(tower),
        projector=layout,
        conversation=voice.conversation,
        transform=transform,
        image_tokens=config.image_seq_length,
        vocabulary=rows,
        new_tokens=voice.new_tokens,
        end=voice.tokenizer.eos or "",
        dtype=kept,
        parameters=sum(torch.Size(planned.shape).numel() for planned in plan),
        seed=seed,
        notes=(*voice.notes, *_notes_on_rows(text, voice)),
    )
    with folders.replacing(out) as aside:
        written = write(aside, plan, max_shard_bytes, progress=progress)
        act = "linear" if layout is ProjectorLayout.IDENTITY else "gelu"
        hf.write_documents(skeleton, aside, act=act, dtype=kept, transform=transform)
        _write_generation(aside, text, voice.tokenizer)
        voice.tokenizer.save(aside)
        if voice.tokenizer_model is not None:
            shutil.copyfile(voice.tokenizer_model, aside / "tokenizer.model")
        _write_card(aside, done)
        card.write_checksums(aside, {file.name: file.sha256 for file in written})
    return done


def _layout_of(name: ProjectorLayout | str) -> ProjectorLayout:
    known = {"linear": ProjectorLayout.IDENTITY, "identity": ProjectorLayout.IDENTITY}
    layout = (known | {"mlp": ProjectorLayout.MLP}).get(str(name))
    if layout is None:
        raise ConfigError(
            f"projector is {str(name)!r:.40}; a new one is linear (the original's) or mlp (LLaVA-1.5's)"
        )
    return layout


def _last_id(tokenizer: TextTokenizer) -> int:
    return max(tokenizer.backend.get_vocab(with_added_tokens=True).values())


def _notes_on_rows(decoder: Part, voice: Voice) -> tuple[str, ...]:
    old = decoder.tensors[EMBEDDING].shape[0]
    if not voice.new_tokens:
        return ("the tokenizer has the image tokens already; their embeddings stay as they are",)
    first = voice.tokenizer.token_id(voice.new_tokens[0])
    named = ", ".join(voice.new_tokens)
    if first < old:
        return (
            f"{named} take rows from {first} on, which the decoder's table of {old} holds beyond its "
            f"tokenizer; they begin as the mean of the {first} rows before",
        )
    return (f"{named} are new rows from {first} on and begin as the mean of the {old} before",)


# ---------------------------------------------------------------- configuration


def _config(
    decoder: Part,
    tower: Part,
    tokenizer: TextTokenizer,
    rows: int,
    select_layer: int,
    layout: ProjectorLayout,
) -> dict[str, object]:
    text = {key: value for key, value in decoder.config.items() if key not in _FORGOTTEN}
    vision = {key: value for key, value in tower.config.items() if key not in _FORGOTTEN}
    text |= {"vocab_size": rows, "eos_token_id": tokenizer.eos_id, "bos_token_id": tokenizer.bos_id}
    class_token = hf.has_class_token(str(vision["model_type"]))
    select = FeatureSelect.DEFAULT if class_token else FeatureSelect.FULL
    return {
        "model_type": "llava",
        "vision_config": vision,
        "text_config": text,
        "image_token_index": tokenizer.image_patch_id,
        "projector_hidden_act": "linear" if layout is ProjectorLayout.IDENTITY else "gelu",
        "vision_feature_select_strategy": select.value,
        "vision_feature_layer": select_layer,
        "multimodal_projector_bias": True,
        "tie_word_embeddings": bool(decoder.config.get("tie_word_embeddings")),
    }


def _check_tower(tower: Part, config: Any) -> None:
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    layers, select_layer = config.vision_config.num_hidden_layers, config.vision_feature_layer
    if not isinstance(size, int) or not isinstance(patch, int) or not 1 <= patch <= size:
        raise ModelError(
            f"{tower.folder} takes pictures of {size!s:.40} pixels in patches of {patch!s:.40}; a square "
            "size and a patch within it were expected"
        )
    if not -layers - 1 <= select_layer <= layers:
        raise ConfigError(
            f"select_layer is {select_layer} and the tower has {layers} layers; give "
            f"{-layers - 1} to {layers}"
        )


def _write_generation(aside: Path, decoder: Part, tokenizer: TextTokenizer) -> None:
    """Where generation stops: at the end of an answer, or at what the decoder itself stops at."""
    ends: list[object] = [tokenizer.eos_id]
    sources: list[Mapping[str, object]] = [decoder.config]
    if (decoder.folder / "generation_config.json").is_file():
        sources.append(folders.read_document(decoder.folder, "generation_config.json"))
    for source in sources:
        given = source.get("eos_token_id")
        ends += cast("list[object]", given) if isinstance(given, list) else [given]
    whole = [end for end in dict.fromkeys(map(_id_or_none, ends)) if end is not None]
    ids = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id}
    document: dict[str, object] = {name: index for name, index in ids.items() if index is not None}
    document["eos_token_id"] = whole[0] if len(whole) == 1 else whole
    folders.write_document(aside, "generation_config.json", document)


def _id_or_none(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


# ---------------------------------------------------------------- tensors


def _plan(decoder: Part, tower: Part, voice: Voice, rows: int, *, tied: bool) -> list[Planned]:
    """Decoder and tower by the hub's names; the tables of tokens get what the new tokens need."""
    plan = [replace(as_planned(tensor), name=key) for key, tensor in tower.tensors.items()]
    new = sorted(voice.tokenizer.token_id(token) for token in voice.new_tokens)
    for key, tensor in decoder.tensors.items():
        planned = replace(as_planned(tensor), name=key)
        plan.append(_grown(planned, rows, new) if key in (EMBEDDING, HEAD) else planned)
    if not tied and HEAD not in decoder.tensors:
        raise ModelError(
            f"{decoder.folder} has no lm_head.weight, and its config.json does not tie it to the embeddings; "
            "take both from the same checkpoint"
        )
    return plan


def _grown(planned: Planned, rows: int, new: list[int]) -> Planned:
    """A table with ``rows`` rows, those of ``new`` being the mean of the ones before them."""
    if len(planned.shape) != 2:
        raise ModelError(f"{planned.name} has the shape {list(planned.shape)}; a table was expected")
    if not new:
        return planned
    old, width = planned.shape

    def make() -> Iterator[Tensor]:
        table = value_of(planned)
        used = table[: min(new[0], old)]
        total = used[:0].double().sum(0)
        for start in range(0, len(used), _CHUNK):
            total += used[start : start + _CHUNK].double().sum(0)
        mean = (total / max(len(used), 1)).to(table.dtype)
        yield used.flatten()
        rest = mean.expand(rows - len(used), width).clone()
        kept = table[len(used) :]
        rest[: len(kept)] = kept
        for index in new:
            rest[index - len(used)] = mean
        yield rest.flatten()

    return replace(planned, shape=(rows, width), make=make)


def _random_projector(vision: int, text: int, layout: ProjectorLayout, seed: int) -> list[Planned]:
    """Layers as torch draws them (U(-b, b), b = 1 / sqrt(inputs)), by ``seed`` alone."""
    stream = torch.Generator().manual_seed(seed)

    def drawn(outputs: int, inputs: int) -> projectors.Linear:
        bound = inputs**-0.5
        weight = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=stream)
        bias = torch.empty(outputs).uniform_(-bound, bound, generator=stream)
        return projectors.Linear(weight=weight, bias=bias)

    first = drawn(text, vision)
    two = projectors.identity(first)
    if layout is ProjectorLayout.MLP:
        second = drawn(text, text)
        two = replace(two, weight_2=second.weight, bias_2=second.bias)
    named = {
        "linear_1.weight": two.weight_1,
        "linear_1.bias": two.bias_1,
        "linear_2.weight": two.weight_2,
        "linear_2.bias": two.bias_2,
    }
    return [
        Planned(name=_PROJECTOR + name, shape=tuple(tensor.shape), dtype=tensor.dtype, make=_given(tensor))
        for name, tensor in named.items()
    ]


def _given(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


def _cast(planned: Planned, dtype: torch.dtype) -> Planned:
    if dtype == planned.dtype or not planned.dtype.is_floating_point:
        return planned
    return replace(planned, dtype=dtype, make=lambda: (part.to(dtype) for part in parts_of(planned)))


def _check_plan(
    decoder: Part,
    tower: Part,
    plan: list[Planned],
    expected: Mapping[str, tuple[int, ...]],
    *,
    tied: bool,
) -> None:
    """Refuse a folder whose tensors are not what its own ``config.json`` describes."""
    wanted = {name: shape for name, shape in expected.items() if not (tied and name == HEAD)}
    planned = {one.name: one.shape for one in plan}
    for name in sorted(planned.keys() | wanted.keys()):
        if planned.get(name) != wanted.get(name):
            side = tower.folder if name.startswith("vision_tower.") else decoder.folder
            raise ModelError(misfit(side, name, planned.get(name), wanted.get(name)))


# ---------------------------------------------------------------- card

_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [llava, llavar]
---
# {name}

A `LlavaForConditionalGeneration` put together by `llavar convert build` {version}. **Its projector is
untrained**: it cannot read pictures before stage 1 (`llavar train`).

- Decoder: {decoder} ({family}).
- Vision tower: {tower}; hidden layer {layer}, {tokens} tokens a picture, image transform `{transform}`.
- Projector: {projector}, random with seed {seed}.
- Conversation: {conversation}; an answer ends with `{end}`.
{notes}
The weights stay under the licences of the decoder and of the tower.
"""


def _name(source: str) -> str:
    """A hub id as it is; of a folder the name, since where it lay is nobody's business."""
    return Path(source).absolute().name if Path(source).exists() else source


def _write_card(aside: Path, done: Built) -> None:
    config = folders.read_document(aside, "config.json")
    own = done.conversation == "own"
    text = _CARD.format(
        name=done.folder.absolute().name,
        version=__version__,
        decoder=_name(done.decoder),
        family=done.family,
        tower=_name(done.tower),
        layer=config["vision_feature_layer"],
        tokens=done.image_tokens,
        transform=done.transform.value,
        projector="one layer" if done.projector is ProjectorLayout.IDENTITY else "two layers (mlp)",
        seed=done.seed,
        conversation="the decoder's own chat template" if own else f"`{done.conversation}`",
        end=done.end,
        notes="".join(f"- {note[0].upper()}{note[1:]}.\n" for note in done.notes),
    )
    (aside / "README.md").write_text(text, encoding="utf-8")
