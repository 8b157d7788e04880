"""Sections of docs/numbers.md on nano and on the ablation, for benchmarks/figures.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NANO = """\
## Nano

`{command}`; {cpu}, {cores} cores, load {load} before. Raw: `nano.json`. {pictures} pictures drawn by code of their own
(`benchmarks/nano_scenes.py`): held-out fonts, words, tones and arrangements; words and numbers in capitals and small
letters, 1 to 3 lines, up to 24 characters, an eighth to a fifth of the picture high, dark on light and light on dark,
plain and gradient grounds. {questions} questions; intervals from resampling pictures.

| goal | figure | wanted | floor | |
|---|---|---|---|---|
{goals}

| | character error rate | exact |
|---|---|---|
{read}

| question | answered rightly |
|---|---|
{asked}

Of questions that have an answer {declined} were declined. Asked something else than all of the text, nano gave its
whole transcription {recited} of the time; on {different} of the pictures all questions with different right answers got
different ones.

OCR engines on the same files, transcription alone:

| engine | character error rate | exact | seconds a picture |
|---|---|---|---|
{engines}

{skipped}`llavar ask` on one core: {cold:.2f} s from start to exit (median of {runs}); a further question on another
picture {warm:.0f} ms (median; 95 % within {p95:.0f} ms). {parameters:.1f} million parameters, {megabytes:.1f} MB of files. Pictures a
second on one core: {rates}.
"""  # noqa: E501

ABLATION = """\
## The ablation

`{command}`; {machine}. Raw: `ablation.json`. Start to report: {minutes:.0f} minutes (goal: below 60). {seeds} training runs
for each arm on rows of the same pictures, which take the place of as many control rows; beside them the paper's
accuracy on TextVQA (section 5). `holds` counts as the paper does: the answer holds the right one.

| arm | paper | holds | exact | transcription error | recites | says yes or no | colours, shapes, counts |
|---|---|---|---|---|---|---|---|
{rows}

`recites`: answers to questions other than that for all of the text which are the model's own transcription; with noisy
OCR alone in stage 2 against both stages {recited}. Of {pairs} pairs of arms by `holds`, {same} come out in the
paper's order, {other} the other way round, and {open} are not told apart by the interval over pictures and runs.{odd}
"""  # noqa: E501

TILES = """\
## Small text in tiles

`python benchmarks/tiles.py train tiles`, then `... exam`. Raw: `tiles.json`. The same held-out scenes with text as high as
nano's own (h) and half as high (h/2), somewhere in a picture that is twice as large; all are asked to transcribe. `tiles`
are nano trained on with an overview and 2 x 2 tiles. Character error rates with intervals from resampling pictures; apart,
those of pictures with a line across the middle, where tiles meet, and of the others. Measured with an earlier nano, which
read worse than the shipped one.

| scenes | model | text | errors | across the middle | apart | `{best}` minus this |
|---|---|---|---|---|---|---|
{rows}

{scenes}

