"""``llavar serve``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands, count, whole
from llavar.errors import ConfigError, LlavarError, MissingExtraError, ModelError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llavar.generate.dialogue import Answering
    from llavar.serve.run import Address
    from llavar.serve.settings import Settings

_KEY = "LLAVAR_API_KEY"
_ENGINES = ("auto", "native", "vllm")
_LONGEST_FILE = 2**16


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="answer over HTTP, in the protocol of OpenAI's chat completions",
        description="Serve models over HTTP, in OpenAI's protocol, and with --page as a web page for people. "
        "With --engine vllm, what follows -- goes to vllm serve as it is.",
        epilog=f"The environment variable {_KEY} holds an API key as well, out of sight of other users.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="nano, a model folder, the folder of a demo or tuning, or a hub id of a Llava; one or several",
    )
    parser.add_argument(
        "--engine",
        choices=_ENGINES,
        default="auto",
        help="our own, vLLM, or vLLM where it is installed, there is a GPU and nothing asks for ours "
        "(default: %(default)s)",
    )
    _add_address(parser)
    _add_access(parser)
    _add_model(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="with --engine vllm: print its command, without the key, and end",
    )
    parser.set_defaults(command=_serve)


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument(
        "--port", type=whole, default=8000, help="0 takes any that is free (default: %(default)s)"
    )
    parser.add_argument("--page", action="store_true", help="a web page for people at /")
    parser.add_argument(
        "--unsafe-public",
        action="store_true",
        help="listen where other machines reach it although there is no API key",
    )
    parser.add_argument(
        "--grace",
        type=whole,
        default=30,
        metavar="SECONDS",
        help="at the end, finish what runs for so long (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=count,
        default=600,
        metavar="SECONDS",
        help="for one request, its wait included (default: %(default)s)",
    )


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="what clients must send; other users of this machine can see it here",
    )
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys, one a line")
    parser.add_argument(
        "--allow-domain",
        action="append",
        default=[],
        metavar="HOST",
        help="fetch pictures from this host (.example.org: all below it); by default from none",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this origin ask from a browser, such as https://chat.example.org",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--served-model-name",
        action="append",
        default=[],
        metavar="NAME",
        help="what clients call the model; once for each, in their order",
    )
    parser.add_argument(
        "--slots", type=count, default=16, metavar="N", help="answers at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--queue", type=count, default=64, metavar="N", help="answers that may wait (default: %(default)s)"
    )
    parser.add_argument("--quantize", choices=("int8", "nf4"), default="", help="as of llavar ask")
    parser.add_argument(
        "--conversation", default="", metavar="NAME", help="another conversation than the model's own"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="default: %(default)s"
    )
    parser.add_argument("--vllm", default="", metavar="PATH", help="vLLM's executable or environment")


def _serve(arguments: argparse.Namespace) -> int:
    _check_installed()
    from llavar.serve import run
    from llavar.serve.settings import Settings

    keys = _keys(arguments)
    address = run.resolve(arguments.host, arguments.port)
    run.check_exposure(address, keys=bool(keys), forced=arguments.unsafe_public)
    settings = Settings(
        names=_names(arguments.models, arguments.served_model_name),
        keys=keys,
        domains=tuple(arguments.allow_domain),
        origins=tuple(arguments.allow_origin),
        local_pages_only=address.loopback and not keys,
        timeout=arguments.timeout,
    )
    if _is_for_vllm(arguments):
        try:
            return _hand_over(arguments, settings)
        except (ConfigError, ModelError) as error:
            if arguments.engine == "vllm":
                raise
            print(f"llavar: not with vLLM, since {error}; serving with our own engine", file=sys.stderr)
    if arguments.passed_on or arguments.dry_run:
        what = "--dry-run" if arguments.dry_run else f"-- {' '.join(arguments.passed_on)}"
        raise ConfigError(f"{what} is for vLLM; add --engine vllm, or leave it out")
    return _native(arguments, settings, address)


def _check_installed() -> None:
    try:
        import fastapi.sse as events  # not in old releases
        import prometheus_client
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(
            f"serving needs what is not installed ({error.name}); pip install 'llavar[serve]'"
        ) from error
    _ = events, prometheus_client, uvicorn


def _keys(arguments: argparse.Namespace) -> tuple[str, ...]:
    keys = [*arguments.api_key]
    if arguments.api_key_file is not None:
        keys += _keys_of(arguments.api_key_file)
    if _KEY in os.environ:
        keys.append(os.environ[_KEY].strip())
    return tuple(dict.fromkeys(keys))


def _keys_of(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.read(_LONGEST_FILE).splitlines()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file of keys at {path}; write one key a line into it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file of keys {path} cannot be read; write one key a line into it") from error
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"the file of keys {path} holds none; write one key a line into it")
    return keys


def _names(models: list[str], given: list[str]) -> tuple[str, ...]:
    """What clients call the models: a folder's own name, not the path to it, or a hub id as it is."""
    if given and len(given) != len(models):
        raise ConfigError(
            f"there are {len(models)} models and {len(given)} names; give --served-model-name once for each"
        )
    folders = [Path(model).resolve().name if Path(model).is_dir() else model for model in models]
    return tuple(given or folders)


