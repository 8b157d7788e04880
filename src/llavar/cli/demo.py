"""``llavar demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from llavar.cli.arguments import Commands, count


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="the whole system in minutes: pictures, OCR, training without and with text-rich rows, a report",
        description=(
            "Render a small corpus, read it with an OCR engine, train the nano base through both stages "
            "without and with the rows made from it, examine the models on held-out words, fonts and "
            "layouts, and write result.json and report.html. Stopped at any time, the same command goes on."
        ),
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="a folder of your own pictures, read as well"
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="six arms instead: text-rich rows of several kinds at either stage, beside the paper's figures",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the run (default: runs/demo, or runs/ablation with --ablation)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of pictures, rows and training (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=count, metavar="N", help="train every arm so many times, from --seed on (default: 3)"
    )
    sizes = parser.add_argument_group("sizes (the defaults are for ten minutes on two cores)")
    for name, text in (
        ("text-pictures", "pictures that go through OCR"),
        ("control-pictures", "pictures of the control rows"),
        ("exam-pictures", "held-out pictures that both models are asked about"),
        ("stage1-steps", "training steps of stage 1"),
        ("stage2-steps", "training steps of stage 2"),
    ):
        sizes.add_argument(f"--{name}", type=count, metavar="N", help=text)
    parser.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from llavar.errors import ConfigError
    from llavar.study import ablation, demo

    if arguments.ablation and arguments.images:
        raise ConfigError("--ablation is about its own pictures; leave out --images, or --ablation")
    names = ("seeds", "text_pictures", "control_pictures", "exam_pictures", "stage1_steps", "stage2_steps")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    settings = demo.DemoSettings(seed=arguments.seed, **given)
    if arguments.ablation:
        ablation.run(arguments.out or Path("runs/ablation"), settings)
    else:
        demo.run(arguments.out or Path("runs/demo"), settings, own=arguments.images)
    return 0
