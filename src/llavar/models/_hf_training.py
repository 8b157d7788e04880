# pyright: basic
"""What training asks of a stock model: which attention it computes with, and what it keeps meanwhile.

Beside :mod:`llavar.models._hf`, of which this is a part, nothing else touches transformers' internals.
``eager``, ``sdpa`` and ``flex`` are transformers' own. ``varlen`` is registered with its attention interface
here: packed rows go through :mod:`llavar.models.attention` without a mask, anything else (a cache, a mask,
the tower) through ``sdpa``.
"""

from __future__ import annotations

import importlib
import itertools
import re
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from llavar.errors import ConfigError
from llavar.models.attention import Borders, borders, packed_attention

VARLEN = "llavar_varlen"
"""``varlen`` as transformers knows it, once it is registered."""

_NAMES = {"eager": "eager", "sdpa": "sdpa", "flex": "flex_attention", "varlen": VARLEN}
_TRIED = ((5, 17), (5, 23))
"""The versions of transformers between which ``varlen`` and ``flex`` are tested."""

_LAYERED = ("clip_vision_model", "siglip_vision_model")
"""Towers that are embeddings and then layers, of which each needs the one before alone."""

_LIGER = "liger_kernel.transformers.functional"


def implementation(name: str) -> Any:
    """What transformers calls the attention ``name``: eager, sdpa, flex, varlen, or a name of its own.

    A string, or a dict of one for each nested configuration.

    With ``flex`` and ``varlen`` only the decoder computes so; a tower, which looks at all of a picture at
    once, computes with ``sdpa``.

    Raises:
        ConfigError: the installed transformers is one that ``flex`` or ``varlen`` was not tried with.
    """
    given = _NAMES.get(name, name)
    if name not in ("flex", "varlen"):
        return given
    _require_tried(name)
    if name == "varlen":
        _register()
    return {"": "sdpa", "vision_config": "sdpa", "text_config": given}


def is_tried() -> bool:
    """Whether ``varlen`` and ``flex`` are tested with the installed transformers."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", metadata.version("transformers"))[:2])
    return _TRIED[0] <= numbers <= _TRIED[1]


def _require_tried(name: str) -> None:
    if not is_tried():
        version = metadata.version("transformers")
        low, high = (".".join(map(str, bound)) for bound in _TRIED)
        raise ConfigError(
            f"attention {name} is tested with transformers {low} to {high} and {version} is installed, whose "
            "masks may be others; choose sdpa or eager, or install one of these"
        )


def attention_of(model: nn.Module) -> str:
    """The attention of the decoder of a stock model, as :func:`implementation` takes it; '' if unknown."""
    config: Any = getattr(model, "config", None)
    text = getattr(config, "text_config", config)
    held = str(getattr(text, "_attn_implementation", None) or "")
    return next((name for name, given in _NAMES.items() if given == held), held)


def row_arguments(model: nn.Module, positions: Tensor) -> dict[str, Any]:
    """What the decoder is told about the rows of packs besides ``positions`` (packs, length).

    Borders are found once for all layers; implementations other than ``varlen`` find them on their own.
    """
    return {"rows": borders(positions)} if attention_of(model) == "varlen" else {}


def tower_states(tower: Any, pixels: Tensor, layer: int) -> Tensor:
    """Hidden state ``layer`` (negative: from the end) of a tower: (inputs, patches and class token, width).

    Of CLIP and SigLIP the layers behind it, and the norm after the last, are not computed: LLaVA takes the
    last layer but one (``mm_vision_select_layer`` -2). Other towers compute all, and keep it.
    """
    if tower.config.model_type not in _LAYERED:
        return tower(pixels, output_hidden_states=True).hidden_states[layer]
    inner = getattr(tower, "vision_model", tower)
    hidden = inner.embeddings(pixels)
    if hasattr(inner, "pre_layrnorm"):
        hidden = inner.pre_layrnorm(hidden)
    blocks = inner.encoder.layers
    for block in itertools.islice(blocks, layer % (len(blocks) + 1)):
        hidden = block(hidden, None)
    return hidden


def recompute(model: Any, *, selective: bool = False) -> None:
    """Compute activations of a stock model a second time in the backward pass instead of keeping them.

    ``selective`` keeps what matrix products and attention gave, and computes the rest again.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if selective:
        options["context_fn"] = partial(create_selective_checkpoint_contexts, kept_operations())
    if hasattr(model, "activation_checkpointing_enable"):  # its name since 5.22
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def kept_operations() -> list[Any]:
    """Linear layers and fused attention, whose results selective recomputation keeps.

    Products of attention in the open are computed again: its scores are most of what is kept with it.
    """
    importlib.import_module("torch.nn.attention.varlen")
    kinds = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    names = ("mm", "addmm", *(f"_scaled_dot_product_{kind}" for kind in kinds))
    return [
        *(getattr(torch.ops.aten, name).default for name in names),
        torch.ops.torch_attn._varlen_attn.default,
    ]


