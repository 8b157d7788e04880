"""An adapter merged into any image-text-to-text model, in the layout and the names of its own checkpoint.

Which stored tensor an adapted layer is made of is known from when the model was loaded
(:func:`llavar.models._hub.stored_names`); all other tensors and files are taken over as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from llavar.errors import ModelError
from llavar.models import lora, stream
from llavar.models._hub import OWN, PROCESSOR_KEY
from llavar.models.folder import read_document, replacing, write_document
from llavar.models.stored import COMPANIONS, LazyTensor, check_out, copy_companions, open_tensors
from llavar.models.stream import Planned

_MORE = ("video_preprocessor_config.json",)
_TEMPLATES = "chat_templates"


def merge(
    model: Path,
    adapter: Path,
    out: Path,
    names: Mapping[str, LazyTensor],
    *,
    dtype: torch.dtype | None = None,
    finish: Callable[[Path], None],
) -> None:
    """Write ``model`` with ``adapter`` merged into it to ``out``, whole or not at all.

    ``names`` are the tensors of ``model`` by the layers that the adapter goes around. Sums are made in fp32
    and rounded once, to what the tensor has or to ``dtype``. ``finish`` is called with the folder before it
    takes the place of ``out``.

    Raises:
        ModelError: the adapter goes around other layers; damaged files; not enough room on the disk.
    """
    check_out(out, model, adapter)
    settings = lora.read_settings(adapter)
    factors = open_tensors(adapter / lora.WEIGHTS[0])
    changes = {_layer(name) for name in factors}
    if changes != set(names):
        odd = min(changes ^ set(names))
        raise ModelError(f"{adapter} and the run do not name the same layers ({odd!r:.200}); train again")
    layers = {tensor.name: layer for layer, tensor in names.items()}

    def planned(tensor: LazyTensor) -> Planned:
        kept = dtype if dtype is not None and tensor.dtype.is_floating_point else tensor.dtype
        layer = layers.get(tensor.name)
        if layer is None:
            make = lambda: tensor.load().to(kept)  # noqa: E731
        else:
            a, b = (factors[f"base_model.model.{layer}.lora_{half}.weight"] for half in "AB")
            make = lora.summed(tensor, a, b, settings, kept)
        return Planned(name=tensor.name, shape=tensor.shape, dtype=kept, make=make)

    with replacing(out) as aside:
        _copy(model, aside, dtype)
        plans = [planned(tensor) for tensor in open_tensors(model).values()]
        stream.write(aside, plans, checksums=False)
        finish(aside)


def _layer(name: str) -> str:
    return name.removeprefix("base_model.model.").rpartition(".lora_")[0]


def _copy(model: Path, aside: Path, dtype: torch.dtype | None) -> None:
    """Everything beside the weights; a Llava is marked, so that it is asked as it was trained."""
    copy_companions(model, aside, (*COMPANIONS, *_MORE))
    if (model / _TEMPLATES).is_dir():
        shutil.copytree(model / _TEMPLATES, aside / _TEMPLATES)
    document = read_document(model, "config.json")
    if document.get("model_type") == "llava":
        document[PROCESSOR_KEY] = OWN
    if dtype is not None:
        document["dtype"] = str(dtype).removeprefix("torch.")
        document.pop("torch_dtype", None)
    write_document(aside, "config.json", document)
