"""A folder in the stock layout, as the targets vllm, sglang and hub write and check it.

Weights pass one at a time under the hub's names. The check loads the folder by transformers' own loader and
compares it with the source: tensors to the bit, the projector and the logits within rounding, prompt ids.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from llavar.errors import ModelError
from llavar.images import Transform
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models.export.base import Checked, Order
from llavar.models.export.source import PROJECTOR, Source, best_layout, image_token, planned, section
from llavar.models.processor import norm_of, preprocessor_document, processor_document
from llavar.models.projector import TwoLayer
from llavar.models.selftest import SMALL, TOLERANCE
from llavar.models.shape import ProjectorLayout
from llavar.models.stored import copy_companions, open_tensors
from llavar.models.stream import write

QUESTION = "What does the sign say?"
_FEATURES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """What a target wants otherwise.

    ``act`` is how it spells the projector's activation where transformers says ``linear``; ``transform``
    replaces one that stock readers do not know.
    """

    act: str = "linear"
    transform: Transform | None = None


def engine_transform(source: Source) -> Transform:
    """How an engine that reads the stock files is to take pictures: it knows ``pad`` and ``crop``.

    ``fit`` becomes ``pad``, which keeps the whole picture as well and is what the original trained with.
    """
    return Transform.PAD if source.transform is Transform.FIT else source.transform


def write_folder(order: Order, aside: Path, manner: Manner) -> Mapping[str, str | None]:
    """Everything but the card; returns the checksums of the weights."""
    source = order.source
    layout = best_layout(source)
    written = write(aside, planned(source, layout), order.options.max_shard_bytes, progress=order.progress)
    folders.write_document(aside, "config.json", _config(source, layout, manner))
    folders.write_document(aside, "generation_config.json", _generation(source))
    _write_processor(source, aside, manner.transform or source.transform)
    source.tokenizer.save(aside)
    copy_companions(source.folder, aside, ("tokenizer.model",))
    return {file.name: file.sha256 for file in written}


def _config(source: Source, layout: ProjectorLayout, manner: Manner) -> dict[str, object]:
    act = {ProjectorLayout.FOLD: "gelu", ProjectorLayout.IDENTITY: manner.act}.get(layout, source.act)
    document = {key: value for key, value in source.document.items() if key != "quantization_config"}
    document |= {"architectures": [hf.ARCHITECTURE], "projector_hidden_act": act}
    document["multimodal_projector_bias"] = layout is not ProjectorLayout.MLP or source.bias
    document["dtype"] = str(source.dtype).removeprefix("torch.")
    aspect = {Transform.PAD: "pad", Transform.CROP: "square"}.get(manner.transform or source.transform)
    if aspect is not None:  # SGLang cuts pictures into tiles where nothing is said here
        document["image_aspect_ratio"] = aspect
    return document


def _generation(source: Source) -> dict[str, object]:
    """What the source says, its sampling included; else the ids of its tokenizer."""
    if (source.folder / "generation_config.json").is_file():
        return folders.read_document(source.folder, "generation_config.json")
    tokenizer = source.tokenizer
    ids = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    return {name: index for name, index in ids.items() if index is not None}


def _write_processor(source: Source, aside: Path, transform: Transform) -> None:
    """Both files, made anew: those of other tools leave out what engines count a picture's tokens by."""
    kind = str(source.vision.get("model_type"))
    size, patch = source.vision.get("image_size"), source.vision.get("patch_size")
    if not isinstance(size, int) or not isinstance(patch, int):
        raise ModelError(
            f"{source.folder} has image_size {size!r:.20} and patch_size {patch!r:.20}; whole numbers were "
            "expected in its vision_config"
        )
    strategy = str(source.document.get("vision_feature_select_strategy", "default"))
    token = image_token(source)
    pictures = preprocessor_document(size, transform, norm_of(kind), source.tiles)
    folders.write_document(aside, "preprocessor_config.json", pictures)
    folders.write_document(aside, "processor_config.json", processor_document(kind, patch, strategy, token))


def nbytes(source: Source) -> int:
    """Bytes of the weights; another layout of the projector adds little."""
    text = source.tensors[f"{PROJECTOR}linear_1.weight"].shape[0]
    return sum(tensor.nbytes for tensor in source.tensors.values()) + text * text * 4


# ---------------------------------------------------------------- the check


