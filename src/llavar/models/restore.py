"""A converted folder back in the original's layout, or its projector alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from llavar import chat
from llavar.errors import ConfigError, ModelError
from llavar.images import WHOLE, Transform
from llavar.models import _hf as hf
from llavar.models import card
from llavar.models import folder as folders
from llavar.models import projector as projectors
from llavar.models.original import (
    EMBEDDING,
    PROJECTOR_BIAS,
    PROJECTOR_WEIGHT,
    as_planned,
    constant,
    misfit,
    original_name,
)
from llavar.models.processor import read_tiles
from llavar.models.projector_file import write_projector
from llavar.models.shape import LlavaShape, vision_document
from llavar.models.stored import LazyTensor, check_out, copy_companions, open_tensors
from llavar.models.stream import MAX_SHARD_BYTES, Progress, write
from llavar.models.tokenizer import TextTokenizer, from_sentencepiece, load_tokenizer
from llavar.models.tower import PREFIX as TOWER_PREFIX

_PROJECTOR = "multi_modal_projector."


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What :func:`to_llava` wrote: a folder or a projector's file, how many tensors, and what to know."""

    path: Path
    tensors: int
    notes: tuple[str, ...] = ()


def to_llava(
    model: str | Path,
    out: Path,
    *,
    vision_tower: str = "",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> Restored:
    """Write a converted folder back in the original's layout: names, ``config.json``, tokenizer.

    The original keeps its tower outside the checkpoint. It is written to ``out/vision_tower`` and named by
    that relative path, unless ``vision_tower`` gives another name, which is then only written down.

    Raises:
        NotFoundError, FetchError: there is no such folder or hub id.
        ModelError: damaged, another architecture, or a projector of two layers of its own.
    """
    folder = folders.resolve(model)
    check_out(out, folder)
    shape, tensors = _open_converted(folder)
    if (tiles := read_tiles(folder)) != WHOLE:
        raise ModelError(
            f"{folder} sees pictures in {tiles} tiles, which the original has no word for; use it as it is"
        )
    linear = _single_layer(folder, tensors)
    tokenizer = load_tokenizer(folder)
    plan = [
        replace(as_planned(tensor), name=name)
        for key, tensor in tensors.items()
        if (name := original_name(key)) is not None
    ]
    plan += [constant(PROJECTOR_WEIGHT, linear.weight), constant(PROJECTOR_BIAS, linear.bias)]
    notes: list[str] = []
    with folders.replacing(out) as aside:
        written = write(aside, sorted(plan, key=lambda one: one.name), max_shard_bytes, progress=progress)
        dtype = tensors[f"language_model.{EMBEDDING}"].dtype
        config = original_config(shape, dtype, tokenizer.has_start_end, vision_tower or "vision_tower")
        aspect = {Transform.PAD: "pad", Transform.CROP: "square"}.get(hf.read_transform(folder))
        folders.write_document(aside, "config.json", {**config, "image_aspect_ratio": aspect})
        ids = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        folders.write_document(aside, "generation_config.json", ids)
        if not vision_tower:
            _write_tower(aside / "vision_tower", folder, shape, tensors)
            notes.append(
                "the vision tower is in vision_tower/, which the original seeks in the working directory; "
                "write its full path into config.json as mm_vision_tower for that"
            )
        notes += _write_original_tokenizer(aside, folder, tokenizer)
        card.write_checksums(aside, {file.name: file.sha256 for file in written})
    return Restored(path=out, tensors=len(plan), notes=(*notes, *_name_note(out, tokenizer)))


def to_projector(model: str | Path, out: Path) -> Restored:
    """Write the projector of a converted folder alone, as ``mm_projector.bin``.

    ``out`` is that file if it ends in ``.bin``, else the folder to put it in. The decoder and the tower may
    be of any family, since nothing of them is written. Raises as :func:`to_llava`.
    """
    folder = folders.resolve(model)
    _refuse_original(folder, folders.read_document(folder, "config.json"))
    found = open_tensors(folder)
    tensors = {key: found[name] for key, name in folders.hub_names(found).items()}
    path = out if out.suffix == ".bin" else out / "mm_projector.bin"
    write_projector(_single_layer(folder, tensors), path)
    return Restored(path=path, tensors=2)


def _open_converted(folder: Path) -> tuple[LlavaShape, dict[str, LazyTensor]]:
    """What a folder in the stock layout holds, by hub name, compared with its configuration."""
    document = folders.read_document(folder, "config.json")
    _refuse_original(folder, document)
    try:
        shape = LlavaShape.from_config(document)
    except (ModelError, ConfigError) as error:
        raise ModelError(
            f"{folder} has no place in the original's layout, which is a LLaMA with a CLIP: {error}; its "
            "projector alone may have: --projector-only"
        ) from error
    found = open_tensors(folder)
    tensors = {key: found[name] for key, name in folders.hub_names(found).items()}
    expected = hf.hub_shapes(hf.skeleton(shape))
    for name in sorted(tensors.keys() | expected.keys()):
        has, wanted = tensors.get(name), expected.get(name)
        if has is None or wanted is None or has.shape != wanted:
            raise ModelError(misfit(folder, name, None if has is None else has.shape, wanted))
    return shape, tensors


def _refuse_original(folder: Path, document: Mapping[str, object]) -> None:
    if document.get("model_type") == "llava" and "text_config" not in document:
        raise ModelError(f"{folder} is in the original's layout already")


def _check_two_layers(folder: Path, tensors: Mapping[str, LazyTensor]) -> None:
    names = ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")
    found = [tensors[_PROJECTOR + name].shape if _PROJECTOR + name in tensors else None for name in names]
    first = found[0]
    if first is None or len(first) != 2 or found[1:] != [first[:1], (first[0], first[0]), first[:1]]:
        raise ModelError(
            f"{folder} has no projector of two layers under {_PROJECTOR}* (found {found}); name a folder in "
            "the stock layout"
        )


def _single_layer(folder: Path, tensors: Mapping[str, LazyTensor]) -> projectors.Linear:
    _check_two_layers(folder, tensors)

    def load(name: str) -> Tensor:
        return tensors[_PROJECTOR + name].load()

    two = projectors.TwoLayer(
        weight_1=load("linear_1.weight"),
        bias_1=load("linear_1.bias"),
        weight_2=load("linear_2.weight"),
        bias_2=load("linear_2.bias"),
    )
    act = folders.read_document(folder, "config.json").get("projector_hidden_act", "gelu")
    linear = projectors.from_identity(two) if act == "linear" else projectors.unfold(two)
    if linear is None:
        raise ModelError(
            f"{folder} has a projector of two layers of its own, as LLaVA-1.5 has; the original of LLaVAR "
            "holds a single linear one, so only the layouts identity and fold go back"
        )
    return linear


def original_config(
    shape: LlavaShape, dtype: torch.dtype, start_end: bool, vision_tower: str
) -> dict[str, object]:
    """The ``config.json`` that the original wrote for a model of this shape."""
    text = shape.text
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "vocab_size": text.vocab,
        "hidden_size": text.hidden,
        "intermediate_size": text.mlp,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "num_key_value_heads": text.kv_heads,
        "max_position_embeddings": text.max_positions,
        "rms_norm_eps": text.eps,
        **({} if text.rope_theta == 10_000.0 else {"rope_theta": text.rope_theta}),
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "bos_token_id": text.bos_id,
        "eos_token_id": text.eos_id,
        "pad_token_id": text.pad_id,
        "tie_word_embeddings": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        "use_mm_proj": True,
        "tune_mm_mlp_adapter": False,
        "sep_image_conv_front": False,
        "mm_hidden_size": shape.vision.hidden,
        "mm_use_im_start_end": start_end,
        "mm_vision_select_layer": shape.vision_feature_layer,
        "mm_vision_tower": vision_tower,
    }


