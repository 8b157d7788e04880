"""``llavar demo --ablation``: which rows, at which stage, teach a model to read.

The arms of the paper's ablation (section 5) in miniature, each at several seeds, beside its TextVQA figures.
Pictures, OCR, base and exam are those of ``llavar demo``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from llavar.chat import escape_special
from llavar.corpus.pairs import with_image
from llavar.corpus.wordings import QuestionKind, describe, question, rng_for
from llavar.records import Conversation, Example, Reject
from llavar.study import ablation_page
from llavar.study.ablation_scores import VARIANTS, Ablated, Kind, Measure, compared, pairs, scores
from llavar.study.demo import DemoSettings, Outcome, control_rows, prepare, same_run, usable
from llavar.study.demo_corpus import Built
from llavar.study.demo_page import Scenes
from llavar.study.nano.scenes import facts
from llavar.study.progress import Watch

if TYPE_CHECKING:
    from llavar.study.arms import ArmRows

MARKER = "ablation.json"
"""File of a run's folder that says which run it holds."""


def run(out: Path, settings: DemoSettings, *, quiet: bool = False) -> Outcome:
    """The whole ablation into ``out``; stopped at any time, the same call goes on.

    Raises:
        LlavarError: ``out`` holds an ablation with other settings.
    """
    same_run(out / MARKER, settings)
    watch = Watch(out / "seconds.json", quiet=quiet)
    watch.say(f"Ablation in {out}: {len(VARIANTS)} arms. Stop it any time; the same command goes on.")
    scenes, built = prepare(out, settings, watch)
    from llavar.study.trial import run_trial  # torch, which nothing needed so far

    rich, rejects = text_rich(scenes, built, settings)
    arms = arms_of(scenes, rich, settings.seed)
    questions = scenes.exam.questions
    runs = run_trial(out, arms, questions, steps=settings.steps, seeds=settings.runs, watch=watch)
    with watch.step("Write the report"):
        answers = {name: arm.answers for name, arm in runs.items()}
        made = Ablated(
            out=out,
            scenes=scenes,
            runs=runs,
            scores={name: scores(questions, said) for name, said in answers.items()},
            pairs=pairs(questions, answers),
            recited=compared(Measure.RECITED, questions, answers["both"], answers["stage2-ocr"]),
            counts={kind: len(rows) for kind, rows in rich.items()},
            rejects=(*built.rejects, *rejects),
            settings=settings,
            seconds=watch.seconds,
        )
        report, result = out / "report.html", out / "result.json"
        ablation_page.write(made, report, result)
    verdict = ablation_page.verdict(made)
    watch.say(f"{verdict}\nReport: {report}   numbers: {result}   models: {out}/ARM/model")
    return Outcome(report=report, result=result, verdict=verdict, seconds=watch.total)


# --- rows ------------------------------------------------------------------------------------------------


def text_rich(
    scenes: Scenes, built: Built, settings: DemoSettings
) -> tuple[dict[Kind, list[Example]], list[Reject]]:
    """Rows of the same pictures in every kind, as many as there are control rows to take the place of."""
    made = {
        Kind.OCR: built.stage1,
        Kind.CAPTIONS: caption_rows(scenes, built, settings.seed),
        Kind.TALKS: built.stage2,
    }
    rows: dict[Kind, list[Example]] = {}
    rejects: list[Reject] = []
    for kind, given in made.items():
        rows[kind], odd = usable(given, settings.control_pictures)
        rejects += odd
    return rows, rejects


def caption_rows(scenes: Scenes, built: Built, seed: int) -> list[Example]:
    """A caption of each picture that has a row of OCR: its highest line, and what is shown beside the text.

    On the web too a caption names what stands out, a title, and not all that is written.
    """
    rows: list[Example] = []
    for row in built.stage1:
        rng = rng_for(seed, "text-rich caption", row.id)
        sure = [line for line in built.readings[row.id].lines if line.confidence >= 0.8 and line.text.strip()]
        if not sure:
            continue
        title = max(sure, key=lambda line: line.box.height).text.strip()
        shown = describe(facts(scenes.text[PurePath(row.id).name]))
        caption = f"{escape_special(title)}, {shown}"
        asked = with_image(question(QuestionKind.DESCRIBE, rng), rng)
        rows.append(Example(id=row.id, images=row.images, conversation=Conversation.of(asked, caption)))
    return rows


def arms_of(scenes: Scenes, rich: Mapping[Kind, Sequence[Example]], seed: int) -> dict[str, ArmRows]:
    """Rows of every arm: those of the control, or text-rich ones in the place of as many of them."""
    from llavar.study.arms import ArmRows

    control1, control2 = control_rows(scenes.control, seed)

    def mixed(control: Sequence[Example], kind: Kind) -> tuple[Example, ...]:
        rows = rich.get(kind, ())
        return (*control[len(rows) :], *rows)

    return {
        one.name: ArmRows(stage1=mixed(control1, one.stage1), stage2=mixed(control2, one.stage2))
        for one in VARIANTS
    }