Training: {rounds}.
"""  # noqa: E501


def tiles(document: Any) -> str:
    """Whether tiles read small text as well as one view reads larger text."""
    rows: list[str] = []
    best = ""
    for name, part in document["parts"].items():
        differences = {key.partition(" minus ")[2]: one for key, one in part["paired"].items()}
        best = next((key.partition(" minus ")[0] for key in part["paired"]), best)
        for model, score in part["character_error_rate"].items():
            who, _, height = model.partition(" at ")
            apart = [_share(score[kind]) for kind in ("crossed", "apart")]
            cells = [name, who, height, _share(score), *apart, _points(differences.get(model))]
            rows.append(f"| {' | '.join(cells)} |")
    return TILES.format(
        best=best,
        rows="\n".join(rows),
        scenes="\n".join(
            f"- `{name}`: {part['about']}; {part['pictures']} pictures, {part['crossed']} with a line across."
            for name, part in document["parts"].items()
        ),
        rounds="; ".join(
            f"{name} {one['steps']} steps of {one['rows'] // one['steps']} rows"
            + (f", tiles sharing {one['overlap']} % of a side" if one["overlap"] else "")
            for name, one in document["arms"].items()
        ),
    )


def _points(compared: Mapping[str, float] | None) -> str:
    if compared is None:
        return ""
    low, value, high = (f"{100 * compared[name]:+.1f}" for name in ("low", "difference", "high"))
    return f"{value} points [{low}, {high}]"


def nano(document: Any) -> str:
    """What nano can and cannot do."""
    exam, took, size = document["exam"], document["latency"], document["size"]
    engines, skipped = _engines(document["engines"])
    machine = document["machine"]
    instructions = exam["instructions"]
    return NANO.format(
        command=document["command"],
        cpu=machine["cpu"],
        cores=machine["cores"],
        load=machine["load"],
        pictures=exam["pictures"],
        questions=exam["questions"],
        goals="\n".join(_goal(goal) for goal in document["goals"]),
        read="\n".join(_read(exam, document["outside"])),
        asked="\n".join(_asked(exam)),
        declined=_share(exam["declined_wrongly"]),
        recited=_share(instructions["recited"]),
        different=_share(instructions["different"]),
        engines="\n".join(engines),
        skipped="".join(skipped),
        cold=took["cold"]["median"],
        runs=len(took["cold"]["all"]),
        warm=1000 * took["warm"]["median"],
        p95=1000 * took["warm"]["p95"],
        parameters=size["parameters"] / 1e6,
        megabytes=size["bytes"] / 1e6,
        rates=", ".join(f"{rate:g} {what}" for what, rate in document["pictures_per_second"].items()),
    )


def _share(score: Mapping[str, float]) -> str:
    value, low, high = (100 * score[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _goal(goal: Mapping[str, Any]) -> str:
    shown = {
        "%": lambda value: f"{100 * value:.1f} %",
        "s": lambda value: f"{value:.3g} s",
        "bytes": lambda value: f"{value / 1e6:.1f} MB",
    }[goal["unit"]]
    floor = "" if goal["floor"] is None else shown(goal["floor"])
    verdict = goal["verdict"] if goal["verdict"] == "met" else f"**{goal['verdict']}**"
    return f"| {goal['what']} | {shown(goal['value'])} | {shown(goal['goal'])} | {floor} | {verdict} |"


def _read(exam: Mapping[str, Any], outside: Mapping[str, Any]) -> Iterator[str]:
    """Transcriptions: of the exam, of its parts, of pictures outside it."""

    def row(what: str, one: Mapping[str, Any]) -> str:
        if "skipped" in one:
            return f"| {what} | not run: {one['skipped']} | |"
        return f"| {what} | {_share(one['cer'])} | {_share(one['exact'])} |"

    yield row("the exam", exam["transcription"])
    yield row("asked in other words", exam["reworded"]["transcription"])
    yield row("asked before the picture", exam["picture_after"]["transcription"])
    for lines, one in exam["by_lines"].items():
        yield row(f"of {lines} line{'s' if lines != '1' else ''}", one)
    for font, one in exam["by_font"].items():
        yield row(f"in {font}", one)
    for what, one in outside.items():
        yield row(f"outside: {what}", one)


def _asked(exam: Mapping[str, Any]) -> Iterator[str]:
    for part in ("short", "unanswerable"):
        for what, score in exam[part].items():
            name = f"mean of the {'above' if part == 'short' else 'unanswerable'}"
            if what != "all":
                yield f"| {what} | {_share(score)} |"
        if "all" in exam[part]:
            yield f"| {name} | {_share(exam[part]['all'])} |"
    for how, key in (("in other words", "reworded"), ("before the picture", "picture_after")):
        if "all" in exam[key]["short"]:
            yield f"| the answerable ones {how} | {_share(exam[key]['short']['all'])} |"
    present = "word in the picture"
    if present in exam["picture_after"]["short"]:
        yield f"| {present}, asked before it | {_share(exam['picture_after']['short'][present])} |"


def _engines(found: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    rows: list[str] = []
    skipped: list[str] = []
    for name, one in found.items():
        if "skipped" in one:
            skipped.append(f"{name} was not run: {one['skipped']}.\n\n")
        else:
            cells = f"{_share(one['cer'])} | {_share(one['exact'])} | {one['seconds']:.2f}"
            rows.append(f"| {name} | {cells} |")
    return rows, skipped


def ablation(document: Any) -> str:
    """The arms beside the paper's, and where their order differs."""
    result = document["result"]
    orders = [pair["order"] for pair in result["pairs"]]
    odd = [
        f"{pair['worse_in_paper']} above {pair['better_in_paper']}"
        for pair in result["pairs"]
        if pair["order"] == "the other way round"
    ]
    return ABLATION.format(
        command=document["command"],
        machine=document["machine"],
        minutes=result["seconds"] / 60,
        seeds=result["settings"]["seeds"],
        rows="\n".join(_arm(arm) for arm in result["arms"].values()),
        recited=_points(result["recited_stage2_ocr_minus_both"]),
        pairs=len(orders),
        same=orders.count("as in the paper"),
        other=orders.count("the other way round"),
        open=orders.count("not told apart"),
        odd=f" Against the paper: {'; '.join(odd)}." if odd else "",
    )


def _arm(arm: Mapping[str, Any]) -> str:
    cells = [_share(arm[name]) for name in ("held", "exact", "error", "recited", "yes_no", "shown")]
    return f"| {arm['title']} | {arm['paper_textvqa']:.1f} | {' | '.join(cells)} |"
