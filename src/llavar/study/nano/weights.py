"""Where the files of the embedded model lie, and the base that the demo makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from llavar.errors import ModelError
from llavar.models import folder as folders

_FOLDER = Path(__file__).parent.parent / "weights"
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
    """Nano with its projector reset to the random numbers of ``seed``, at ``out``, made if absent.

    What is left knows letters (the tower) and how to answer questions about what a projector gives it (the
    decoder), but nothing connects the two: it cannot read.
    """
    if (out / LAST_FILE).exists():
        return out
    from llavar.models import _hf as hf
    from llavar.models.shape import LlavaShape
    from llavar.models.tokenizer import load_tokenizer

    nano = folder("nano")
    shape = LlavaShape.from_config(folders.read_document(nano, "config.json"))
    fresh = hf.build_llava(shape, seed=seed)
    state = fresh.state_dict()
    names = folders.hub_names(state)
    for key, tensor in folders.read_tensors(folders.open_weights(nano)).items():
        if not key.startswith("multi_modal_projector."):
            state[names[key]].copy_(tensor)
    hf.save_llava(fresh, out)
    load_tokenizer(nano).save(out)
    return out


def copy_model(model: Path, out: Path) -> None:
    """The files of a model folder, without anything else that lies in it."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(model.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".jinja", ".md"):
            shutil.copy2(path, out / path.name)
