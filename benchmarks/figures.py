"""docs/numbers.md from the raw files in benchmarks/results: python benchmarks/figures.py

Every figure of that page is read here from the JSON that its command wrote, so after a benchmark was run
again this command brings the page up to date; tests/test_numbers_doc.py says when it was forgotten. Sections
whose file is not there are left out. Whether a goal is met is worked out from the figure.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
import figures_corpus  # noqa: E402 - neighbours, wherever this is started from
import figures_nano  # noqa: E402
import figures_serving  # noqa: E402
import figures_train  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "numbers.md"

HEAD = """\
# Numbers

Written by `python benchmarks/figures.py` from the raw files in `benchmarks/results/`: edit that script, not this
page. Each section names the command that makes its file. Unless a section says otherwise the machine is two
shared x86-64 cores without an accelerator: times are for comparing things on one machine, not for quoting.
"""  # noqa: E501

PARITY = """\
## Against the original

`python benchmarks/parity.py --data DIR`, {seconds:.0f} s; {machine}; {versions}. Raw: `parity.json`. DIR is a checkout
of what was recorded from the original code and from the metrics' own code; it is no part of this project.
`pytest tests/parity` asserts the same cases.

"Equal" means equal to the bit or to the character, and where a limit is named, within it. For the models that were
recorded (tiny, random weights) the weights of `v1_start_end` alone are there; of `v1_no_start_end` and of v0 the
prompts and the ids of the batch are, so their logits are not compared.

{table}

Not looked at, because there is nothing to compare with: recorded inputs without outputs (they are encoded and
refused as listed), the original's `keep` arrays, and its two prompts with two pictures as it computed them: there
the last picture alone reached its model.
"""  # noqa: E501

ENGINES = """\
## Engines

`python benchmarks/engines.py MODEL_DIR... --engine-python PYTHON_WITH_VLLM`; {machine}. Raw: `engines.json`. Nano in
both layouts, four questions on four pictures of the tower's own size, greedy, fp32: token ids of vLLM against those of
transformers through this package.

{table}

Other engines were not run: see [conversion](conversion.md).
"""  # noqa: E501

MERGE = """\
## Merging a delta

`python benchmarks/merge.py --work DIR`; {machine}. Raw: `merge.json`. Base and delta with LLaMA-13B's widths
(5120 x 13824, 32,000 and 32,003 tokens), float16, random values, {layers} of its 40 layers: {base:.1f} + {delta:.1f} GB in
`.bin` shards. Each is compared with moving the same bytes without looking at them, in turn.{note}

| page cache | copy, s | merge, s | merge / copy | with checksums / copy | whole process / copy | peak anonymous memory |
|---|---|---|---|---|---|---|
{rows}

- Memory: the goal was at most 1 GB; {memory}. It is set by parts of tensors, not by the number of layers.
- Time: the goal was at most 1.3 x the copy; {time}.
- `--checksums` is off by default here, since hashing costs more than the merge; `from-llava` always hashes.
"""  # noqa: E501

SCORING = """\
## Scoring

`{command}`; {machine}; load average before: {load}. Raw: `evals-score.json`. LLaVAR's 20,349 released answers, one process,
medians of {repeat}; the interval is part of every score, the baselines can be left out with `--no-baselines`.

| metric | metric + interval, s | baselines, s |
|---|---|---|
{rows}

- The goal was below 1 s. {goal}
- `llavar score STVQA.json` from cold: {cold:.2f} s ({plain:.2f} s with `--no-baselines`); the goal was below 1 s, {cold_goal}.
"""  # noqa: E501

GENERATION = """\
## Answering questions

`python benchmarks/eval_generation.py`; {machine}. Raw: `eval-generation.json`. {questions} questions on {pictures} pictures,
nano, greedy, batches of {batch}: `llavar eval`'s loop against one question at a time as in `model_vqa`.{note}

| answers | ours, questions/s | loop, questions/s | times faster | times less processor time | equal answers |
|---|---|---|---|---|---|
{rows}

The goal was 4 times the loop with equal answers; {goal}.{peers}
"""  # noqa: E501

QUANTIZE = """\
## 8 and 4 bits

