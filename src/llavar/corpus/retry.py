"""Which reasons for leaving an item out say nothing about the item: another try may find otherwise."""

from __future__ import annotations

from llavar.corpus.fetch import FetchReason
from llavar.corpus.open_shard import Failure
from llavar.corpus.teaching.draft import FaultReason

PASSING = frozenset({*Failure, FetchReason.LATER, FaultReason.NO_REPLY})
"""Time limits, processes that died or failed, servers and endpoints that did not answer."""
