"""The stage: items in, items with a conversation out, each as soon as the teacher has given it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import ClassVar

from llavar.corpus.item import Item, Taught
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.pairs import with_image
from llavar.corpus.privacy import mask_item
from llavar.corpus.rows import untaught
from llavar.corpus.stage import Outcome
from llavar.corpus.teach import STAGE
from llavar.corpus.teaching.draft import Draft, FaultReason
from llavar.corpus.teaching.evidence import Evidence, evidence_of
from llavar.corpus.teaching.lesson import LessonSettings, Request, Taken, lesson, take
from llavar.corpus.teaching.prompt import Prompt, read_prompt
from llavar.corpus.teaching.replies import STORE, Bound, Paid, Purse, Replies, counted
from llavar.corpus.teaching.teacher import EndpointTeacher, Transport
from llavar.corpus.wordings import rng_for
from llavar.errors import BudgetError, FetchError, LlavarError
from llavar.llm import Client
from llavar.records import Conversation, Reject

_PATIENCE = 5
"""Items in a row without a reply after which the endpoint is taken to be out of order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What decides the conversations. Where the model is, how fast it is asked and its price do not."""

    lesson: LessonSettings
    prompt_sha256: str
    layout: LayoutSettings
    mask: bool
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTeachStage:
    """Adds a stage-2 conversation by a text model (section 3.2 of the paper).

    An item whose replies cannot be used goes on with a note if it has a stage-1 row, and ends here otherwise.
    The errors of an endpoint that is out of order, or of a budget that is used up, end the run, which can be
    gone on with: what was answered is kept in the corpus.
    """

    root: Path
    teacher: EndpointTeacher
    prompt: Prompt = field(default_factory=read_prompt)
    layout: LayoutSettings = field(default_factory=LayoutSettings)
    mask: bool = True
    name: ClassVar[str] = STAGE
    version: ClassVar[int] = 1

    @property
    def settings(self) -> EndpointSettings:
        return EndpointSettings(
            lesson=self.teacher.lesson,
            prompt_sha256=self.prompt.sha256,
            layout=self.layout,
            mask=self.mask,
            seed=self.teacher.seed,
        )

    def run(self, items: Sequence[Item]) -> Iterator[tuple[int, Outcome]]:
        """Outcomes as they come; those under way when the run ends are waited for, since they are paid for.

        Raises:
            BudgetError: the budget is used up.
            FetchError: the endpoint is out of order, or there is no answer in a batch yet.
        """
        with ExitStack() as stack:
            replies = stack.enter_context(Replies(self.root / STORE))
            if self.teacher.transport is Transport.BATCH:
                yield from self._at_hand(items, replies)
                return
            client = stack.enter_context(Client(self.teacher.endpoint()))
            desk = _Desk(self, client, replies)
            failed = yield from desk.round(range(len(items)), items)
            again = yield from desk.round(sorted(failed), items)
            for place, error in again.items():
                if not desk.heard:
                    raise error
                yield place, self.without(items[place], FaultReason.NO_REPLY, str(error))

    def _at_hand(self, items: Sequence[Item], replies: Replies) -> Iterator[tuple[int, Outcome]]:
        """Outcomes of those items whose replies are there."""
        missing = 0
        for place, item in enumerate(items):
            found = self.step(item, replies)
            if isinstance(found, Request):
                missing += 1
            else:
                yield place, found
        if missing:
            raise FetchError(
                f"{missing} items of a shard of {len(items)} wait for answers of the teacher; run  llavar "
                f"corpus teach {self.root} --write-batch FILE.jsonl,  have the file answered, take the "
                "answers up with --read-batch, then run this again"
            )

    def step(self, item: Item, replies: Replies) -> Outcome | Request:
        """How far an item comes with the replies that are there."""
        item, evidence = self.known(item)
        found = take(
            lesson(self.prompt, evidence, self.teacher.lesson), lambda request: replies.get(request.key)
        )
        return found if isinstance(found, Request) else self.outcome(item, evidence, found)

    def known(self, item: Item) -> tuple[Item, Evidence]:
        """An item, masked, and what the teacher is told of it."""
        item = mask_item(item) if self.mask else item
        return item, evidence_of(item, self.layout, mask=self.mask)

    def outcome(self, item: Item, evidence: Evidence, taken: Taken) -> Outcome:
        """An item with what came of its lesson."""
        if not isinstance(taken.result, Draft):
            return self.without(item, taken.result.reason, taken.result.detail)
        return changed(item, stage2=self._taught(item.id, taken.result, evidence, taken.paid))

    def _taught(self, id: str, draft: Draft, evidence: Evidence, paid: Sequence[Paid]) -> Taught:
        rng = rng_for(self.teacher.seed, STAGE, id)
        first, *others = draft.texts
        keys = dict.fromkeys(key for turn in draft.turns for key in turn.support)
        return Taught(
            conversation=Conversation.of(with_image(first, rng), *others),
            teacher=paid[0].reply.model or self.teacher.model,
            prompt_sha256=self.prompt.sha256,
            prompt_tokens=sum(one.reply.prompt_tokens for one in paid),
            completion_tokens=sum(one.reply.completion_tokens for one in paid),
            cost=round(sum(one.cost for one in paid), 9),
            support=tuple(evidence.lines[key] for key in keys),
        )

    def without(self, item: Item, reason: str, detail: str) -> Outcome:
        """What becomes of an item without a conversation."""
        return untaught(item, Reject(id=item.id, stage=STAGE, reason=reason, detail=detail))


def _cancel(futures: Iterable[Future[Outcome]]) -> None:
    for future in futures:
        future.cancel()


class _Desk:
    """Asks about items, several at a time."""

    def __init__(self, stage: EndpointTeachStage, client: Client, replies: Replies) -> None:
        self._stage, self._client, self._replies = stage, client, replies
        teacher = stage.teacher
        self._purse = Purse(replies, max_cost=teacher.max_cost, max_total=teacher.budget_tokens)
        self.heard = 0
        """How often the endpoint has replied."""

    def round(
        self, places: Sequence[int], items: Sequence[Item]
    ) -> Generator[tuple[int, Outcome], None, dict[int, FetchError]]:
        """Outcomes as they come; at the end the errors of those places that got no reply.

        Once the budget is used up, or too many have failed in a row, nothing more is begun, what is under
        way is still yielded, and then the error is raised.
        """
        failed: dict[int, FetchError] = {}
        row, heard, ended = 0, self.heard, None
        pool = ThreadPoolExecutor(self._stage.teacher.concurrency, thread_name_prefix="llavar-teach")
        try:
            started = {pool.submit(self._one, items[place]): place for place in places}
            for done in as_completed(started):
                if done.cancelled():
                    continue
                try:
                    outcome = done.result()
                except BudgetError as error:
                    ended = ended or error
                except FetchError as error:
                    failed[started[done]] = error
                    row, heard = (row + 1 if heard == self.heard else 1), self.heard
                    ended = ended or (error if row >= _PATIENCE else None)
                else:
                    yield started[done], outcome
                if ended is not None:
                    _cancel(started)
        finally:
            pool.shutdown(cancel_futures=True)
        if ended is not None:
            raise ended
        return failed

    def _one(self, item: Item) -> Outcome:
        """The outcome of an item. Raises what concerns all of them: LlavarError."""
        stage = self._stage
        try:
            item, evidence = stage.known(item)
            found = take(lesson(stage.prompt, evidence, stage.teacher.lesson), self._answer)
            assert isinstance(found, Taken)  # here every request has an answer, or an error
            return stage.outcome(item, evidence, found)
        except LlavarError:
            raise
        except Exception as error:  # noqa: BLE001 - one item must not end the run
            return stage.without(item, FaultReason.FAILED, f"{type(error).__name__}: {error}"[:500])

    def _answer(self, request: Request) -> Paid:
        known = self._replies.get(request.key)
        if known is not None:
            return known
        prices = self._stage.teacher.prices
        most = (request.size, request.max_tokens)
        with self._purse.paying(Bound(prices.money(*most), sum(most))):
            reply = self._client.chat(
                request.messages, max_tokens=request.max_tokens, temperature=request.temperature
            )
            self.heard += 1
            reply = counted(reply, request.size)
            return self._replies.put(request.key, reply, prices.of(reply))
