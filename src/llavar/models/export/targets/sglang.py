"""SGLang: a folder for ``sglang.launch_server``.

Its source was read (0.5.10): it takes transformers' projector and obeys ``projector_hidden_act``, and it cuts
pictures into tiles where ``config.json`` has no ``image_aspect_ratio``. It was not run.
"""

from __future__ import annotations

import shlex

from llavar.errors import ModelError
from llavar.models.export.base import Order
from llavar.models.export.engine import Engine

_TEXT = ("llama", "mistral", "qwen2")
"""Decoders that SGLang's Llava is written for."""


class _Sglang(Engine):
    title = "SGLang"
    target = "sglang"
    media = (
        "SGLang fetches the URL that a request names; no list of allowed domains was found in it. Keep it\n"
        "on 127.0.0.1, or put a gateway before it that lets `data:` URLs through alone."
    )

    def lines(self, name: str) -> str:
        return (
            'exec python -m sglang.launch_server --model-path "$here" --host 127.0.0.1 --port 30000 \\\n'
            f"    --served-model-name {shlex.quote(name)} \\\n"
            '    --chat-template "$here/chat_template.jinja" "$@"'
        )

    def refuse(self, order: Order) -> None:
        source = order.source
        kind = str(source.text.get("model_type"))
        if kind not in _TEXT:
            raise ModelError(
                f"{source.folder} has a {kind:.60} decoder, and SGLang's Llava takes {', '.join(_TEXT)}; "
                "export it to vllm, or use llavar serve --engine native"
            )

    def notes(self, order: Order) -> tuple[str, ...]:
        return (
            "this export was not run in SGLang, whose source alone was read; some of its releases load no "
            "LLaVA-1.5 at all (sgl-project/sglang#35471)",
            *super().notes(order),
        )


TARGET = _Sglang()
