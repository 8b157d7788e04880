"""Saved answers of other tools as :class:`Answered`, recognised by what a file holds, and written back.

Read: LLaVAR's and MultimodalOCR's JSON, MME's text files (one, or a folder of them), LLaVA's answer files and
this package's own logs (both with references from another file), samples of lmms-eval, VLMEvalKit's JSON,
and answers as :func:`write_answers` writes them. Text stays as it is (:mod:`llavar.evals.rows`), and nothing
in a file is evaluated.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from llavar import files
from llavar.errors import DataError
from llavar.evals import references as lookup
from llavar.evals import rows
from llavar.evals.rows import Row, unique
from llavar.evals.tasks.mme import COGNITION, PERCEPTION
from llavar.records import Answered, Status

_LONGEST_LIST = 1_000_000
"""Characters of a Python list that is read back from text."""

_STRING = r"""(?:'(?:[^'\\\n]|{0})*+'|"(?:[^"\\\n]|{0})*+")""".replace(
    "{0}", r"""\\(?:[\\'"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"""
)
_LOG = "predictions.jsonl"
"""What a run of ``llavar eval`` keeps the answers to a task in."""

_LIST = re.compile(rf"\[\s*+(?:{_STRING}\s*+(?:,\s*+{_STRING}\s*+)*+(?:,\s*+)?)?\]")
"""What ``str`` makes of a list of strings. Possessive throughout, so that no input takes long."""

_LMMS_FAILED = "[LMMS_EVAL_REQUEST_FAILED"
_VLMEVALKIT_FAILED = "Failed to obtain answer via API."


