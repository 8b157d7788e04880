"""``llavar chat``."""

from __future__ import annotations

import argparse

from llavar.cli.arguments import Commands, count, whole


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "chat",
        help="talk with a model about pictures, in the terminal",
        description=(
            "Talk with a model about pictures. Answers appear as they come; /help lists what can be typed "
            "besides questions. From a pipe each line is a question, and the answers alone go to the "
            "standard output; status 1 if one has no answer."
        ),
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="nano, a model folder, the folder of a demo or tuning, a hub id, or http://host:8000/v1#name",
    )
    parser.add_argument(
        "image", nargs="?", metavar="IMAGE", help="a file or a URL, shown with the first question"
    )
    parser.add_argument("--system", default="", metavar="TEXT", help="instead of the model's own system text")
    parser.add_argument(
        "--conversation", default="", metavar="NAME", help="another conversation than the model's own"
    )
    parser.add_argument(
        "--quantize",
        choices=("int8", "nf4"),
        default="",
        help="keep the decoder's weights in 8 or 4 bits, for less memory (default: as they are stored)",
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0, the default, takes the likeliest"
    )
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="default: %(default)g, no cut")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of drawn answers (default: 0)")
    parser.add_argument(
        "--max-new-tokens", type=count, default=512, metavar="N", help="of an answer (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds without a sign from an endpoint (default: %(default)g)",
    )
    parser.set_defaults(command=_chat)


def _chat(arguments: argparse.Namespace) -> int:
    from llavar.generate.base import Decoding
    from llavar.study import chatting
    from llavar.study.chat_terminal import Terminal, standard_streams

    settings = chatting.Settings(
        model=arguments.model,
        conversation=arguments.conversation,
        quantize=arguments.quantize,
        system=arguments.system,
        max_new_tokens=arguments.max_new_tokens,
        decoding=Decoding(temperature=arguments.temperature, top_p=arguments.top_p, seed=arguments.seed),
        timeout=arguments.timeout,
    )
    shown = None if arguments.image is None else chatting.Shown.open(arguments.image)
    with chatting.opened(settings) as partner:
        talk = chatting.Talk(partner, settings)
        if shown is not None:
            talk.show(shown)
        return Terminal(talk, standard_streams()).run()
