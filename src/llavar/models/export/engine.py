"""What the exports to servers share: a stock folder, a script that starts the server, and a card."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from llavar.images import WHOLE, Transform
from llavar.models.export import stock
from llavar.models.export.base import Checked, Order
from llavar.models.export.source import Source
from llavar.models.export.stock import Manner, engine_transform
from llavar.version import __version__

SCRIPT = "serve.sh"

_CARD = """\
# {name}

A LLaVA for {engine}, written by `llavar convert export --to {target}` {version} from `{source}`.

```
sh {script}
```
starts it on 127.0.0.1; what stands behind the name of the script goes to the engine. The script is short:
```
{lines}
```
{media}

## Worth knowing
{notes}

## Check
{checked}
"""


def script(engine: str, lines: str) -> str:
    """A shell script; ``$here`` in ``lines`` is the folder that it lies in."""
    return f"""\
#!/bin/sh
# Serves this folder with {engine}. Further arguments go to the engine.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
{lines}
"""


class Engine:
    """A server that loads a stock folder. A target gives the names, the script and what it refuses."""

    takes = frozenset({"--max-shard-bytes"})
    title: str
    target: str
    media: str
    """Which pictures its server takes, and what the script does about it."""

    act = "linear"
    """How it spells the activation of a projector in the layout ``identity``."""

    def lines(self, name: str) -> str:
        """What the script runs, where the model is to be called ``name``."""
        raise NotImplementedError

    def refuse(self, order: Order) -> None:
        """Nothing is refused unless a target says so."""

    def nbytes(self, order: Order) -> int:
        return stock.nbytes(order.source)

    def notes(self, order: Order) -> tuple[str, ...]:
        return transform_notes(order.source)

    def write(self, order: Order, aside: Path) -> Mapping[str, str | None]:
        manner = Manner(act=self.act, transform=engine_transform(order.source))
        known = stock.write_folder(order, aside, manner)
        path = aside / SCRIPT
        path.write_text(script(self.title, self.lines(order.name)), encoding="utf-8")
        path.chmod(0o755)
        return known

    def check(self, order: Order, aside: Path) -> Checked:
        return stock.check_folder(order.source, aside)

    def card(self, order: Order, checked: Checked) -> str:
        return _CARD.format(
            name=order.name,
            engine=self.title,
            target=self.target,
            version=__version__,
            source=order.source.name,
            script=SCRIPT,
            lines=self.lines(order.name),
            media=self.media,
            notes="".join(f"- {note}.\n" for note in self.notes(order)).rstrip(),
            checked=checked.sentence,
        )

    def command(self, folder: Path) -> str:
        return f"sh {shlex.quote(str(folder / SCRIPT))}"


def transform_notes(source: Source) -> tuple[str, ...]:
    """What an engine does to pictures otherwise than this package."""
    notes = ["llavar drops the transparency of a picture, an engine may blend it on a background of its own"]
    if source.transform is Transform.FIT:
        notes.insert(
            0,
            "the model takes pictures by the transform fit, which engines do not know; here they pad, which "
            "keeps the whole picture as well, so answers can differ from those of llavar",
        )
    return (*tile_notes(source), *notes)


def tile_notes(source: Source) -> tuple[str, ...]:
    """Of a model that sees a picture in parts."""
    if source.tiles == WHOLE:
        return ()
    return (
        f"the model sees a picture in tiles ({source.tiles}), and an engine shows it whole and small, so "
        "that small print is lost; send the views as so many pictures, or use llavar serve --engine native",
    )
