"""Start vLLM on a folder of ours: check the folder first, then say all that a user may not know to say.

vLLM's own defaults fetch any URL from wherever the server can reach, follow redirects, and report usage to
its makers. Here they are set otherwise. What was found out about them: vLLM 0.32, source and runs; the
projector's override and the names of the tower's tensors are in docs/conversion.md.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, cast

from llavar.errors import ConfigError, ModelError, NotFoundError
from llavar.images import WHOLE, Transform
from llavar.models import folder as folders
from llavar.models.processor import has_class_token
from llavar.models.projector import VLLM_OVERRIDES
from llavar.models.shape import ORIGINAL_CLASSES
from llavar.serve.settings import Settings

VARIABLE = "LLAVAR_VLLM"
"""The environment variable that names vLLM's executable."""

NOWHERE = "pictures.invalid"
"""No host has this name (RFC 2606). vLLM takes an empty list of domains for leave to fetch from all."""

_ARCHITECTURE = "LlavaForConditionalGeneration"
_KEY = "VLLM_API_KEY"
_FETCH_SECONDS = 5
_TEMPLATE = "chat_template.jinja"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A folder that vLLM can run. ``pictures``: how many fit into a prompt; ``notes``: what differs there."""

    folder: Path
    overrides: Mapping[str, str]
    template: Path | None
    pictures: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A process to become: its command, what it gets added to the environment, and what it must not inherit.

    The key is in the environment, since every user of a machine can read the commands that run on it.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    removed: tuple[str, ...] = ("PYTHONPATH", "PYTHONHOME")
    notes: tuple[str, ...] = ()

    def shown(self) -> str:
        """As one would type it, the key left out."""
        told = {name: "..." if name == _KEY else value for name, value in self.environment.items()}
        return " ".join(
            [*(f"{name}={shlex.quote(value)}" for name, value in told.items()), shlex.join(self.command)]
        )


def plan(
    folder: Path,
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    executable: str | Path = "vllm",
    public: bool = False,
    extra: Sequence[str] = (),
) -> Launch:
    """What starts vLLM on ``folder`` with the limits of ``settings``.

    ``settings.names`` are what the model is called; () is the folder's name. ``public`` allows an address
    that others reach although there is no key. ``extra`` goes to vLLM as it is, last, so that it wins.

    Raises:
        ModelError: the folder is not one that vLLM runs rightly.
        ConfigError: vLLM cannot do what a setting says.
    """
    _check(settings, host, port, public)
    found = check(folder)
    names = settings.names or (folder.absolute().name,)
    pictures = max(1, min(settings.max_pictures, found.pictures))
    command = [
        str(executable),
        "serve",
        str(folder.absolute()),
        "--served-model-name",
        *names,
        "--host",
        host,
        "--port",
        str(port),
        "--limit-mm-per-prompt",
        json.dumps({"image": pictures}),
        "--allowed-media-domains",
        *(settings.domains or (NOWHERE,)),
    ]
    command += ["--chat-template", str(found.template.absolute())] if found.template else []
    command += ["--hf-overrides", json.dumps(dict(found.overrides))] if found.overrides else []
    command += ["--allowed-origins", json.dumps(settings.origins)] if settings.origins else []
    return Launch(
        command=(*command, *extra),
        environment=_environment(settings),
        notes=(*found.notes, *_unprotected(settings, host)),
    )


def _environment(settings: Settings) -> dict[str, str]:
    megabytes = -(-settings.max_picture_bytes // 2**20)
    return {
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_IMAGE_FETCH_TIMEOUT": str(_FETCH_SECONDS),
        "VLLM_MEDIA_FETCH_MAX_RETRIES": "1",
        "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB": str(megabytes),
        "VLLM_MAX_IMAGE_PIXELS": str(settings.max_pixels),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        **({_KEY: settings.keys[0]} if settings.keys else {}),
    }


def _check(settings: Settings, host: str, port: int, public: bool) -> None:
    from llavar.serve import run  # the same rule as for our own engine

    run.check_exposure(run.resolve(host, port), keys=bool(settings.keys), forced=public)
    if len(settings.keys) > 1:
        raise ConfigError(
            f"vLLM takes one API key out of sight of a machine's other users, and {len(settings.keys)} are "
            "set; give one"
        )
    for domain in settings.domains:
        if domain.startswith("."):
            raise ConfigError(
                f"vLLM knows no {domain!r:.100} for all hosts below a domain; name each host, or serve with "
                "--engine native"
            )


def _unprotected(settings: Settings, host: str) -> tuple[str, ...]:
    if host in _LOOPBACK or not settings.keys:
        return ()
    return (
        "vLLM asks for the key under /v1 alone; /invocations, /metrics and others stay open, so let a proxy "
        "pass only /v1 and /health (docs/deploy/nginx.conf does)",
    )


# --- the folder -----------------------------------------------------------------------------------------


def check(folder: Path) -> Checked:
    """Whether vLLM runs ``folder``, and runs it rightly. Reads headers, not weights.

    Raises:
        ModelError: it does not; the sentence says what to do.
        NotFoundError: there is no tokenizer.
    """
    from llavar.generate.local import setup_of
    from llavar.models.tokenizer import load_tokenizer

    config = folders.read_document(folder, "config.json")
    _check_class(folder, config)
    _check_names(folder)
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{folder} carries no chat template, without which vLLM answers no chat; convert the checkpoint "
            f"again, or put its {_TEMPLATE} there"
        )
    setup = setup_of(folder, tokenizer)
    vision = cast("Mapping[str, object]", config["vision_config"])
    _check_layer(folder, config, vision)
    _check_processor(folder, config, vision, setup.patch)
    notes: list[str] = []
    if setup.transform is Transform.FIT:
        notes.append("this checkpoint wants pictures fitted to a square, and vLLM crops them; answers differ")
    if setup.tiles != WHOLE:
        notes.append(
            f"this checkpoint sees a picture in {setup.tiles.views} views ({setup.tiles} tiles), and vLLM "
            "does not cut it; give it the views as so many pictures, as the model's card says"
        )
    if tokenizer.bos and not _writes(tokenizer.chat_template, tokenizer.bos):
        notes.append(
            f"the chat template writes no {tokenizer.bos}, and vLLM adds none to a chat; answers may differ "
            "from those with it"
        )
    template = folder / _TEMPLATE
    return Checked(
        folder=folder,
        overrides=VLLM_OVERRIDES if config.get("projector_hidden_act") == "linear" else {},
        template=template if template.is_file() else None,
        pictures=setup.max_positions // setup.image_tokens,
        notes=tuple(notes),
    )


def _check_class(folder: Path, config: Mapping[str, object]) -> None:
    named = config.get("architectures")
    classes = [str(name) for name in cast("list[object]", named)] if isinstance(named, list) else []
    if ORIGINAL_CLASSES & set(classes):
        raise ModelError(
            f"{folder} is in LLaVA's own layout ({classes[0]}), which vLLM does not read; bring it over with "
            "llavar convert from-llava"
        )
    if _ARCHITECTURE not in classes:
        given = ", ".join(classes)[:100] or "no architecture"
        raise ModelError(f"{folder} names {given}; this launcher starts {_ARCHITECTURE} alone")


def _check_names(folder: Path) -> None:
    """vLLM wants the tower's tensors under ``vision_tower.vision_model``; transformers 5 saves without."""
    for stored in folders.open_weights(folder).values():
        flat = stored.name.removeprefix("model.")
        if flat.startswith("vision_tower.") and not flat.startswith("vision_tower.vision_model."):
            raise ModelError(
                f"{stored.path} calls a tensor {stored.name!r:.100}, and vLLM wants it under "
                "vision_tower.vision_model; write the folder anew with llavar convert, which does that"
            )


