"""``llavar legacy``."""

from __future__ import annotations

import argparse

from llavar.cli.arguments import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "legacy",
        help="the original's command lines: train_mem, model_vqa, run_llava, apply_delta, make_delta",
        description=(
            "Run a command of the original LLaVA/LLaVAR with the flags of its README. What each flag became "
            "is printed first. Under torchrun: torchrun ... -m llavar.legacy train_mem ..."
        ),
        # The flags after the name belong to the original's command.
        prefix_chars="\0",
        add_help=False,
    )
    parser.add_argument("words", nargs="*", metavar="COMMAND FLAGS")
    parser.set_defaults(command=_legacy)


def _legacy(arguments: argparse.Namespace) -> int:
    from llavar import legacy

    return legacy.run(arguments.words)
