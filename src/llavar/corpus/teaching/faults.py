"""What a conversation has to fulfil beyond its form: its words follow from what is known of the picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llavar.chat import escape_special
from llavar.corpus.check import check_rows
from llavar.corpus.privacy import is_masked, mask_text
from llavar.corpus.teaching.draft import Draft, Fault, FaultReason
from llavar.corpus.teaching.evidence import Evidence
from llavar.records import Conversation, Example

_NAMED = re.compile(
    r"\bOCR\b|\b(?:the|a|this|image|picture)\s+captions?\b|\bcaptions?\s+(?:says?|mentions?|states?|describes?)\b"
    r"|\b(?:provided|given|supplied)\s+(?:text|data|notes?|lines?|information|context)\b",
    re.IGNORECASE,
)
_SAID = "(?:mentioned|specified|stated|provided|given|known|indicated|clear)"
_SAYS = "(?:mention|specify|state|say|provide|indicate|know)"
_OPEN = re.compile(
    r"\b(?:can(?:not|'t| not)|could(?: not|n't)|(?:is|are) (?:not |im)possible to|unable to|no way to)"
    r"\s+(?:be\s+)?(?:determined?|tell|told|say|said|know|known|identif\w+|answer\w*|infer\w*|ascertain\w*)\b"
    rf"|\b(?:is|are|was|were)(?: not|n't) (?:explicitly |clearly )?{_SAID}\b"
    rf"|\b(?:does|do)(?: not|n't) (?:explicitly |clearly )?{_SAYS}\b"
    r"|\b(?:is|are|was|were|remains?) (?:unknown|unclear)\b|^(?:unknown|unclear)\b"
    r"|\bnot enough information\b|\bno information\b|\bas an ai\b|^(?:i'm|i am) sorry",
    re.IGNORECASE,
)
# A single mark that opens after no letter and closes before none: an apostrophe does neither.
_QUOTED = re.compile(r"\"([^\"\n]+)\"|(?<!\w)'([^'\n]{2,})'(?!\w)")
_MARKS = str.maketrans("\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019\u201a", '"""""\'\'\'')
_END = " \t.,;:!?\u2026"


def faults(draft: Draft, evidence: Evidence) -> Iterator[Fault]:
    """All that is wrong with a conversation, the worst first."""
    row = Example(id="", conversation=Conversation.of(*draft.texts))
    for reject in check_rows([row]):
        yield Fault(reject.reason, reject.detail)
    for test in (_wording, _doubles, _support):
        yield from test(draft, evidence)
    for turn in draft.turns:
        yield from _quotes(turn.question, turn.answer, evidence)


def _wording(draft: Draft, _: Evidence) -> Iterator[Fault]:
    for turn in draft.turns:
        if escape_special(turn.question) != turn.question:
            yield Fault(FaultReason.SPECIAL, turn.question[:80])
        for text in (turn.question, turn.answer):
            if is_masked(text) or mask_text(text).counts:
                yield Fault(FaultReason.PRIVATE, mask_text(text[:80]).text)
            if _NAMED.search(text):
                yield Fault(FaultReason.NAMED, text[:80])
        # What is quoted is the picture's own: a poster may well say that something is unknown.
        if _OPEN.search(_QUOTED.sub("", plain_marks(turn.answer))):
            yield Fault(FaultReason.OPEN, f"{turn.question[:80]!r} answered {turn.answer[:80]!r}")


def _doubles(draft: Draft, _: Evidence) -> Iterator[Fault]:
    seen: set[str] = set()
    for turn in draft.turns:
        asked = " ".join(re.findall(r"\w+", turn.question.casefold()))
        if asked in seen:
            yield Fault(FaultReason.DOUBLE, turn.question[:80])
        seen.add(asked)


def _support(draft: Draft, evidence: Evidence) -> Iterator[Fault]:
    for turn in draft.turns:
        for key in turn.support:
            if key not in evidence.lines:
                yield Fault(FaultReason.SUPPORT, f"{key[:20]!r} of {len(evidence.lines)} lines")
        if not turn.support and not evidence.caption:
            yield Fault(FaultReason.SUPPORT, f"none for {turn.answer[:80]!r}")


def _quotes(question: str, answer: str, evidence: Evidence) -> Iterator[Fault]:
    """Quoted words have to be in the picture, but those asked for where the answer is no."""
    denied = re.match(r"no\b", answer, re.IGNORECASE) is not None
    texts = [_flat(" ".join(lines)) for lines in evidence.readings]
    for text in (answer,) if denied else (question, answer):
        for match in _QUOTED.finditer(plain_marks(text)):
            quoted = (match[1] or match[2]).strip(_END)
            if not in_any(quoted, texts):
                yield Fault(FaultReason.QUOTE, f"{quoted[:60]!r}")


def in_any(quoted: str, texts: Sequence[str]) -> bool:
    """Whether words stand in one of some flat texts as whole words, whatever their case."""
    wanted = _flat(quoted)
    return not wanted or any(re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text) for text in texts)


def plain_marks(text: str) -> str:
    """Quotation marks of all kinds as straight ones."""
    return text.translate(_MARKS)


def _flat(text: str) -> str:
    return " ".join(escape_special(plain_marks(text)).casefold().split())
