"""A stock trainer of the training benchmark, run by the Python of the environment that it is installed in.

Nothing of llavar is imported: model, rows and pictures come as files. ``trainer`` is transformers'
``Trainer`` with a collator that pads, as the original LLaVA had it; ``trl`` is TRL's ``SFTTrainer`` with the
same collator; ``factory`` is LLaMA-Factory with its own collator, over rows that are tokens already
(``tokenized_path``). Each keeps its own defaults where nothing is said about them below. Pictures go through
the image processor of the model folder.

``factory-packed`` is LLaMA-Factory with ``neat_packing`` and ``factory-joined`` with ``packing``: its own
packer lays all rows together beforehand, so that a step holds other rows than those of everyone else; it
reports the useful tokens of each step. What the model says of the first step's rows, one at a time and
before anything is learned, is reported beside the loss: where rows of a pack see each other, the two differ.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from train_child import Rounds, versions  # a neighbour, wherever this is started from

PACKAGES = ("torch", "transformers", "accelerate", "trl", "llamafactory")


class Collator:
    """Rows padded on the right to the longest, with a mask, and their pictures."""

    def __init__(self, processor: Any, pictures: Path, pad_id: int) -> None:
        self.processor, self.pictures, self.pad_id = processor, pictures, pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        longest = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, value: int) -> Any:
            lists = [[*row[name], *[value] * (longest - len(row[name]))] for row in rows]
            return torch.tensor(lists)

        seen = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
        batch = {
            "input_ids": padded("input_ids", self.pad_id),
            "labels": padded("labels", -100),
            "attention_mask": torch.tensor(seen),
        }
        names = [row["image"] for row in rows if row["image"]]
        if names:
            batch["pixel_values"] = self._pixels(names)
        return batch

    def _pixels(self, names: list[str]) -> Any:
        from PIL import Image

        opened = [Image.open(self.pictures / name).convert("RGB") for name in names]
        return self.processor(images=opened, return_tensors="pt")["pixel_values"]


def watched(
    rounds: Rounds, facts: dict[str, Any], seen: Callable[[Any], dict[str, Any]] | None = None
) -> Any:
    """A callback that reports rounds; losses and waiting are taken where every stock trainer passes.

    ``seen`` says more, once there is a model.
    """
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainerCallback

    held = {"loss": 0.0, "waited": 0.0}
    step, fetch = Trainer.training_step, Trainer.get_batch_samples

    def training_step(self: Any, *given: Any, **more: Any) -> Any:
        loss = step(self, *given, **more)
        held["loss"] += float(loss)
        return loss

    def get_batch_samples(self: Any, *given: Any, **more: Any) -> Any:
        self.model_accepts_loss_kwargs = True  # LLaMA-Factory would average micro-batches, however long
        before = time.perf_counter()
        found = fetch(self, *given, **more)
        held["waited"] += time.perf_counter() - before
        return found

    Trainer.training_step, Trainer.get_batch_samples = training_step, get_batch_samples
    Trainer._get_train_sampler = lambda self, rows=None: SequentialSampler(
        self.train_dataset if rows is None else rows
    )

    class Watcher(TrainerCallback):
        def on_train_begin(
            self, _args: Any, _state: Any, _control: Any, model: Any = None, **_more: Any
        ) -> None:
            rounds.begin(**facts, **shown(model), **(seen(model) if seen else {}))

        def on_step_end(self, _args: Any, _state: Any, _control: Any, **_more: Any) -> None:
            rounds.step(held["loss"], held["waited"])
            held.update(loss=0.0, waited=0.0)

    return Watcher()


def shown(model: Any) -> dict[str, Any]:
    """What the model is trained with: its attention, and the types and number of what learns."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return {
        "attention": model.config.text_config._attn_implementation,
        "learned": sum(parameter.numel() for parameter in learned),
        "types": sorted({str(parameter.dtype) for parameter in learned}),
        "recomputes": bool(getattr(model, "is_gradient_checkpointing", False)),
    }


