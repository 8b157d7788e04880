"""GPT-style review: a text model compares an answer with a reference, given a description of the picture.

The prompt, the way scores are read and the summary are those of LLaVA (``llava/eval``:
``eval_gpt_review_visual.py``, ``summarize_gpt_review.py``), which LLaVAR used. What made them mislead is left
out: reviews are matched by id and not by line, failures are counted and not averaged as scores of -1, and
each comparison may be asked for in both orders.
"""

from llavar.evals.judge.agreement import Agreement, agree
from llavar.evals.judge.files import Case, read_cases
from llavar.evals.judge.parse import parse_scores
from llavar.evals.judge.prompt import SYSTEM, Rule, built_in_rules, read_rules, review_prompt
from llavar.evals.judge.reference import answer_all
from llavar.evals.judge.reviews import Order, Review, ReviewStatus, read_reviews
from llavar.evals.judge.run import Settings, judge
from llavar.evals.judge.summary import CategorySummary, summarise

__all__ = [
    "SYSTEM",
    "Agreement",
    "Case",
    "CategorySummary",
    "Order",
    "Review",
    "ReviewStatus",
    "Rule",
    "Settings",
    "agree",
    "answer_all",
    "built_in_rules",
    "judge",
    "parse_scores",
    "read_cases",
    "read_reviews",
    "read_rules",
    "review_prompt",
    "summarise",
]
