"""The original's command lines, with the flags of its README, mapped onto today's functions.

``llavar legacy train_mem|model_vqa|run_llava|apply_delta|make_delta ...``, or ``python -m llavar.legacy
train_mem ...``, so that the first goes under torchrun. Every command prints what each flag became, and runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from llavar.errors import ConfigError

_MODULES = {
    "train_mem": "training",
    "model_vqa": "answers",
    "run_llava": "answers",
    "apply_delta": "deltas",
    "make_delta": "deltas",
}
"""The original's scripts, and the module here that has a function of the same name."""

ELSEWHERE = {
    "mme_eval": "llavar eval MODEL --tasks mme --preset mme --data DIR --out RUN",
    "Eval_LLaVAR": "llavar eval MODEL --tasks mmocr-textvqa ... --preset mmocr --data DIR --out RUN",
    "eval_gpt_review_visual": "llavar judge run",
    "summarize_gpt_review": "llavar judge summary",
    "consolidate": "llavar convert from-llava",
    "extract_mm_projector": "llavar convert to-llava HF_DIR --projector-only --out FILE",
}
"""Scripts of the original that took paths in their source, or whose work is one of today's commands."""


def run(argv: Sequence[str]) -> int:
    """Run one of the original's commands.

    Raises:
        ConfigError: no such command, or one whose work is another command today.
    """
    name = argv[0].removesuffix(".py").rpartition("/")[2].rpartition(".")[2] if argv else ""
    if name in _MODULES:
        module = importlib.import_module(f"llavar.legacy.{_MODULES[name]}")
        command: Callable[[Sequence[str]], int] = getattr(module, name)
        return command(argv[1:])
    if name in ELSEWHERE:
        raise ConfigError(
            f"{name} is {ELSEWHERE[name]} today; see llavar {ELSEWHERE[name].split()[1]} --help"
        )
    asked = f"{name!r} is no command of the original" if name else "name a command of the original"
    raise ConfigError(f"{asked}; those kept are {', '.join(_MODULES)}")
