"""Converted checkpoints in the stock class against what was recorded from the original."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from llavar import chat
from llavar.data.collate import Batch
from llavar.data.encode import encode
from llavar.data.source import parse_row
from llavar.models.convert import Options, from_llava, to_llava
from llavar.models.loss import answer_loss
from llavar.models.original import is_v0
from llavar.models.shape import ProjectorLayout
from llavar.models.stored import open_tensors
from llavar.models.tokenizer import TextTokenizer, load_tokenizer
from llavar.records import IGNORE, Conversation, Encoded

LOGITS = 2e-4
RELATIVE = 1e-5
TAG = re.compile(r"(?:<im_start>)?(?:<im_patch>)+(?:<im_end>)?")
DEFECTIVE = ("two_images", "two_images_two_turns")
"""Only the last picture reached the original's model, or none; ``fixed/...`` is what it was meant to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A recorded checkpoint, converted, and what the original computed with it."""

    source: Path
    folder: Path
    model: Any
    samples: list[dict[str, Any]]
    recorded: dict[str, Tensor]
    pixels: dict[str, Tensor]

    def forward(self, sample: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            return self.model(**self.inputs(sample)).logits[0]

    def inputs(self, sample: dict[str, Any]) -> dict[str, Tensor]:
        ids = torch.tensor([sample["input_ids"]])
        # The original fed a black picture with every text; the stock class wants as many as there are places.
        has = bool((ids == self.model.config.image_token_index).any())
        pictures = torch.stack([self.pixels[name] for name in sample["images"]]) if has else None
        return {"input_ids": ids} if pictures is None else {"input_ids": ids, "pixel_values": pictures}


@pytest.fixture(scope="module")
def parity(shared_data: Path) -> Path:
    return shared_data / "parity"


@pytest.fixture(scope="module")
def samples(parity: Path) -> list[dict[str, Any]]:
    return json.loads((parity / "model" / "samples.json").read_text())["samples"]


@pytest.fixture(scope="module")
def variants(
    parity: Path, samples: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> list[Variant]:
    found = converted(parity, samples, tmp_path_factory.mktemp("converted"))
    assert found, "no recorded checkpoint is there"
    return found


def converted(parity: Path, samples: list[dict[str, Any]], into: Path) -> list[Variant]:
    """Every checkpoint that is there, converted by the tower's name in its own config, without a network."""
    found: list[Variant] = []
    for source in sorted((parity / "model").glob("*/ckpt")):
        name = source.parent.name
        folder = into / name
        from_llava(source, folder, options=Options(layout=ProjectorLayout.IDENTITY))
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        found.append(
            Variant(
                source=source,
                folder=folder,
                model=model,
                samples=[sample for sample in samples if sample["variant"] == name],
                recorded=load_file(source.parent / "reference.safetensors"),
                pixels=load_file(parity / "model" / "pixel_values.safetensors"),
            )
        )
    return found


def comparable(variant: Variant) -> list[dict[str, Any]]:
    """Samples with recorded logits that are not one of the original's defects."""
    return [sample for sample in variant.samples if sample["name"] not in ("batch", *DEFECTIVE)]


def largest_difference(variant: Variant, sample: dict[str, Any]) -> float:
    """Of the logits of the last position, of every 37th column, and of the sums behind the softmax."""
    logits, name = variant.forward(sample), sample["name"]
    pairs = (
        (logits[-1], variant.recorded[f"{name}/last"]),
        (logits[:, ::37], variant.recorded[f"{name}/cols"]),
        (logits.logsumexp(-1), variant.recorded[f"{name}/lse"]),
    )
    return max(float((found - wanted).abs().max()) for found, wanted in pairs)


def test_logits_equal_the_originals(variants: list[Variant]):
    for variant in variants:
        compared = comparable(variant)
        assert max(largest_difference(variant, sample) for sample in compared) <= LOGITS, variant.folder.name
        recorded = {key.rsplit("/", 1)[0] for key in variant.recorded} - {"batch", *DEFECTIVE}
        assert {sample["name"] for sample in compared} == recorded


def test_several_pictures_each_reach_the_model(variants: list[Variant]):
    """Where the original lost all but the last, or raised: another first picture changes the answer."""
    for variant in variants:
        for sample in variant.samples:
            if sample["name"] in DEFECTIVE:
                logits = variant.forward(sample)
                other = variant.forward({**sample, "images": ["zeros", *sample["images"][1:]]})
                assert logits.isfinite().all()
                assert float((logits[-1] - other[-1]).abs().max()) > 1e-3
                if f"{sample['name']}/last" in variant.recorded:
                    defect = variant.recorded[f"{sample['name']}/last"]
                    assert float((logits[-1] - defect).abs().max()) > LOGITS


def test_greedy_answers_equal_the_originals(variants: list[Variant]):
    for variant in variants:
        for sample in comparable(variant):
            made = answers(variant, [sample])
            assert made == [sample["greedy_ids"]], (variant.folder.name, sample["name"])


def answers(variant: Variant, asked: list[dict[str, Any]]) -> list[list[int]]:
    """Greedy ids, padded on the left to the longest prompt."""
    longest = max(len(sample["input_ids"]) for sample in asked)
    pad = 0
    ids = torch.tensor([[pad] * (longest - len(s["input_ids"])) + s["input_ids"] for s in asked])
    mask = torch.tensor([[0] * (longest - len(s["input_ids"])) + [1] * len(s["input_ids"]) for s in asked])
    pictures = [given for s in asked if (given := variant.inputs(s).get("pixel_values")) is not None]
    made = variant.model.generate(
        input_ids=ids,
        attention_mask=mask,
        **({"pixel_values": torch.cat(pictures)} if pictures else {}),
        max_new_tokens=max(len(sample["greedy_ids"]) for sample in asked),
        do_sample=False,
        eos_token_id=2,
        pad_token_id=pad,
    )[:, longest:]
    return [row[: len(sample["greedy_ids"])] for row, sample in zip(made.tolist(), asked, strict=True)]


def test_a_left_padded_batch_equals_single_runs(variants: list[Variant]):
    for variant in variants:
        asked = comparable(variant)
        assert len({len(sample["input_ids"]) for sample in asked}) > 1
        assert answers(variant, asked) == [sample["greedy_ids"] for sample in asked]


def batch_of(variant: Variant) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sample = next(sample for sample in variant.samples if sample["name"] == "batch")
    ids, labels = torch.tensor(sample["input_ids"]), torch.tensor(sample["labels"])
    rows = (ids == variant.model.config.image_token_index).any(-1)
    pictures = [
        variant.pixels[name] for name, has in zip(sample["images"], rows.tolist(), strict=True) if has
    ]
    return ids, labels, torch.tensor(sample["attention_mask"]), torch.stack(pictures)


def test_loss_and_projector_gradients_of_a_batch(variants: list[Variant]):
    for variant in variants:
        loss, logits = stock_loss(variant)
        found = batch_differences(variant, loss)
        assert max(found.values()) <= RELATIVE, found
        mask = batch_of(variant)[2].bool()
        cols = logits[:, :, ::37][mask]
        assert float((cols - variant.recorded["batch/logits_cols"][mask]).abs().max()) <= LOGITS


def test_our_own_loss_gives_the_same(variants: list[Variant]):
    for variant in variants:
        found = batch_differences(variant, own_loss(variant))
        assert max(found.values()) <= RELATIVE, found


def stock_loss(variant: Variant) -> tuple[float, Tensor]:
    """Loss and logits of the recorded batch by the stock class; gradients are left in the model."""
    ids, labels, mask, pictures = batch_of(variant)
    variant.model.zero_grad()
    out = variant.model(input_ids=ids, attention_mask=mask.long(), labels=labels, pixel_values=pictures)
    out.loss.backward()
    return float(out.loss.detach()), out.logits.detach()


def own_loss(variant: Variant) -> float:
    """The same by the loss that this package trains with."""
    ids, labels, _, pictures = batch_of(variant)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    batch = Batch(
        ids=ids, labels=labels, positions=positions, vision=pictures, is_features=False, rows=len(ids)
    )
    variant.model.zero_grad()
    loss = answer_loss(variant.model, batch) / int((labels[:, 1:] != IGNORE).sum())
    loss.backward()
    return float(loss.detach())


def batch_differences(variant: Variant, loss: float) -> dict[str, float]:
    """Relative differences of the loss and of the gradients in the model from those recorded."""
    recorded, layer = variant.recorded, variant.model.model.multi_modal_projector.linear_1
    wanted = float(recorded["batch/loss"])
    found = {"loss": abs(loss - wanted) / wanted}
    for grad, name in ((layer.weight.grad, "weight"), (layer.bias.grad, "bias")):
        wanted = recorded[f"batch/grad_mm_projector_{name}"]
        found[f"projector {name}"] = float((grad - wanted).norm() / wanted.norm())
    rows = variant.model.get_input_embeddings().weight.grad.norm(dim=-1)
    wanted = recorded["batch/grad_embed_norm"]
    kept = torch.ones(len(wanted), dtype=torch.bool)
    # The placeholder's own embedding is replaced by the picture's, there and here.
    kept[variant.model.config.image_token_index] = False
    found["embeddings"] = float((rows - wanted)[kept].norm() / wanted[kept].norm())
    return found


def tokenizer_of(parity: Path, variant: str) -> TextTokenizer:
    """That of a recorded variant: its vocabulary follows from its name."""
    folder = parity / "tokenizers" / "tinysp"
    return load_tokenizer(folder, v0="v0" in variant, start_end="no_start_end" not in variant)


def batch_rows(parity: Path, sample: dict[str, Any]) -> list[tuple[Encoded, list[int]]]:
    """Each row of a recorded batch: as encoded here from its text, and its recorded ids.

    Its labels were made up for the recording (all but the first 20), so they are no rule to compare with.
    """
    tokenizer = tokenizer_of(parity, sample["variant"])
    rows: list[tuple[Encoded, list[int]]] = []
    recorded = zip(sample["input_ids"], sample["labels"], sample["attention_mask"], strict=True)
    for ids, labels, mask in recorded:
        length = sum(mask)
        assert set(ids[length:]) <= {tokenizer.pad_id}
        assert set(labels[length:]) <= {IGNORE}
        text = tokenizer.decode(ids[:length], skip_special=False)
        said = [part.split(" ASSISTANT: ") for part in text.split("USER: ")[1:]]
        turns = [{"from": "human", "value": TAG.sub("\n<image>", question)} for question, _ in said]
        answers_ = [{"from": "gpt", "value": answer.partition("</s>")[0]} for _, answer in said]
        row: dict[str, Any] = {"id": "row", "conversations": []}
        row["conversations"] = [turn for pair in zip(turns, answers_, strict=True) for turn in pair]
        row |= {"image": "x.jpg"} if "<image>" in turns[0]["value"] else {}
        encoded = encode(
            parse_row(row),
            tokenizer,
            chat.get("llava_v1"),
            image_tokens=16,
            start_end=tokenizer.has_start_end,
            max_length=512,
        )
        rows.append((encoded, ids[:length]))
    return rows


def test_ids_of_the_recorded_batches(parity: Path, samples: list[dict[str, Any]]):
    """Also of the variants whose weights are not there; v0's pads with a token of its own."""
    batches = [sample for sample in samples if sample["name"] == "batch"]
    assert len(batches) == 3
    for sample in batches:
        for encoded, ids in batch_rows(parity, sample):
            assert list(encoded.ids) == ids


def test_answers_read_as_recorded(parity: Path, samples: list[dict[str, Any]]):
    """Random models write many bytes that are no UTF-8: also there."""
    read = [sample for sample in samples if "greedy_text" in sample]
    assert len(read) == 38
    for sample in read:
        text = tokenizer_of(parity, sample["variant"]).decode(sample["greedy_ids"])
        assert text == sample["greedy_text"], (sample["variant"], sample["name"])


def test_the_recorded_weights_are_those_of_the_shards(variants: list[Variant]):
    for variant in variants:
        whole = open_tensors(variant.source.parent / "model.safetensors")
        parts = open_tensors(variant.source)
        assert whole.keys() == parts.keys()
        assert all(torch.equal(tensor.load(), parts[name].load()) for name, tensor in whole.items())


def test_stock_tokenizers_give_the_recorded_ids(variants: list[Variant], tmp_path: Path):
    for variant in variants:
        loaded = AutoTokenizer.from_pretrained(variant.folder)
        loaded.save_pretrained(tmp_path / variant.folder.name)
        again = AutoTokenizer.from_pretrained(tmp_path / variant.folder.name)
        for sample in variant.samples:
            if sample["name"] != "batch":
                assert loaded(sample["prompt"])["input_ids"] == sample["input_ids"], sample["name"]
                assert again(sample["prompt"])["input_ids"] == sample["input_ids"], sample["name"]


def test_prompts_of_every_variant_have_the_recorded_ids(parity: Path, samples: list[dict[str, Any]]):
    """Also of those whose weights are not there: the vocabulary follows from the variant's name."""
    compared = 0
    for sample in samples:
        if sample["name"] == "batch":
            continue
        tokenizer = tokenizer_of(parity, sample["variant"])
        said = Conversation.of(*(text for text in sample["turns"] if text is not None))
        text = chat.expand_images(chat.prompt(said, chat.get("llava_v1")), 16, tokenizer.has_start_end)
        assert text == sample["prompt"]
        assert tokenizer.encode(text) == sample["input_ids"], (sample["variant"], sample["name"])
        compared += 1
    assert compared == len(samples) - len({sample["variant"] for sample in samples}) == 40


def test_there_and_back_gives_equal_tensors(variants: list[Variant], tmp_path: Path):
    for variant in variants:
        back = tmp_path / variant.source.parent.name
        to_llava(variant.folder, back)
        before, after = open_tensors(variant.source), open_tensors(back)
        kept = {name for name in before if not name.endswith("inv_freq")}
        assert after.keys() == kept
        assert all(torch.equal(before[name].load(), after[name].load()) for name in kept)
        old, new = (json.loads((folder / "config.json").read_text()) for folder in (variant.source, back))
        added = {"mm_vision_tower", "transformers_version", "_name_or_path", "pretraining_tp", "rope_scaling"}
        added |= {"pad_token_id"} if is_v0(load_tokenizer(back)) else set()
        assert {k: v for k, v in old.items() if k not in added}.items() <= new.items()


def test_a_delta_and_its_base_become_what_the_original_merged(parity: Path, tmp_path: Path):
    recorded = sorted((parity / "delta").glob("*/delta"))
    assert recorded
    for delta in recorded:
        out = tmp_path / delta.parent.name
        base = delta.parent / "base"
        done = from_llava(delta, out, base=base, options=Options(layout=ProjectorLayout.IDENTITY))
        assert done.tested is not None
        back = tmp_path / f"{out.name}_back"
        to_llava(out, back)
        wanted, found = load_file(delta.parent / "merged_expected.safetensors"), open_tensors(back)
        assert found.keys() == {name for name in wanted if not name.endswith("inv_freq")}
        assert all(torch.equal(tensor.load(), wanted[name]) for name, tensor in found.items())
