"""Where the files of the embedded model lie, and the base that the demo makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from llavar.errors import ModelError
from llavar.models import folder as folders

_FOLDER = Path(__file__).parent.parent / "weights"
_MEAN_OF = 64
"""Pictures that the mean patch is taken from."""
_APART = 1_000
"""Keeps a base from the numbers that nano's own projector began with, to which its tower has grown."""
LAST_FILE = "special_tokens_map.json"
"""Written last, so a model folder that has it is whole."""

NAMES = ("nano",)
"""Models that go by a name."""


def folder(name: str) -> Path:
    """The folder of a model that goes by a name.

    Raises:
        ModelError: the installation lacks it.
    """
    found = _FOLDER / name
    if not any(found.glob("*.safetensors")):
        raise ModelError(
            f"the model {name!r} is missing from {_FOLDER}; reinstall llavar, or make it: llavar nano build"
        )
    return found


def base_folder(out: Path, *, seed: int = 0) -> Path:
    """Nano with the matrix of its projector reset to random numbers of ``seed``, at ``out``, made if absent.

    What is left knows letters (the tower) and how to answer questions about what a projector gives it (the
    decoder), but nothing connects the two: it cannot read. The bias is such that the mean patch is projected
    where nano has it. The decoder takes for a part of a picture only what lies about there; with any other
    bias, most of stage 1 goes by before a patch is that, and the first letter can be learned.
    """
    if (out / LAST_FILE).exists():
        return out
    import torch

    from llavar.models import _hf as hf
    from llavar.models.loss import features
    from llavar.models.shape import LlavaShape
    from llavar.models.tokenizer import load_tokenizer
    from llavar.study.nano.tower import TowerData, show

    nano = folder("nano")
    model = hf.load_llava(nano)
    shape = LlavaShape.from_config(folders.read_document(nano, "config.json"))
    linear = hf.linear_projector(model)
    fresh = hf.linear_projector(hf.build_llava(shape, seed=_APART + seed))
    seen = show(TowerData(pages=0.5, varied=False, seed="base"), range(_MEAN_OF))
    with torch.no_grad():
        mean = features(model, seen.pixels).mean((0, 1))
        wanted = linear(mean)
        linear.weight.copy_(fresh.weight)
        linear.bias.copy_(wanted - linear.weight @ mean)
    hf.save_llava(model, out)
    load_tokenizer(nano).save(out)
    return out


def copy_model(model: Path, out: Path) -> None:
    """The files of a model folder, without anything else that lies in it."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(model.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".jinja", ".md"):
            shutil.copy2(path, out / path.name)
