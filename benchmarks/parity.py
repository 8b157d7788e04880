"""Everything recorded from the original and from the metrics' peers, against this package, as one table.

    python benchmarks/parity.py [--data DIR] [--out FILE]

DIR is a checkout of the recorded outputs (default: ../shared/data beside the repository). The cases, and what
counts as the same case, are those of ``tests/parity``, whose modules are loaded for it; nothing is asserted
here, only counted and measured. Writes benchmarks/results/parity.json and prints the table, which
``benchmarks/figures.py`` puts into docs/numbers.md. Ends with 1 if any case is not equal.

In the table, ``equal`` counts bit-equal cases unless a limit is named; a difference of 0 means bit-equal.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from figures import table

ROOT = Path(__file__).resolve().parent.parent
SINGLE = 1e-6
"""Metrics: what the recordings say their numbers may be compared to."""
VARIANTS: tuple[dict[str, bool], ...] = ({}, {"start_end": False}, {"v0": True})
"""Of the random checkpoints: v1, v1 without start and end tokens, v0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table. ``largest`` is a number or None where there is nothing to subtract."""

    group: str
    what: str
    cases: int
    equal: int
    largest: float | None = None
    limit: float | None = None
    note: str = ""


# ---------------------------------------------------------------- tokens and labels


def tokens(data: Path) -> Iterator[Row]:
    from llavar.data.source import RowError
    from llavar.records import IGNORE

    kit, parity = tests("parity/test_tokenization_parity"), data / "parity"
    recorded = kit.cases(parity, "tokenization.json")
    inputs = kit.cases(parity, "tokenization_inputs.json")
    whole = [case for case in recorded if case["expected"].get("all_masked")]
    refused = [case for case in recorded if "exception" in case["expected"]]
    defective = [case for case in recorded if case["id"] in kit.DEFECTIVE]
    compared = [case for case in recorded if case not in [*whole, *refused, *defective]]
    left = (
        f"of {len(recorded)} recorded; left out: {len(whole)} that the original masked whole (a row of their "
        f"own), {len(refused)} that it and this package refuse, {len(defective)} of its defects"
    )
    for version in ("v1", "v0"):
        mine = [case for case in compared if case["version"] == version]
        equal = sum(_same(case, kit.encoded(case, parity)) for case in mine)
        about = left if version == "v1" else ""
        yield Row(
            group="Tokens",
            what=f"ids and labels of {version}",
            cases=len(mine),
            equal=equal,
            note=about,
        )
    yield Row(
        group="Tokens",
        what="ids and labels through `llavar inspect --json`",
        cases=len(compared),
        equal=_inspected(kit, parity, recorded, {case["id"] for case in compared}),
    )
    usable = [kit.encoded(case, parity) for case in whole]
    yield Row(
        group="Tokens",
        what='masked whole by the original ("tokenization mismatch"), usable here',
        cases=len(whole),
        equal=sum(any(label != IGNORE for label in one.labels) for one in usable),
        note="equal: has supervised tokens",
    )
    fine = 0
    for case in inputs:
        try:
            result = kit.encoded(case, parity)
        except RowError as error:
            fine += kit.UNUSABLE.get(case["id"]) is error.reason
        else:
            fine += case["id"] not in kit.UNUSABLE and any(label != IGNORE for label in result.labels)
    yield Row(
        group="Tokens",
        what="all recorded inputs, with or without output",
        cases=len(inputs),
        equal=fine,
        note=f"equal: encoded, or one of {len(kit.UNUSABLE)} refused for the reason expected",
    )


def _same(case: dict[str, Any], found: Any) -> bool:
    # "llama" in a v0 model's name gave its tokenizer </s> as first token; the text is the same.
    first, expected = (1 if "llama_in_name" in case["id"] else 0), case["expected"]
    ids = list(found.ids[first:]) == expected["input_ids"][first:]
    return ids and list(found.labels) == expected["labels"]


def _inspected(kit: Any, parity: Path, recorded: list[dict[str, Any]], compared: set[str]) -> int:
    from llavar.cli import main as llavar

    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind, group in itertools.groupby(sorted(recorded, key=kit.kind_of), key=kit.kind_of):
            tokenizer, version, start_end, image_tokens, longest = kind
            mine, data = list(group), Path(folder) / "rows.json"
            data.write_text(json.dumps([kit.row_of(case) for case in mine]))
            command = ["inspect", str(data), "--tokenizer", str(parity / "tokenizers" / tokenizer), "--json"]
            command += ["--conversation", "multimodal" if version == "v0" else "llava_v1"]
            command += ["--image-tokens", str(image_tokens), "--max-length", str(longest)]
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
                llavar([*command, *([] if start_end else ["--no-start-end"])])
            for case, line in zip(mine, said.getvalue().splitlines(), strict=True):
                if case["id"] in compared:
                    shown, expected = json.loads(line), case["expected"]
                    first = 1 if "llama_in_name" in case["id"] else 0
                    same = shown["input_ids"][first:] == expected["input_ids"][first:]
                    equal += same and shown["labels"] == expected["labels"]
    return equal


def prompts(data: Path) -> Iterator[Row]:
    from llavar import chat
    from llavar.records import Conversation

    kit, parity = tests("parity/test_model_parity"), data / "parity"
    samples = json.loads((parity / "model/samples.json").read_text())["samples"]
    asked = [sample for sample in samples if sample["name"] != "batch"]
    for variant in sorted({sample["variant"] for sample in samples}):
        tokenizer = kit.tokenizer_of(parity, variant)
        mine = [sample for sample in asked if sample["variant"] == variant]
        equal = 0
        for sample in mine:
            said = Conversation.of(*(text for text in sample["turns"] if text is not None))
            prompt = chat.prompt(said, chat.get("llava_v1"))
            text = chat.expand_images(prompt, 16, tokenizer.has_start_end)
            equal += text == sample["prompt"] and tokenizer.encode(text) == sample["input_ids"]
        name = f"prompt ids of the small model `{variant}`"
        yield Row(group="Tokens", what=name, cases=len(mine), equal=equal)
    rows = [row for s in samples if s["name"] == "batch" for row in kit.batch_rows(parity, s)]
    yield Row(
        group="Tokens",
        what="ids of the recorded training batches (rows of 3 variants)",
        cases=len(rows),
        equal=sum(list(encoded.ids) == ids for encoded, ids in rows),
    )
    read = [sample for sample in asked if "greedy_text" in sample]
    texts = [kit.tokenizer_of(parity, sample["variant"]).decode(sample["greedy_ids"]) for sample in read]
    yield Row(
        group="Tokens",
        what="greedy answers as text, many with bytes that are no UTF-8",
        cases=len(read),
        equal=sum(text == sample["greedy_text"] for text, sample in zip(texts, read, strict=True)),
    )


# ---------------------------------------------------------------- pictures


def pictures(data: Path) -> Iterator[Row]:
    import numpy as np

    from llavar import images

    kit = tests("parity/test_images_parity")
    cases = json.loads((data / "parity/images.json").read_text())["cases"]
    kept = sum(case["mode"] == "keep" for case in cases)
    for mode, transform in kit.NAMES.items():
        mine = [case for case in cases if case["mode"] == mode]
        equal, largest = 0, 0.0
        for case in mine:
            found = images.pixels(data / case["image"], transform=transform, size=336)
            equal += hashlib.sha256(found.tobytes()).hexdigest() == case["sha256_f32"]
            for channel, y, x, value in case["points"]:
                largest = max(largest, abs(float(found[channel, y, x]) - float(np.float32(value))))
        yield Row(
            group="Images",
            what=f"arrays of `{transform}`" + (f" (recorded as `{mode}`)" if mode != transform else ""),
            cases=len(mine),
            equal=equal,
            largest=largest,
            note=f"by sha256; {kept} recorded arrays of `keep` are left out, which is not reproduced"
            if mode == "pad"
            else "by sha256",
        )


# ---------------------------------------------------------------- models


def models(data: Path) -> Iterator[Row]:
    import torch
    from transformers import AutoTokenizer

    from llavar.models.convert import to_llava
    from llavar.models.stored import open_tensors

    kit, parity = tests("parity/test_model_parity"), data / "parity"
    samples = json.loads((parity / "model/samples.json").read_text())["samples"]
    with tempfile.TemporaryDirectory() as folder:
        for variant in kit.converted(parity, samples, Path(folder)):
            name, asked = variant.folder.name, kit.comparable(variant)
            yield _logits(kit, variant, asked)
            yield Row(
                group="Models",
                what=f"`{name}`: greedy ids, each prompt alone",
                cases=len(asked),
                equal=sum(kit.answers(variant, [one]) == [one["greedy_ids"]] for one in asked),
            )
            batch = kit.answers(variant, asked)
            yield Row(
                group="Models",
                what=f"`{name}`: greedy ids, all prompts in one left-padded batch",
                cases=len(asked),
                equal=sum(a == b["greedy_ids"] for a, b in zip(batch, asked, strict=True)),
            )
            yield from _losses(kit, variant)
            stock = AutoTokenizer.from_pretrained(variant.folder)
            stock.save_pretrained(Path(folder) / "again")
            again = AutoTokenizer.from_pretrained(Path(folder) / "again")
            said = [one for one in variant.samples if one["name"] != "batch"]
            yield Row(
                group="Models",
                what=f"`{name}`: prompt ids by stock `AutoTokenizer`, loaded and after saving",
                cases=2 * len(said),
                equal=sum(
                    one(sample["prompt"])["input_ids"] == sample["input_ids"]
                    for one in (stock, again)
                    for sample in said
                ),
            )
            back = Path(folder) / "back"
            to_llava(variant.folder, back)
            before, after = open_tensors(variant.source), open_tensors(back)
            wanted = [key for key in before if not key.endswith("inv_freq")]
            yield Row(
                group="Models",
                what=f"`{name}`: tensors after `from-llava` and `to-llava`",
                cases=len(wanted),
                equal=sum(torch.equal(before[key].load(), after[key].load()) for key in wanted),
            )


def _logits(kit: Any, variant: Any, asked: list[dict[str, Any]]) -> Row:
    found = {sample["name"]: kit.largest_difference(variant, sample) for sample in asked}
    return Row(
        group="Models",
        what=f"`{variant.folder.name}`: logits in stock `LlavaForConditionalGeneration`, fp32",
        cases=len(found),
        equal=sum(one <= kit.LOGITS for one in found.values()),
        largest=max(found.values()),
        limit=kit.LOGITS,
        note=f"two-image prompts against the repaired original; {len(kit.DEFECTIVE)} recorded with its "
        "defect are left out",
    )


def _losses(kit: Any, variant: Any) -> Iterator[Row]:
    for whose, loss in (("stock loss", lambda: kit.stock_loss(variant)[0]), ("own loss", None)):
        value = loss() if loss else kit.own_loss(variant)
        found = kit.batch_differences(variant, value)
        yield Row(
            group="Models",
            what=f"`{variant.folder.name}`: training batch, {whose}: {', '.join(found)}",
            cases=len(found),
            equal=sum(one <= kit.RELATIVE for one in found.values()),
            largest=max(found.values()),
            limit=kit.RELATIVE,
            note="relative; all but the first are gradients",
        )


def folds(_data: Path) -> Iterator[Row]:
    """``fold`` on random checkpoints made here, against a forward pass with the projector as ``W x + b``."""
    import torch

    from llavar.cli import main as llavar
    from llavar.models import _hf as hf
    from llavar.models.convert import from_llava, to_llava
    from llavar.models.stored import open_tensors
    from llavar.models.tokenizer import load_tokenizer

    kit = tests("original_layout")
    sentencepiece = kit.sentencepiece_model()
    differences: list[float] = []
    greedy = asked = tensors = back = 0
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for (seed, variant), text in itertools.product(enumerate(VARIANTS), (32, 48)):
            source = Path(folder) / f"{seed}-{text}" / "source"
            original = kit.make_original(source, sentencepiece, text=text, vision=16, seed=seed, **variant)
            out = source.with_name("fold")
            from_llava(source, out)
            model, tokenizer = hf.load_stock(out), load_tokenizer(out)
            patch = tokenizer.image_patch_id
            ids = tokenizer.encode("USER: What does it say? " + "<im_patch>" * 4 + " ASSISTANT:")
            pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
            wanted = original.logits(ids, pixels, patch)
            found = model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0]
            differences.append(float((found - wanted).abs().max()))
            made = model.generate(
                input_ids=torch.tensor([ids]), pixel_values=pixels, max_new_tokens=16, do_sample=False
            )[0].tolist()
            expected = list(ids)
            # A random model may say <im_patch>, which the reference would take for a place of the picture.
            while len(expected) < len(made) and patch not in expected[len(ids) :]:
                expected.append(int(original.logits(expected, pixels, patch)[-1].argmax()))
            asked, greedy = asked + 1, greedy + (made[: len(expected)] == expected)
            to_llava(out, source.with_name("back"))
            again = open_tensors(source.with_name("back"))
            tensors += len(original.state)
            back += sum(torch.equal(again[key].load(), value) for key, value in original.state.items())
        narrow = Path(folder) / "narrow" / "source"
        kit.make_original(narrow, sentencepiece, text=24, vision=16)
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = llavar(["convert", "from-llava", str(narrow), "--out", str(Path(folder) / "no")])
    limit = 2e-4
    yield Row(
        group="Fold",
        what="random models of v1, v1 without start and end, v0, with a decoder 2 and 3 times as wide as the "
        "tower: logits in the stock class, fp32",
        cases=len(differences),
        equal=sum(one <= limit for one in differences),
        largest=max(differences),
        limit=limit,
    )
    yield Row(group="Fold", what="the same: up to 16 greedy ids", cases=asked, equal=greedy)
    yield Row(group="Fold", what="the same: tensors after `to-llava`", cases=tensors, equal=back)
    refused = code != 0 and "--layout identity" in said.getvalue() and not (Path(folder) / "no").exists()
    yield Row(
        group="Fold",
        what="a decoder 1.5 times as wide: refused, naming `--layout identity`",
        cases=1,
        equal=int(refused),
    )


def deltas(data: Path) -> Iterator[Row]:
    import torch
    from safetensors.torch import load_file

    from llavar.models import delta
    from llavar.models.convert import Options, from_llava, to_llava
    from llavar.models.shape import ProjectorLayout
    from llavar.models.stored import open_tensors

    for recorded in sorted((data / "parity/delta").glob("*/delta")):
        name, base = recorded.parent.name, recorded.parent / "base"
        wanted = load_file(recorded.parent / "merged_expected.safetensors")
        with tempfile.TemporaryDirectory() as folder:
            merged, made, again, hf, back = (Path(folder) / one for one in ("m", "d", "a", "h", "b"))
            delta.apply(base, recorded, merged)
            delta.make(base, merged, made)
            delta.apply(base, made, again)
            from_llava(recorded, hf, base=base, options=Options(layout=ProjectorLayout.IDENTITY))
            to_llava(hf, back)
            kept = [key for key in wanted if not key.endswith("inv_freq")]
            for what, found, keys in (
                ("`apply-delta`: tensors of the merge", merged, list(wanted)),
                ("`make-delta`, then `apply-delta`: tensors", again, list(wanted)),
                ("`from-llava --base`, then `to-llava`: tensors", back, kept),
            ):
                tensors = open_tensors(found)
                pairs = [(tensors[key].load(), wanted[key]) for key in keys]
                yield Row(
                    group="Deltas",
                    what=f"`{name}`: {what}",
                    cases=len(pairs),
                    equal=sum(torch.equal(a, b) for a, b in pairs),
                    largest=max(float((a.float() - b.float()).abs().max()) for a, b in pairs),
                )


# ---------------------------------------------------------------- metrics


def metrics(data: Path) -> Iterator[Row]:
    from llavar.evals import metrics as ours

    kit, folder = tests("parity/test_metrics_parity"), data / "metrics"

    def cases(name: str) -> list[dict[str, Any]]:
        return json.loads((folder / f"{name}.json").read_text())["cases"]

    for file, metric in kit.RECORDED.items():
        pairs: list[tuple[float, float]] = []
        beyond = 0
        for case in cases(file):
            score = ours.score(metric, case["prediction"], case["ground_truths"])
            if case["expected"] is None:
                beyond += 0 <= score <= 1
            else:
                pairs.append((score, float(case["expected"])))
        note = f"{beyond} more where the peer raises are scored here" if beyond else ""
        yield _close("Metrics", f"`{file}` as `{metric}`", pairs, note)
    named = cases("mmocr_recognition_rects_hme")
    pairs = [
        (ours.score(c["metric"].replace("_", "-"), c["prediction"], c["ground_truths"]), float(c["expected"]))
        for c in named
    ]
    yield _close("Metrics", "`mmocr_recognition_rects_hme`", pairs)
    pairs = [
        (ours.score("ocrbench-hme", c["prediction"], c["ground_truths"]), float(value))
        for c in cases("ocrbench_hme")
        for value in c["expected"].values()
    ]
    yield _close("Metrics", "`ocrbench_hme`, each case by three kits", pairs)
    texts = [(c["text"], name, value) for c in cases("normalisers") for name, value in c["expected"].items()]
    yield Row(
        group="Metrics",
        what=f"`normalisers`, {len(kit.NORMALISERS)} of them",
        cases=len(texts),
        equal=sum(kit.NORMALISERS[name](text) == value for text, name, value in texts),
    )
    parsers = {"official": "mme", "lmms": "mme-lmms", "vlmevalkit": "mme-vlmevalkit"}
    replies = [
        (c["prediction"], peer, said) for c in cases("mme_parse") for peer, said in c["expected"].items()
    ]
    said = [ours.parse_yes_no(text, parsers[peer]) for text, peer, _ in replies]
    wanted = [{"unknown": "other"}.get(one.lower(), one.lower()) for _, _, one in replies]
    yield Row(
        group="Metrics",
        what="`mme_parse`, each reply by three parsers",
        cases=len(replies),
        equal=sum(a == b for a, b in zip(said, wanted, strict=True)),
    )
    pairs = [(kit.mme(kit.alike(c), "mme").score, float(c["expected"]["score"])) for c in cases("mme_tasks")]
    yield _close("Metrics", "`mme_tasks`", pairs, "answers with the recorded counts; theirs are not there")


def _close(group: str, what: str, pairs: list[tuple[float, float]], note: str = "") -> Row:
    differences = [abs(a - b) for a, b in pairs]
    return Row(
        group=group,
        what=what,
        cases=len(pairs),
        equal=sum(one <= SINGLE for one in differences),
        largest=max(differences),
        limit=SINGLE,
        note=note,
    )


def golden(data: Path) -> Iterator[Row]:
    from llavar.evals import metrics as ours

    kit, folder = tests("parity/test_metrics_parity"), data / "llavar/MultimodalOCR"
    rows: dict[str, list[tuple[str, Any]]] = {
        name: [
            (row["answer"], row["gt_answers"]) for row in json.loads((folder / f"{name}.json").read_text())
        ]
        for name in kit.SETS
    }
    total = sum(map(len, rows.values()))
    for metric, expected in kit.GOLDEN.items():
        pairs: list[tuple[float, float]] = []
        for name, wanted in zip(kit.SETS, expected, strict=True):
            if wanted is not None:
                scores = ours.score_all(metric, rows[name])
                pairs.append((round(sum(scores) / len(scores), 4), wanted))
        paper = f"the paper's row: {', '.join(f'{a:.4f}' for a, _ in pairs)}, over {total:,} answers"
        yield Row(
            group="LLaVAR's released answers",
            what=f"`{metric}` by set, four decimals",
            cases=len(pairs),
            equal=sum(a == b for a, b in pairs),
            largest=max(abs(a - b) for a, b in pairs),
            note=paper if metric == "mmocr" else "",
        )
    found: list[bool] = []
    for parser, (file, score) in itertools.product(
        ("mme", "mme-lmms", "mme-vlmevalkit"), (("OCR_llava", 50.0), ("OCR_llavar", 80.0))
    ):
        lines = (data / "llavar/MME" / f"{file}.txt").read_text().splitlines()
        found.append(kit.mme(lines, parser).score == score)
    yield Row(
        group="LLaVAR's released answers",
        what="MME's OCR task: 50 (LLaVA) and 80 (LLaVAR), by three parsers",
        cases=len(found),
        equal=sum(found),
    )


def judge(data: Path) -> Iterator[Row]:
    from llavar.evals.judge import (
        Review,
        ReviewStatus,
        Rule,
        parse_scores,
        read_cases,
        review_prompt,
        summarise,
    )

    kit = tests("parity/test_judge_parity")
    parsed = kit.cases(data, "gpt_review_parse")
    wanted = [None if c["expected"] == [-1, -1] else tuple(c["expected"]) for c in parsed]
    found = [parse_scores(c["review"]) for c in parsed]
    same = sum(a == b for a, b in zip(found, wanted, strict=True))
    yield Row(group="Judge", what="`gpt_review_parse`", cases=len(parsed), equal=same)
    asked, same = kit.cases(data, "gpt_review_prompt"), 0
    with tempfile.TemporaryDirectory() as folder:
        for case in asked:
            paths = [Path(folder) / f"{name}.jsonl" for name in ("question", "context", "answer1", "answer2")]
            for path in paths:
                path.write_text(json.dumps(case[path.stem]))
            (one,) = read_cases(*paths)
            rule = Rule(prompt=case["rule"]["prompt"], role=case["rule"]["role"])
            answers = (one.reference.text, one.answer.text)
            prompt = review_prompt(one.question.context, one.question.text, answers, rule)
            same += prompt == case["expected"]
    yield Row(group="Judge", what="`gpt_review_prompt`, to the character", cases=len(asked), equal=same)
    pairs: list[tuple[float, float]] = []
    for case in kit.cases(data, "gpt_review_summary"):
        rows = [
            Review(
                question_id=number,
                category=name,
                status=ReviewStatus.OK if pair != [-1, -1] else ReviewStatus.UNPARSED,
                scores=(pair[0], pair[1]),
            )
            for name, tuples in case["tuples"].items()
            for number, pair in enumerate(tuples)
        ]
        made = summarise(rows, compatible=True)
        for name, expected in case["expected"].items():
            values = (made[name].n, made[name].reference, made[name].model, made[name].relative)
            fields = ("n", "gpt4_mean", "model_mean", "relative")
            pairs += [(float(a), float(expected[b])) for a, b in zip(values, fields, strict=True)]
    yield _close("Judge", "`gpt_review_summary`, numbers", pairs)
    pairs = []
    for name in kit.FILES:
        for row, expected in zip(summarise(kit.reviews(data, name)).values(), kit.TABLE[name], strict=True):
            pairs += zip((row.reference, row.model, row.relative), expected, strict=True)
    yield _close("Judge", f"the released reviews, {len(kit.FILES)} files of 90, numbers", pairs)


# ---------------------------------------------------------------- the table


SECTIONS: tuple[Callable[[Path], Iterator[Row]], ...] = (
    *(tokens, prompts, pictures, models, folds, deltas, metrics, golden, judge),
)


def tests(name: str) -> Any:
    """A module of ``tests``, by its path there."""
    full = "recorded_" + name.replace("/", "_")
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, ROOT / "tests" / f"{name}.py")
        if spec is None or spec.loader is None:
            raise SystemExit(f"tests/{name}.py is not there; run this in a checkout")
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "parity.json")
    arguments = parser.parse_args()
    if not (arguments.data / "parity").is_dir():
        parser.error(f"{arguments.data} holds no folder parity; name a checkout of the recorded outputs")
    rows: list[Row] = []
    started = time.monotonic()
    for section in SECTIONS:
        for row in section(arguments.data):
            rows.append(row)
            print(f"{row.equal}/{row.cases}  {row.group}: {row.what}", file=sys.stderr, flush=True)
    document = {
        "command": "python benchmarks/parity.py --data DIR",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": _versions(),
        "seconds": round(time.monotonic() - started, 1),
        "rows": [asdict(row) for row in rows],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(document))
    return int(any(row.equal < row.cases for row in rows))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "tokenizers", "pillow", "numpy")}


if __name__ == "__main__":
    sys.exit(main())
