"""A run that trains an adapter (LoRA, QLoRA): what it goes around, and what the run leaves.

The folder ``adapter/`` holds what was trained, in peft's format: the factors, and whole the modules that were
trained in full (the projector). ``model/`` is the base with all of that merged into it. Both are written from
the trained tensors and the files of the base, so that the merged weights are those of the base as it is
stored plus the change, whatever the base was kept in while it was trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llavar import files
from llavar.chat import IMAGE_PATCH
from llavar.errors import ConfigError
from llavar.models import _peft as peft
from llavar.models import folder as folders
from llavar.models import lora
from llavar.models import projector as projectors
from llavar.models.adapter import Frozen
from llavar.models.card import pictures_in_tiles
from llavar.models.processor import preprocessor_document, processor_document
from llavar.train import export, home
from llavar.train.config import Precision
from llavar.train.llava import DECODER, PROJECTOR, TOWER
from llavar.train.material import Model
from llavar.train.settings import Job

_DECODER, _PROJECTOR, _TOWER = "model.language_model", "model.multi_modal_projector", "model.vision_tower"


def check(job: Job) -> None:
    """Refuse at once what an adapter cannot do; nothing for a run without one.

    Raises:
        MissingExtraError: peft or bitsandbytes is not installed.
        ConfigError: the whole decoder is to be trained too, or the base would have to be another one than is
            stored.
    """
    if job.stage.lora is None:
        return
    if DECODER in job.stage.parts:
        raise ConfigError(
            "the decoder is frozen beneath its adapter and was given a rate; give --lr adapter=RATE"
        )
    # Where decoder and tower are put together, the layer is written down in what they make.
    layer = job.feature_layer is not None and not job.vision_tower
    changed = {"--tower-size": bool(job.tower_size), "--feature-layer": layer}
    for flag in (flag for flag, given in changed.items() if given):
        raise ConfigError(
            f"{flag} changes the model that the adapter is of, which is then stored nowhere; leave it out, "
            "or train a stage without LoRA with it first and start from its model"
        )
    peft.require(job.stage.lora)


def attach(model: Model, job: Job, device: torch.device) -> None:
    """Put the adapter of ``job`` around the decoder of ``model``.

    Raises:
        ConfigError: no layer is called as a target is, or another kind of projector than the base's was put
            in, which the adapter cannot bring.
    """
    settings = job.stage.lora
    if settings is None:
        return
    projector(model)  # fails now if it would at the end
    compute = torch.bfloat16 if job.stage.precision is Precision.BF16 else torch.float32
    peft.adapt(model.module, settings, within=_DECODER, seed=job.stage.seed, device=device, compute=compute)


def projector(model: Model) -> dict[str, Tensor]:
    """The tensors of the projector by their names in the model, laid out as the base stores its own.

    Raises:
        ConfigError: they cannot be.
    """
    module: Any = model.module.model.multi_modal_projector
    state: dict[str, Tensor] = dict(module.state_dict())
    stored = folders.read_document(model.folder, "config.json").get("projector_hidden_act", "gelu")
    if stored != model.module.config.projector_hidden_act:
        linear = projectors.Linear(weight=state["linear_1.weight"], bias=state["linear_1.bias"])
        text, vision = linear.weight.shape
        if stored != "gelu" or text < 2 * vision:
            raise ConfigError(
                f"the projector of --projector is a single layer {[text, vision]} and that of {model.folder} "
                "another kind, in whose layout it does not fit; train a stage without LoRA with it first"
            )
        two = projectors.fold(linear)
        state = {
            "linear_1.weight": two.weight_1,
            "linear_1.bias": two.bias_1,
            "linear_2.weight": two.weight_2,
            "linear_2.bias": two.bias_2,
        }
    return {f"{_PROJECTOR}.{name}": tensor.detach() for name, tensor in state.items()}


# What is left.


def is_finished(out: Path, *, merged: bool) -> bool:
    """Whether everything that the run is to leave is whole."""
    return (out / home.ADAPTER).is_dir() and (not merged or export.is_finished(out))


def save(model: Model, job: Job, out: Path, card: str) -> None:
    """Write ``out/adapter`` and, unless ``job`` does without, ``out/model``, each whole or not at all.

    ``card`` is the model's. What is merged passes tensor by tensor.
    """
    for left in out.glob(f".{home.MODEL}.*"):  # by a kill while the folder was written
        shutil.rmtree(left)
    base = _base(model, job)
    _write_adapter(model, job, out / home.ADAPTER, card, base)
    if job.merge:
        pictures = pictures_in_tiles(model.tiles, model.image_size, model.transform)

        def finish(folder: Path) -> None:
            files.write_text(folder / export.CARD, card + _about_merging(job, base) + pictures)

        dtype = export.DTYPES.get(job.saved_as)
        lora.merge(model.folder, out / home.ADAPTER, out / home.MODEL, dtype=dtype, finish=finish)


def _base(model: Model, job: Job) -> str:
    """What the adapter says it is of: the hub's name if there is one, else the folder."""
    is_hub = not Path(job.model).exists() and not job.vision_tower
    return job.model if is_hub else str(model.folder.absolute())


