# pyright: basic
"""LoRA by peft: put around the linear layers of any model, and written as peft reads it.

The model stays what it was, with peft's layers in the place of some of its own (peft's "injection"), so that
whatever knows its parts finds them where they were. Nothing here knows what kind of model it is.
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llavar.errors import ConfigError, MissingExtraError
from llavar.models import lora, stream
from llavar.models.adapter import ALL_LINEAR, NAME, Frozen, Lora, is_adapter
from llavar.models.nf4 import bitsandbytes, freeze_in, why

_ROOT = "base_model.model."


def require(settings: Lora) -> None:
    """Refuse to begin what cannot be done here.

    Raises:
        MissingExtraError: peft, or bitsandbytes where it is asked for, is not installed.
    """
    _peft()
    if settings.frozen is Frozen.BNB:
        bitsandbytes()


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise MissingExtraError(f"LoRA needs peft, which {why(error)}; pip install 'llavar[lora]'") from error


# Around a model.


def adapt(
    model: nn.Module,
    settings: Lora,
    *,
    within: str = "",
    seed: int = 0,
    device: torch.device | None = None,
    compute: torch.dtype = torch.float32,
) -> dict[str, nn.Parameter]:
    """Freeze ``model`` and put adapters around its linear layers below the module ``within``.

    Gives their parameters by name, fp32, A drawn from ``seed`` alone and B zero, so that the model computes
    what it did. Where the settings say so, the layers beneath are kept in 4 bits on ``device`` and multiplied
    as ``compute``.

    Raises:
        MissingExtraError: peft or bitsandbytes is not installed.
        ConfigError: no layer has one of the names that are asked for; the message lists those that are there.
    """
    peft = _peft()
    names = chosen_layers(model, settings.targets, within)
    freeze_in(settings.frozen, model, names, device=device, compute=compute)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=int(settings.alpha) if settings.alpha == int(settings.alpha) else settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_pattern(model, names, settings.targets, within),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(model, config, settings.frozen)
    found = adapter_parameters(model)
    assert len(found) == 2 * len(names), "peft adapts other layers than were chosen"
    for parameter in found.values():
        parameter.data = parameter.data.float()
    return found


def chosen_layers(model: nn.Module, targets: Iterable[str], within: str = "") -> list[str]:
    """Names of the linear layers below ``within`` that ``targets`` mean, as in :class:`Lora`.

    Raises:
        ConfigError: there is no such layer.
    """
    known = _linear_layers(model, within)
    chosen: set[str] = set()
    for target in targets:
        found = [name for name in known if target == ALL_LINEAR or f".{name}".endswith(f".{target}")]
        if not found:
            kinds = ", ".join(sorted({name.rpartition(".")[2] for name in known})) or "none at all"
            where = f" below {within}" if within else ""
            raise ConfigError(
                f"lora target {target!r:.100} is no linear layer of the model{where}; it has {kinds}; "
                f"{ALL_LINEAR} means all of them"
            )
        chosen.update(found)
    return [name for name in known if name in chosen]


def _linear_layers(model: nn.Module, within: str) -> list[str]:
    """All linear layers but the head, in the model's order."""
    head_of: Any = getattr(model, "get_output_embeddings", lambda: None)
    head = head_of()
    start = f"{within}." if within else ""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and name.startswith(start)
    ]


def _pattern(model: nn.Module, names: Sequence[str], targets: Sequence[str], within: str) -> str | list[str]:
    """What ``adapter_config.json`` calls the layers ``names``: a regular expression if one says it exactly.

    peft compares that with the whole name of every module. A tower has layers of the same names as a decoder,
    so their ends alone would not do; and a list of all names is as right, and long.
    """
    ends = {name.rpartition(".")[2] for name in names} if ALL_LINEAR in targets else set(targets)
    start = re.escape(f"{within}.") if within else ""
    pattern = rf"{start}(?:.*\.)?(?:{'|'.join(re.escape(end) for end in sorted(ends))})"
    matched = {name for name, _ in model.named_modules() if re.fullmatch(pattern, name)}
    return pattern if matched == set(names) else list(names)


def _inject(model: nn.Module, config: Any, kind: Frozen) -> None:
    """peft asks the model how its layers are kept; transformers did not do it, so the model does not know."""
    held: Any = model
    held.is_loaded_in_4bit = kind is Frozen.BNB
    try:
        _peft().inject_adapter_in_model(config, model, adapter_name=NAME)
    finally:
        del held.is_loaded_in_4bit


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the adapter of ``model``, by name; none if it has no adapter."""
    return {name: value for name, value in model.named_parameters() if is_adapter(name)}


# On disk.


def write_adapter(
    model: nn.Module,
    folder: Path,
    *,
    base: str,
    whole: Mapping[str, Tensor] | None = None,
    modules: Sequence[str] = (),
) -> None:
    """Write the adapter of ``model`` into ``folder``, in peft's own format and in fp32.

    ``base`` is the folder or hub id of what it was trained on. ``whole`` are tensors of modules that were
    trained in full, by their names in the model, and ``modules`` the names of these modules: peft puts them
    in place of the base's (``modules_to_save``).
    """
    held_by: Any = model
    config = copy.copy(held_by.peft_config[NAME])
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.modules_to_save = list(modules) or None
    cls = type(model)
    config.auto_mapping = {"base_model_class": cls.__name__, "parent_library": cls.__module__}
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    factors = adapter_parameters(model)
    held = {name.replace(f".{NAME}.", "."): value for name, value in factors.items()} | dict(whole or {})
    plans = [_plan(_ROOT + name, tensor) for name, tensor in sorted(held.items())]
    stream.write_file(folder / lora.WEIGHTS[0], plans, checksums=False)


def _plan(name: str, tensor: Tensor) -> stream.Planned:
    return stream.Planned(
        name=name,
        shape=tuple(tensor.shape),
        dtype=torch.float32,
        make=lambda: tensor.detach().to("cpu", torch.float32),
    )
