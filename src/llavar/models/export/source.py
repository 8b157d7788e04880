"""The model that is exported: a folder in the stock layout, opened without being loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from llavar.errors import ConfigError, LlavarError, ModelError
from llavar.images import WHOLE, Tiles, Transform
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models import projector as projectors
from llavar.models.original import as_planned, constant, misfit
from llavar.models.processor import read_tiles, read_transform
from llavar.models.shape import ORIGINAL_CLASSES, LlavaShape, ProjectorLayout
from llavar.models.stored import LazyTensor, open_tensors
from llavar.models.stream import Planned
from llavar.models.tokenizer import TextTokenizer, load_tokenizer

PROJECTOR = "multi_modal_projector."
EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model on disk. ``document`` is its ``config.json``, ``tensors`` are by hub name and not read yet."""

    folder: Path
    document: Mapping[str, object]
    tensors: Mapping[str, LazyTensor]
    tokenizer: TextTokenizer
    transform: Transform
    tiles: Tiles = WHOLE

    @property
    def name(self) -> str:
        """The last part of its path; of a hub id in the cache, the id's."""
        parts = self.folder.absolute().parts
        cached = next((part for part in parts if part.startswith("models--")), None)
        return cached.rpartition("--")[2] if cached else parts[-1]

    @property
    def text(self) -> Mapping[str, object]:
        """The decoder's part of the configuration."""
        return section(self.document, "text_config")

    @property
    def vision(self) -> Mapping[str, object]:
        """The tower's part of the configuration."""
        return section(self.document, "vision_config")

    @property
    def act(self) -> str:
        """The projector's activation."""
        return str(self.document.get("projector_hidden_act", "gelu"))

    @property
    def parameters(self) -> int:
        """How many values all tensors have."""
        return sum(tensor.numel for tensor in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """That of the embeddings."""
        return self.tensors[EMBEDDING].dtype

    @property
    def bias(self) -> bool:
        """Whether the projector's layers have one."""
        return f"{PROJECTOR}linear_1.bias" in self.tensors

    def two_layers(self) -> projectors.TwoLayer:
        """The projector's parameters, read now; absent biases are zero."""

        def load(name: str) -> torch.Tensor:
            return self.tensors[PROJECTOR + name].load()

        weight_1, weight_2 = load("linear_1.weight"), load("linear_2.weight")
        none = weight_1.new_zeros(len(weight_1))
        return projectors.TwoLayer(
            weight_1=weight_1,
            bias_1=load("linear_1.bias") if self.bias else none,
            weight_2=weight_2,
            bias_2=load("linear_2.bias") if self.bias else none,
        )

    def single_layer(self) -> projectors.Linear | None:
        """The projector as one layer, read now; None where it is two of their own."""
        two = self.two_layers()
        if self.act == "linear":
            return projectors.from_identity(two)
        return projectors.unfold(two) if self.act == "gelu" else None

    def shape(self) -> LlavaShape:
        """Its numbers, where it is made of a CLIP tower and a plain Llama decoder.

        Raises:
            ModelError, ConfigError: it is made of something else.
        """
        return LlavaShape.from_config(self.document)


def section(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    """An object within a configuration.

    Raises:
        ModelError: it is none.
    """
    value = document.get(name)
    if not isinstance(value, dict):
        raise ModelError(f"config.json has no object {name!r}, it has {value!r:.60}; write the folder again")
    return cast("dict[str, object]", value)


def open_source(model: str | Path) -> Source:
    """A model folder or hub id, checked against its own configuration.

    Raises:
        NotFoundError, FetchError: there is no such folder or hub id.
        ModelError: in the original's layout, a delta, quantized, damaged, or without a chat template.
    """
    folder = folders.resolve(model)
    document = folders.read_document(folder, "config.json")
    _refuse_others(folder, document)
    found = open_tensors(folder)
    tensors = {key: found[name] for key, name in folders.hub_names(found).items()}
    _check(folder, document, tensors)
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{folder} has no chat template, and an engine would not know how to ask; convert or train it "
            "with this package, which writes one"
        )
    return Source(
        folder=folder,
        document=document,
        tensors=tensors,
        tokenizer=tokenizer,
        transform=read_transform(folder),
        tiles=read_tiles(folder),
    )


def _refuse_others(folder: Path, document: Mapping[str, object]) -> None:
    classes = document.get("architectures")
    names = set(map(str, cast("list[object]", classes))) if isinstance(classes, list) else set[str]()
    is_llava = document.get("model_type") == "llava"
    if names & ORIGINAL_CLASSES or (is_llava and "text_config" not in document):
        raise ModelError(
            f"{folder} is in the original's layout; convert it first, then export what that writes: "
            f"llavar convert from-llava {folder} --out NEW (and --base LLAMA if it is a delta)"
        )
    if not is_llava:
        raise ModelError(
            f"{folder} holds a {document.get('model_type')!r:.60} and a llava was expected; a decoder and a "
            "vision tower become one with llavar convert build"
        )


def _check(folder: Path, document: Mapping[str, object], tensors: Mapping[str, LazyTensor]) -> None:
    expected = hf.hub_shapes(hf.skeleton_of(document))
    tied = bool(document.get("tie_word_embeddings"))
    for name in sorted(tensors.keys() | expected.keys()):
        has, wanted = tensors.get(name), expected.get(name)
        if name == HEAD and tied and has is None:
            continue
        if has is None or wanted is None or has.shape != wanted:
            raise ModelError(misfit(folder, name, None if has is None else has.shape, wanted))
        if not has.dtype.is_floating_point:
            raise ModelError(
                f"{folder} holds {name} as {str(has.dtype).removeprefix('torch.')}; floating point was "
                "expected, so export the weights that are not quantized"
            )


def planned(source: Source, layout: ProjectorLayout) -> list[Planned]:
    """Every tensor by the hub's name; the projector in ``layout``, or as it is for ``mlp``.

    Raises:
        ConfigError: a projector of two layers of its own is to be one.
    """
    plan = [
        replace(as_planned(tensor), name=key)
        for key, tensor in source.tensors.items()
        if layout is ProjectorLayout.MLP or not key.startswith(PROJECTOR)
    ]
    if layout is not ProjectorLayout.MLP:
        linear = source.single_layer()
        if linear is None:
            raise ConfigError("a projector of two layers of its own has no other layout; keep mlp")
        two = projectors.fold(linear) if layout is ProjectorLayout.FOLD else projectors.identity(linear)
        plan += [
            constant(f"{PROJECTOR}linear_1.weight", two.weight_1),
            constant(f"{PROJECTOR}linear_1.bias", two.bias_1),
            constant(f"{PROJECTOR}linear_2.weight", two.weight_2),
            constant(f"{PROJECTOR}linear_2.bias", two.bias_2),
        ]
    return sorted(plan, key=lambda one: one.name)


def best_layout(source: Source) -> ProjectorLayout:
    """The layout that most engines compute right: ``fold`` where one layer fits, else as it is."""
    linear = source.single_layer()
    if linear is None:
        return ProjectorLayout.MLP
    text, vision = linear.weight.shape
    return ProjectorLayout.FOLD if text >= 2 * vision else ProjectorLayout.IDENTITY


def decoder_head_size(source: Source) -> int:
    """Width of one attention head of the decoder.

    Raises:
        ModelError: the configuration does not say it in whole numbers.
    """
    given = source.text.get("head_dim")
    if isinstance(given, int) and given > 0:
        return given
    hidden, heads = source.text.get("hidden_size"), source.text.get("num_attention_heads")
    if not isinstance(hidden, int) or not isinstance(heads, int) or heads < 1:
        raise ModelError(
            f"{source.folder} has hidden_size {hidden!r:.20} and num_attention_heads {heads!r:.20}; whole "
            "numbers were expected"
        )
    return hidden // heads


def described(source: Source) -> LlavaShape:
    """As :meth:`Source.shape`, with an error that names the folder."""
    try:
        return source.shape()
    except LlavarError as error:
        raise ModelError(f"{source.folder} is no CLIP tower with a plain Llama decoder: {error}") from error


def image_token(source: Source) -> str:
    """The token whose id the configuration names.

    Raises:
        ModelError: the tokenizer has no such id.
    """
    named = source.document.get("image_token_index", source.document.get("image_token_id"))
    token = source.tokenizer.backend.id_to_token(named) if isinstance(named, int) and named >= 0 else None
    if token is None:
        raise ModelError(
            f"{source.folder} names {named!r:.20} as the id of the image token, which its tokenizer does not "
            "have; take both from the same checkpoint"
        )
    return token
