"""The Hugging Face hub: a stock folder with a card, uploaded only where that was asked for."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from llavar.errors import ConfigError
from llavar.models.export import stock
from llavar.models.export.base import Checked, Order
from llavar.models.export.source import best_layout
from llavar.models.export.stock import Manner
from llavar.models.shape import ProjectorLayout
from llavar.version import __version__

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")
_LARGEST_CARD = 200_000

_CARD = """\
---
{metadata}
---
# {name}

{about}

## Use
transformers (5.17 or later):
```python
from transformers import AutoTokenizer, LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained("{repo}", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
```
llavar: `llavar ask PICTURE "QUESTION" --model {repo}`. vLLM: `vllm serve {repo}{override}`.
{layout}
Pictures are made square by the transform `{transform}`; the conversation is in `chat_template.jinja`.

## Check
{checked} Checksums of all files are in `checksums.sha256`.
{before}"""

_LAYOUTS: Mapping[ProjectorLayout, str] = {
    ProjectorLayout.FOLD: "The projector is one linear layer in the stock two (GELU(x) - GELU(-x) = x). "
    "It cannot be trained in this form; `llavar train` turns it back for that.",
    ProjectorLayout.IDENTITY: "The projector is one linear layer, followed by the identity; "
    "`projector_hidden_act` is `linear`, which an engine must obey.",
    ProjectorLayout.MLP: "The projector has two layers, as in LLaVA-1.5.",
}
_OVERRIDE = """ --hf-overrides '{"projector_hidden_act": "torch.nn.modules.linear.Identity"}'"""


class _Hub:
    takes = frozenset({"--license", "--base-model", "--dataset", "--push", "--private", "--max-shard-bytes"})

    def refuse(self, order: Order) -> None:
        options = order.options
        if options.push:
            _check_repo(options.push)
        for name in options.base_models:
            _check_repo(name)
        if options.license and not _LICENSE.fullmatch(options.license):
            raise ConfigError(
                f"--license {options.license!r:.60} is none of the hub's identifiers; write it as "
                "apache-2.0, cc-by-nc-4.0, llama2 or other"
            )

    def nbytes(self, order: Order) -> int:
        return stock.nbytes(order.source)

    def notes(self, order: Order) -> tuple[str, ...]:
        if _metadata(order)["license"] != "other":
            return ()
        return (
            "no licence is known, so the card says 'other'; say --license if you may, and see what the "
            "decoder, the tower and the data allow",
        )

    def write(self, order: Order, aside: Path) -> Mapping[str, str | None]:
        return stock.write_folder(order, aside, Manner())

    def check(self, order: Order, aside: Path) -> Checked:
        return stock.check_folder(order.source, aside)

    def card(self, order: Order, checked: Checked) -> str:
        source = order.source
        layout = best_layout(source)
        before = _body(source.folder / "README.md")
        return _CARD.format(
            metadata=_yaml(_metadata(order)),
            name=order.name,
            about=f"A LLaVA of {source.parameters:,} parameters in the layout of "
            f"`LlavaForConditionalGeneration`, written by `llavar convert export --to hub` {__version__}.",
            repo=order.options.push or order.name,
            override=_OVERRIDE if layout is ProjectorLayout.IDENTITY else "",
            layout=_LAYOUTS[layout],
            transform=source.transform.value,
            checked=checked.sentence,
            before=f"\n## From the card of what was exported\n\n{before}\n" if before else "",
        )

    def command(self, folder: Path) -> str:
        return f"hf upload OWNER/NAME {shlex.quote(str(folder))}"


def _check_repo(name: str) -> None:
    if not _REPO.fullmatch(name):
        raise ConfigError(f"{name!r:.60} is no name on the hub; write it as OWNER/NAME")


# ---------------------------------------------------------------- the card


def _metadata(order: Order) -> dict[str, str | list[str]]:
    """What was said, else what the source's own card says."""
    options = order.options
    old = _front_matter(order.source.folder / "README.md")

    def listed(said: Sequence[str], key: str) -> list[str]:
        given = old.get(key)
        known = cast("list[object]", given if isinstance(given, list) else [given])
        return list(said) or [item for item in known if isinstance(item, str)]

    license_ = options.license or old.get("license")
    found: dict[str, str | list[str]] = {
        "license": license_ if isinstance(license_, str) and _LICENSE.fullmatch(license_) else "other",
        "base_model": listed(options.base_models, "base_model"),
        "datasets": listed(options.datasets, "datasets"),
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": listed((), "tags") or ["llava", "llavar"],
    }
    return {key: value for key, value in found.items() if value}


def _yaml(metadata: Mapping[str, str | list[str]]) -> str:
    """Values as JSON, which YAML contains."""
    return "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items())


def _front_matter(card: Path) -> Mapping[str, object]:
    """The metadata of a card; nothing where there is none that can be read."""
    import yaml
    from huggingface_hub import metadata_load  # pyright: ignore[reportUnknownVariableType]

    if not card.is_file() or card.stat().st_size > _LARGEST_CARD:
        return {}
    try:
        found = cast("object", metadata_load(card))
    except (ValueError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _body(card: Path) -> str:
    """What a card says below its metadata."""
    if not card.is_file() or card.stat().st_size > _LARGEST_CARD:
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    return re.sub(r"\A---\n.*?\n---\n", "", text, count=1, flags=re.DOTALL).strip()


TARGET = _Hub()