def compile_layers(model: nn.Module, backend: str = "inductor") -> None:
    """Have torch compile each layer of the decoder, once for all lengths. To be called when it is divided."""
    decoder: Any = model.get_submodule("model.language_model")
    for layer in decoder.layers:
        layer.forward = torch.compile(layer.forward, backend=backend, dynamic=True)


def fuse_layers(model: nn.Module) -> None:
    """Have Liger's kernels compute the norms and the gates of a Llama decoder, each in one pass over memory.

    The modules and their weights stay as they are. Rotary positions stay torch's: Liger can only put its own
    in for all models of the process.

    Raises:
        ConfigError: Liger is not installed, there is no GPU, or the decoder is no Llama.
    """
    decoder: Any = model.get_submodule("model.language_model")
    if decoder.config.model_type != "llama":
        kind = decoder.config.model_type
        raise ConfigError(f"--liger fuses decoders of the kind llama and this one is {kind}; leave it out")
    if not torch.cuda.is_available():
        raise ConfigError("--liger has kernels for GPUs alone, and there is none here; leave it out")
    try:
        kernels: Any = importlib.import_module(_LIGER)
    except ImportError as error:
        raise ConfigError("--liger needs liger-kernel; pip install liger-kernel, or leave it out") from error
    norms = [decoder.norm]
    for layer in decoder.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        layer.mlp.forward = partial(_gated, layer.mlp, kernels.liger_swiglu)
    for norm in norms:
        norm.forward = partial(_normed, norm, kernels.liger_rms_norm)


def _gated(mlp: Any, swiglu: Any, states: Tensor) -> Tensor:
    return mlp.down_proj(swiglu(mlp.gate_proj(states), mlp.up_proj(states)))


def _normed(norm: Any, rms_norm: Any, states: Tensor) -> Tensor:
    return rms_norm(states, norm.weight, norm.variance_epsilon)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(VARLEN, _attend)
    AttentionMaskInterface.register(VARLEN, _mask)


def _mask(**given: Any) -> Tensor | None:
    """None for packed rows: their borders say it all. What has a cache or padding gets the mask of sdpa."""
    from transformers.masking_utils import sdpa_mask

    if given.get("attention_mask") is None and given["q_length"] == given["kv_length"]:
        return None
    return sdpa_mask(**given)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    rows: Borders | None = None,
    position_ids: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """An attention function as transformers' interface wants it: (batch, heads, length, width) each."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    causal = more.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is not None or not causal or query.shape[2] != key.shape[2]:
        given = {**more, "scaling": scaling, "dropout": dropout, "position_ids": position_ids}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    if dropout:
        raise ConfigError(
            f"attention varlen has no dropout and the model asks for {dropout}; choose --attention sdpa"
        )
    if rows is None:
        if position_ids is None:
            raise ConfigError("attention varlen needs the positions of its tokens; choose --attention sdpa")
        rows = borders(position_ids.expand(query.shape[0], -1))
    return packed_attention(query, key, value, rows, scale=scaling), None
