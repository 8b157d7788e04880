"""Where the files of the embedded models lie.

``nano`` is a whole model folder. ``nano-base``, from which the demo starts, differs from it in the decoder
alone (the tower is frozen in both stages, the projector of the base is untrained), so only that is kept.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from llavar.errors import ModelError
from llavar.models import folder as folders

_FOLDER = Path(__file__).parent.parent / "weights"
_DECODER = "language_model."
LAST_FILE = "special_tokens_map.json"
"""Written last, so a model folder that has it is whole."""

NAMES = ("nano",)
"""Models that go by a name."""


def folder(name: str) -> Path:
    """The folder of ``nano`` or ``nano-base``.

    Raises:
        ModelError: the installation lacks it.
    """
    found = _FOLDER / name
    if not any(found.glob("*.safetensors")):
        raise ModelError(
            f"the model {name!r} is missing from {_FOLDER}; reinstall llavar, or make it: llavar nano build"
        )
    return found


def base_folder(out: Path) -> Path:
    """Put the base together as a whole model folder at ``out``, unless it is there already."""
    if (out / LAST_FILE).exists():
        return out
    from llavar.models import _hf as hf
    from llavar.models.shape import LlavaShape
    from llavar.models.tokenizer import load_tokenizer

    nano, base = folder("nano"), folder("nano-base")
    shape = LlavaShape.from_config(folders.read_document(nano, "config.json"))
    model = hf.build_llava(shape, seed=0)
    state = model.state_dict()
    names = folders.hub_names(state)
    kept = {
        **{
            key: value
            for key, value in folders.read_tensors(folders.open_weights(nano)).items()
            if _is_tower(key)
        },
        **folders.read_tensors(folders.open_weights(base)),
    }
    for key, tensor in kept.items():
        state[names[key]].copy_(tensor)
    hf.save_llava(model, out)
    load_tokenizer(nano).save(out)
    return out


def copy_model(model: Path, out: Path) -> None:
    """The files of a model folder, without anything else that lies in it."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(model.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".jinja", ".md"):
            shutil.copy2(path, out / path.name)


def copy_decoder(model: Path, out: Path) -> None:
    """The decoder's tensors of a model folder."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = folders.read_tensors(folders.open_weights(model))
    folders.write_weights({key: value for key, value in tensors.items() if key.startswith(_DECODER)}, out)


def _is_tower(key: str) -> bool:
    return key.startswith("vision_tower.")