class Format(StrEnum):
    """Whose file it is."""

    LLAVAR = "LLaVAR / MultimodalOCR"
    MME = "MME"
    LLAVA = "LLaVA answers"
    LMMS_EVAL = "lmms-eval samples"
    VLMEVALKIT = "VLMEvalKit"
    RUN = "llavar run"
    ANSWERED = "llavar answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Answers and where they come from. ``sha256`` is of the file, or of a folder's names and digests."""

    answers: tuple[Answered, ...]
    format: Format
    sha256: str
    references_sha256: str = ""
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The metric that the format was made for, or "" where there is none."""
        return {Format.LLAVAR: "mmocr", Format.MME: "mme"}.get(self.format, "")


def read_answers(path: Path, *, references: Path | None = None, answered_only: bool = False) -> Loaded:
    """The answers of a file (of a folder: MME's ``<task>.txt``), in its order.

    ``references``: a file of questions with their answers, for formats that hold none (by default the
    ``questions.jsonl`` beside a run's log). Questions in it that nobody answered follow as failed, unless
    ``answered_only``.

    Raises:
        NotFoundError: there is no such file.
        DataError: nothing that is known, a malformed row (named by its number), doubled ids, or references
            that are missing, superfluous or do not fit.
    """
    found = _mme_folder(path) if path.is_dir() else _file(path)
    if found.format in (Format.LLAVA, Format.RUN):
        return _with(found, path, references, answered_only)
    if references is not None:
        raise DataError(
            f"{path} ({found.format}) holds its own references; leave --references {references} out"
        )
    unique(found.answers, path)
    return found


def _file(path: Path) -> Loaded:
    content = rows.read_bytes(path)
    text = rows.decode(content, path)
    if _looks_like_mme(text):
        kind = Format.MME
        answers, notes = _mme(text, path, _task(path.stem))
    else:
        table = rows.parse(text, path)
        kind = _recognise(table[0])
        answers, notes = _READERS[kind](table)
    sha256 = hashlib.sha256(content).hexdigest()
    return Loaded(answers=tuple(answers), format=kind, sha256=sha256, notes=tuple(notes))


def _with(found: Loaded, path: Path, references: Path | None, answered_only: bool) -> Loaded:
    beside = path.parent / "questions.jsonl"
    if references is None and found.format is Format.RUN and beside.is_file():
        references = beside  # where a run keeps them
    if references is None:
        raise DataError(
            f"{path} ({found.format}) holds answers without references; give the file of questions and "
            "references with --references FILE"
        )
    wanted = lookup.read_references(references)
    joined = lookup.join(found.answers, wanted, source=path, references=references)
    missing = len(wanted) - len(joined)
    what = "are left out" if answered_only else "count as failed (--answered-only leaves them out)"
    note = f"{missing} of {len(wanted)} questions of {references} have no answer and {what}"
    if missing and not answered_only:
        present = {answer.id for answer in joined}
        joined += [question for question in wanted if question.id not in present]
    return replace(
        found,
        answers=tuple(joined),
        references_sha256=hashlib.sha256(rows.read_bytes(references)).hexdigest(),
        notes=(*found.notes, note) if missing else found.notes,
    )


# --- recognition -----------------------------------------------------------------------------------------

_KEYS: tuple[tuple[Format, tuple[str, ...]], ...] = (
    (Format.LLAVAR, ("answer", "gt_answers")),
    (Format.LMMS_EVAL, ("doc_id", "target")),
    (Format.ANSWERED, ("id", "prediction", "references")),
    (Format.VLMEVALKIT, ("index", "answer", "prediction")),
    (Format.RUN, ("key", "question", "status", "text")),
    (Format.LLAVA, ("question_id", "text")),
)
"""The fields by which the first row of a file tells its format; the first that fits."""


def _recognise(row: Row) -> Format:
    for kind, keys in _KEYS:
        if all(key in row.values for key in keys):
            return kind
    known = ", ".join(f"{kind} ({', '.join(keys)})" for kind, keys in _KEYS)
    raise DataError(
        f"{row.place} has the fields {', '.join(row.values)[:200] or '(none)'}, by which no format is known; "
        f"known are {known} and MME's text files"
    )


# --- formats --------------------------------------------------------------------------------------------

_Read = tuple[Sequence[Answered], Sequence[str]]
"""Answers and notes."""


def _llavar(table: Sequence[Row]) -> _Read:
    """MultimodalOCR ``eval.py``: {question, answer, gt_answers (text or a list), image_path, model_name}."""
    answers: list[Answered] = []
    for number, row in enumerate(table):
        text, status = _reply(row, "answer")
        answers.append(
            Answered(
                id=str(number),
                prediction=text,
                references=row.texts("gt_answers"),
                question=row.any_text("question"),
                image=row.any_text("image_path"),
                status=status,
            )
        )
    return answers, []


def _reply(row: Row, key: str, failed: str = "") -> tuple[str, Status]:
    """The text of an answer; none if it is null (pandas writes that for what it lost) or says ``failed``."""
    if row.values.get(key, "") is None:
        return "", Status.FAILED
    return _unless_failed(row.text(key), failed)


def _unless_failed(text: str, failed: str) -> tuple[str, Status]:
    lost = bool(failed) and text.lstrip().startswith(failed)
    return ("", Status.FAILED) if lost else (text, Status.OK)


def _lmms_eval(table: Sequence[Row]) -> _Read:
    """lmms-eval ``--log_samples``: {doc_id, input, target, filtered_resps or resps, ...}; no ``doc``."""
    answers: list[Answered] = []
    lists = several = 0
    for row in table:
        references, parsed = _target(row, "target")
        replies = _replies(row)
        text, status = _unless_failed(replies[0], _LMMS_FAILED) if replies else ("", Status.FAILED)
        lists, several = lists + parsed, several + (len(replies) > 1)
        answers.append(
            Answered(
                id=row.text("doc_id"),
                prediction=text,
                references=references,
                question=row.any_text("input"),
                status=status,
            )
        )
    notes = [f"{several} rows hold several replies, of which the first is scored"] if several else []
    return answers, [*_lists_note(lists, len(table), "target"), *notes]


def _replies(row: Row) -> list[str]:
    """``"a"``, ``["a"]`` and ``[["a"]]`` all occur."""
    key = "filtered_resps" if "filtered_resps" in row else "resps"
    value = row.values.get(key)
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    parts = [
        part for item in items for part in (cast("list[object]", item) if isinstance(item, list) else [item])
    ]
    replies = [part for part in parts if isinstance(part, str)]
    if len(replies) < sum(part is not None for part in parts):
        raise DataError(f"{row.place} has {value!r:.80} as {key!r}; give text or a list of texts")
    return replies


def _vlmevalkit(table: Sequence[Row]) -> _Read:
    """VLMEvalKit with PRED_FORMAT=json: {index, question, answer, prediction, category ...}."""
    answers: list[Answered] = []
    lists = 0
    for row in table:
        references, parsed = _target(row, "answer")
        text, status = _reply(row, "prediction", _VLMEVALKIT_FAILED)
        lists += parsed
        answers.append(
            Answered(
                id=row.text("index"),
                prediction=text,
                references=references,
                question=row.any_text("question"),
                image=row.any_text("image_path"),
                category=row.any_text("category"),
                status=status,
            )
        )
    return answers, _lists_note(lists, len(table), "answer")


def _target(row: Row, key: str) -> tuple[tuple[str, ...], bool]:
    """The references, and whether they were a Python list as text. All other text is one reference."""
    texts = row.texts(key)
    text = texts[0].strip() if isinstance(row.values[key], str) else ""
    if text.startswith("[") and len(text) <= _LONGEST_LIST and _LIST.fullmatch(text):
        try:
            return tuple(cast("list[str]", ast.literal_eval(text))), True
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            pass  # an escape beyond Unicode: no Python list after all
    return texts, False


def _lists_note(lists: int, n: int, key: str) -> list[str]:
    text = (
        f"the {key} of {lists} of {n} rows is a Python list of strings as text, read as a list of references"
    )
    return [text] if lists else []


def _answered(table: Sequence[Row]) -> _Read:
    """What :func:`write_answers` writes."""
    return [_own(row) for row in table], []


def _own(row: Row) -> Answered:
    return Answered(
        id=row.text("id"),
        prediction=row.text("prediction"),
        references=row.texts("references"),
        question=row.any_text("question"),
        image=row.any_text("image"),
        group=row.any_text("group"),
        category=row.any_text("category"),
        status=_status(row),
    )


def _status(row: Row) -> Status:
    try:
        return Status(row.any_text("status") or "ok")
    except ValueError:
        raise DataError(
            f"{row.place} has the status {row.any_text('status')!r:.40}; give ok or failed"
        ) from None


def _run(table: Sequence[Row]) -> _Read:
    """The log of a run, in which a later line replaces an earlier one, unless it failed and that did not."""
    last: dict[str, Answered] = {}
    for row in table:
        answer = Answered(
            id=row.text("question"), prediction=row.text("text"), references=(), status=_status(row)
        )
        if answer.status is Status.OK or last.get(answer.id, answer).status is Status.FAILED:
            last[answer.id] = answer
    return list(last.values()), []


def _llava(table: Sequence[Row]) -> _Read:
    """LLaVA ``model_vqa.py``: {question_id, prompt, text, answer_id, model_id, metadata}.

    The format knows no failures; :func:`write_llava_answers` notes them in ``metadata``.
    """
    answers: list[Answered] = []
    for row in table:
        text, status = _reply(row, "text")
        metadata = row.values.get("metadata")
        if isinstance(metadata, dict) and cast("dict[str, object]", metadata).get("status") == Status.FAILED:
            text, status = "", Status.FAILED
        answers.append(
            Answered(
                id=row.text("question_id"),
                prediction=text,
                references=(),
                question=row.any_text("prompt"),
                status=status,
            )
        )
    return answers, []


_READERS: Mapping[Format, Callable[[Sequence[Row]], _Read]] = {
    Format.LLAVAR: _llavar,
    Format.LMMS_EVAL: _lmms_eval,
    Format.ANSWERED: _answered,
    Format.VLMEVALKIT: _vlmevalkit,
    Format.RUN: _run,
    Format.LLAVA: _llava,
}


# --- MME ------------------------------------------------------------------------------------------------


def _looks_like_mme(text: str) -> bool:
    fields = text.lstrip("\r\n").split("\n", 1)[0].split("\t")
    return len(fields) >= 4 and fields[2].strip().lower() in ("yes", "no")


def _task(stem: str) -> str:
    """``OCR`` of ``OCR.txt`` and of ``OCR_llavar.txt``; a name that is no task of MME's stays."""
    tasks = (*PERCEPTION, *COGNITION)
    return next((task for task in tasks if stem == task or stem.startswith(f"{task}_")), stem)


def _mme(text: str, path: Path, task: str) -> tuple[list[Answered], tuple[str, ...]]:
    """Lines ``picture TAB question TAB reference TAB reply``, two by two (``eval_tool/calculation.py``)."""
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    answers: list[Answered] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if len(fields) != 4:
            raise DataError(
                f"line {number} of {path} has {len(fields)} fields with tabs between, not 4 (picture, "
                "question, reference, reply); a reply must hold no tab or line break: make them blanks"
            )
        image, question, reference, reply = fields
        if reference.strip().lower() not in ("yes", "no"):
            raise DataError(f"line {number} of {path} has the reference {reference!r:.40}; give Yes or No")
        pair = f"{task} pair {(number + 1) // 2}"
        answers.append(
            Answered(
                id=f"{task}:{number}",
                prediction=reply,
                references=(reference,),
                question=question,
                image=image,
                group=pair,
                category=task,
            )
        )
    if len(lines) % 2:
        raise DataError(
            f"line {len(lines)} of {path}, its last, has no partner: lines 1 and 2, 3 and 4 ... are the two "
            "questions on one picture; add the missing line"
        )
    mixed = [i for i in range(0, len(answers), 2) if answers[i].image != answers[i + 1].image]
    note = (
        f"{len(mixed)} pairs of {path.name} name two pictures (first: line {mixed[0] + 1})" if mixed else ""
    )
    return answers, ((f"{note}; paired by position, as MME's tool does",) if note else ())


def _refuse_run(folder: Path) -> None:
    """A run of ``llavar eval`` has its answers in a file for each task."""
    logs = sorted(path for path in folder.glob(f"*/{_LOG}") if path.is_file())
    if (folder / _LOG).is_file():
        raise DataError(f"{folder} is the folder of one task; score its answers: {folder / _LOG}")
    if logs:
        named = ", ".join(path.parent.name for path in logs[:8]) + (" ..." if len(logs) > 8 else "")
        raise DataError(
            f"{folder} is a run of llavar eval with {len(logs)} task{'s' * (len(logs) > 1)} ({named}); score "
            f"the answers of one, such as {logs[0]}, or see all with llavar report {folder}"
        )


def _mme_folder(folder: Path) -> Loaded:
    """One ``<task>.txt`` for each of MME's tasks, or of some of them."""
    paths = sorted(folder.glob("*.txt"))
    _refuse_run(folder)
    if not paths:
        raise DataError(f"{folder} holds no .txt file; give a file, or a folder of MME's <task>.txt")
    answers: list[Answered] = []
    notes: list[str] = []
    digest = hashlib.sha256()
    for path in paths:
        if path.stem not in (*PERCEPTION, *COGNITION):
            raise DataError(
                f"{path} is not named after a task of MME ({', '.join((*PERCEPTION, *COGNITION))}); "
                "give it alone, or move it elsewhere"
            )
        content = rows.read_bytes(path)
        digest.update(f"{path.name} {hashlib.sha256(content).hexdigest()}\n".encode())
        found, more = _mme(rows.decode(content, path), path, path.stem)
        answers += found
        notes += more
    return Loaded(answers=tuple(answers), format=Format.MME, sha256=digest.hexdigest(), notes=tuple(notes))


# --- writing --------------------------------------------------------------------------------------------


def write_answers(path: Path, answers: Iterable[Answered]) -> None:
    """JSONL with every field, which :func:`read_answers` reads back as it was."""
    _write(path, (asdict(answer) for answer in answers))


def write_llava_answers(
    path: Path, answers: Iterable[Answered], model: str, *, numeric_ids: bool = True
) -> None:
    """An answer file as ``model_vqa.py`` writes it.

    Rows are {question_id, prompt, text, answer_id, model_id, metadata}. Ids that are whole numbers are
    written as numbers, as in LLaVA's question files, unless not ``numeric_ids`` (ScienceQA's are text). An
    answer that failed has an empty text and says so in ``metadata``.
    """
    _write(path, (_llava_row(answer, model, numeric_ids) for answer in answers))


def _llava_row(answer: Answered, model: str, numeric_ids: bool) -> dict[str, Any]:
    number = numeric_ids and re.fullmatch(r"0|[1-9][0-9]{0,17}", answer.id)
    identity = json.dumps([answer.id, answer.prediction, model])  # the same answer keeps its id
    return {
        "question_id": int(answer.id) if number else answer.id,
        "prompt": answer.question,
        "text": answer.prediction,
        "answer_id": hashlib.sha256(identity.encode()).hexdigest()[:22],
        "model_id": model,
        "metadata": {} if answer.status is Status.OK else {"status": answer.status.value},
    }


def _write(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    """One object a line, under the final name only once all are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing_text(path) as out:
        # Escaped, since a model's text may hold half of a surrogate pair, which UTF-8 cannot.
        out.writelines(json.dumps(document) + "\n" for document in documents)
