"""OCRBench's rule: a reference is a substring of the answer.

MultimodalOCR's ``example.py`` at 15218c3 and VLMEvalKit's ``OCRBench`` score alike; lmms-eval also folds
full-width ASCII. An empty reference is a substring of everything and earns credit, in all three.
"""

from __future__ import annotations

from types import MappingProxyType

from llavar.evals.metrics.rule import Rule, inside

_HALF_WIDTH = MappingProxyType({**{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}, 0x3000: 0x20})


def _plain(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def half_width(text: str) -> str:
    """``text`` with full-width ASCII (U+FF01 to U+FF5E) and the ideographic space as plain ASCII."""
    return text if text.isascii() else text.translate(_HALF_WIDTH)


def _folded(text: str) -> str:
    return _plain(half_width(text))


def _formula(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


RULES = (
    Rule(
        name="ocrbench",
        version="15218c3",
        about="OCRBench, example.py @15218c3 (VLMEvalKit scores alike): a reference is a substring of the "
        "answer, case and edge blanks aside",
        prediction=_plain,
        reference=_plain,
        compare=inside,
    ),
    Rule(
        name="ocrbench-hme",
        version="15218c3",
        about="OCRBench, example.py @15218c3, handwritten formulas: substring without blanks, case counts",
        prediction=_formula,
        reference=_formula,
        compare=inside,
    ),
    Rule(
        name="ocrbench-lmms",
        version="75571cf",
        about="OCRBench as lmms-eval @75571cf: the reply is stripped and full-width ASCII folded",
        prediction=_folded,
        reference=_folded,
        compare=inside,
    ),
)