def _write_adapter(model: Model, job: Job, folder: Path, card: str, base: str) -> None:
    whole: dict[str, Tensor] = {}
    if PROJECTOR in job.stage.parts or job.projector:
        whole |= projector(model)
    if TOWER in job.stage.parts:
        tower: Any = model.module.model.vision_tower
        whole |= {f"{_TOWER}.{name}": tensor for name, tensor in tower.state_dict().items()}
    modules = [name for name in (_PROJECTOR, _TOWER) if any(key.startswith(f"{name}.") for key in whole)]
    with home.whole(folder) as aside:
        ends = [name.rpartition(".")[2] for name in modules]
        peft.write_adapter(model.module, aside, base=base, whole=whole, modules=ends)
        _write_processor(model, aside)
        files.write_text(aside / export.CARD, _card(card, job, base))


def _write_processor(model: Model, folder: Path) -> None:
    """Tokenizer and pictures as they were trained with, which the base's may not be."""
    config: Any = model.module.config
    vision, strategy = config.vision_config, config.vision_feature_select_strategy
    pictures = preprocessor_document(model.image_size, model.transform, model.norm, model.tiles)
    folders.write_document(folder, "preprocessor_config.json", pictures)
    counted = processor_document(vision.model_type, vision.patch_size, strategy, IMAGE_PATCH)
    folders.write_document(folder, "processor_config.json", counted)
    model.tokenizer.save(folder)


def _card(card: str, job: Job, base: str) -> str:
    """The adapter's card: how it is loaded, and then what the model's ``card`` says of the run."""
    assert job.stage.lora is not None
    said = card.split("---\n", 2)[2].partition("\n\n")[2]  # after the front matter and the title
    return f"""---
base_model: {base}
library_name: peft
pipeline_tag: image-text-to-text
---
# {job.recipe or "A trained adapter"}

A LoRA adapter of `{base}` ({job.stage.lora.describe()}), in peft's format; what was trained in full is in it.

```python
from peft import PeftModel
from transformers import LlavaForConditionalGeneration

base = LlavaForConditionalGeneration.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "the folder of this card")
```

`llavar convert merge-lora {base} ADAPTER --out MODEL` merges it into the base.

## The model that it makes

{said}"""


def _about_merging(job: Job, base: str) -> str:
    assert job.stage.lora is not None
    what = job.stage.lora.describe()
    said = f"The weights are those of `{base}` plus a LoRA adapter ({what}), summed in fp32."
    if job.stage.lora.frozen is not Frozen.PLAIN:
        said += (
            " While it was trained the base was kept in 4 bits; the sum is with its weights as they are"
            " stored, so that answers may differ a little from those in training."
        )
    return f"\n## Adapter\n\n{said}\n"
