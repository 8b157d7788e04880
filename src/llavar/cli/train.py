"""``llavar train``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llavar.cli.arguments import Commands, count, whole
from llavar.cli.train_plan import PLAN, add_plan, show_plan

if TYPE_CHECKING:
    from llavar.images import Tiles
    from llavar.models.adapter import Lora
    from llavar.recipes.llavar import Recipe
    from llavar.train.config import PartConfig, StageConfig
    from llavar.train.job import Job
    from llavar.train.metrics import Tick

_PLAIN = (
    *("epochs", "steps", "batch", "micro_batch", "max_length", "packing", "compiled", "liger", "warmup"),
    *("clip", "precision", "mean", "seed", "log_every", "save_every", "keep"),
)
"""Options that are settings of a stage under the same name."""

_JOB = (
    *("images", "vision_tower", "projector", "conversation", "transform", "tiles", "tower_size"),
    *("feature_layer", "attention"),
    *("bad_rows", "bad_images", "saved_as", "deterministic", "peak_tflops"),
    *("validate", "validate_every", "watch_every", "watch_data", "track", "merge"),
)
"""Options that are settings of a job under the same name."""

_LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "quantize")
_HELP = """\
RECIPE is one of llavar-13b-stage1, llavar-13b-stage2, llavar-7b-stage1, llavar-7b-stage2, nano-stage1,
nano-stage2, or one of these with -parity (padded, batch mean: as the original), or llavar-13b-stage2-lora,
llavar-7b-stage2-lora, either with -qlora in place of -lora, or nano-stage2-lora; or lora-hub, an adapter on
any image-text-to-text model of Hugging Face, through its own processor. RUN is the --out of an earlier run,
which goes on exactly where it was. Under torchrun the processes share every step:
torchrun --nproc_per_node 8 -m llavar train ..."""


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model on instruction data, or go on with a run",
        description="Train a model on instruction data, or go on with a run that was stopped.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("what", metavar="RECIPE_OR_RUN")
    _add_material(parser)
    _add_stage(parser)
    _add_lora(parser)
    _add_looks(parser)
    add_plan(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the plan, or how the run ended, as an object"
    )
    parser.set_defaults(command=_train)


def _add_material(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to train on")
    group.add_argument(
        "--data",
        nargs="+",
        action="extend",
        metavar="FILE[:weight=W,cap=N,epochs=N]",
        help="rows: LLaVA's JSON, JSONL, Parquet, a WebDataset tar, or hub:NAME; several are mixed",
    )
    group.add_argument("--mixture", type=Path, metavar="FILE", help="JSON list of data files with options")
    group.add_argument("--images", type=Path, metavar="DIR", help="the rows' pictures: a folder, tar or zip")
    group.add_argument("--workers", type=whole, metavar="N", help="processes that prepare batches (0)")
    group.add_argument(
        "--model",
        metavar="DIR_OR_HUB_ID",
        help="a whole Llava to start from, or a decoder alone (without it: what the run of --projector had)",
    )
    group.add_argument(
        "--vision-tower", metavar="DIR_OR_HUB_ID", help="the tower for a --model that is a decoder alone"
    )
    group.add_argument(
        "--projector", metavar="RUN_OR_FILE", help="a run, a model folder, mm_projector.bin, or 'random'"
    )
    group.add_argument("--conversation", metavar="NAME", help="another conversation than the model's own")
    group.add_argument("--transform", choices=("pad", "fit", "crop"), help="how pictures become square")
    group.add_argument(
        "--tiles",
        metavar="ROWSxCOLUMNS",
        help="pictures as an overview and so many tiles, for small text; 2x2+17%% has them overlap",
    )
    group.add_argument(
        "--tower-size",
        type=count,
        metavar="PIXELS",
        help="larger pictures: the tower's positions interpolated",
    )
    group.add_argument("--feature-layer", type=int, metavar="N", help="which layer of the tower is used")
    group.add_argument("--bad-rows", choices=("stop", "skip"), help="rows that cannot be used (stop)")
    group.add_argument(
        "--bad-images",
        choices=("stop", "skip"),
        help="missing or broken pictures (stop); skip opens all once",
    )
    group.add_argument("--out", type=Path, metavar="RUN", help="folder of the run")
    group.add_argument("--saved-as", choices=("stored", "fp32", "bf16", "fp16"), help="numbers of the result")


def _add_stage(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how, where it is not as the recipe says")
    group.add_argument("--epochs", type=float, metavar="N")
    group.add_argument("--steps", type=count, metavar="N", help="in place of epochs")
    group.add_argument("--batch", type=count, metavar="N", help="rows of a step, of all processes together")
    group.add_argument("--micro-batch", type=count, metavar="N", help="rows or packs computed at once")
    group.add_argument("--max-length", type=count, metavar="N", help="tokens of a row, and of a pack")
    group.add_argument(
        "--lr", action="append", metavar="[PART=]RATE", help="for all trained parts, or for one: tower=1e-6"
    )
    group.add_argument(
        "--muon", action="append", metavar="[PART=]RATE", help="train matrices inside by Muon at this rate"
    )
    group.add_argument("--weight-decay", action="append", metavar="[PART=]SHARE")
    group.add_argument("--freeze", action="append", choices=("tower", "projector", "decoder"), metavar="PART")
    group.add_argument("--warmup", type=float, metavar="SHARE", help="of the steps")
    group.add_argument("--clip", type=float, metavar="NORM", help="longest gradient; 0 for any")
    group.add_argument("--precision", choices=("fp32", "bf16"))
    group.add_argument("--mean", choices=("token", "batch"), help="what a step's loss is a mean over")
    group.add_argument("--packing", action=argparse.BooleanOptionalAction, help="rows share sequences")
    group.add_argument(
        "--recompute",
        nargs="?",
        const="full",
        choices=("none", "full", "selective"),
        help="activations twice: slower, less memory; selective keeps matrix products",
    )
    group.add_argument(
        "--shard",
        choices=("none", "full", "hybrid"),
        help="what each of several processes holds of the decoder: all, or a part (hybrid: of a machine's)",
    )
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        dest="compiled",
        help="torch.compile for each layer of the decoder",
    )
    group.add_argument(
        "--liger",
        action=argparse.BooleanOptionalAction,
        help="Liger's kernels for norms and gates of a Llama decoder (GPUs; pip install liger-kernel)",
    )
    group.add_argument(
        "--attention",
        choices=("auto", "eager", "sdpa", "flex", "varlen"),
        help="auto: varlen on a GPU in bf16, else sdpa; on a CPU eager, and varlen for packs of 1024 tokens",
    )
    group.add_argument("--deterministic", action="store_true", help="same bits on a GPU too, where it can")
    group.add_argument("--seed", type=int, metavar="N")
    group.add_argument("--log-every", type=count, metavar="N", help="steps")
    group.add_argument("--save-every", type=count, metavar="N", help="steps")
    group.add_argument("--keep", type=count, metavar="N", help="checkpoints")


def _add_lora(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("an adapter in place of the whole decoder (LoRA; needs llavar[lora])")
    group.add_argument("--lora-rank", type=int, metavar="N", help="of its factors; any recipe takes one")
    group.add_argument(
        "--lora-alpha", type=float, metavar="N", help="alpha / rank scales what it adds (twice the rank)"
    )
    group.add_argument("--lora-dropout", type=float, metavar="SHARE", help="of its input (0.05)")
    group.add_argument(
        "--lora-targets",
        nargs="+",
        metavar="NAME",
        help="linear layers of the decoder it goes around, e.g. q_proj v_proj (all-linear)",
    )
    group.add_argument(
        "--quantize",
        choices=("none", "nf4", "bnb"),
        help="keep the decoder beneath it in 4 bits (QLoRA): by plain torch, or by bitsandbytes",
    )
    group.add_argument(
        "--no-merge", action="store_false", dest="merge", help="write adapter/ alone, no merged model/"
    )


def _add_looks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is looked at meanwhile")
    group.add_argument(
        "--validate", nargs="+", type=Path, metavar="FILE", help="held-out rows, to log the loss of"
    )
    group.add_argument("--validate-every", type=count, metavar="N", help="steps (100)")
    group.add_argument(
        "--watch", dest="watch_every", type=count, metavar="N", help="ask a few questions every N steps"
    )
    group.add_argument(
        "--watch-data",
        type=Path,
        metavar="DIR",
        help="a folder with questions.jsonl and pictures; without, pictures with text are drawn",
    )
    group.add_argument(
        "--track", action="append", choices=("wandb", "tensorboard", "trackio"), help="besides metrics.jsonl"
    )
    group.add_argument(
        "--peak-tflops", type=float, metavar="N", help="of one device, to log the share that is reached"
    )


def _train(arguments: argparse.Namespace) -> int:
    from llavar.recipes.catalogue import recipes

    given = {k: v for k, v in vars(arguments).items() if k not in ("what", "command", "json")}
    as_json = "json" in arguments
    recipe = next((recipe for recipe in recipes() if recipe.name == arguments.what), None)
    if recipe is None:
        return _go_on(arguments.what, given, [recipe.name for recipe in recipes()], as_json)
    recipe = replace(recipe, stage=_stage(recipe.stage, given))
    if "plan" in given:
        tiles = _tiles(given) or recipe.tiles
        return show_plan(recipe, tiles, given, as_json)
    return _run(_job(recipe, given), given["out"], as_json, given.get("workers", 0))


# A run.


def _go_on(what: str, given: dict[str, Any], known: list[str], as_json: bool) -> int:
    from llavar.errors import ConfigError, NotFoundError
    from llavar.train.job import read_job

    folder = Path(what)
    if not folder.is_dir():
        raise NotFoundError(
            f"{what!r} is neither a recipe nor the folder of a run; recipes are {', '.join(known)}"
        )
    workers = given.pop("workers", 0)
    if given:
        flag = "--" + next(iter(given)).replace("_", "-")
        raise ConfigError(f"a run goes on with the settings it has; leave {flag} out, or begin another run")
    return _run(read_job(folder), folder, as_json, workers)


def _job(recipe: Recipe, given: dict[str, Any]) -> Job:
    from llavar.errors import ConfigError
    from llavar.images import Transform
    from llavar.train.config import Attention, Policy
    from llavar.train.export import SavedAs
    from llavar.train.job import Job
    from llavar.train.track import Kind

    given = given | _mixed(given)
    for name in ("data", "out"):
        if name not in given:
            raise ConfigError(f"training needs --{name}; --plan tells what the recipe takes without it")
    for name in PLAN:
        if name in given:
            raise ConfigError(f"--{name} is for planning; add --plan, or leave it out")
    chosen: dict[str, Any] = {name: given[name] for name in _JOB if name in given}
    for name, kind in (
        ("transform", Transform),
        ("bad_rows", Policy),
        ("bad_images", Policy),
        ("saved_as", SavedAs),
        ("attention", Attention),
    ):
        if name in chosen:
            chosen[name] = kind(chosen[name])
    if "tiles" in chosen:
        chosen["tiles"] = _tiles(chosen)
    if "track" in chosen:
        chosen["track"] = tuple(Kind(name) for name in dict.fromkeys(chosen["track"]))
    if "validate" in chosen:
        chosen["validate"] = tuple(_absolute(path) for path in chosen["validate"])
        chosen.setdefault("validate_every", 100)
    for name in ("images", "projector", "vision_tower", "watch_data"):
        if name in chosen:
            chosen[name] = _absolute(chosen[name])
    data = tuple(given["data"])
    model = _model(given.get("model") or _model_behind(chosen) or recipe.model, recipe.name)
    own = recipe.own_processor
    return Job(stage=recipe.stage, recipe=recipe.name, model=model, data=data, own_processor=own, **chosen)


def _tiles(given: Mapping[str, Any]) -> Tiles | None:
    from llavar.images import Tiles

    return Tiles.parse(given["tiles"]) if "tiles" in given else None


def _mixed(given: Mapping[str, Any]) -> dict[str, Any]:
    """All data files, those of a mixture file last, with whole paths."""
    from llavar.data.mixture import parse, read_mixture

    entries = [parse(text).absolute() for text in given.get("data", ())]
    if "mixture" in given:
        entries += read_mixture(given["mixture"])
    return {"data": tuple(map(str, entries))} if entries else {}


def _model_behind(chosen: Mapping[str, Any]) -> str:
    """What the run that ``--projector`` names started from: a stage 2 begins where its stage 1 did."""
    from llavar.train.home import CONFIG, MODEL, START
    from llavar.train.job import read_job

    run = Path(chosen.get("projector", ""))
    if not ((run / CONFIG).is_file() and (run / MODEL).is_dir()) or "vision_tower" in chosen:
        return ""
    start = run / START
    return str(start) if start.is_dir() else read_job(run).model


def _model(name: str, recipe: str) -> str:
    from llavar.errors import ConfigError
    from llavar.study.nano import weights

    if not name:
        raise ConfigError(f"{recipe} needs a model to start from; give --model a folder or a hub id")
    return str(weights.folder(name)) if name in weights.NAMES else _absolute(name)


def _absolute(name: str | Path) -> str:
    """Paths that exist are written down whole, so that a run goes on from any folder."""
    path = Path(name)
    return str(path.absolute()) if path.exists() else str(name)


def _run(job: Job, out: Path, as_json: bool, workers: int = 0) -> int:
    from llavar.errors import LlavarError
    from llavar.study.training import watcher
    from llavar.train.job import run
    from llavar.train.world import connected

    with connected() as world:
        try:
            fitted = run(job, out, world=world, say=_say, watcher=watcher, workers=workers)
        except LlavarError:
            if world.first:
                raise
            return 2  # the first process says what happened
        except KeyboardInterrupt:
            if world.first:
                raise
            return 130
    if as_json and world.first:
        print(json.dumps(_ended(out, fitted.steps, fitted.resumed_at, fitted.seconds, fitted.ticks)))
    return 0


def _ended(out: Path, steps: int, resumed: int, seconds: float, ticks: tuple[Tick, ...]) -> dict[str, object]:
    return {
        "run": str(out),
        "model": str(out / "model"),
        "steps": steps,
        "resumed_at": resumed,
        "seconds": round(seconds, 3),
        "loss": ticks[-1].loss if ticks else None,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Settings.


def _stage(stage: StageConfig, given: Mapping[str, Any]) -> StageConfig:
    from llavar.errors import ConfigError
    from llavar.recipes.llavar import with_lora
    from llavar.train.config import Mean, Precision, Recompute, Shard

    if "steps" in given and "epochs" in given:
        raise ConfigError("--steps and --epochs both say how long to train; give one of them")
    adapter = _adapter(stage.lora, given)
    stage = with_lora(stage, adapter) if adapter else stage
    changes: dict[str, Any] = {name: given[name] for name in _PLAIN if name in given}
    if "batch" in changes:
        changes.setdefault("micro_batch", min(stage.micro_batch, changes["batch"]))
    if "precision" in changes:
        changes["precision"] = Precision(changes["precision"])
    for name, kind in (("mean", Mean), ("recompute", Recompute), ("shard", Shard)):
        if name in given:
            changes[name] = kind(given[name])
    frozen = given.get("freeze", ())
    for text in given.get("lr", ()):
        if text.rpartition("=")[0] in frozen:
            raise ConfigError(f"--lr {text} trains what --freeze keeps as it is; give one of them")
    parts = {name: part for name, part in stage.parts.items() if name not in frozen}
    parts = _changed(parts, given.get("lr", ()), "lr")
    for field in ("weight_decay", "muon"):
        parts = _changed(parts, given.get(field, ()), field)
    return replace(stage, parts=parts, **changes)


def _adapter(held: Lora | None, given: Mapping[str, Any]) -> Lora | None:
    """The recipe's adapter with what was asked for; another rank keeps the scale of what it adds."""
    from llavar.errors import ConfigError
    from llavar.models.adapter import Frozen, Lora

    named = [name for name in _LORA if name in given]
    if held is None and named and "lora_rank" not in given:
        flag = "--" + named[0].replace("_", "-")
        raise ConfigError(
            f"{flag} is for an adapter and the recipe has none; say of which rank: --lora-rank N"
        )
    if held is None and not named:
        return None
    rank: int = given["lora_rank"] if held is None else given.get("lora_rank", held.rank)
    start = held or Lora(rank=1, alpha=2, dropout=0.05)
    targets = [name for text in given.get("lora_targets", ()) for name in text.split(",")]
    return Lora(
        rank=rank,
        alpha=given.get("lora_alpha", rank * start.scale),
        dropout=given.get("lora_dropout", start.dropout),
        targets=tuple(targets) or start.targets,
        frozen=Frozen(given.get("quantize", start.frozen)),
    )


def _changed(parts: Mapping[str, PartConfig], texts: list[str], field: str) -> dict[str, PartConfig]:
    """``texts`` are ``VALUE`` for every trained part or ``PART=VALUE``; a rate of its own trains a part."""
    from llavar.errors import ConfigError
    from llavar.train.config import ADAPTER, PartConfig
    from llavar.train.llava import DECODER, PROJECTOR, TOWER

    changed = dict(parts)
    known = (TOWER, PROJECTOR, DECODER, *([ADAPTER] if ADAPTER in parts else []))
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise ConfigError(f"--{field.replace('_', '-')} {text!r} is no number, nor PART=NUMBER") from None
        if equals and name not in known:
            raise ConfigError(f"the model has no part {name!r}; it has {', '.join(known)}")
        if equals and field == "lr":
            changed[name] = replace(changed[name], lr=value) if name in changed else PartConfig(lr=value)
        elif equals and name not in changed:
            raise ConfigError(f"{name} is not trained; give it a rate with --lr {name}=RATE first")
        else:
            for each in (name,) if equals else tuple(changed):
                changed[each] = replace(changed[each], **{field: value})
    return changed
