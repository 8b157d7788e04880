"""``llavar nano``."""

from __future__ import annotations

import argparse
from pathlib import Path

from llavar.cli.arguments import Commands, count


def add(commands: Commands) -> None:
    parser = commands.add_parser("nano", help="make the embedded model anew")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = verbs.add_parser(
        "build",
        help="train nano from nothing (about four hours on two cores)",
        description="Train nano from rendered pictures. Stopped, the same command goes on.",
    )
    build.add_argument("--out", type=Path, required=True, help="folder of the build")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--threads", type=count, default=2, help="fixed, since it changes the order of sums")
    for name in ("tower", "decoder", "join", "stage1", "stage2"):
        build.add_argument(f"--{name}-steps", type=count, metavar="N")
    build.add_argument(
        "--ship", type=Path, metavar="DIR", help="also copy the result to where a package keeps it"
    )
    build.set_defaults(command=_nano_build)


def _nano_build(arguments: argparse.Namespace) -> int:
    from llavar.study.nano import build

    names = ("tower_steps", "decoder_steps", "join_steps", "stage1_steps", "stage2_steps")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    settings = build.BuildSettings(seed=arguments.seed, threads=arguments.threads, **given)
    build.run(arguments.out, settings)
    if arguments.ship:
        build.ship(arguments.out, arguments.ship)
    return 0
