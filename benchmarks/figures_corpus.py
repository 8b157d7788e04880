"""Sections of docs/numbers.md on making a corpus, for benchmarks/figures.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

HEAD = """\
## Making a corpus

`python benchmarks/corpus.py`, parts apart with `--only`. Raw: `corpus.json`. Engines read on one thread, in
one process.
"""

OCR = """\
### OCR

{machine}. Share of characters right on {count} rendered pictures each of {side} x {side} pixels, lines of one font with so
many pixels to the em: dark on light or light on dark; over soft shapes with grain, as JPEG; turned by {turn:g} degrees.

| engine | letters | flat | as photographed | turned | s a picture |
|---|---|---|---|---|---|
{rows}
{left_out}"""  # noqa: E501

AGREEMENT = """\
Agreement of {engines}: {values}.
"""

FETCH = """\
### Fetching

{machine}. {pictures} JPEGs of 512 to 1,024 pixels (mean {size} KB) from a server on the same machine that waits {latency:g} ms,
{at_once} under way at a time, decoded and written as JPEG of quality 95; medians of {repeat} runs of the whole command. Ours
besides takes hashes and fingerprints, and reads what it wrote once more.

| | pictures a second, from cold to exit | without starting |
|---|---|---|
{rows}
{note}"""  # noqa: E501

DUPLICATES = """\
### Near duplicates

{machine}. {originals} rendered scenes and pages with {edits} edited copies of each, and {cards} cards of a few templates that
say different things ({kinds}), read by {engine}.

| | recall | precision | cards lost |
|---|---|---|---|
{rows}

Share of copies found, by edit:

| edit | {names} |
|---|{lines}|
{by_edit}

A fingerprint takes {small:.1f} ms of a picture of 384 pixels and {large:.0f} ms of one of 2,048, {small_more:.1f} and
{large_more:.1f} ms of which are for copies whose edges differ; deciding takes {decide:.2f} ms a picture of these.
"""  # noqa: E501

END = """\
### From pictures to rows

{machine}. {pictures} rendered scenes and pages of {side} pixels through the default recipe, one process that reads:
{hour:,} pictures an hour, {core:,} an hour of processor time; {lines} lines a picture; kept: {kept}; {stage1} stage-1 and {stage2}
stage-2 rows. What the pipeline takes beyond opening each picture once and the engine's own time, which an engine by itself
takes as well: {overhead:.1%} (goal: at most 3 %, {met}); {start:.1%} with starting and loading; {alone:.1%} beyond the engine
alone. Milliseconds a picture, by stage: {stages}.
"""  # noqa: E501

TEACHER = """\
### Rows of the template teacher

Of {stage2} stage-2 rows with {turns} questions each: answers that follow from the lines that support them {supported:.2%} of
{answers:,}, words of these lines that the engine read {read:.2%} of {words:,} (goal: 100 %, {met}); conversations with a question
twice: {twice}; equal conversations: {equal}.

| mean length of instruction / response | characters | words | {tokens} | paper, LLaMA tokens |
|---|---|---|---|---|
{rows}

The paper's pictures are posters and covers of the web; these scenes hold {short} words each, so that answers are shorter.
"""  # noqa: E501

KILLS = """\
## A corpus killed and gone on

