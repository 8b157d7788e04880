"""What an adapter adds to the memory of a run and what four bits take away, by counting."""

from __future__ import annotations

from llavar.models.adapter import ALL_LINEAR, Frozen, Lora
from llavar.models.shape import TextShape
from llavar.train.config import Precision, StageConfig

_BITS = {Frozen.NF4: 4 + 32 / 64, Frozen.BNB: 4 + 8 / 64 + 32 / (64 * 256)}
"""Of a weight with its scales: one of 32 bits for 64 weights, or one of 8 and for 256 of these one of 32."""


def layers_of(text: TextShape) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the linear layers of one layer of a decoder."""
    kv = text.kv_heads * text.head_dim
    return {
        "q_proj": (text.hidden, text.hidden),
        "k_proj": (text.hidden, kv),
        "v_proj": (text.hidden, kv),
        "o_proj": (text.hidden, text.hidden),
        "gate_proj": (text.hidden, text.mlp),
        "up_proj": (text.hidden, text.mlp),
        "down_proj": (text.mlp, text.hidden),
    }


def adapted(text: TextShape, lora: Lora) -> dict[str, tuple[int, int]]:
    """Those of :func:`layers_of` that an adapter goes around."""
    ends = {target.rpartition(".")[2] for target in lora.targets}
    return {name: size for name, size in layers_of(text).items() if ALL_LINEAR in ends or name in ends}


def adapter_count(text: TextShape, lora: Lora) -> int:
    """Parameters of an adapter."""
    return text.layers * lora.rank * sum(map(sum, adapted(text, lora).values()))


def saved_bytes(text: TextShape, lora: Lora, width: int) -> float:
    """What the weights beneath an adapter take less than at ``width`` bytes each."""
    if lora.frozen is Frozen.PLAIN:
        return 0.0
    weights = text.layers * sum(inputs * outputs for inputs, outputs in adapted(text, lora).values())
    return weights * (width - _BITS[lora.frozen] / 8)


def kept_bytes(text: TextShape, stage: StageConfig, *, fused: bool) -> float:
    """Bytes that the adapter of one decoder layer keeps of one token for the backward pass.

    Of each layer that it goes around: the input, as it is computed in, which autocast and dropout copy for
    every layer; the mask of dropout, a byte each (a CPU has four); and what A makes of it. Without either,
    layers that share their input share it here too, and ``fused`` attention keeps its result anyway.
    """
    if stage.lora is None:
        return 0.0
    lora, width = stage.lora, 2 if stage.precision is Precision.BF16 else 4
    copied = lora.dropout > 0 or stage.precision is Precision.BF16
    around = adapted(text, lora)
    inner = len(around) * width * lora.rank
    if copied:
        each = width + (1 if lora.dropout else 0)
        return inner + each * sum(inputs for inputs, _ in around.values())
    shared = [{"q_proj", "k_proj", "v_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}]
    if fused:
        shared.remove({"o_proj"})
    inputs = (around[min(found)][0] for group in shared if (found := group & around.keys()))
    return inner + width * sum(inputs)