def _write_tower(aside: Path, folder: Path, shape: LlavaShape, tensors: Mapping[str, LazyTensor]) -> None:
    aside.mkdir()
    plan = [
        replace(as_planned(tensor), name=key.removeprefix(TOWER_PREFIX))
        for key, tensor in sorted(tensors.items())
        if key.startswith(TOWER_PREFIX)
    ]
    write(aside, plan)
    config = {**vision_document(shape.vision), "architectures": ["CLIPVisionModel"]}
    folders.write_document(aside, "config.json", config)
    stock = folders.read_document(folder, "preprocessor_config.json")
    kept = {name: value for name, value in stock.items() if name not in ("do_pad", hf.TRANSFORM_KEY)}
    kept["image_processor_type"] = "CLIPImageProcessor"
    folders.write_document(aside, "preprocessor_config.json", kept)


def _write_original_tokenizer(aside: Path, folder: Path, tokenizer: TextTokenizer) -> list[str]:
    """A slow LLaMA tokenizer's files where the sentencepiece file is there, else what there is."""
    model = folder / "tokenizer.model"
    if not model.is_file():
        names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
        copy_companions(folder, aside, names)
        return [
            "there is no tokenizer.model, which cannot be made from tokenizer.json; that was copied, and "
            "the original's own code needs tokenizer.model besides"
        ]
    copy_companions(folder, aside, ("tokenizer.model",))
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    size = from_sentencepiece(model, ()).vocab_size
    added = {token: index for token, index in vocabulary.items() if index >= size}
    folders.write_document(aside, "added_tokens.json", added)
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": tokenizer.pad}
    folders.write_document(aside, "special_tokens_map.json", specials)
    folders.write_document(
        aside,
        "tokenizer_config.json",
        {
            **specials,
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "legacy": True,
            "padding_side": "right",
        },
    )
    load_tokenizer(aside)  # refuses what does not follow from tokenizer.model
    return []


def _name_note(out: Path, tokenizer: TextTokenizer) -> list[str]:
    """The original's layout holds no chat template: its code goes by the folder's name."""
    template = tokenizer.template() if tokenizer.chat_template else None
    chosen = chat.for_checkpoint_name(out.absolute().name).name
    if template is None or template.name == chosen:
        return []
    return [
        f"this model's conversation is {template.name!r}, and the original would take {chosen!r} for a "
        f"folder called {out.absolute().name!r}: it looks for 'v1' or 'mpt' in the name"
    ]