`{command}`; x86-64, {cores} cores, {threads} thread, torch {torch}. Raw: `quantize.json`. Nano on {questions} held-out
questions; what is quantized are the matrices of the decoder's layers.

| | decoder's layers | whole model | answers equal to fp32 | character error rate | line/number questions | mean logit difference, in deviations | processor seconds |
|---|---|---|---|---|---|---|---|
{rows}

Sizes at full scale, added up over tensors without values:

| | fp16 | int8 | nf4 |
|---|---|---|---|
{shapes}

On this processor neither is faster. Speed and memory on a GPU were not measured.
"""  # noqa: E501

PEERS = """\
## Against lmms-eval

`python benchmarks/eval_peers.py --peers-python ... --engine-python ... --data DIR`; {machine}; {versions}.
Raw: `eval-peers.json`. {note}Not compared: {not_compared}.
"""

ASKING = """
The same vLLM server, nano, {questions} questions on {pictures} pictures, {workers} requests at a time, each kit a process from cold
to exit, medians:

| | questions/s from cold to exit | questions/s while asking |
|---|---|---|
{rows}

Times faster: {whole} from cold to exit, {asking} while asking; equal answers: {equal}.
"""  # noqa: E501

PEER_SCORES = """
The metric alone on answers in memory, medians in seconds:

| rule | answers | {kits} | times faster | scores that differ |
|---|---|---|---|---|---|
{rows}
"""

ESTIMATE = """\
## Time and memory foretold

`{command}`; {machine}. Raw: `estimate.json`. What `llavar train` says before step 1, as a share of what came,
nano, {steps} steps. The goal was within 15 %.

| stage | precision | seconds | memory of the process | counted for the model |
|---|---|---|---|---|
{rows}

Median and range; **missed**: {missed}.
"""

STARTUP = """\
## Starting

`python benchmarks/startup.py`; {machine}. Raw: `startup.json`. Wall clock of a whole process, medians of {repeat}.

| command | seconds | goal |
|---|---|---|
{rows}
"""  # noqa: E501

DEMO = """\
## The demo

`{command}`; {machine}. Raw: `demo.json`. Start to report: {minutes:.1f} minutes (goal: 10). Held-out words, fonts and layouts,
{n} questions, {runs} for each arm; what the figures mean: [guide](guide.md).

| measure | without text-rich rows | with | difference | p |
|---|---|---|---|---|
{rows}
"""  # noqa: E501

KILLS = """\
## Killed and gone on

`{command}`; {machine}. Raw: `kill_train.json`. {kills} kills (SIGKILL at random moments) over {runs} runs, {seconds} s; compared:
{compared}.

| stage | processes | loader workers | kills | differences |
|---|---|---|---|---|
{rows}

Bit-identical throughout: {identical}. The goal was at least 50 kills, both stages, any number of workers.
"""  # noqa: E501


DATA = """\
## A million rows

`python benchmarks/data.py`; {machine}; other work ran on both cores. Raw: `data.json`. {rows:,} rows at real
lengths, {megabytes:.0f} MB of JSON in one list. Memory is what one process grows by, over what its imports
take.

| | seconds | grows by |
|---|---|---|
| `json.load`, as the original | {load[seconds]:.1f} | {load[resident_growth_mib]:.0f} MiB |
| the pass that finds the rows, once for a file | {find[seconds]:.1f} | {find[resident_growth_mib]:.0f} MiB |
| the pass that encodes them, once for a file and a tokenizer, 2 workers | {encode[seconds]:.0f} | \
{encode[resident_growth_mib]:.0f} MiB |
| opening after the passes | {open[open_seconds]:.2f} | {open[resident_growth_mib]:.0f} MiB |
| the order of an epoch, once for an epoch | {open[order_of_an_epoch_seconds]:.1f} | (in the row above) |

