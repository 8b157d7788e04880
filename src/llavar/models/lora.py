"""LoRA adapters merged into the weights they belong to, tensor by tensor.

An adapter as ``peft`` saves it (``adapter_config.json`` and ``adapter_model.safetensors`` or ``.bin``), with
or without LLaVA's ``non_lora_trainables.bin``, and a model in the original or the stock layout: names are
compared after both were brought to those of the hub. A merged weight is ``W + scale * B A``, computed in
float32 and rounded once; ``scale`` is ``alpha / r``, or ``alpha / sqrt(r)`` for rank-stabilized LoRA.

What changes the arithmetic and is not covered (DoRA, trained biases, ranks by pattern ...) is refused by
name: a merge that leaves something out gives a model that answers, but not as the trained one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from llavar.errors import ModelError, NotFoundError
from llavar.models import projector as projectors
from llavar.models import stored, stream
from llavar.models.folder import ADAPTER, hub_key, read_document, replacing, write_document
from llavar.models.shape import ProjectorLayout
from llavar.models.stored import LazyTensor
from llavar.models.stream import MAX_SHARD_BYTES, Planned, Progress, WrittenFile

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
NON_LORA = "non_lora_trainables.bin"

_OWN = tuple(name for name in stored.COMPANIONS if name not in ("config.json", "generation_config.json"))
"""Files about text and pictures: all of them are the model's, or all of them the adapter's."""
_OWN_ALWAYS = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")

_PART = 1 << 22  # values computed at a time
_A, _B = ".lora_A.weight", ".lora_B.weight"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_EMBEDDING = "language_model.model.embed_tokens.weight"
_STOCK_PROJECTOR = "multi_modal_projector."
_LAYERS = {
    "mm_projector.0.": "multi_modal_projector.linear_1.",
    "mm_projector.2.": "multi_modal_projector.linear_2.",
}
_PLAIN = frozenset(
    {  # settings that have no say in the merge, or that are read below
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "ensure_weight_tying",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
_STARTS = (True, False, None, "gaussian", "orthogonal")  # others change the base's weights too


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What was written to ``out``: ``merged`` of ``tensors`` were changed, ``replaced`` were given whole."""

    out: Path
    tensors: int
    merged: int
    replaced: tuple[str, ...]
    files: tuple[WrittenFile, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an adapter's own file says of its arithmetic."""

    rank: int
    scale: float
    transposed: bool
    whole: tuple[str, ...]
    """Modules that the adapter holds whole (peft's ``modules_to_save``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapter:
    """By the hub's name of the weight: the two factors, and the tensors that replace it."""

    settings: Settings
    factors: Mapping[str, tuple[LazyTensor, LazyTensor]]
    whole: Mapping[str, LazyTensor]


def merge(
    model: Path,
    adapter: Path,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    finish: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    checksums: bool = False,
) -> Merged:
    """Merge the adapter into ``model``; write the result, in its layout and dtypes, to ``out``.

    Configuration, tokenizer and processor are the model's. An adapter that brings a tokenizer and a processor
    was trained with those, and they are taken; where the model is a bare LLaMA and the adapter brings LLaVA's
    ``config.json``, that one is. ``dtype`` is that of all weights (None: each keeps its own); ``finish`` is
    called with the folder before it takes the place of ``out``.

    Raises:
        NotFoundError: there is no such folder.
        ModelError: damaged or quantized files; a setting that is not covered; a tensor of the adapter that
            matches no weight, or has another shape; ``out`` is one of the inputs.
    """
    for path in (model, adapter):
        if not path.is_dir():
            raise NotFoundError(f"there is no folder {path}; name one")
    stored.check_out(out, model, adapter)
    found = _read_adapter(adapter)
    weights = _weights(model)
    whole = _replacements(model, adapter, found, weights)
    _check_factors(adapter, found, weights)
    plans = [_plan(key, tensor, found, whole, dtype) for key, tensor in weights.items()]
    kept = dtype or weights[_EMBEDDING].dtype
    plans += [_given(key, tensor, kept) for key, tensor in whole.items() if key not in weights]
    with replacing(out) as aside:
        _copy(model, adapter, aside)
        if dtype:
            _say_dtype(aside, dtype)
        files = stream.write(aside, plans, max_shard_bytes, progress=progress, checksums=checksums)
        if finish is not None:
            finish(aside)
    return Merged(
        out=out,
        tensors=len(plans),
        merged=len(found.factors),
        replaced=tuple(sorted(whole)),
        files=files,
        warnings=_warnings(model, adapter),
    )


def _weights(model: Path) -> dict[str, LazyTensor]:
    """What the model holds, by the hub's names."""
    weights: dict[str, LazyTensor] = {}
    for name, tensor in stored.open_tensors(model).items():
        other = weights.setdefault(_canonical(name), tensor)
        if other is not tensor:
            raise ModelError(
                f"{model} holds {name!r:.200} and {other.name!r:.200}, which are the same weight"
            )
    if _EMBEDDING not in weights:
        raise ModelError(f"{model} has no embedding of a language model; name a whole model folder")
    return weights


# The adapter.


def _read_adapter(adapter: Path) -> _Adapter:
    settings = read_settings(adapter)
    file = next((adapter / name for name in WEIGHTS if (adapter / name).exists()), None)
    if file is None:
        raise ModelError(f"{adapter} has no {WEIGHTS[0]} nor {WEIGHTS[1]}; fetch the adapter again")
    halves: dict[str, dict[str, LazyTensor]] = {}
    whole: dict[str, LazyTensor] = {}
    for name, tensor in stored.open_tensors(file).items():
        key = _unwrapped(name)
        end = next((end for end in (_A, _B) if key.endswith(end)), None)
        if end is not None:
            halves.setdefault(_canonical(key.removesuffix(end) + ".weight"), {})[end] = tensor
        elif any(f".{module}." in f".{key}" for module in settings.whole):
            whole[_canonical(key)] = tensor
        else:
            raise ModelError(f"{file} holds {name!r:.200}, which is no part of plain LoRA; it is not merged")
    if (adapter / NON_LORA).exists():
        for name, tensor in stored.open_tensors(adapter / NON_LORA).items():
            whole[_canonical(_unwrapped(name))] = tensor
    for key, pair in halves.items():
        if len(pair) < 2:
            raise ModelError(f"{file} holds one of the two LoRA factors of {key!r:.200}; fetch it again")
    return _Adapter(
        settings=settings, factors={key: (pair[_A], pair[_B]) for key, pair in halves.items()}, whole=whole
    )


def read_settings(adapter: Path) -> Settings:
    """Raises:
    ModelError: it is another kind of adapter, or has a setting that is not covered.
    """
    document = read_document(adapter, ADAPTER)
    if document.get("peft_type") != "LORA":
        raise ModelError(f"{adapter} is a {document.get('peft_type')!s:.40} adapter; LORA ones are merged")
    refused = [name for name, value in document.items() if value and name not in _PLAIN]
    refused += [name for name in ("rank_pattern", "alpha_pattern") if document.get(name)]
    refused += ["bias"] if document.get("bias", "none") != "none" else []
    start = document.get("init_lora_weights")
    refused += [] if start in _STARTS else ["init_lora_weights"]
    if refused:
        name = refused[0]
        raise ModelError(
            f"{adapter / ADAPTER} has {name} = {document.get(name)!r:.60}, which is not covered; "
            "merge it with peft's merge_and_unload"
        )
    rank, alpha = document.get("r"), document.get("lora_alpha")
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
        raise ModelError(
            f"{adapter / ADAPTER} has r = {rank!r:.40} and lora_alpha = {alpha!r:.40}; numbers needed"
        )
    root = math.sqrt(rank) if document.get("use_rslora") else rank
    modules: object = document.get("modules_to_save")
    listed = cast("list[object]", modules) if isinstance(modules, list) else []
    return Settings(
        rank=rank,
        scale=cast("float", alpha) / root,
        transposed=bool(document.get("fan_in_fan_out")),
        whole=tuple(str(name) for name in listed),
    )


def _unwrapped(name: str) -> str:
    """Without what peft puts around and into names; ``default`` is what it calls the only adapter."""
    if name.startswith("base_model.model."):
        name = name.removeprefix("base_model.model.")
    for end in ("lora_A", "lora_B", "modules_to_save"):
        name = name.replace(f".{end}.default.", f".{end}.")
    return name.replace(".modules_to_save.", ".")


def _canonical(name: str) -> str:
    """The hub's name, also of what is in the original layout; the original's projector without ``model.``."""
    if name.startswith("model.mm_projector."):
        return name.removeprefix("model.")
    if name.startswith(("model.layers.", "model.embed_tokens.", "model.norm.")):
        return f"language_model.{name}"
    return hub_key(name) or name


# What goes where.


def _replacements(
    model: Path, adapter: Path, found: _Adapter, weights: Mapping[str, LazyTensor]
) -> dict[str, Tensor | LazyTensor]:
    """Tensors that the adapter gives whole, by the name that they have in this model."""
    single = {key for key in found.whole if key.startswith("mm_projector.")}
    rest = {key: tensor for key, tensor in found.whole.items() if key not in single}
    stock = any(key.startswith(_STOCK_PROJECTOR) for key in weights)
    given: dict[str, Tensor | LazyTensor] = {}
    for key, tensor in rest.items():
        if key not in weights:
            raise ModelError(f"{tensor.path} holds {tensor.name!r:.200}, which matches no weight of {model}")
        given[key] = tensor
    if stock and single >= {"mm_projector.weight", "mm_projector.bias"}:
        return given | _in_stock(model, adapter, found, weights)
    for key in sorted(single):
        prefix = key[: len("mm_projector.0.")]
        name = _LAYERS[prefix] + key.removeprefix(prefix) if stock and prefix in _LAYERS else key
        if stock and name not in weights:
            raise ModelError(
                f"{found.whole[key].path} holds {key!r:.200}, which matches no weight of {model}"
            )
        given[name] = found.whole[key]
    for key, tensor in given.items():
        if key in weights and tensor.shape != weights[key].shape:
            raise ModelError(
                f"{key} is {list(tensor.shape)} in {adapter} and {list(weights[key].shape)} in {model}; "
                "name the model that the adapter was trained on"
            )
    return given


def _in_stock(
    model: Path, adapter: Path, found: _Adapter, weights: Mapping[str, LazyTensor]
) -> dict[str, Tensor | LazyTensor]:
    """The original's single projector in the two layers of a stock model, in the layout that it has."""
    names = [
        f"{_STOCK_PROJECTOR}{layer}.{end}" for layer in ("linear_1", "linear_2") for end in ("weight", "bias")
    ]
    missing = [name for name in names if name not in weights]
    if missing:
        raise ModelError(f"{model} has no {missing[0]}; fetch or write it again")
    now = projectors.TwoLayer(
        **{
            name: weights[key].load()
            for name, key in zip(("weight_1", "bias_1", "weight_2", "bias_2"), names, strict=True)
        }
    )
    act = str(read_document(model, "config.json").get("projector_hidden_act", "gelu"))
    layout = projectors.layout_of(now, act)
    linear = projectors.Linear(
        weight=found.whole["mm_projector.weight"].load().to(now.weight_1.dtype),
        bias=found.whole["mm_projector.bias"].load().to(now.bias_1.dtype),
    )
    if (
        layout not in (ProjectorLayout.IDENTITY, ProjectorLayout.FOLD)
        or linear.weight.shape != now.weight_1.shape
    ):
        raise ModelError(
            f"{adapter} brings a single linear projector {list(linear.weight.shape)}, and that of {model} is "
            f"another kind or size ({list(now.weight_1.shape)}); name the model that it was trained on"
        )
    two = projectors.identity(linear) if layout is ProjectorLayout.IDENTITY else projectors.fold(linear)
    return dict(zip(names, (two.weight_1, two.bias_1, two.weight_2, two.bias_2), strict=True))


def _check_factors(adapter: Path, found: _Adapter, weights: Mapping[str, LazyTensor]) -> None:
    for key, (a, b) in found.factors.items():
        if key not in weights:
            raise ModelError(f"{a.path} holds {a.name!r:.200}, which matches no weight of the model")
        weight, rank = weights[key], found.settings.rank
        if weight.dtype not in _FLOATS:
            raise ModelError(
                f"{weight.path} holds {weight.name} as {weight.dtype}; name an unquantized model"
            )
        shape = weight.shape[::-1] if found.settings.transposed else weight.shape
        if len(shape) != 2 or a.shape != (rank, shape[1]) or b.shape != (shape[0], rank):
            raise ModelError(
                f"the LoRA factors {list(b.shape)} x {list(a.shape)} of rank {rank} in {adapter} do not fit "
                f"{weight.name} {list(weight.shape)}; name the model that it was trained on"
            )


# Arithmetic.


def _plan(
    key: str,
    weight: LazyTensor,
    found: _Adapter,
    whole: Mapping[str, Tensor | LazyTensor],
    asked: torch.dtype | None,
) -> Planned:
    if key in whole and key in found.factors:
        raise ModelError(f"the adapter holds {key!r:.200} whole and as LoRA factors; it cannot be both")
    dtype = asked if asked and weight.dtype in _FLOATS else weight.dtype
    if key in found.factors:
        make = summed(weight, *found.factors[key], found.settings, dtype)
    else:
        make = _cast(whole.get(key, weight), dtype)
    return Planned(name=weight.name, shape=weight.shape, dtype=dtype, make=make)


def _given(key: str, tensor: Tensor | LazyTensor, dtype: torch.dtype) -> Planned:
    """A projector for a model that had none, under the original's name."""
    return Planned(name=f"model.{key}", shape=tuple(tensor.shape), dtype=dtype, make=_cast(tensor, dtype))


def _cast(tensor: Tensor | LazyTensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    return lambda: (tensor if isinstance(tensor, Tensor) else tensor.load()).to(dtype)


def summed(
    weight: LazyTensor, a: LazyTensor, b: LazyTensor, settings: Settings, dtype: torch.dtype
) -> Callable[[], Iterator[Tensor]]:
    """``weight`` with the change that the factors ``a`` and ``b`` make, as ``dtype``, some rows at a time."""

    def parts() -> Iterator[Tensor]:
        values = weight.load()
        wide = torch.promote_types(weight.dtype, torch.float32)
        left, right = b.load().to(wide), a.load().to(wide)
        if settings.transposed:
            left, right = right.T, left.T
        rows = max(1, _PART // values.shape[1])
        for start in range(0, values.shape[0], rows):
            change = left[start : start + rows] @ right
            part = values[start : start + rows].to(wide, copy=True)
            yield part.add_(change, alpha=settings.scale).to(dtype)

    return parts


# Files beside the weights.


def _copy(model: Path, adapter: Path, aside: Path) -> None:
    own = _OWN if all((adapter / name).is_file() for name in _OWN_ALWAYS) else ()
    copied = stored.copy_companions(model, aside, [name for name in stored.COMPANIONS if name not in own])
    for name in [*copied, *stored.copy_companions(adapter, aside, own)]:
        if name.endswith(".json"):
            read_document(aside, name)
    if _bare(model) and (adapter / "config.json").is_file():
        stored.check_file(adapter / "config.json")
        shutil.copyfile(adapter / "config.json", aside / "config.json")


def _say_dtype(folder: Path, dtype: torch.dtype) -> None:
    document = read_document(folder, "config.json")
    named = {key for key in ("dtype", "torch_dtype") if key in document} or {"dtype"}
    write_document(folder, "config.json", document | dict.fromkeys(named, str(dtype).removeprefix("torch.")))


def _bare(model: Path) -> bool:
    return read_document(model, "config.json").get("model_type") == "llama"


def _warnings(model: Path, adapter: Path) -> tuple[str, ...]:
    if _bare(model) and not (adapter / "config.json").is_file():
        return (f"{model} is a bare LLaMA and {adapter} brings no config.json, so the result is a LLaMA",)
    return ()
