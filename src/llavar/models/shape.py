"""The numbers that make a Llava model: nano and 13B differ in nothing else. No torch.

:class:`LlavaShape` covers what LLaVAR is made of: a CLIP vision tower, a projector and a Llama decoder.
Other towers and decoders load through transformers alone and have no shape here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from llavar.errors import ConfigError, ModelError

MAX_LAYERS = 1000
"""Far above any model, far below what a hostile ``config.json`` could ask for."""

ORIGINAL_CLASSES = frozenset({"LlavaLlamaForCausalLM", "LlavaMPTForCausalLM", "LlavaMptForCausalLM"})
"""What LLaVA's own checkpoints name as their architecture; ``llavar convert`` reads them."""


class ProjectorLayout(StrEnum):
    """How the projector is kept in the two linear layers and one activation of the stock architecture."""

    IDENTITY = "identity"
    """``linear_1`` is the projector, no activation, ``linear_2`` the identity. Exact where engines obey."""
    FOLD = "fold"
    """GELU(x) - GELU(-x) = x makes one linear layer of two. Every stock engine computes it right."""
    MLP = "mlp"
    """Two layers with a GELU between them, as in LLaVA-1.5."""


class FeatureSelect(StrEnum):
    """Which tokens of the tower's layer reach the projector."""

    DEFAULT = "default"
    """Patches without the class token."""
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionShape:
    """A CLIP vision tower. Sizes in pixels; ``hidden`` and ``mlp`` are widths."""

    image_size: int
    patch_size: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    act: str = "quick_gelu"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _positive(self, "image_size", "patch_size", "hidden", "layers", "heads", "mlp")
        _divides(self, "image_size", "patch_size")
        _divides(self, "hidden", "heads")

    @property
    def patches(self) -> int:
        """Patches in a picture, the class token not among them."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TextShape:
    """A Llama decoder. ``kv_heads`` below ``heads`` is grouped-query attention; ids are of special tokens."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    max_positions: int
    rope_theta: float = 10_000.0
    eps: float = 1e-6
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = 0

    def __post_init__(self) -> None:
        _positive(self, "vocab", "hidden", "layers", "heads", "kv_heads", "mlp", "max_positions")
        _divides(self, "hidden", "heads")
        _divides(self, "heads", "kv_heads")
        if self.head_dim % 2:
            raise ConfigError(
                f"hidden / heads = {self.head_dim} must be even for rotary positions; change either of them"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclass(frozen=True, slots=True, kw_only=True)
class LlavaShape:
    """A whole model.

    ``vision_feature_layer`` indexes the tower's hidden states as transformers does: 0 is the embedding,
    -1 the last layer; the original takes -2. ``image_token_id`` is the id of ``<im_patch>``.

    Raises:
        ConfigError: the numbers do not fit together.
    """

    vision: VisionShape
    text: TextShape
    image_token_id: int
    vision_feature_layer: int = -2
    select: FeatureSelect = FeatureSelect.DEFAULT
    projector: ProjectorLayout = ProjectorLayout.IDENTITY

    def __post_init__(self) -> None:
        if not 0 <= self.image_token_id < self.text.vocab:
            raise ConfigError(
                f"image_token_id {self.image_token_id} is outside the vocabulary of {self.text.vocab}; "
                "take the tokenizer's id of <im_patch>"
            )
        if not -self.vision.layers - 1 <= self.vision_feature_layer <= self.vision.layers:
            raise ConfigError(
                f"vision_feature_layer {self.vision_feature_layer} is no hidden state of a tower of "
                f"{self.vision.layers} layers; take {-self.vision.layers - 1} to {self.vision.layers}"
            )
        if self.projector is ProjectorLayout.FOLD and self.text.hidden < 2 * self.vision.hidden:
            raise ConfigError(fold_refusal(self.vision.hidden, self.text.hidden))

    @property
    def image_tokens(self) -> int:
        """Placeholder tokens that one input of the tower takes."""
        return self.vision.patches + (self.select is FeatureSelect.FULL)

    def config(self) -> dict[str, object]:
        """The content of ``config.json`` for ``LlavaForConditionalGeneration``."""
        return {
            "model_type": "llava",
            "architectures": ["LlavaForConditionalGeneration"],
            "vision_config": vision_document(self.vision),
            "text_config": text_document(self.text),
            "image_token_index": self.image_token_id,
            "image_seq_length": self.image_tokens,
            "projector_hidden_act": "linear" if self.projector is ProjectorLayout.IDENTITY else "gelu",
            "vision_feature_select_strategy": self.select.value,
            "vision_feature_layer": self.vision_feature_layer,
            "multimodal_projector_bias": True,
            "tie_word_embeddings": False,
        }

    @classmethod
    def from_config(cls, document: Mapping[str, object]) -> LlavaShape:
        """Read a ``config.json``. The layouts ``fold`` and ``mlp`` look the same there: read as ``mlp``.

        Raises:
            ModelError: another architecture, or a setting that changes the arithmetic and is not covered.
            ConfigError: the numbers do not fit together.
        """
        top = _Section(document, "config.json")
        top.expect("model_type", "llava")
        top.expect("multimodal_projector_bias", True, default=True)
        top.expect("tie_word_embeddings", False, default=False)
        act = top.choice("projector_hidden_act", ("linear", "gelu"), "gelu")
        return cls(
            vision=_vision_from(top.section("vision_config")),
            text=_text_from(top.section("text_config")),
            image_token_id=top.integer("image_token_index", top.integer("image_token_id", 32000)),
            vision_feature_layer=top.integer("vision_feature_layer", -2),
            select=FeatureSelect(
                top.choice("vision_feature_select_strategy", tuple(FeatureSelect), "default")
            ),
            projector=ProjectorLayout.IDENTITY if act == "linear" else ProjectorLayout.MLP,
        )


def fold_refusal(vision: int, text: int) -> str:
    """Why widths ``vision`` and ``text`` cannot be folded, and what to do."""
    return (
        f"the fold layout needs a decoder at least twice as wide as the tower ({2 * vision}), "
        f"and this one is {text} wide; use --layout identity"
    )


def _positive(shape: object, *names: str) -> None:
    for name in names:
        value = getattr(shape, name)
        if value < 1:
            raise ConfigError(f"{name} is {value} and must be at least 1")
    if (layers := getattr(shape, "layers", 0)) > MAX_LAYERS:
        raise ConfigError(f"layers is {layers} and must be at most {MAX_LAYERS}")


def _divides(shape: object, whole: str, part: str) -> None:
    total, piece = getattr(shape, whole), getattr(shape, part)
    if total % piece:
        raise ConfigError(f"{whole} {total} is not a multiple of {part} {piece}; change either of them")


def vision_document(vision: VisionShape) -> dict[str, object]:
    """The ``vision_config`` of a ``config.json``."""
    return {
        "model_type": "clip_vision_model",
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "num_channels": 3,
        "hidden_size": vision.hidden,
        "num_hidden_layers": vision.layers,
        "num_attention_heads": vision.heads,
        "intermediate_size": vision.mlp,
        "projection_dim": vision.hidden,
        "hidden_act": vision.act,
        "layer_norm_eps": vision.eps,
    }


def text_document(text: TextShape) -> dict[str, object]:
    """The ``text_config`` of a ``config.json``."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": text.vocab,
        "hidden_size": text.hidden,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "num_key_value_heads": text.kv_heads,
        "intermediate_size": text.mlp,
        "max_position_embeddings": text.max_positions,
        "rms_norm_eps": text.eps,
        "rope_theta": text.rope_theta,  # read by engines that know nothing of rope_parameters
        "rope_parameters": {"rope_type": "default", "rope_theta": text.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "head_dim": text.head_dim,
        "bos_token_id": text.bos_id,
        "eos_token_id": text.eos_id,
        "pad_token_id": text.pad_id,
        "tie_word_embeddings": False,
    }


def read_vision(document: Mapping[str, object]) -> VisionShape:
    """The tower that a ``config.json`` of a CLIP vision tower, or of a whole CLIP, describes.

    Raises:
        ModelError: another architecture.
        ConfigError: the numbers do not fit together.
    """
    top = _Section(document, "config.json of the vision tower")
    return _vision_from(top.section("vision_config") if document.get("model_type") == "clip" else top)


def read_text(document: Mapping[str, object]) -> TextShape:
    """The decoder that a ``config.json`` of a Llama describes; raises as :func:`read_vision`."""
    return _text_from(_Section(document, "config.json"))


def _vision_from(section: _Section) -> VisionShape:
    """Absent numbers are CLIP's defaults, which is how published configurations are abbreviated."""
    section.expect("model_type", "clip_vision_model")
    section.expect("num_channels", 3, default=3)
    return VisionShape(
        image_size=section.integer("image_size", 224),
        patch_size=section.integer("patch_size", 32),
        hidden=section.integer("hidden_size", 768),
        layers=section.integer("num_hidden_layers", 12),
        heads=section.integer("num_attention_heads", 12),
        mlp=section.integer("intermediate_size", 3072),
        act=section.choice("hidden_act", ("quick_gelu", "gelu"), "quick_gelu"),
        eps=section.number("layer_norm_eps", 1e-5),
    )


def _text_from(section: _Section) -> TextShape:
    """Absent numbers are Llama's defaults."""
    section.expect("model_type", "llama")
    for name in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
        section.expect(name, False, default=False)
    section.expect("hidden_act", "silu", default="silu")
    heads = section.integer("num_attention_heads", 32)
    text = TextShape(
        vocab=section.integer("vocab_size", 32_000),
        hidden=section.integer("hidden_size", 4096),
        layers=section.integer("num_hidden_layers", 32),
        heads=heads,
        kv_heads=section.integer("num_key_value_heads", heads),
        mlp=section.integer("intermediate_size", 11_008),
        max_positions=section.integer("max_position_embeddings", 2048),
        rope_theta=_rope_theta(section),
        eps=section.number("rms_norm_eps", 1e-6),
        bos_id=section.integer("bos_token_id", 1),
        eos_id=section.integer("eos_token_id", 2),
        pad_id=section.integer("pad_token_id", 0),
    )
    section.expect("head_dim", text.head_dim, default=text.head_dim)
    return text


def _rope_theta(section: _Section) -> float:
    """Plain rotary positions only, in the notation of transformers 5 or of 4."""
    if section.has("rope_parameters"):
        rope = section.section("rope_parameters")
        rope.expect("rope_type", "default", default="default")
        rope.expect("partial_rotary_factor", 1.0, default=1.0)
        return rope.number("rope_theta", section.number("rope_theta", 10_000.0))
    section.expect("rope_scaling", None, default=None)
    return section.number("rope_theta", 10_000.0)


class _Section:
    """A JSON object from outside: typed access, and errors that name the file and the key."""

    def __init__(self, values: Mapping[str, object], name: str) -> None:
        self.values = values
        self.name = name

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def section(self, key: str) -> _Section:
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise ModelError(f"{self.name} has no object '{key}', it has {value!r:.60}")
        return _Section(cast("Mapping[str, object]", value), f"{key} of {self.name}")

    def integer(self, key: str, default: int) -> int:
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise ModelError(f"{self.name} has {key} = {value!r:.60}; it must be one whole number")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{self.name} has {key} = {value!r:.60}; it must be a number")
        return float(value)

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.values.get(key, default)
        if value not in allowed:
            raise ModelError(f"{self.name} has {key} = {value!r:.60}; known are {', '.join(allowed)}")
        return str(value)

    def expect(self, key: str, wanted: object, *, default: object = None) -> None:
        value = self.values.get(key)
        if (default if value is None else value) != wanted:
            raise ModelError(f"{self.name} has {key} = {value!r:.60} where {wanted!r} was expected")
