"""A converted folder against the original it came from: loaded again, computed again another way.

What is compared with: the original's tensors as they were read, the projector as ``W x + b``, and, where the
model is small enough, logits of a decoder and a tower put together here from the original's names, so that
nothing of the conversion is in the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from llavar import chat
from llavar.errors import ModelError
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models.original import PROJECTOR_BIAS, PROJECTOR_WEIGHT, Original, parts_of, value_of
from llavar.models.stored import open_tensors
from llavar.models.stream import Planned
from llavar.models.tokenizer import TextTokenizer
from llavar.models.tower import PREFIX, Tower

SMALL = 500_000_000
"""Models of at most this many parameters (2 GB in fp32) are run whole, twice."""

TOLERANCE = 2e-4
"""The most that logits may differ in fp32, in units of the largest of them or of 1."""

_QUESTION = "What does the sign say?"
_FEATURES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What was compared, and the largest differences found, in fp32.

    ``projector`` is relative to the largest output; ``logits`` is absolute, or None where the model was too
    large to be run twice; ``tokens`` is the length of the prompt whose ids and logits were compared.
    """

    tensors: int
    projector: float
    tokens: int
    logits: float | None

    def sentence(self) -> str:
        """For people."""
        forward = (
            f"a forward pass of {self.tokens} tokens with a picture, largest difference of a logit "
            f"{self.logits:.1e} in fp32"
            if self.logits is not None
            else f"no whole forward pass, since the model has more than {SMALL // 10**6} million parameters"
        )
        return (
            f"Loaded again: {self.tensors} tensors equal to the bit; the ids of a prompt equal; projector "
            f"against W x + b, largest relative difference {self.projector:.1e}; {forward}."
        )

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "tensors_equal": self.tensors,
            "projector_relative_difference": self.projector,
            "prompt_tokens": self.tokens,
            "logit_difference": self.logits,
        }


def run(
    folder: Path,
    original: Original,
    tower: Tower,
    plan: Sequence[Planned],
    tokenizer: TextTokenizer,
    template: chat.Template,
    dtype: torch.dtype | None = None,
) -> SelfTest:
    """Compare the converted ``folder`` with what it was made from, rounded to ``dtype`` where one is given.

    Raises:
        ModelError: a difference where there may be none.
    """
    _compare_tensors(folder, plan)
    text = chat.expand_images(
        chat.prompt(chat.with_image(_QUESTION, first=False), template),
        tower.shape.patches,
        original.start_end,
    )
    ids = _stock_ids(folder, text, tokenizer)
    source = _Source(original=original, tower=tower, dtype=dtype)
    difference = _compare_projector(folder, source)
    logits = None
    if sum(torch.Size(planned.shape).numel() for planned in plan) <= SMALL:
        logits = _compare_logits(folder, source, ids)
    return SelfTest(tensors=len(plan), projector=difference, tokens=len(ids), logits=logits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The original in fp32, after the rounding that was asked for."""

    original: Original
    tower: Tower
    dtype: torch.dtype | None

    def value(self, name: str) -> Tensor:
        return self.rounded(value_of(self.original.tensors[name]))

    def rounded(self, tensor: Tensor) -> Tensor:
        return (tensor if self.dtype is None else tensor.to(self.dtype)).float()


def _failed(what: str) -> ModelError:
    return ModelError(f"the self-test failed: {what}; nothing was written, please report this")


def _compare_tensors(folder: Path, plan: Sequence[Planned]) -> None:
    stored = open_tensors(folder)
    if stored.keys() != {planned.name for planned in plan}:
        raise _failed("the names of the tensors are not those planned")
    for planned in plan:
        rest = stored[planned.name].load().flatten()
        for part in parts_of(planned):
            wanted = part.flatten()
            found, rest = rest[: len(wanted)], rest[len(wanted) :]
            if not _same_bits(found, wanted):
                raise _failed(f"{planned.name} is not on disk what was read from the original")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Equality that holds for NaN too."""
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _stock_ids(folder: Path, text: str, tokenizer: TextTokenizer) -> list[int]:
    ids = hf.stock_tokenizer(folder)(text)["input_ids"]
    if ids != tokenizer.encode(text):
        raise _failed("the tokenizer gives other ids when transformers loads it")
    return ids


def _compare_projector(folder: Path, source: _Source) -> float:
    """The largest difference between the layers on disk and ``W x + b``, relative to the largest output."""
    stored = {
        name.removeprefix("multi_modal_projector."): tensor.load().float()
        for name, tensor in open_tensors(folder).items()
        if name.startswith("multi_modal_projector.")
    }
    weight, bias = source.value(PROJECTOR_WEIGHT), source.value(PROJECTOR_BIAS)
    given = torch.randn(_FEATURES, weight.shape[1], generator=torch.Generator().manual_seed(0))
    wanted = linear(given, weight, bias)
    hidden = linear(given, stored["linear_1.weight"], stored["linear_1.bias"])
    if folders.read_document(folder, "config.json")["projector_hidden_act"] == "gelu":
        hidden = torch.nn.functional.gelu(hidden)
    found = linear(hidden, stored["linear_2.weight"], stored["linear_2.bias"])
    difference = _largest(found - wanted) / max(_largest(wanted), 1e-30)
    if not difference <= TOLERANCE:
        raise _failed(f"the projector differs from W x + b by {difference:.1e} of its largest output")
    return difference


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max())


@torch.no_grad()
def _compare_logits(folder: Path, source: _Source, ids: list[int]) -> float:
    """The largest difference between the stock class's logits and those of the parts, put together here."""
    size = source.tower.shape.image_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    wanted = _logits_of_parts(source, torch.tensor([ids]), pixels)
    model = hf.load_stock(folder)
    found: Tensor = model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits
    difference = _largest(found - wanted)
    if not difference <= TOLERANCE * max(1.0, _largest(wanted)):
        raise _failed(f"logits differ by {difference:.1e} from those of the original's tensors")
    return difference


def _logits_of_parts(source: _Source, ids: Tensor, pixels: Tensor) -> Tensor:
    original, tower = source.original, source.tower
    vision: Any = hf.build_tower(tower.shape)
    names = {folders.hub_key(PREFIX + name): name for name in vision.state_dict()}
    vision.load_state_dict({names[key]: source.rounded(t.load()) for key, t in tower.stored.items()})
    decoder: Any = hf.build_decoder(original.text)
    own = decoder.state_dict().keys()
    decoder.load_state_dict({name: source.value(name) for name in original.tensors if name in own})
    layer = int(str(original.config.get("mm_vision_select_layer", -2)))
    features = vision.eval()(pixels, output_hidden_states=True).hidden_states[layer][:, 1:]
    projected = linear(features, source.value(PROJECTOR_WEIGHT), source.value(PROJECTOR_BIAS))
    embeddings = decoder.get_input_embeddings()(ids)
    places = (ids == original.tokenizer.image_patch_id)[..., None]
    filled = embeddings.masked_scatter(places, projected)
    return decoder.eval()(inputs_embeds=filled, use_cache=False).logits
