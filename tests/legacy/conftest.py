"""The original README's command lines, with places for paths, and small things for them to work on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Line = Callable[..., list[str]]

_LINES = {
    "pretrain": """train_mem --model_name_or_path {model} --data_path {data} --image_folder {images}
        --vision_tower {tower} --tune_mm_mlp_adapter True --mm_vision_select_layer {layer}
        --mm_use_im_start_end --bf16 True --output_dir {out} --num_train_epochs 1
        --per_device_train_batch_size 8
        --per_device_eval_batch_size 4 --gradient_accumulation_steps 2 --evaluation_strategy " no "
        --save_strategy "steps" --save_steps 4000 --save_total_limit 1 --learning_rate 2e-3 --weight_decay 0.
        --warmup_ratio 0.03 --lr_scheduler_type "cosine" --logging_steps 1 --tf32 True --model_max_length 1024
        --gradient_checkpointing True --lazy_preprocess True --image_aspect_ratio 'pad' --report_to wandb""",
    "finetune": """train_mem --model_name_or_path {model} --data_path {data} --image_folder {images}
        --vision_tower {tower} --pretrain_mm_mlp_adapter {projector} --mm_vision_select_layer {layer}
        --mm_use_im_start_end True --bf16 True --output_dir {out} --num_train_epochs 3
        --per_device_train_batch_size 4 --per_device_eval_batch_size 4 --gradient_accumulation_steps 1
        --evaluation_strategy "no" --save_strategy "steps" --save_steps 8000 --save_total_limit 1
        --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type "cosine"
        --logging_steps 1 --tf32 True --fsdp "full_shard auto_wrap"
        --fsdp_transformer_layer_cls_to_wrap 'LlamaDecoderLayer' --model_max_length 2048
        --gradient_checkpointing True --lazy_preprocess True --image_aspect_ratio 'pad' --report_to wandb""",
    "questions": """model_vqa --model-name {model} --question-file {data} --image-folder {images}
        --answers-file {out} --conv-mode "llava_v1" """,
    "question": """run_llava --model-name {model} --image-file {images}
        --query "Who starred in the movie?" """,
}


@pytest.fixture
def line() -> Line:
    """A line of the README as words, paths filled in; what is not given keeps a name that means nothing."""

    def make(name: str, **places: object) -> list[str]:
        usual = {"model": "M", "data": "D", "images": "I", "tower": "T", "out": "O", "projector": "P"}
        return shlex.split(_LINES[name].format(**{**usual, "layer": "-2", **places}))

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two pictures, one of them under a name of COCO's."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (60, 40), "white").save(folder / "one.png")
    Image.new("RGB", (40, 70), "red").save(folder / "COCO_val2014_000000000001.jpg")
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three rows in LLaVA's format: two with a picture, one about text alone."""

    def row(name: str, question: str, answer: str, image: str = "") -> dict[str, object]:
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return {"id": name, "conversations": turns, **({"image": image} if image else {})}

    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps(
            [
                row("a", "<image>\nWhat does it say?", "NOTHING", "one.png"),
                row("b", "What colour is it?\n<image>", "red", "COCO_val2014_000000000001.jpg"),
                row("c", "Say yes.", "yes"),
            ]
        )
    )
    return path