def _check_layer(folder: Path, config: Mapping[str, object], vision: Mapping[str, object]) -> None:
    layers, layer = vision.get("num_hidden_layers", 12), config.get("vision_feature_layer", -2)
    if isinstance(layer, int) and isinstance(layers, int) and not -layers - 1 <= layer <= layers:
        raise ModelError(
            f"{folder / 'config.json'} takes hidden state {layer} of a tower of {layers} layers; write -2, "
            "which LLaVA takes, as vision_feature_layer"
        )


def _check_processor(
    folder: Path, config: Mapping[str, object], vision: Mapping[str, object], patch: str
) -> None:
    """vLLM counts the tokens of a picture by this file; the classic error is 575 against 576."""
    told = folders.read_document(folder, "processor_config.json")
    wanted: dict[str, object] = {
        "image_token": patch,
        "patch_size": vision.get("patch_size"),
        "num_additional_image_tokens": int(has_class_token(str(vision.get("model_type")))),
        "vision_feature_select_strategy": config.get("vision_feature_select_strategy", "default"),
    }
    for name, value in wanted.items():
        if value is not None and told.get(name) != value:
            given = f"has {name} = {told[name]!r:.60}" if name in told else f"has no {name}"
            raise ModelError(f"{folder / 'processor_config.json'} {given}; by config.json it is {value!r}")


def _writes(template: str, bos: str) -> bool:
    """Whether a chat template writes the first token, by its variable or by its name."""
    return "bos_token" in template or bos in template


# --- the process ----------------------------------------------------------------------------------------


def find(given: str = "", environment: Mapping[str, str] = os.environ) -> Path:
    """vLLM's executable: ``given`` or ``LLAVAR_VLLM`` (itself, or the environment it is installed in), else
    the one beside this Python, else the one of the path.

    Raises:
        NotFoundError: there is none.
    """
    named = given or environment.get(VARIABLE, "")
    if named:
        path = Path(named)
        places = [path] if path.is_file() else [path / "bin" / "vllm", path / "vllm"]
        for place in places:
            if place.is_file() and os.access(place, os.X_OK):
                return place.absolute()
        raise NotFoundError(f"there is no vllm that can be run at {named!r:.200}; name its executable")
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("vllm", path=environment.get("PATH"))
    if not found:
        raise NotFoundError(
            "vllm is not installed here; pip install vllm in an environment of its own and name it with "
            f"--vllm or {VARIABLE}, or serve with --engine native"
        )
    return Path(found).absolute()


def launch(planned: Launch, environment: Mapping[str, str] = os.environ) -> NoReturn:
    """Become vLLM: this process ends where that one ends, and signals reach it.

    Raises:
        NotFoundError: the executable cannot be started.
    """
    kept = {name: value for name, value in environment.items() if name not in planned.removed}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(planned.command[0], list(planned.command), kept | dict(planned.environment))
    except OSError as error:
        raise NotFoundError(f"{planned.command[0]} cannot be started ({error.strerror}); check it") from error