`python benchmarks/kill_corpus.py --kills {kills}`; {machine}. Raw: `kill_corpus.json`. {pictures} pictures behind addresses on the same
machine, through {stages} stages, {kills} times SIGKILL to all processes at random moments ({struck}), {runs} runs, {seconds:.0f} s.
{files} files of all stages, products and fetched pictures against those of a run that nobody killed ({straight:.0f} s): {differences};
items lost or doubled: {misplaced}. The goal was at least 100 kills.
"""  # noqa: E501


def corpus(document: Any) -> str:
    """All parts that are there."""
    sections: dict[str, Callable[[Any], str]] = {
        "ocr": _ocr,
        "agreement": _agreement,
        "fetch": _fetch,
        "duplicates": _duplicates,
        "end": _end,
        "teacher": _teacher,
    }
    return "\n".join([HEAD, *(make(document[name]) for name, make in sections.items() if name in document)])


def kills(document: Any) -> str:
    """What a killed corpus comes to."""
    return KILLS.format(
        kills=document["kills"],
        machine=_machine(document),
        pictures=document["pictures"],
        stages=len(document["stages"]),
        struck=", ".join(f"{count} in {stage}" for stage, count in document["struck"].items()),
        runs=document["runs"],
        seconds=document["seconds"],
        straight=document["seconds_straight"],
        files=document["files_compared"],
        differences=f"{len(document['differences'])} differ" if document["differences"] else "all equal",
        misplaced=len(document["misplaced"]) or "none",
    )


def _met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _machine(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before"


def _ocr(part: Mapping[str, Any]) -> str:
    rows: list[str] = []
    for name, engine in part["engines"].items():
        for size in engine["accuracy"]["flat"]:
            shares = (f"{engine['accuracy'][one][size]:.3f}" for one in ("flat", "photo", "rotated"))
            rows.append(f"| {name} | {size} | {' | '.join(shares)} | {engine['seconds_a_picture']:.2f} |")
    left_out = "".join(f"\nNot run: {name}: {why}.\n" for name, why in part["left_out"].items())
    return OCR.format(
        machine=_machine(part),
        count=part["pictures_each"],
        side=part["side"],
        turn=part["rotated_degrees"],
        rows="\n".join(rows),
        left_out=left_out,
    )


def _agreement(part: Mapping[str, Any]) -> str:
    if "left_out" in part:
        return f"Agreement of engines was not measured: {part['left_out']}.\n"
    kinds = {"first_is_right": "where the first is right", "first_is_wrong": "where it is wrong"}
    values = [
        f"{part[key]['mean']:.3f} {words} ({part[key]['pictures']} pictures)"
        for key, words in kinds.items()
        if key in part
    ]
    return AGREEMENT.format(engines=" and ".join(part["engines"]), values=", ".join(values))


def _fetch(part: Mapping[str, Any]) -> str:
    names = [name for name in ("llavar", "img2dataset") if name in part]
    version = part.get("img2dataset_version", "")
    labels = {"llavar": "`llavar corpus run --until open`", "img2dataset": f"img2dataset {version}"}
    rows = [
        f"| {labels[name]} | {part[name]['pictures_a_second']} | "
        f"{part[name]['pictures_a_second_without_start']} |"
        for name in names
    ]
    return FETCH.format(
        machine=_machine(part),
        pictures=part["pictures"],
        size=part["mean_kilobytes"],
        latency=1000 * part["latency"],
        at_once=part["at_once"],
        repeat=part["repeat"],
        rows="\n".join(rows),
        note=f"\n{part['left_out']}.\n" if "left_out" in part else "",
    )


def _duplicates(part: Mapping[str, Any]) -> str:
    names = {
        "default": "default",
        "without_edges": "`max_crop: 0`",
        "fingerprint_alone": "fingerprint alone",
    }
    rows: list[str] = []
    for key, label in names.items():
        one = part[key]
        lost = ", ".join(f"{many} {kind}" for kind, many in one["cards_lost"].items())
        precision = "-" if one["precision"] is None else f"{one['precision']:.1%}"
        rows.append(f"| {label} | {one['recall']:.1%} | {precision} | {lost} |")
    edits = part["default"]["recall_by_edit"]
    by_edit = [
        f"| {edit} | " + " | ".join(f"{part[key]['recall_by_edit'][edit]:.0%}" for key in names) + " |"
        for edit in edits
    ]
    cost = part["milliseconds_a_picture"]
    return DUPLICATES.format(
        machine=_machine(part),
        originals=part["originals"],
        edits=len(edits),
        cards=sum(part["cards"].values()),
        kinds="other words, another number, another name",
        engine=part["engine"],
        rows="\n".join(rows),
        names=" | ".join(names.values()),
        lines="|".join("---" for _ in names),
        by_edit="\n".join(by_edit),
        small=cost["fingerprint"],
        large=cost["fingerprint_2048"],
        small_more=cost["of_it_content"],
        large_more=cost["of_it_content_2048"],
        decide=cost["decide"],
    )


def _end(part: Mapping[str, Any]) -> str:
    overhead = part["overhead_over_opening_and_engine"]
    stages = part["milliseconds_a_picture_by_stage"]
    kept = part["kept_by_stage"]
    return END.format(
        machine=_machine(part),
        pictures=part["pictures"],
        side=384,
        hour=part["pictures_an_hour"],
        core=part["pictures_an_hour_a_core"],
        lines=part["lines_a_picture"],
        kept=", ".join(f"{kept[name]} by `{name}`" for name in ("select", "near", "teach") if name in kept),
        stage1=part["stage1_rows"],
        stage2=part["stage2_rows"],
        overhead=overhead,
        met=_met(overhead <= 0.03),
        start=part["overhead_with_start"],
        alone=part["overhead_over_the_engine"],
        stages=", ".join(
            f"{took:.1f} {name}" if name == "elsewhere" else f"{took:.1f} `{name}`"
            for name, took in stages.items()
        ),
    )


def _teacher(part: Mapping[str, Any]) -> str:
    lengths = part["lengths"]
    rows: list[str] = []
    for stage in ("stage1", "stage2"):
        cells = [_pair(lengths[stage].get(name)) for name in ("characters", "words", "tokens")]
        rows.append(
            f"| {stage} | " + " | ".join([*cells, _pair(lengths["paper_llama_tokens"][stage])]) + " |"
        )
    right = part["answers_supported"] == part["words_that_were_read"] == 1
    return TEACHER.format(
        stage2=part["rows"]["stage2"],
        turns=part["turns_a_row"],
        supported=part["answers_supported"],
        answers=part["answers_checked"],
        read=part["words_that_were_read"],
        words=part["words_of_support"],
        met=_met(right),
        twice=part["questions_asked_twice_in_a_row"],
        equal=part["equal_conversations"],
        tokens=f"tokens of `{part['tokenizer']}`" if part["tokenizer"] else "tokens (no tokenizer was named)",
        rows="\n".join(rows),
        short=lengths["stage1"]["words"][1],
    )


def _pair(pair: list[float] | None) -> str:
    return "-" if pair is None else f"{pair[0]} / {pair[1]}"
