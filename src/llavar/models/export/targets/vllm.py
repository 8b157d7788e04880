"""vLLM: a folder that ``vllm serve`` loads without further flags.

Layout: ``fold``, which needs nothing. A decoder narrower than twice the tower keeps ``identity``, and then
the activation is spelt as vLLM knows it, since ``linear`` is not in its registry; transformers do not know
that spelling. Read in vLLM 0.32 and run with its CPU build.
"""

from __future__ import annotations

import shlex

from llavar.errors import ModelError
from llavar.models.export.base import Order
from llavar.models.export.engine import Engine
from llavar.models.export.source import best_layout, decoder_head_size
from llavar.models.shape import ProjectorLayout

_IDENTITY = "torch.nn.modules.linear.Identity"
_CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on a CPU."""

_LARGEST_GPU_HEAD = 256
_GPU_STEP = 8
_PICTURES = 4


class _Vllm(Engine):
    title = "vLLM"
    target = "vllm"
    media = (
        "Pictures are taken as `data:` URLs only: the allowed domain is a name that never exists. Put\n"
        "domains of yours behind the script's name, `--allowed-media-domains example.org`, to allow those;\n"
        "redirects stay forbidden. With `--api-key` the paths `/health` and `/metrics` stay open."
    )

    act = _IDENTITY

    def lines(self, name: str) -> str:
        return (
            "export VLLM_MEDIA_URL_ALLOW_REDIRECTS=0\n"
            'exec vllm serve "$here" --host 127.0.0.1 --port 8000 \\\n'
            f"    --served-model-name {shlex.quote(name)} \\\n"
            "    --limit-mm-per-prompt '" + f'{{"image": {_PICTURES}}}' + "' \\\n"
            '    --allowed-media-domains none.invalid "$@"'
        )

    def refuse(self, order: Order) -> None:
        source = order.source
        size = decoder_head_size(source)
        if size not in _CPU_HEADS and not _runs_on_gpu(size):
            raise ModelError(
                f"{source.folder} has attention heads of {size}, which vLLM has no kernel for: a GPU takes "
                f"multiples of {_GPU_STEP} up to {_LARGEST_GPU_HEAD}, a CPU {', '.join(map(str, _CPU_HEADS))}"
                "; use llavar serve --engine native"
            )

    def notes(self, order: Order) -> tuple[str, ...]:
        notes = list(super().notes(order))
        size = decoder_head_size(order.source)
        if size not in _CPU_HEADS:
            notes.append(f"vLLM on a CPU has no attention heads of {size}, so this needs a GPU")
        if best_layout(order.source) is ProjectorLayout.IDENTITY:
            notes.append(
                "the decoder is narrower than twice the tower, so the projector keeps the layout identity, "
                "with the activation as vLLM spells it; transformers do not load this folder"
            )
        return tuple(notes)


def _runs_on_gpu(size: int) -> bool:
    return size % _GPU_STEP == 0 and size <= _LARGEST_GPU_HEAD


TARGET = _Vllm()
