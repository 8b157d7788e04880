"""What a new model is put together from: a decoder with its tokenizer, and a tower, opened and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from llavar import chat
from llavar.errors import ConfigError, ModelError
from llavar.models import chat_template
from llavar.models import folder as folders
from llavar.models.original import hub_name
from llavar.models.processor import norm_of, read_norm
from llavar.models.shape import ORIGINAL_CLASSES
from llavar.models.stored import LazyTensor, open_tensors
from llavar.models.tokenizer import (
    IMAGE_TOKENS,
    TextTokenizer,
    from_sentencepiece,
    load_tokenizer,
    with_image_tokens,
)

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
"""The ``model_type`` of decoders that are known to work."""

EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"

_TOWERS = {
    "clip": "clip_vision_model",
    "clip_vision_model": "clip_vision_model",
    "siglip": "siglip_vision_model",
    "siglip_vision_model": "siglip_vision_model",
}
_NOT_VISION = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A decoder or a tower on disk: its own configuration and, by the hub's names, its tensors."""

    folder: Path
    config: Mapping[str, object]
    tensors: Mapping[str, LazyTensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """The tokenizer of the new model, and what follows from it."""

    tokenizer: TextTokenizer
    conversation: str
    new_tokens: tuple[str, ...]
    tokenizer_model: Path | None
    notes: tuple[str, ...]


# ---------------------------------------------------------------- what is put together


def open_decoder(name: Path | str) -> Part:
    """A decoder for causal language modelling, from a folder or a hub id.

    Raises:
        NotFoundError, FetchError: there is none.
        ModelError: of an unknown kind, quantized, or damaged.
    """
    folder = folders.resolve(name, binaries=True)
    config = folders.read_document(folder, "config.json")
    kind = config.get("model_type")
    classes = config.get("architectures")
    named = str(cast("list[object]", classes)[0]) if isinstance(classes, list) and classes else ""
    if named in ORIGINAL_CLASSES:
        raise ModelError(
            f"{folder} is a checkpoint of the original LLaVA ({named}) and no bare decoder; convert it "
            "instead: llavar convert from-llava"
        )
    if kind not in FAMILIES or (named and not named.endswith("ForCausalLM")):
        raise ModelError(
            f"{folder} holds a {named or kind!s:.60} (model_type {kind!r:.40}); decoders of the types "
            f"{', '.join(FAMILIES)} are put together with a tower"
        )
    if config.get("quantization_config"):
        raise ModelError(
            f"{folder} holds quantized weights; name the decoder in 16 bits, and quantize when asking "
            "(llavar ask --quantize)"
        )
    tensors: dict[str, LazyTensor] = {}
    for stored, tensor in open_tensors(folder).items():
        key = folders.hub_key(hub_name(stored) or stored)
        if key is not None:
            tensors[key] = tensor
    if EMBEDDING not in tensors or len(tensors[EMBEDDING].shape) != 2:
        raise ModelError(f"{folder} has no table of embeddings 'model.embed_tokens.weight'; name a decoder")
    if config.get("tie_word_embeddings"):
        tensors.pop(HEAD, None)  # some write it a second time
    return Part(folder=folder, config=config, tensors=tensors)


def open_tower(name: Path | str) -> Part:
    """The vision tower of a CLIP or SigLIP, whole or alone; raises as :func:`open_decoder`."""
    folder = folders.resolve(name, binaries=True)
    document = folders.read_document(folder, "config.json")
    kind = document.get("model_type")
    if kind not in _TOWERS:
        raise ModelError(
            f"{folder} holds a {kind!r:.60} and no vision tower that is known; name a CLIP such as "
            "openai/clip-vit-large-patch14-336, or a SigLIP such as google/siglip-so400m-patch14-384"
        )
    inner = document.get("vision_config") if kind in ("clip", "siglip") else document
    if not isinstance(inner, Mapping):
        raise ModelError(f"{folder / 'config.json'} has no vision_config; fetch it again")
    config = {**cast("Mapping[str, object]", inner), "model_type": _TOWERS[str(kind)]}
    _check_norm(folder, config)
    tensors: dict[str, LazyTensor] = {}
    for stored, tensor in open_tensors(folder).items():
        key = folders.hub_key(f"vision_tower.{stored}")
        if key is not None and not stored.startswith(_NOT_VISION):
            tensors[key] = tensor
    return Part(folder=folder, config=config, tensors=tensors)


def _check_norm(folder: Path, config: Mapping[str, object]) -> None:
    """A tower that says how its pictures are normalised says what its kind does."""
    if not (folder / "preprocessor_config.json").is_file():
        return
    found, usual = read_norm(folder), norm_of(str(config["model_type"]))
    given = folders.read_document(folder, "preprocessor_config.json")
    if "image_mean" in given and found != usual:
        raise ModelError(
            f"{folder} takes pictures with mean {found.mean} and deviation {found.std}; towers of its kind "
            f"use {usual.mean} and {usual.std}"
        )


# ---------------------------------------------------------------- tokenizer


def voice_of(decoder: Part, *, start_end: bool, conversation: str) -> Voice:
    """The decoder's tokenizer with the image tokens, and the conversation it is to be used with.

    Raises:
        NotFoundError, ModelError: it has no tokenizer that can be read.
        ConfigError: it has no chat template, or the conversation does not go with it.
    """
    found, model = _tokenizer_of(decoder)
    tokenizer = with_image_tokens(found, start_end=start_end)
    new = tuple(token for token in IMAGE_TOKENS if found.lookup(token) is None and tokenizer.lookup(token))
    sentencepiece = model is not None
    if not conversation and not tokenizer.chat_template and sentencepiece:
        conversation = "llava_v1"
    if conversation:
        template = chat.get(conversation)
        source, end, notes = chat.jinja_source(template, start_end=start_end), template.answer_end, ()
        if template.style in (chat.Style.TWO, chat.Style.MPT) and tokenizer.lookup(end) is None:
            raise ConfigError(
                f"conversation {conversation!r} ends its answers with {end!r}, which is no token of "
                f"{decoder.folder}; leave --conversation out to use the decoder's own chat template"
            )
    else:
        adapted = chat_template.adapt(tokenizer, start_end=start_end)
        source, end, notes = adapted.source, adapted.end, adapted.notes
    if tokenizer.lookup(end) is None:  # "###" is text; the model's end token stays what it was
        end = tokenizer.eos or ""
    if end != tokenizer.eos:
        notes = (*notes, f"answers end with {end!r}, not with the tokenizer's {tokenizer.eos!r}")
    pad = next((token for token in (tokenizer.pad, tokenizer.unk, end) if token), None)
    return Voice(
        tokenizer=replace(tokenizer, eos=end or None, pad=pad, chat_template=source),
        conversation=conversation or "own",
        new_tokens=new,
        tokenizer_model=model,
        notes=notes,
    )


def _tokenizer_of(decoder: Part) -> tuple[TextTokenizer, Path | None]:
    """The decoder's tokenizer, and its sentencepiece file if that was made exact.

    A LLaMA or Vicuna without a chat template is taken by its ``tokenizer.model``, as the original took it,
    even where a ``tokenizer.json`` of another's making lies beside it.
    """
    folder, model = decoder.folder, decoder.folder / "tokenizer.model"
    saved = load_tokenizer(folder) if (folder / "tokenizer.json").is_file() else None
    if saved is not None and (saved.chat_template or not model.is_file()):
        return saved, None
    if not model.is_file():
        return load_tokenizer(folder), None  # which says what is missing
    try:
        exact = from_sentencepiece(model, _added(folder))
    except ModelError:
        if saved is None:
            raise
        return saved, None  # a sentencepiece model, but not of LLaMA's kind
    return replace(exact, chat_template=_chat_template_of(folder)), model


def _added(folder: Path) -> list[str]:
    """The tokens that lie beside a bare ``tokenizer.model``, in the order of their ids."""
    if not (folder / "added_tokens.json").is_file():
        return []
    ids = folders.read_document(folder, "added_tokens.json")
    return sorted(ids, key=lambda token: str(ids[token]).rjust(20))


def _chat_template_of(folder: Path) -> str:
    """What stands beside a bare ``tokenizer.model``."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if not (folder / "tokenizer_config.json").is_file():
        return ""
    found = folders.read_document(folder, "tokenizer_config.json").get("chat_template")
    return found if isinstance(found, str) else ""
