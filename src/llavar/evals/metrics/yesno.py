"""Yes/no questions: how a reply is read, and MME's score over pairs of questions.

Three codes read MME replies differently (``nope`` is a "no" to two of them, ``Answer: yes`` a "yes" only to
the third), so the parser is part of the metric's name. Sources: MME ``eval_tool/calculation.py``, lmms-eval
75571cf ``tasks/mme/utils.py``, VLMEvalKit e8e78f0 ``dataset/utils/yorn.py`` (without a judge model).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from llavar.errors import ConfigError, DataError
from llavar.evals.metrics.rule import Rule, checked, equal
from llavar.evals.metrics.text import normalise
from llavar.evals.metrics.vqa import PERIOD_VLMEVALKIT, unmark

_WORD = re.compile(r"[^\W_]+")


class YesNo(StrEnum):
    """What a reply to a yes/no question says."""

    YES = "yes"
    NO = "no"
    OTHER = "other"


def _tolerant(reply: str) -> YesNo:
    words = _WORD.findall(normalise(reply).casefold())
    found = [word for word in words if word in ("yes", "no")]
    if found and (words[0] == found[0] or len(set(found)) == 1):
        return YesNo(found[0])
    return YesNo.OTHER


def _mme(reply: str) -> YesNo:
    start = reply.lower()[:4]
    return YesNo.YES if "yes" in start else YesNo.NO if "no" in start else YesNo.OTHER


def _mme_lmms(reply: str) -> YesNo:
    text = reply.lower().strip().replace(".", "")
    return {"y": YesNo.YES, "n": YesNo.NO}.get(text) or _mme(text)


def _mme_vlmevalkit(reply: str) -> YesNo:
    words = unmark(reply.lower(), PERIOD_VLMEVALKIT).split()
    yes, no = "yes" in words, "no" in words
    return YesNo.OTHER if yes == no else YesNo.YES if yes else YesNo.NO


_PARSERS: Mapping[str, Callable[[str], YesNo]] = MappingProxyType(
    {"tolerant": _tolerant, "mme": _mme, "mme-lmms": _mme_lmms, "mme-vlmevalkit": _mme_vlmevalkit}
)
PARSERS = tuple(_PARSERS)
_ALSO: Mapping[str, str] = MappingProxyType(
    {"official": "mme", "lmms": "mme-lmms", "lmms-eval": "mme-lmms", "vlmevalkit": "mme-vlmevalkit"}
)
"""Other names: whose parser it is."""


def _parser(name: str) -> Callable[[str], YesNo]:
    found = _PARSERS.get(_ALSO.get(name, name))
    if found is None:
        raise ConfigError(f"there is no yes/no parser {name!r}; choose one of {', '.join(PARSERS)}")
    return found


def parse_yes_no(reply: str, parser: str = "tolerant") -> YesNo:
    """What ``reply`` says, read by one of :data:`PARSERS`.

    - ``tolerant`` (this project's): the first word decides if it is yes or no; else a reply that holds
      exactly one of the two words does. So ``Answer: yes`` and ``**No**`` are understood, ``not sure`` and
      ``nothing`` are :attr:`YesNo.OTHER`.
    - ``mme``: "yes", else "no", within the first four characters; blanks in front count.
    - ``mme-lmms``: the same after stripping and deleting full stops; ``y`` and ``n`` are understood.
    - ``mme-vlmevalkit``: the reply holds exactly one of the two words.

    ``official``, ``lmms`` (or ``lmms-eval``) and ``vlmevalkit`` are other names of the last three. Raises
    :class:`ConfigError` for another parser, :class:`DataError` for a reply that is not text.
    """
    return _parser(parser)(checked(reply, "")[0])


def expected_answer(reference: str) -> YesNo:
    """The yes or no that a reference states (case, edge blanks and a full stop aside), or an error."""
    text = reference.strip().lower().removesuffix(".")
    if text not in ("yes", "no"):
        raise DataError(f"the reference of a yes/no question must be yes or no, but is {reference!r}")
    return YesNo(text)


def _equal(prediction: str, references: Sequence[str]) -> float:
    if len(set(references)) > 1:
        raise DataError("the references of a yes/no question say both yes and no; they must agree")
    return equal(prediction, references)


@dataclass(frozen=True, slots=True, kw_only=True)
class MmeScore:
    """MME's score of one task, 0 to 200, and what it is made of.

    ``right`` of ``n`` questions, ``pairs_right`` of ``pairs`` pictures with every question right; ``other``
    counts replies read as neither yes nor no, which are wrong.
    """

    right: int
    n: int
    pairs_right: int
    pairs: int
    other: int
    score: float


def mme_score(rows: Iterable[tuple[str, str, str]], parser: str = "mme") -> MmeScore:
    """The score of one task from (group, reply, reference) of each question.

    A group is what shares a picture: two questions in MME. lmms-eval refuses groups of another size; here
    one counts as right if all its questions are. Raises :class:`DataError` without a row and for references
    that are not yes or no, :class:`ConfigError` for an unknown parser.
    """
    read = _parser(parser)
    found = [(group, read(reply), expected_answer(reference)) for group, reply, reference in rows]
    rights = [(group, said is wanted) for group, said, wanted in found]
    score = yes_no_score(rights)
    groups = {group: True for group, _ in rights} | {group: False for group, right in rights if not right}
    return MmeScore(
        right=sum(right for _, right in rights),
        n=len(rights),
        pairs_right=sum(groups.values()),
        pairs=len(groups),
        other=sum(said is YesNo.OTHER for _, said, _ in found),
        score=score,
    )


def yes_no_score(pairs: Iterable[tuple[str, bool]]) -> float:
    """MME's score of one task, 0 to 200, from (group, answered right) of every question.

    100 x share of questions right + 100 x share of groups with every question right (MME,
    ``eval_tool/calculation.py``, where a group is the two questions on one picture). Yes to everything: 50.
    """
    groups: dict[str, list[bool]] = {}
    for group, right in pairs:
        groups.setdefault(group, []).append(right)
    if not groups:
        raise DataError("no yes/no question to score; the score needs at least 1")
    answers = [right for group in groups.values() for right in group]
    return 100 * sum(answers) / len(answers) + 100 * sum(map(all, groups.values())) / len(groups)


def _rule(parser: str, about: str, version: str = "") -> Rule:
    return Rule(
        name=parser,
        version=version,
        about=f"{about}; 1 or 0 for a question, 0 to 200 for a task (mme_score)",
        prediction=_PARSERS[parser],
        reference=expected_answer,
        compare=_equal,
    )


RULES = (
    _rule("mme", "MME's eval_tool/calculation.py: yes or no within the first four characters"),
    _rule("mme-lmms", "MME as lmms-eval @75571cf: stripped, no full stops, y and n understood", "75571cf"),
    _rule("mme-vlmevalkit", "MME as VLMEvalKit @e8e78f0 without a judge: exactly one of yes, no", "e8e78f0"),
)
