"""The metrics by name, and scoring with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from llavar.errors import ConfigError
from llavar.evals.metrics import choice, mmocr, ocrbench, peers, text, vqa, yesno
from llavar.evals.metrics.rule import Rule, checked

_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for module in (mmocr, ocrbench, vqa, peers, text, yesno, choice)
        for rule in module.RULES
    }
)
NAMES = tuple(_RULES)
"""Every metric that :func:`score` knows."""


def _full(rule: Rule) -> str:
    return f"{rule.name}@{rule.version}" if rule.version else rule.name


def find(name: str) -> Rule:
    """The metric called ``name``, also with its version (``mmocr@9f0ffdf``), or :class:`ConfigError`."""
    rule = _RULES.get(str(name).partition("@")[0])
    if rule is None or name not in (rule.name, _full(rule)):
        known = ", ".join(map(_full, _RULES.values()))
        raise ConfigError(
            f"there is no metric {name!r}; choose one of {known} (the part after @ may be left out)"
        )
    return rule


def full_name(name: str) -> str:
    """The name with the version it was taken from, as result files should state it: ``mmocr@9f0ffdf``."""
    return _full(find(name))


def about(name: str) -> str:
    """One line: whose rule it is, which version, where from."""
    return find(name).about


def higher_is_better(name: str) -> bool:
    """False for the error rates ``cer`` and ``wer``."""
    return find(name).higher_is_better


def score(name: str, prediction: str, references: str | Sequence[str]) -> float:
    """The score of one answer, from 0 to 1, by the metric ``name`` (:data:`NAMES`).

    ``references`` is one text or several, none of them changed; the best counts, except for the soft
    accuracies (``textvqa``), which weigh all. Raises :class:`ConfigError` for an unknown metric and
    :class:`DataError` for no reference or for something that is not text.
    """
    rule = find(name)
    answer, texts = checked(prediction, references)
    return rule.compare(rule.prediction(answer), [rule.reference(each) for each in texts])


def score_all(name: str, rows: Iterable[tuple[str, str | Sequence[str]]]) -> list[float]:
    """:func:`score` of every (prediction, references).

    A reference that repeats is prepared once, and so is a prediction in a run of equal ones (a baseline).
    """
    rule = find(name)
    prepared: dict[str, str] = {}
    scores: list[float] = []
    last, ready = None, ""
    for prediction, references in rows:
        answer, texts = checked(prediction, references)
        for reference in texts:
            if reference not in prepared:
                prepared[reference] = rule.reference(reference)
        if answer != last:
            last, ready = answer, rule.prediction(answer)
        scores.append(rule.compare(ready, [prepared[each] for each in texts]))
    return scores
