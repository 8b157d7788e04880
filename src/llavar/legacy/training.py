"""``train_mem`` of the original (``llava/train/train.py``) as a job of today's loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavar.errors import ConfigError
from llavar.images import Transform
from llavar.legacy.flags import Arguments, Flag, Kind, parse, show
from llavar.legacy.prepare import Wanted, is_stock, made
from llavar.study.reader import find
from llavar.train import job as jobs
from llavar.train.config import Mean, PartConfig, Policy, Precision, Recompute, Schedule, Shard, StageConfig
from llavar.train.llava import DECODER, PROJECTOR
from llavar.train.world import connected

_ALWAYS = "always so today"
_PAGE = "metrics.jsonl in the folder of the run; llavar train --track sends it elsewhere too"
_SHARDED = "--shard full where it says full_shard and there are several processes, else --shard none"

_FLAGS = (
    Flag(name="model_name_or_path", today="--model: a LLaMA, a checkpoint of the original, or a stock Llava"),
    Flag(name="version", default="v1", today="--conversation: llava_v1 for v1, multimodal for v0"),
    Flag(name="data_path", today="--data"),
    Flag(name="image_folder", default="", today="--images"),
    Flag(name="vision_tower", today="the tower of a new model; a whole Llava has its own"),
    Flag(
        name="tune_mm_mlp_adapter",
        kind=Kind.SWITCH,
        default=False,
        today="trains the projector alone (the new token rows stay the mean of the others)",
    ),
    Flag(name="pretrain_mm_mlp_adapter", default="", today="--projector"),
    Flag(name="freeze_mm_mlp_adapter", kind=Kind.SWITCH, default=False, today="freezes the projector"),
    Flag(name="freeze_backbone", kind=Kind.SWITCH, default=False, today="freezes the decoder"),
    Flag(name="mm_vision_select_layer", kind=Kind.WHOLE, today="--feature-layer"),
    Flag(
        name="mm_use_im_start_end",
        kind=Kind.SWITCH,
        default=False,
        today="tokens of a new model; one with a tokenizer keeps its own",
    ),
    Flag(
        name="image_aspect_ratio",
        default="square",
        only=("pad", "square"),
        today="--transform: pad, or crop for square",
        instead="keep never worked on pictures that are not square; take pad",
    ),
    Flag(
        name="sep_image_conv_front",
        kind=Kind.SWITCH,
        default=False,
        only=(False,),
        today="pictures stand where <image> is in the data",
        instead="put <image> where it belongs in the data",
    ),
    Flag(
        name="is_multimodal",
        kind=Kind.SWITCH,
        default=True,
        only=(True,),
        today=_ALWAYS,
        instead="rows without pictures are trained on as they are",
    ),
    Flag(name="bf16", kind=Kind.SWITCH, default=False, today="--precision bf16, trained weights in fp32"),
    Flag(
        name="fp16",
        kind=Kind.SWITCH,
        default=False,
        only=(False,),
        today="--precision fp32 or bf16",
        instead="fp16 overflows without loss scaling; take --bf16 True",
    ),
    Flag(name="tf32", kind=Kind.SWITCH, default=False, today="nothing: matrix products run in bf16 or fp32"),
    Flag(name="output_dir", today="--out"),
    Flag(name="num_train_epochs", kind=Kind.NUMBER, default=3.0, today="--epochs"),
    Flag(name="max_steps", kind=Kind.WHOLE, default=-1, today="--steps"),
    Flag(name="per_device_train_batch_size", kind=Kind.WHOLE, default=8, today="--micro-batch"),
    Flag(
        name="per_device_eval_batch_size", kind=Kind.WHOLE, default=8, today="nothing: no evaluation in here"
    ),
    Flag(
        name="gradient_accumulation_steps",
        kind=Kind.WHOLE,
        default=1,
        today="--batch: micro-batch x accumulation x processes",
    ),
    Flag(
        name="evaluation_strategy",
        default="no",
        only=("no",),
        today="no evaluation in here, as then",
        instead="evaluate the result with llavar eval",
    ),
    Flag(
        name="save_strategy",
        default="steps",
        only=("steps", "no"),
        today="--save-every; a checkpoint is written at the end in any case",
        instead="give steps, and --save_steps",
    ),
    Flag(name="save_steps", kind=Kind.WHOLE, default=500, today="--save-every"),
    Flag(name="save_total_limit", kind=Kind.WHOLE, default=2, today="--keep"),
    Flag(name="learning_rate", kind=Kind.NUMBER, default=5e-5, today="--lr of every trained part"),
    Flag(name="weight_decay", kind=Kind.NUMBER, default=0.0, today="--weight-decay"),
    Flag(name="warmup_ratio", kind=Kind.NUMBER, default=0.0, today="--warmup"),
    Flag(
        name="lr_scheduler_type",
        default="cosine",
        only=("cosine",),
        today="a cosine, with the Trainer's warm-up",
        instead="the README's runs all take cosine",
    ),
    Flag(name="logging_steps", kind=Kind.WHOLE, default=500, today="--log-every"),
    Flag(name="model_max_length", kind=Kind.WHOLE, default=512, today="--max-length"),
    Flag(name="gradient_checkpointing", kind=Kind.SWITCH, default=False, today="--recompute"),
    Flag(name="lazy_preprocess", kind=Kind.SWITCH, default=False, today=_ALWAYS + " for pictures"),
    Flag(name="report_to", default="none", today=_PAGE),
    Flag(name="fsdp", default="", today=_SHARDED),
    Flag(
        name="fsdp_transformer_layer_cls_to_wrap",
        default="",
        today="nothing: the decoder is always divided layer by layer",
    ),
    Flag(name="seed", kind=Kind.WHOLE, default=42, today="--seed"),
    Flag(name="dataloader_num_workers", kind=Kind.WHOLE, default=0, today="--workers"),
    Flag(
        name="local_rank", kind=Kind.WHOLE, default=-1, today="nothing: torchrun says it in the environment"
    ),
    Flag(name="cache_dir", default="", today="nothing: set HF_HOME"),
)

_VERSIONS = {"v1": "llava_v1", "v0": "multimodal", "mpt": "mpt_multimodal"}
_SCRIPT = "train_mem"


def train_mem(argv: Sequence[str]) -> int:
    """Train as the original's ``train_mem.py`` was asked to, in ``--output_dir``.

    The model that it starts from is made under ``OUT.start`` where the one named is a LLaMA alone or a
    checkpoint of the original. What comes out is in ``OUT/model`` and, if the projector alone was trained, in
    ``OUT/mm_projector.bin``.
    """
    given = parse(_SCRIPT, _FLAGS, argv, about="Train, with the flags of the original's README.")
    out = Path(given.required("output_dir"))
    stage_of(given, 1)  # what cannot work is said before anything is loaded
    with connected() as world:

        def say(line: str) -> None:
            if world.first:
                print(line, flush=True)

        if world.first:
            show(_SCRIPT, [*given.mapping(), *_other_defaults(given)])
        with world.together():
            if world.first:
                _start(given, out, say)
        model = _start(given, out, lambda _line: None)
        jobs.run(
            job_of(given, model, world.size),
            out,
            world=world,
            say=say,
            workers=given.whole("dataloader_num_workers"),
        )
    return 0


def _other_defaults(given: Arguments) -> list[str]:
    """Flags that were left out and whose default was another one in the original."""
    others = {
        "lr_scheduler_type": "a cosine; the Trainer's default was linear, which is gone",
        "mm_vision_select_layer": "the model's own layer, -2 for a new one; the original's default was -1",
    }
    return [f"no --{name}  ->  {today}" for name, today in others.items() if not given.written(name)]


def _start(given: Arguments, out: Path, say: jobs.Say) -> str:
    """The model that the run starts from, as a stock folder."""
    model = given.required("model_name_or_path")
    if is_stock(model):
        return str(find(model))
    wanted = Wanted(
        model=model,
        vision_tower=given.text("vision_tower"),
        start_end=given.switch("mm_use_im_start_end"),
        conversation=conversation_of(given),
        select_layer=given.whole("mm_vision_select_layer")
        if given.written("mm_vision_select_layer")
        else None,
    )
    return str(made(wanted, out.with_name(f"{out.name}.start"), say))


def job_of(given: Arguments, model: str, processes: int) -> jobs.Job:
    """The job that a command line of ``train_mem`` describes, for that many processes.

    Raises:
        ConfigError: flags that cannot work together.
    """
    layer = given.whole("mm_vision_select_layer") if given.written("mm_vision_select_layer") else None
    return jobs.Job(
        stage=stage_of(given, processes),
        model=model,
        data=(given.required("data_path"),),
        recipe=f"legacy {_SCRIPT}",
        images=given.text("image_folder"),
        projector=given.text("pretrain_mm_mlp_adapter"),
        conversation=conversation_of(given),
        transform=Transform.PAD if given.text("image_aspect_ratio") == "pad" else Transform.CROP,
        feature_layer=layer,
        # The original masked rows that it could not use and trained on; here each is recorded as well.
        bad_rows=Policy.SKIP,
    )


def conversation_of(given: Arguments) -> str:
    """The conversation that ``--version`` means.

    Raises:
        ConfigError: it means none.
    """
    version = given.text("version")
    if version not in _VERSIONS:
        raise ConfigError(
            f"{_SCRIPT}: --version {version!r:.40} is not known; give one of {', '.join(_VERSIONS)}"
        )
    return _VERSIONS[version]


def stage_of(given: Arguments, processes: int) -> StageConfig:
    """Batch, rates, parts as the original's ``Trainer`` took them: padded rows, the mean of each batch."""
    frozen = {PROJECTOR: given.switch("freeze_mm_mlp_adapter"), DECODER: given.switch("freeze_backbone")}
    frozen[DECODER] |= given.switch("tune_mm_mlp_adapter")
    part = PartConfig(lr=given.number("learning_rate"), weight_decay=given.number("weight_decay"))
    parts = {name: part for name, still in frozen.items() if not still}
    if not parts:
        raise ConfigError(f"{_SCRIPT}: these flags freeze every part; leave --freeze_mm_mlp_adapter out")
    micro = given.whole("per_device_train_batch_size")
    return StageConfig(
        parts=parts,
        batch=micro * given.whole("gradient_accumulation_steps") * processes,
        micro_batch=micro,
        max_length=given.whole("model_max_length"),
        epochs=given.number("num_train_epochs"),
        steps=max(given.whole("max_steps"), 0),
        packing=False,
        like_lengths=False,
        recompute=Recompute.FULL if given.switch("gradient_checkpointing") else Recompute.NONE,
        shard=Shard.FULL if "full_shard" in given.text("fsdp").split() else Shard.NONE,
        warmup=given.number("warmup_ratio"),
        precision=Precision.BF16 if given.switch("bf16") else Precision.FP32,
        mean=Mean.BATCH,
        schedule=Schedule.TRAINER,
        seed=given.whole("seed"),
        log_every=given.whole("logging_steps"),
        save_every=given.whole("save_steps"),
        keep=given.whole("save_total_limit"),
    )