# ----------------------------------------------------------------------------------------------- our engine


def _native(arguments: argparse.Namespace, settings: Settings, address: Address) -> int:
    from llavar.serve import memory, run
    from llavar.serve.api import build

    _log()
    memory.return_large()
    models: dict[str, Answering] = {}
    app = build(models, settings, page=arguments.page)
    listener = run.bind(address)
    url = run.url_of(address, listener)
    run.serve(
        app,
        listener,
        models,
        lambda: _load(arguments, settings.names),
        ready=lambda: _greet(_greeting(url, settings, page=arguments.page)),
        grace=arguments.grace,
    )
    return 0


def _log() -> None:
    """One line a request, to stderr. Nothing of what was asked."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("llavar.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = [handler]


def _load(arguments: argparse.Namespace, names: tuple[str, ...]) -> Mapping[str, Answering]:
    import torch

    from llavar.generate.engine import Engine
    from llavar.generate.local import LocalGenerator
    from llavar.models import _hub as hub
    from llavar.models import folder as folders
    from llavar.models.quantize import Quantization
    from llavar.study.reader import find

    engines: dict[str, Answering] = {}
    try:
        for name, model in zip(names, arguments.models, strict=True):
            folder = folders.resolve(find(model))
            if hub.is_for_own_processor(folders.read_document(folder, "config.json")):
                raise ConfigError(
                    f"{model} is asked through its own processor, which the native engine does not do; serve "
                    f"it with vLLM itself: vllm serve {folder}"
                )
            generator = LocalGenerator.load(
                folder,
                name=name,
                dtype=getattr(torch, arguments.dtype),
                template=arguments.conversation,
                quantize=Quantization(arguments.quantize) if arguments.quantize else None,
            )
            engines[name] = Engine(generator, slots=arguments.slots, may_wait=arguments.queue)
    except LlavarError:
        for engine in engines.values():
            engine.close(0)
        raise
    return engines


def _greet(text: str) -> None:
    """To the standard output, if there still is one: a server outlives whoever started it."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - to the end; flushing it must not fail


def _greeting(url: str, settings: Settings, *, page: bool) -> str:
    named = {"model": settings.names[0]} if len(settings.names) > 1 else {}
    asked = json.dumps(named | {"messages": [{"role": "user", "content": "What can you do?"}]})
    key = f' -H "Authorization: Bearer ${_KEY}"' if settings.keys else ""
    people = f", page at {url}/" if page else ""
    return (
        f"llavar: serving {', '.join(settings.names)} at {url}/v1{people}; try\n"
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d {shlex.quote(asked)}"
    )


# -------------------------------------------------------------------------------------------------- vLLM


_OURS = ("page", "quantize", "conversation")
"""What vLLM does not do for us."""


def _is_for_vllm(arguments: argparse.Namespace) -> bool:
    ours = [f"--{name}" for name in _OURS if getattr(arguments, name)]
    if arguments.engine == "vllm":
        if ours or len(arguments.models) > 1:
            what = ", ".join(ours) or f"{len(arguments.models)} models at a time"
            raise ConfigError(f"vLLM does not do {what}; leave it out, or serve with --engine native")
        return True
    if arguments.engine == "native" or ours or len(arguments.models) > 1:
        return False
    import torch

    from llavar.serve import vllm

    try:
        return torch.cuda.is_available() and bool(vllm.find(arguments.vllm))
    except NotFoundError:
        return False


def _hand_over(arguments: argparse.Namespace, settings: Settings) -> int:
    """Become vLLM."""
    from llavar.models import folder as folders
    from llavar.serve import vllm
    from llavar.study.reader import find

    executable = vllm.find(arguments.vllm)
    planned = vllm.plan(
        folders.resolve(find(arguments.models[0])),
        settings,
        host=arguments.host,
        port=arguments.port,
        executable=executable,
        public=arguments.unsafe_public,
        extra=arguments.passed_on,
    )
    for note in planned.notes:
        print(f"llavar: {note}", file=sys.stderr, flush=True)
    if not arguments.dry_run:
        vllm.launch(planned)
    print(planned.shown())
    return 0
