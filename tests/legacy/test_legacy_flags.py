"""Flags of the original: read as it read them, and each one accounted for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llavar.errors import ConfigError
from llavar.images import Transform
from llavar.legacy import ELSEWHERE, run
from llavar.legacy.flags import Flag, Kind, parse
from llavar.legacy.training import _FLAGS, _other_defaults, conversation_of, job_of, stage_of
from llavar.train.config import Mean, Policy, Precision, Recompute, Schedule, Shard
from llavar.train.llava import DECODER, PROJECTOR

FLAGS = (
    Flag(name="base-model-path"),
    Flag(name="batch_size", kind=Kind.WHOLE, default=8),
    Flag(name="rate", kind=Kind.NUMBER, default=0.5),
    Flag(name="on", kind=Kind.SWITCH, default=False),
    Flag(name="mode", default="old", only=("old",), instead="leave it out"),
)


def given(*argv: str):
    return parse("thing", FLAGS, argv, about="")


def test_a_prefix_either_spelling_and_an_equals_sign_are_understood():
    assert given("--base", "x").text("base-model-path") == "x"
    assert given("--base_model_path", "x").text("base-model-path") == "x"
    assert given("--batch-size=4").whole("batch_size") == 4
    assert given("--base-model-path=a_b=c").text("base-model-path") == "a_b=c"


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ((), False),
        (("--on",), True),
        (("--on", "True"), True),
        (("--on", "false"), False),
        (("--on", " yes "), True),
        (("--on", "0"), False),
    ],
)
def test_a_switch_stands_alone_or_takes_a_truth(words: tuple[str, ...], value: bool):
    assert given(*words).switch("on") is value


def test_padded_values_are_read_without_their_blanks():
    assert given("--mode", " old ", "--rate", " 2e-3 ").number("rate") == 2e-3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--unknown", "1"), "unrecognized arguments: --unknown"),
        (("--batch", "many"), "'many' is no whole number"),
        (("--on", "perhaps"), "'perhaps' is no switch"),
        (("--mode", "new"), "only old is left; leave it out"),
        (("--b", "1"), "ambiguous"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(words: tuple[str, ...], told: str):
    with pytest.raises(ConfigError, match=told):
        given(*words)


def test_what_is_needed_and_absent_is_named():
    with pytest.raises(ConfigError, match="--base-model-path"):
        given().required("base-model-path")


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_the_mapping_has_a_line_for_every_flag_that_was_written(name: str, line: Callable[..., list[str]]):
    words = line(name)[1:]
    lines = parse("train_mem", _FLAGS, words, about="").mapping()
    assert len(lines) == sum(word.startswith("--") for word in words)
    assert all(text.split("->")[1].strip() for text in lines)


def test_every_flag_of_training_says_what_it_is_today():
    assert all(flag.today for flag in _FLAGS)
    assert all(flag.instead for flag in _FLAGS if flag.only)


def test_the_first_stage_becomes_the_papers_numbers(line: Callable[..., list[str]]):
    arguments = parse("train_mem", _FLAGS, line("pretrain")[1:], about="")
    job = job_of(arguments, "M", processes=8)
    stage = job.stage
    assert set(stage.parts) == {PROJECTOR}
    assert stage.parts[PROJECTOR].lr == 2e-3
    assert (stage.batch, stage.micro_batch, stage.max_length, stage.epochs) == (128, 8, 1024, 1)
    assert (stage.warmup, stage.precision, stage.mean) == (0.03, Precision.BF16, Mean.BATCH)
    assert (stage.schedule, stage.packing, stage.recompute) == (Schedule.TRAINER, False, Recompute.FULL)
    assert (job.conversation, job.transform, job.feature_layer) == ("llava_v1", Transform.PAD, -2)
    assert job.bad_rows is Policy.SKIP


def test_the_second_stage_trains_projector_and_decoder(line: Callable[..., list[str]]):
    arguments = parse("train_mem", _FLAGS, line("finetune", projector="p.bin")[1:], about="")
    job = job_of(arguments, "M", processes=8)
    assert set(job.stage.parts) == {PROJECTOR, DECODER}
    assert job.stage.parts[DECODER].lr == 2e-5
    assert (job.stage.batch, job.stage.max_length, job.stage.epochs) == (32, 2048, 3)
    assert job.stage.shard is Shard.FULL  # as its --fsdp "full_shard auto_wrap" says
    assert job.projector == "p.bin"


def test_without_bf16_the_arithmetic_is_fp32():
    assert stage_of(parse("train_mem", _FLAGS, [], about=""), 1).precision is Precision.FP32


def test_parts_are_frozen_as_asked():
    def parts(*words: str) -> set[str]:
        return set(stage_of(parse("train_mem", _FLAGS, words, about=""), 1).parts)

    assert parts("--freeze_backbone") == {PROJECTOR}
    assert parts("--freeze_mm_mlp_adapter") == {DECODER}
    with pytest.raises(ConfigError, match="freeze every part"):
        parts("--freeze_mm_mlp_adapter", "--freeze_backbone", "True")


def test_a_picture_that_is_not_padded_is_cropped_as_clip_does():
    words = ["--model_name_or_path", "M", "--data_path", "d"]
    assert job_of(parse("train_mem", _FLAGS, words, about=""), "M", 1).transform is Transform.CROP


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--image_aspect_ratio", "keep"), "take pad"),
        (("--fp16", "True"), "--bf16 True"),
        (("--evaluation_strategy", "steps"), "llavar eval"),
        (("--sep_image_conv_front", "True"), "<image>"),
        (("--lr_scheduler_type", "linear"), "cosine"),
    ],
)
def test_a_flag_whose_meaning_is_gone_says_what_to_use(words: tuple[str, ...], told: str):
    with pytest.raises(ConfigError, match=told):
        parse("train_mem", _FLAGS, words, about="")


def test_versions_are_conversations():
    def conversation(*words: str) -> str:
        return conversation_of(parse("train_mem", _FLAGS, words, about=""))

    assert conversation() == "llava_v1"
    assert conversation("--version", "v0") == "multimodal"
    with pytest.raises(ConfigError, match="'v9'"):
        conversation("--version", "v9")


def test_other_scripts_are_refused_with_todays_command():
    for name, today in ELSEWHERE.items():
        with pytest.raises(ConfigError, match="llavar") as caught:
            run([f"MME/{name}.py"])
        assert today.split()[1] in str(caught.value)
    with pytest.raises(ConfigError, match="train_mem, model_vqa"):
        run(["serve"])
    with pytest.raises(ConfigError, match="name a command"):
        run([])


def test_a_default_that_changed_is_said_where_the_flag_is_left_out(line: Callable[..., list[str]]):
    told = _other_defaults(parse("train_mem", _FLAGS, [], about=""))
    assert ["linear" in told[0], "-1" in told[1], len(told)] == [True, True, 2]
    assert _other_defaults(parse("train_mem", _FLAGS, line("pretrain")[1:], about="")) == []
