"""``llavar train --plan``: what a recipe takes on given machines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llavar.cli.arguments import count

if TYPE_CHECKING:
    from llavar.images import Tiles
    from llavar.recipes.llavar import Recipe

PLAN = ("gpus", "memory", "mfu", "price", "bandwidth")
"""Options that mean something with ``--plan`` alone."""


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options of a plan."""
    group = parser.add_argument_group("planning")
    group.add_argument("--plan", action="store_true", help="print memory and time, train nothing")
    group.add_argument("--gpus", type=count, nargs="+", metavar="N", help="several: a line for each")
    group.add_argument("--memory", type=size, metavar="80GB", help="of one GPU")
    group.add_argument("--mfu", type=float, metavar="SHARE", help="of the peak that is reached (0.4)")
    group.add_argument("--price", type=float, metavar="N", help="of a GPU's hour")
    group.add_argument(
        "--bandwidth", type=size, metavar="40GB", help="a second, of each GPU between machines (40GB)"
    )


def size(text: str) -> float:
    """Bytes, from ``80GB``, ``80G``, ``512MB`` or a plain number of gigabytes, for argparse."""
    number, scale = text.upper().removesuffix("B"), 1e9
    if number.endswith(("G", "M")):
        scale = {"G": 1e9, "M": 1e6}[number[-1]]
        number = number[:-1]
    try:
        value = float(number) * scale
    except ValueError:
        value = 0.0
    if not 1e6 <= value <= 1e15:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory; write it as 80GB")
    return value


def show_plan(recipe: Recipe, tiles: Tiles, given: Mapping[str, Any], as_json: bool) -> int:
    """Print what ``recipe`` takes; nothing is trained."""
    from llavar.recipes.plan import at_resolution, planned, sheet
    from llavar.train import story
    from llavar.train.estimate import Machine
    from llavar.train.scale import Network

    recipe = at_resolution(recipe, tiles=tiles, tower_size=given.get("tower_size", 0))
    machine = Machine()
    counts: list[int] = given.get("gpus", [1])
    machine = Machine(
        gpus=counts[0],
        memory=given.get("memory", machine.memory),
        peak=given.get("peak_tflops", machine.peak / 1e12) * 1e12,
        mfu=given.get("mfu", machine.mfu),
    )
    found, assumed = planned(recipe, machine)
    network = Network(between=given.get("bandwidth", Network().between))
    rows, besides = sheet(recipe, machine, network, counts, _price(given))
    if as_json:
        document = {"recipe": recipe.name, "machine": asdict(machine), **asdict(found), "assumed": assumed}
        document |= {"sheet": [asdict(row) for row in rows], "network": asdict(network)}
        print(json.dumps(document))
        return 0
    print(story.estimated(recipe.name, found, machine, assumed))
    if len(rows) > 1 or "price" in given:
        print(story.sheet(rows, besides))
    return 0


def _price(given: Mapping[str, Any]) -> float:
    from llavar.errors import ConfigError

    price: float = given.get("price", 0.0)
    if not 0 <= price < 1e6:
        raise ConfigError(f"--price is {price}; give what a GPU's hour costs")
    return price
