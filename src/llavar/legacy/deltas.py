"""``apply_delta`` and ``make_delta`` of the original (``llava/model/``)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from llavar.legacy.flags import Arguments, Flag, parse, show
from llavar.models import delta

_BASE = Flag(name="base-model-path", today="convert --base: the LLaMA that the difference is to")
_TARGET = Flag(name="target-model-path", today="apply-delta --out, make-delta --target")
_DELTA = Flag(name="delta-path", today="apply-delta --delta, make-delta --out")
_HUB = Flag(
    name="hub-repo-id",
    today="upload the folder yourself: hf upload REPO FOLDER",
    only=(None, ""),
    instead="make the folder, then upload it with: hf upload REPO FOLDER",
)


def apply_delta(argv: Sequence[str]) -> int:
    """The merged checkpoint, in the original's layout as the original left it."""
    given = parse("apply_delta", (_BASE, _TARGET, _DELTA), argv, about="Add a delta to its base.")
    base, difference, out = (Path(given.required(flag.name)) for flag in (_BASE, _DELTA, _TARGET))
    _show(given, f"llavar convert apply-delta --base {base} --delta {difference} --out {out}")
    delta.apply(base, difference, out)
    print(f"wrote {out}; for stock engines: llavar convert from-llava {out} --out DIR", file=sys.stderr)
    return 0


def make_delta(argv: Sequence[str]) -> int:
    """The difference of a checkpoint to its base."""
    given = parse("make_delta", (_BASE, _TARGET, _DELTA, _HUB), argv, about="Take a base from a checkpoint.")
    base, target, out = (Path(given.required(flag.name)) for flag in (_BASE, _TARGET, _DELTA))
    _show(given, f"llavar convert make-delta --base {base} --target {target} --out {out}")
    delta.make(base, target, out)
    print(f"wrote {out}", file=sys.stderr)
    return 0


def _show(given: Arguments, today: str) -> None:
    show(given.command, given.mapping(), today)