def common(settings: dict[str, Any], total: int) -> dict[str, Any]:
    """Arguments of every stock trainer."""
    return {
        "output_dir": settings["out"],
        "per_device_train_batch_size": settings["peer_micro_batch"],
        "gradient_accumulation_steps": settings["batch"] // settings["peer_micro_batch"],
        "max_steps": total,
        "learning_rate": settings["lr"],
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": settings["precision"] == "bf16",
        "use_cpu": settings["device"] == "cpu",
        "gradient_checkpointing": settings["recompute"] != "none",
        "dataloader_num_workers": settings["workers"],
        "remove_unused_columns": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def model_of(settings: dict[str, Any]) -> Any:
    """The stock model; what this stage does not train is frozen, and held in the type of the arithmetic."""
    import torch
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(settings["model"], dtype=torch.float32)
    model.config.use_cache = model.config.text_config.use_cache = False
    frozen = [model.model.vision_tower]
    if settings["stage"] == 1:
        frozen += [model.model.language_model, model.lm_head]
    for part in frozen:
        part.requires_grad_(False)
        part.to(torch.bfloat16 if settings["precision"] == "bf16" else torch.float32)
    return model


def rows_of(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """In the order in which they are trained on."""
    return json.loads(Path(settings["ordered"]).read_text(encoding="utf-8"))


def collator_of(settings: dict[str, Any]) -> Collator:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(settings["model"])
    return Collator(processor, Path(settings["pictures"]), 0)


def trainer(settings: dict[str, Any], rounds: Rounds) -> None:
    from transformers import Trainer, TrainingArguments

    Trainer(
        model=model_of(settings),
        args=TrainingArguments(**common(settings, rounds.total)),
        train_dataset=rows_of(settings),
        data_collator=collator_of(settings),
        callbacks=[watched(rounds, {"versions": versions(*PACKAGES)})],
    ).train()


def trl(settings: dict[str, Any], rounds: Rounds) -> None:
    from datasets import Dataset
    from transformers import AutoProcessor
    from trl import SFTConfig, SFTTrainer

    given = common(settings, rounds.total)
    SFTTrainer(
        model=model_of(settings),
        args=SFTConfig(**given, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(rows_of(settings)),
        data_collator=collator_of(settings),
        processing_class=AutoProcessor.from_pretrained(settings["model"]),
        callbacks=[watched(rounds, {"versions": versions(*PACKAGES)})],
    ).train()


def factory(settings: dict[str, Any], rounds: Rounds) -> None:
    """Its own collator on the rows of the load; for ``factory-packed`` and ``factory-joined`` on packs."""
    if importlib.util.find_spec("torchaudio") is None:
        silent = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("torchaudio", None))
        sys.modules["torchaudio"] = silent  # it is imported, and nothing is heard here
    from datasets import Dataset, DatasetDict
    from llamafactory.train.tuner import run_exp

    folder = Path(settings["out"] + "-tokens")
    given, seen = common(settings, rounds.total), None
    rows = [as_factory(row, Path(settings["pictures"])) for row in rows_of(settings)]
    if settings["peer"] != "factory":
        neat = settings["peer"] == "factory-packed"
        packs = packed(rows, settings, neat=neat)
        each = max(1, round(settings["batch"] * len(packs) / len(rows)))
        steps = [[packs[(step * each + n) % len(packs)] for n in range(each)] for step in range(rounds.total)]
        rows = [pack["row"] for step in steps for pack in step]
        given |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": each}
        given |= {"packing": True, "neat_packing": neat}

        def seen(model: Any) -> dict[str, Any]:
            first = [row for pack in steps[0] for row in pack["rows"]]
            useful = [sum(len(row["input_ids"]) for pack in step for row in pack["rows"]) for step in steps]
            return {"useful": useful, "packs": each, "first_loss_of_rows": one_by_one(model, first, settings)}

    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(str(folder))
    checkpoints = given.pop("gradient_checkpointing")
    given |= {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": settings["model"],
        "tokenized_path": str(folder),
        "dataset": "none",
        "template": "llava",
        "finetuning_type": "full",
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": False,
        "freeze_language_model": settings["stage"] == 1,
        "disable_gradient_checkpointing": not checkpoints,
        "disable_shuffling": True,
        "cutoff_len": settings["max_length"],
        "trust_remote_code": False,
    }
    run_exp(given, callbacks=[watched(rounds, {"versions": versions(*PACKAGES)}, seen)])


def as_factory(row: dict[str, Any], pictures: Path) -> dict[str, Any]:
    """A row as it wants one that is tokens already."""
    return {
        "input_ids": row["input_ids"],
        "attention_mask": [1] * len(row["input_ids"]),
        "labels": row["labels"],
        "images": [str(pictures / row["image"])] if row["image"] else None,
    }


def packed(rows: list[dict[str, Any]], settings: dict[str, Any], *, neat: bool) -> list[dict[str, Any]]:
    """What LLaMA-Factory's packer makes of ``rows``, shuffled: it begins with the longest ones.

    A pack is its ``row`` for the trainer, and the ``rows`` that are in it.
    """
    from llamafactory.data.processor.supervised import PackedSupervisedDatasetProcessor
    from transformers import AutoTokenizer

    class Packer(PackedSupervisedDatasetProcessor):
        def _encode_data_example(self, prompt: list[int], **_more: Any) -> tuple[list[int], list[int]]:
            row = rows[prompt[0]]
            return list(row["input_ids"]), list(row["labels"])

    asked = SimpleNamespace(cutoff_len=settings["max_length"] - 1, neat_packing=neat)  # as it takes one off
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    packer = Packer(template=None, tokenizer=tokenizer, processor=None, data_args=asked)
    nothing: list[None] = [None] * len(rows)
    made = packer.preprocess_dataset(
        {
            "_prompt": [[number] for number in range(len(rows))],
            "_response": [[0]] * len(rows),
            "_system": nothing,
            "_tools": nothing,
            "_images": [row["images"] for row in rows],
            "_videos": nothing,
            "_audios": nothing,
        }
    )
    packs = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    config = json.loads((Path(settings["model"]) / "config.json").read_text(encoding="utf-8"))
    found = [{"row": pack, "rows": rows_in(pack, config["image_token_index"])} for pack in packs]
    random.Random(0).shuffle(found)
    return found


def rows_in(pack: dict[str, Any], image_token: int) -> list[dict[str, Any]]:
    """The rows of a pack, which its positions tell apart; what it was filled up with stays at position 0."""
    ids, places = pack["input_ids"], pack["position_ids"]
    starts = [at for at, place in enumerate(places) if not place]
    pictures = iter(pack["images"] or ())
    found: list[dict[str, Any]] = []
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        row = {"input_ids": ids[start:end], "labels": pack["labels"][start:end]}
        if end - start > 1:
            found.append({**row, "images": [next(pictures)] if image_token in row["input_ids"] else []})
    return found


class Normed:
    """A processor for pictures of the tower's size, where transformers' own would want torchvision."""

    def __init__(self, folder: Path) -> None:
        held = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        self.mean, self.std = held["image_mean"], held["image_std"]

    def __call__(self, images: list[Any], return_tensors: str) -> dict[str, Any]:  # noqa: ARG002
        import numpy as np
        import torch

        found = [(np.asarray(image, np.float32) / 255 - self.mean) / self.std for image in images]
        return {"pixel_values": torch.tensor(np.stack(found)).permute(0, 3, 1, 2).float()}


def one_by_one(model: Any, rows: list[dict[str, Any]], settings: dict[str, Any]) -> float:
    """The mean loss of all learned tokens of ``rows`` that do not even share a batch."""
    import torch

    collate = Collator(Normed(Path(settings["model"])), Path(settings["pictures"]), 0)
    loss, learned = 0.0, 0
    half = settings["precision"] == "bf16"
    for row in rows:
        batch = collate([{**row, "image": picture} for picture in row["images"] or [""]])
        batch = {name: value.to(model.device) for name, value in batch.items()}
        with torch.no_grad(), torch.autocast(settings["device"], torch.bfloat16, enabled=half):
            count = int((batch["labels"] != -100).sum())
            loss += float(model(**batch).loss) * count
            learned += count
    return loss / learned


def main() -> None:
    settings = json.loads(sys.argv[1])
    rounds = Rounds(settings)
    import torch

    torch.set_num_threads(settings["threads"])
    {"trainer": trainer, "trl": trl}.get(settings["peer"], factory)(settings, rounds)


if __name__ == "__main__":
    main()
