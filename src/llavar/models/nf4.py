"""Frozen linear layers in 4 bits, for training what is put around them (QLoRA, section 3).

:class:`FrozenNF4` keeps weights as :class:`llavar.models.quantize.NF4Linear` does and widens them whenever
they are used, forwards and again backwards; autograd would keep the widened ones in between, and all layers'
together are the model that did not fit. The gradient of its input is exactly that of the widened weights; it
has none of its own. ``bitsandbytes`` can take its place.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from llavar.errors import MissingExtraError
from llavar.models.adapter import Frozen
from llavar.models.quantize import NF4Linear


class FrozenNF4(nn.Linear):
    """A linear layer in NF4 that lets gradients through; computes in the type of autocast, or of its input.

    ``weight`` is what is stored, two weights to a byte, as in bitsandbytes.
    """

    def __init__(self, source: nn.Linear, device: torch.device | None = None) -> None:
        """From ``source``, quantized on ``device`` and kept there (default: where it is)."""
        nn.Module.__init__(self)  # nn.Linear would make weights
        self.in_features, self.out_features = source.in_features, source.out_features
        weight = source.weight.detach()
        bias = None if source.bias is None else source.bias.detach()  # pyright: ignore[reportUnnecessaryComparison]
        self.kept = NF4Linear(
            weight.to(device or weight.device), None if bias is None else bias.to(device or bias.device)
        )

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.kept.values

    @property
    def bias(self) -> nn.Parameter | None:
        return self.kept.bias

    def forward(self, input: Tensor) -> Tensor:
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        apply = cast("Callable[[Tensor, NF4Linear], Tensor]", _Widened.apply)  # pyright: ignore[reportUnknownMemberType]
        made = apply(input.to(dtype), self.kept)
        bias = self.kept.bias
        return made if bias is None else made + bias.to(dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class _Widened(torch.autograd.Function):
    """``input @ W.T``, with W widened for as long as that takes."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, kept: NF4Linear) -> Tensor:
        ctx.kept = kept
        return functional.linear(input, kept.weight(input.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient @ ctx.kept.weight(gradient.dtype), None


def freeze_in(
    kind: Frozen,
    model: nn.Module,
    names: Iterable[str],
    *,
    device: torch.device | None = None,
    compute: torch.dtype = torch.float32,
) -> None:
    """Keep the linear layers ``names`` of ``model`` as ``kind`` says, one after the other.

    They are quantized on ``device`` and stay there. ``compute`` is the type of the arithmetic.

    Raises:
        MissingExtraError: bitsandbytes is to keep them, and is not installed.
    """
    if kind is Frozen.PLAIN:
        return
    library = bitsandbytes() if kind is Frozen.BNB else None
    for name in names:
        parent, _, own = name.rpartition(".")
        source = cast("nn.Linear", model.get_submodule(name))
        made = _by_library(library, source, device, compute) if library else FrozenNF4(source, device)
        setattr(model.get_submodule(parent), own, made.train(source.training))


def bitsandbytes() -> Any:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise MissingExtraError(
            f"--quantize bnb needs bitsandbytes, which {why(error)}; pip install 'llavar[qlora]', or take "
            "--quantize nf4"
        ) from error


def why(error: ImportError) -> str:
    """Why a library is not there: it is not installed, or does not go with the others that are."""
    absent = isinstance(error, ModuleNotFoundError) and error.name in ("peft", "bitsandbytes")
    return "is not installed" if absent else f"cannot be imported ({' '.join(str(error).split())[:160]})"


def _by_library(
    library: Any, source: nn.Linear, device: torch.device | None, compute: torch.dtype
) -> nn.Module:
    """As QLoRA has it: NF4 in blocks of 64, their scales in 8 bits."""
    layer = library.nn.Linear4bit(
        source.in_features,
        source.out_features,
        bias=source.bias is not None,  # pyright: ignore[reportUnnecessaryComparison]
        compute_dtype=compute,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    layer.weight = library.nn.Params4bit(
        source.weight.detach(), requires_grad=False, compress_statistics=True, quant_type="nf4", module=layer
    )
    layer.bias = source.bias
    # On a CPU it would repack for answers and round its scales: to look at a model would change it.
    layer.support_avx512bf16_for_cpu = False
    return layer.to(device or source.weight.device)  # where it is quantized


def uncounted(module: nn.Module) -> int:
    """How many weights of ``module`` are no elements of its parameters, because they are kept in 4 bits."""
    hidden = 0
    for each in module.modules():
        if isinstance(each, NF4Linear):
            hidden += each.numel
    for parameter in module.parameters():
        state: Any = getattr(parameter, "quant_state", None)  # of bitsandbytes
        if state is not None:
            hidden += torch.Size(state.shape).numel() - parameter.numel()
    return hidden
