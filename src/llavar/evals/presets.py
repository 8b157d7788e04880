"""Named ways of asking: ours, and those of the scripts behind the paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llavar.errors import ConfigError
from llavar.generate.base import Decoding
from llavar.images import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A way of asking. ``None`` leaves a setting to the task (tokens) or to the checkpoint (transform)."""

    name: str
    about: str
    decoding: Decoding = field(default_factory=Decoding)
    max_new_tokens: int | None = None
    image_first: bool = True
    transform: Transform | None = None
    transform_of: Mapping[str, Transform] = field(default_factory=dict[str, Transform])
    """Tasks that differ in it."""
    delete_newlines: bool = False

    def transform_for(self, task: str) -> Transform | None:
        return self.transform_of.get(task, self.transform)


def presets() -> tuple[Preset, ...]:
    """All of them, the default first.

    ``mmocr``: ``MultimodalOCR/Eval_LLaVAR.py``; ``mme``: ``MME/mme_eval.py``; ``llava``:
    ``llava/eval/model_vqa.py``. All three draw tokens, so their scores carry noise that depends on the seed.
    """
    return (
        Preset(name="greedy", about="the likeliest token, the task's own length, the checkpoint's transform"),
        Preset(
            name="mmocr",
            about="text-VQA as in the paper: temperature 0.9, 256 tokens, fit",
            decoding=Decoding(temperature=0.9),
            max_new_tokens=256,
            image_first=False,
            transform=Transform.FIT,
        ),
        Preset(
            name="mme",
            about="MME as in the paper: temperature 0.2, 1024 tokens, fit, line breaks deleted",
            decoding=Decoding(temperature=0.2),
            max_new_tokens=1024,
            image_first=False,
            transform=Transform.FIT,
            delete_newlines=True,
        ),
        Preset(
            name="llava",
            about="judged questions as in the paper: temperature 0.7, 1024 tokens, crop (text50: fit)",
            decoding=Decoding(temperature=0.7),
            max_new_tokens=1024,
            image_first=False,
            transform=Transform.CROP,
            transform_of={"text50": Transform.FIT},
        ),
    )


def get(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    known = {preset.name: preset for preset in presets()}
    if name not in known:
        raise ConfigError(f"there is no preset {name!r:.80}; choose one of {', '.join(known)}")
    return known[name]
