"""What a conversion leaves beside the weights: a model card and checksums, so that it can be traced."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.images import WHOLE, Tiles, Transform
from llavar.models.original import Kind
from llavar.models.selftest import SelfTest
from llavar.models.shape import ProjectorLayout
from llavar.version import __version__

if TYPE_CHECKING:
    import torch

CHECKSUMS = "checksums.sha256"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a conversion did. ``tested`` is None where the self-test was switched off."""

    folder: Path
    kind: Kind
    layout: ProjectorLayout
    conversation: str
    transform: Transform
    tower: str
    dtype: torch.dtype
    parameters: int
    feature_layer: int
    notes: tuple[str, ...] = ()
    tested: SelfTest | None = None

    @property
    def dtype_name(self) -> str:
        """``float16`` and the like."""
        return str(self.dtype).removeprefix("torch.")

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "folder": str(self.folder),
            "from": self.kind.value,
            "layout": self.layout.value,
            "conversation": self.conversation,
            "image_transform": self.transform.value,
            "vision_tower": self.tower,
            "dtype": self.dtype_name,
            "parameters": self.parameters,
            "notes": list(self.notes),
            "self_test": None if self.tested is None else self.tested.document(),
        }


def sha256_of(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: Path, known: Mapping[str, str | None]) -> None:
    """``checksums.sha256`` over every file of ``folder``; ``sha256sum -c`` reads it.

    ``known`` are those that were computed while writing.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{known.get(name) or sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


_IDENTITY_NOTE = """\
This folder has the `identity` layout: `linear_1` is the projector, nothing is between the layers
(`projector_hidden_act` is `linear`), and `linear_2` is the identity. It is exact to the bit in transformers.
Engines that do not obey `projector_hidden_act` (mlx-vlm) answer wrongly without a warning."""

_FOLD_NOTE = """\
This folder has the `fold` layout: GELU(x) - GELU(-x) = x makes one linear layer of the stock two
(`linear_1 = [I; -I; 0]`, `linear_2 = [W, -W, 0]`). Every engine that computes the stock projector computes
the original one. It cannot be trained in this form; `llavar` turns it into `identity` for that."""

_OVERRIDE = """ --hf-overrides '{"projector_hidden_act": "torch.nn.modules.linear.Identity"}'"""

_SEEN: Mapping[Transform, str] = {
    Transform.PAD: "centred on a square of the mean colour, then resized (the original's training). Stock "
    "readers do the same: `preprocessor_config.json` names a class that pads",
    Transform.FIT: "long side to the size, top left on black (the original's text-VQA and MME evaluation). "
    "`llavar` does this; stock readers crop the centre instead",
    Transform.CROP: "short side to the size, then the centre (CLIP's own; the original's default)",
}

_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [llava, llavar]
---
# {name}

A LLaVA of the first generation ({kind}, one linear projector) in the layout of
`LlavaForConditionalGeneration`.
Written by `llavar convert from-llava` {version}.

## Made from
| file | bytes | sha256 |
|---|---|---|
{inputs}

Vision tower: {tower}.

## What changed
Names of tensors, and nothing in their values except as said here. {layout}
`rotary_emb.inv_freq` is dropped; it follows from the configuration. Weights are {dtype}.
`tokenizer.json` gives the ids of the original's slow tokenizer, image tokens included.
{notes}
## Loading
transformers (5.17 or later):
```python
from transformers import AutoTokenizer, LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained("{name}", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("{name}")
```
vLLM: `vllm serve {name}{override}`. SGLang: `python -m sglang.launch_server --model-path {name}`.
llavar: `llavar ask PICTURE "QUESTION" --model {name}`.
{override_note}
## Conversation and pictures
Conversation `{conversation}`, carried as the chat template. The original's evaluation puts a picture after
the question, its training before or after. Only the patches of hidden layer {select} of the tower reach the
projector.

Image transform `{transform}`: {seen}. Transparency is dropped, not blended; vLLM blends on white by itself.

## Self-test
{tested}

## Licence
The weights stay under the licences of what they were made from: for LLaMA and for deltas on it, Meta's
licence of LLaMA (research, not commercial); for the CLIP tower, OpenAI's (MIT). LLaVA's data adds CC BY-NC
4.0 and the terms of the teacher's provider. This conversion adds nothing to them.
"""


def _named(tower: str) -> str:
    """A tower's name as others may see it: a hub id, or the last part of a path on this machine."""
    name = tower.partition(" (")[0]
    return name if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) else Path(name).name


def pictures_in_tiles(tiles: Tiles, size: int, transform: Transform) -> str:
    """What a card says of a model that sees a picture in several views; nothing of one that does not."""
    if tiles == WHOLE:
        return ""
    width, height = tiles.extent(size)
    shared = f", of which neighbours share {size - tiles.step(size)} pixels" if tiles.overlap else ""
    return f"""
## Pictures

This model sees each picture in {tiles.views} views of {size} x {size} pixels: the whole of it, and then
{tiles.rows} rows of {tiles.columns} tiles{shared}, which are cut from the picture at {width} x {height}
pixels (`{transform.value}`). `llavar` does so by itself (`llavar_tiles` in `preprocessor_config.json`).
For stock engines they are {tiles.views} pictures, one after the other, before the question:
```python
from llavar.images import Tiles, views
from transformers import AutoProcessor

processor = AutoProcessor.from_pretrained("FOLDER")
shown = views("picture.png", tiles=Tiles.parse("{tiles}"), transform="{transform.value}", size={size})
content = [{{"type": "image"}}] * {tiles.views} + [{{"type": "text", "text": "What does it say?"}}]
text = processor.apply_chat_template([{{"role": "user", "content": content}}], add_generation_prompt=True)
inputs = processor(images=list(shown), text=text, add_special_tokens=False, return_tensors="pt")
```
"""


def write_card(folder: Path, done: Converted, *, source: str, inputs: Iterable[Path]) -> None:
    """``README.md`` of a converted folder; the inputs are read once more for their checksums."""
    identity = done.layout is ProjectorLayout.IDENTITY
    rows = [
        f"| {path.parent.name}/{path.name} | {path.stat().st_size} | `{sha256_of(path)}` |" for path in inputs
    ]
    text = _CARD.format(
        name=done.folder.absolute().name,
        kind=f"{done.kind}, from `{source}`",
        version=__version__,
        inputs="\n".join(rows),
        tower=_named(done.tower),
        layout=_IDENTITY_NOTE if identity else _FOLD_NOTE,
        dtype=done.dtype_name,
        notes="".join(f"\n- {note}." for note in done.notes) + ("\n" if done.notes else ""),
        override=_OVERRIDE if identity else "",
        override_note="\nvLLM does not know the activation `linear`, hence the override.\n"
        if identity
        else "",
        conversation=done.conversation,
        select=done.feature_layer,
        transform=done.transform.value,
        seen=_SEEN[done.transform],
        tested="Not run." if done.tested is None else done.tested.sentence(),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