Goals: opened in less than 2 s, met; less than 150 MB for each process, met.
"""


def page() -> str:
    """The whole of docs/numbers.md."""
    sections: dict[str, Callable[[Any], str]] = {
        "parity": _parity,
        "engines": _engines,
        "merge": _merge,
        "evals-score": _scoring,
        "eval-generation": _generation,
        "eval-peers": _peers,
        "quantize": _quantize,
        "startup": _startup,
        "nano": figures_nano.nano,
        "tiles": figures_nano.tiles,
        "demo": _demo,
        "ablation": figures_nano.ablation,
        "kill_train": _kills,
        "estimate": _estimate,
        "train": figures_train.train,
        "data": _data,
        "serving": figures_serving.serving,
        "serve_load": figures_serving.load,
        "serve_fuzz": figures_serving.fuzz,
        "corpus": figures_corpus.corpus,
        "kill_corpus": figures_corpus.kills,
    }
    parts = [HEAD]
    for name, section in sections.items():
        if (path := RESULTS / f"{name}.json").is_file():
            parts.append(section(json.loads(path.read_text(encoding="utf-8"))))
    others = sorted(path for path in RESULTS.glob("*.json") if path.stem not in sections)
    if others:
        lines = [f"- `{path.name}`{_by(path)}" for path in others]
        parts.append("## Other raw files\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _by(path: Path) -> str:
    document = json.loads(path.read_text(encoding="utf-8"))
    command = document.get("command") if isinstance(document, dict) else None
    return f": `{command}`" if isinstance(command, str) else ""


def table(document: Mapping[str, Any]) -> str:
    """The rows of parity.json as Markdown."""
    lines = ["| | what was compared | cases | equal | largest difference |", "|---|---|---|---|---|"]
    group = ""
    for row in document["rows"]:
        first, group = ("" if row["group"] == group else row["group"]), row["group"]
        largest = "" if row["largest"] is None else "0"
        if row["largest"]:
            largest = f"{row['largest']:.1e}" + (f" (limit {row['limit']:.0e})" if row["limit"] else "")
        note = f"; {row['note']}" if row["note"] else ""
        lines.append(f"| {first} | {row['what']}{note} | {row['cases']} | {row['equal']} | {largest} |")
    cases, equal = (sum(row[name] for row in document["rows"]) for name in ("cases", "equal"))
    return "\n".join([*lines, f"| **All** | | **{cases:,}** | **{equal:,}** | |"])


def _parity(document: Any) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return PARITY.format(
        seconds=document["seconds"], machine=document["machine"], versions=versions, table=table(document)
    )


def _engines(document: Any) -> str:
    lines = [
        "| layout | engine | override | equal prompt ids | equal 16 greedy ids |",
        "|---|---|---|---|---|",
    ]
    for row in document["results"]:
        layout = "identity" if row["layout"] == "identity" else "fold"
        engine = ", ".join(f"{name} {version}" for name, version in row["engine"].items())
        override = f"`{json.dumps(row['override'])}`" if row["override"] else "none"
        equal = (f"{row[name]} of {row['questions']}" for name in ("equal_prompt_ids", "equal_greedy_ids"))
        lines.append(f"| {layout} | {engine} | {override} | {' | '.join(equal)} |")
    return ENGINES.format(machine=document["machine"], table="\n".join(lines))


def _merge(document: Any) -> str:
    rows: list[str] = []
    for cache in ("warm", "cold"):
        one = document[cache]
        medians = one["medians"]
        rows.append(
            f"| {cache} | {medians['copy']:.1f} | {medians['merge']:.1f} | {one['merge_over_copy']:.2f} | "
            f"{one['merge_checksums_over_copy']:.2f} | {one['process_over_copy']:.2f} | "
            f"{one['peak_anonymous_bytes'] / 1e9:.2f} GB |"
        )
    peak = max(document[cache]["peak_anonymous_bytes"] for cache in ("warm", "cold"))
    ratios = {cache: document[cache]["merge_over_copy"] for cache in ("warm", "cold")}
    missed = [f"{ratio:.2f} {cache}" for cache, ratio in ratios.items() if ratio > 1.3]
    note = f" Note of the run: {document['note']}." if document["note"] else ""
    return MERGE.format(
        machine=document["machine"],
        layers=document["layers"],
        base=document["bytes"]["base"] / 1e9,
        delta=document["bytes"]["delta"] / 1e9,
        rows="\n".join(rows),
        note=note,
        memory=f"{'met' if peak <= 1e9 else '**missed**'} with {peak / 1e9:.2f} GB",
        time=f"**missed** in this run ({', '.join(missed)})" if missed else "met",
    )


def _scoring(document: Any) -> str:
    found = document["scoring, s"]
    machine = document["machine"]
    rows = [
        f"| `{name}` | {one['metric + interval']['median']:.2f} | {one['baselines']['median']:.2f} |"
        for name, one in found.items()
    ]
    slow = [name for name, one in found.items() if one["metric + interval"]["median"] >= 1]
    named = ", ".join(f"`{name}`" for name in slow)
    cold = document["llavar score STVQA.json from cold, s"]
    times = [cold[name]["median"] for name in ("with baselines", "--no-baselines")]
    return SCORING.format(
        command=document["command"],
        machine=f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}",
        load=document["load average before"],
        repeat=len(cold["with baselines"]["all"]),
        rows="\n".join(rows),
        goal=f"**Missed** by {named}."
        if slow
        else f"Met, metric and interval; reading the files adds {document['reading, s']['median']:.2f} s.",
        cold=times[0],
        plain=times[1],
        cold_goal="met" if max(times) < 1 else "**missed** in this run",
    )


def _generation(document: Any) -> str:
    names = {"own_length": "ended by nano", "24_tokens": "24 tokens each"}
    rows: list[str] = []
    for name, label in names.items():
        one = document[name]
        speed = one["questions_per_second"]
        rows.append(
            f"| {label} ({one['characters_per_answer']:.0f} characters) | {speed['ours']:.1f} | "
            f"{speed['loop']:.1f} | {one['times_faster']:.2f} | {one['times_less_processor_time']:.2f} | "
            f"{one['equal_answers']} of {document['questions']} |"
        )
    missed = [
        f"answers {label}, {document[name]['times_faster']} times"
        for name, label in names.items()
        if document[name]["times_faster"] < 4
    ]
    return GENERATION.format(
        machine=document["machine"],
        questions=document["questions"],
        pictures=document["pictures"],
        batch=document["batch_size"],
        note=f" Note of the run: {document['note']}." if document["note"] else "",
        rows="\n".join(rows),
        peers=""
        if (RESULTS / "eval-peers.json").is_file()
        else " lmms-eval on the same endpoint was not measured.",
        goal=f"**missed** by wall clock in this run: {'; '.join(missed)}" if missed else "met",
    )


def _peers(document: Any) -> str:
    text = PEERS.format(
        machine=document["machine"],
        versions=", ".join(f"{name} {version}" for name, version in document["peers"].items()),
        note=f"Note of the run: {document['note']}. " if document["note"] else "",
        not_compared=document["not_compared"],
    )
    if asking := document.get("asking"):
        speeds = asking["questions_per_second"]
        rows = [f"| {kit} | {one['whole']:.2f} | {one['asking']:.2f} |" for kit, one in speeds.items()]
        faster = asking["times_faster"]
        text += ASKING.format(
            **{name: asking[name] for name in ("questions", "pictures", "workers")},
            rows="\n".join(rows),
            whole=faster["whole"],
            asking=faster["first_to_last_reply"],
            equal=", ".join(f"{one} of {asking['questions']}" for one in asking["equal_answers"]),
        )
    if scoring := document.get("scoring"):
        seconds = scoring["median_seconds"]
        rows = [
            f"| {rule} | {one['answers']:,} | "
            + " | ".join(f"{found[rule]:.2f}" for found in seconds.values())
            + f" | {scoring['times_faster'][rule]} | {one['unequal_scores']} |"
            for rule, one in scoring["rules"].items()
        ]
        text += PEER_SCORES.format(kits=" | ".join(seconds), rows="\n".join(rows))
    return text


def _quantize(document: Any) -> str:
    machine = document["machine"]
    rows = [
        f"| {name} | {one['decoder_bytes'] / 1e6:.1f} MB | {one['model_bytes'] / 1e6:.1f} MB | "
        f"{one['equal']:.1%} | {one['scores']['transcription_cer']:.3f} | "
        f"{one['scores']['vqa_accuracy']:.3f} | "
        f"{one['logits']['mean_relative']:.4f} | {one['cpu_seconds']:.0f} |"
        for name, one in document["results"].items()
    ]
    shapes = [
        f"| {name} | " + " | ".join(f"{one[kind] / 1e9:.1f} GB" for kind in ("fp16", "int8", "nf4")) + " |"
        for name, one in document["shapes"].items()
    ]
    return QUANTIZE.format(
        command=document["command"],
        cores=machine["cores"],
        threads=machine["threads"],
        torch=machine["torch"],
        questions=document["questions"],
        rows="\n".join(rows),
        shapes="\n".join(shapes),
    )


def _startup(document: Any) -> str:
    goals = {"import llavar": 0.3, "llavar --help": 0.3, "llavar ask (nano)": 3.0}
    rows = [
        f"| `{name}` | {one['median']:.2f} | below {goals[name]:g}: "
        f"{'met' if one['median'] < goals[name] else '**missed**'} |"
        for name, one in document["seconds"].items()
    ]
    repeat = len(next(iter(document["seconds"].values()))["all"])
    return STARTUP.format(machine=document["machine"], repeat=repeat, rows="\n".join(rows))


def _demo(document: Any) -> str:
    result = document["result"]
    rows: list[str] = []
    for name, paired in result["paired"].items():
        arms = (result[arm][name] for arm in ("without", "with"))
        cells = (f"{one['value']:.3g} [{one['low']:.3g}, {one['high']:.3g}]" for one in arms)
        difference = f"{paired['difference']:.3g} [{paired['low']:.3g}, {paired['high']:.3g}]"
        p = "< 0.001" if paired["p"] < 0.001 else f"{paired['p']:.2g}"
        rows.append(f"| `{name}` | {' | '.join(cells)} | {difference} | {p} |")
    return DEMO.format(
        command=document["command"],
        machine=document["machine"],
        minutes=result["seconds"] / 60,
        n=result["with"]["n"],
        runs="one training run" if (runs := len(result.get("runs", [1]))) == 1 else f"{runs} training runs",
        rows="\n".join(rows),
    )


def _kills(document: Any) -> str:
    rows = [
        f"| {row['stage']} | {row['processes']} | {row['workers']} | {row['kills']} | "
        f"{len(row['differences'])} |"
        for row in document["scenarios"]
    ]
    machine = document["machine"]
    return KILLS.format(
        command=document["command"],
        machine=machine if isinstance(machine, str) else ", ".join(f"{k} {v}" for k, v in machine.items()),
        kills=document["kills"],
        runs=document["runs"],
        seconds=document["seconds"],
        compared=document["compared"],
        rows="\n".join(rows),
        identical="yes" if document["bit_identical"] else "**no**",
    )


def _estimate(document: Any) -> str:
    machine = document["machine"]
    rows: list[str] = []
    missed: list[str] = []
    for one in document["results"]:
        name = f"stage {one['stage']} {one['precision']}"
        cells: list[str] = []
        for what in ("seconds", "process_mb", "model_mb"):
            ratio = one["ratio"][what]
            cells.append(f"{ratio['median']:.2f} ({min(ratio['all']):.2f} to {max(ratio['all']):.2f})")
            if what != "model_mb" and abs(ratio["median"] - 1) > 0.15:
                missed.append(f"{what.partition('_')[0]} of {name}")
        rows.append(f"| {one['stage']} | {one['precision']} | {' | '.join(cells)} |")
    return ESTIMATE.format(
        command=document["command"],
        machine=f"{machine['cpus']} cores, Python {machine['python']}, load {machine['load']:.1f} at the end",
        steps=document["steps"],
        rows="\n".join(rows),
        missed=", ".join(missed) or "none",
    )


def _data(document: Any) -> str:
    return DATA.format(
        machine=document["machine"],
        rows=document["rows"],
        megabytes=document["megabytes"],
        load=document["json_load"],
        find=document["find_rows"],
        encode=document["encode_rows_2_workers"],
        open=document["open"],
    )


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