def check_folder(source: Source, aside: Path) -> Checked:
    """Load the folder again and compare it with the source.

    Raises:
        ModelError: a difference where there may be none.
    """
    same = _compare_tensors(source, aside)
    difference = _compare_projector(source, aside)
    ids = _compare_ids(source, aside)
    logits = _compare_logits(source, aside, ids) if source.parameters <= SMALL else None
    forward = (
        f"a forward pass of {len(ids)} tokens with a picture, largest difference of a logit {logits:.1e} in "
        "fp32"
        if logits is not None
        else f"no forward pass, since the model has more than {SMALL // 10**6} million parameters"
    )
    return Checked(
        sentence=f"Loaded again by transformers: {same} tensors equal to the bit; the projector against the "
        f"source's, largest relative difference {difference:.1e}; the ids of a prompt equal; {forward}.",
        figures={
            "tensors_equal": same,
            "projector_relative_difference": difference,
            "prompt_tokens": len(ids),
            "logit_difference": logits,
        },
    )


def failed(what: str) -> ModelError:
    """The error of a check that found a difference."""
    return ModelError(f"the export was written and does not pass its check: {what}; nothing is left of it")


def _compare_tensors(source: Source, aside: Path) -> int:
    stored = open_tensors(aside)
    same = 0
    for name, tensor in source.tensors.items():
        found = stored.get(name)
        if name.startswith(PROJECTOR):
            continue
        if found is None or not _same_bits(found.load(), tensor.load()):
            raise failed(f"{name} is not on disk what the source holds")
        same += 1
    return same


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Equality that holds for NaN too."""
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _compare_projector(source: Source, aside: Path) -> float:
    stored = open_tensors(aside)
    none = torch.zeros(stored[f"{PROJECTOR}linear_1.weight"].shape[0])

    def load(name: str) -> Tensor:
        tensor = stored.get(PROJECTOR + name)
        return none if tensor is None else tensor.load()

    two = TwoLayer(
        weight_1=load("linear_1.weight"),
        bias_1=load("linear_1.bias"),
        weight_2=load("linear_2.weight"),
        bias_2=load("linear_2.bias"),
    )
    act = folders.read_document(aside, "config.json")["projector_hidden_act"]
    width = two.weight_1.shape[1]
    given = torch.randn(_FEATURES, width, generator=torch.Generator().manual_seed(0))
    wanted = _projected(source.two_layers(), source.act, given)
    found = _projected(two, str(act), given)
    difference = float((found - wanted).abs().max()) / max(float(wanted.abs().max()), 1e-30)
    if not difference <= TOLERANCE:
        raise failed(f"the projector differs by {difference:.1e} of its largest output")
    return difference


def _projected(two: TwoLayer, act: str, given: Tensor) -> Tensor:
    hidden = linear(given, two.weight_1.float(), two.bias_1.float())
    hidden = gelu(hidden) if act == "gelu" else hidden
    return linear(hidden, two.weight_2.float(), two.bias_2.float())


def _compare_ids(source: Source, aside: Path) -> list[int]:
    """The prompt that an engine would make of a question with a picture, the picture's tokens spread out."""
    asked = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "image"}]}]
    found: Any = hf.stock_tokenizer(aside)
    text: str = found.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    token = str(folders.read_document(aside, "processor_config.json")["image_token"])
    if text.count(token) != 1:
        raise failed(f"the chat template writes {text.count(token)} placeholders {token} for one picture")
    count = source.document.get("image_seq_length")
    wide = text.replace(token, token * (count if isinstance(count, int) and count > 0 else 576))
    ids: list[int] = found(wide, add_special_tokens=not wide.startswith(source.tokenizer.bos or "\0"))[
        "input_ids"
    ]
    if ids != source.tokenizer.encode(wide):
        raise failed("the tokenizer gives other ids when transformers loads it")
    return ids


@torch.no_grad()
def _compare_logits(source: Source, aside: Path, ids: list[int]) -> float:
    size = int(str(source.vision["image_size"]))
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    given = torch.tensor([ids])
    wanted: Tensor = hf.load_llava(source.folder)(input_ids=given, pixel_values=pixels).logits
    model = _load(aside)
    found: Tensor = model(input_ids=given, pixel_values=pixels).logits
    difference = float((found - wanted).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise failed(f"logits differ by {difference:.1e} from the source's")
    return difference


def _load(aside: Path) -> Any:
    """By transformers; an activation that only another engine knows is spelt its way for that."""
    document = folders.read_document(aside, "config.json")
    section(document, "text_config")
    if "." not in str(document["projector_hidden_act"]):
        return hf.load_stock(aside)
    with tempfile.TemporaryDirectory() as made:
        twin = Path(made)
        for path in aside.glob("*.safetensors*"):
            (twin / path.name).symlink_to(path.absolute())
        folders.write_document(twin, "config.json", {**document, "projector_hidden_act": "linear"})
        shutil.copyfile(aside / "generation_config.json", twin / "generation_config.json")
        return hf.load_stock(twin)
