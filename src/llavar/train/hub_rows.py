"""The rows of files for a model with its own processor: counted once, encoded when a step needs them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llavar import images
from llavar.data.encode import check, from_first_question
from llavar.data.mixture import parse
from llavar.data.opened import open_data
from llavar.data.pictures import Pictures, PictureStore, open_pictures
from llavar.data.rows import measure
from llavar.data.source import Reason, RowError
from llavar.errors import DataError, ImageError, NotFoundError
from llavar.models._hub_processor import OwnProcessor
from llavar.models._hub_spans import messages_of
from llavar.records import IGNORE, Conversation, Example, Role
from llavar.train.config import Policy
from llavar.train.hub import HubEncoded, HubModel
from llavar.train.material import Rows, assembled, broken_in, obey, store_of

_OF_PICTURES = (Reason.NO_PICTURE, Reason.BROKEN_PICTURE)


def read_rows(
    files: Collection[str],
    folder: str,
    model: HubModel,
    *,
    max_length: int,
    bad_rows: Policy = Policy.STOP,
    bad_images: Policy = Policy.STOP,
    workers: int = 0,
    seed: int = 0,
    cache: Path | None = None,
) -> Rows:
    """As :func:`llavar.train.material.read_rows`, with the rows' pictures in ``folder`` (or an archive).

    The size of every picture is looked up, since how long its row is depends on it; with ``bad_images=skip``
    each is also opened once.

    Raises:
        ConfigError: rows were rejected and the policy is to stop, or none is left.
        NotFoundError, DataError: a file cannot be read.
        ModelError: the processor is of a kind that is not supported.
    """
    entries = [parse(text) for text in files]
    opened = [open_data(entry, folder=cache) for entry in entries]
    stores = [store_of(each, place) for place, each in enumerate(opened)]
    own = {mark[:-1]: store for mark, store in stores if store is not None}
    pictures = Pictures(open_pictures(Path(folder)) if folder else None, own)
    marks = [mark for mark, _ in stores]
    encoders = [
        HubEncoder(processor=model.processor, pictures=pictures, mark=mark, max_length=max_length)
        for mark in marks
    ]
    found = [
        measure(each.rows, encoder, workers=workers, folder=cache)
        for each, encoder in zip(opened, encoders, strict=True)
    ]
    refused = [reject for measured in found for _, reject in sorted(measured.rejects.items())]
    obey(bad_rows, [reject for reject in refused if reject.reason not in _OF_PICTURES], "--bad-rows")
    obey(bad_images, [reject for reject in refused if reject.reason in _OF_PICTURES], "--bad-images")
    broken = [
        broken_in(each, measured, mark, pictures, bad_images, workers) if bad_images is Policy.SKIP else {}
        for each, measured, mark in zip(opened, found, marks, strict=True)
    ]
    rejects = [*refused, *(reject for rejects in broken for reject in rejects.values())]
    return assembled(
        entries, opened, found, encoders, pictures, marks, broken=broken, rejects=rejects, seed=seed
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HubEncoder:
    """How rows become tokens: an :class:`llavar.data.rows.RowEncoder`.

    How long a row is depends on the sizes of its pictures, so they are looked at here; ``mark`` goes before
    their names in ``pictures``. What it finds is not kept from run to run.
    """

    processor: OwnProcessor
    pictures: PictureStore
    mark: str = ""
    max_length: int
    key: str = ""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def __call__(self, row: Example) -> HubEncoded:
        """Raises:
        RowError: it cannot be learned from.
        ModelError: the processor is of a kind that is not supported.
        """
        check(row)
        turns = from_first_question(row.conversation.turns)
        if not turns or turns[-1].role is not Role.ASSISTANT:
            raise RowError(
                row.id, Reason.NOTHING_SUPERVISED, "it does not end with an answer; add it or drop the row"
            )
        sizes = [self._size(row.id, name) for name in row.images]
        try:
            text = self.processor.rendered(messages_of(Conversation(turns=turns)))
        except DataError as error:
            raise RowError(row.id, Reason.TEMPLATE, str(error)) from error
        try:
            ids, labels = self.processor.encode(text, sizes)
        except DataError as error:
            raise RowError(row.id, Reason.PROCESSOR, str(error)) from error
        self._check_length(row, ids)
        if all(label == IGNORE for label in labels[1:]):
            raise RowError(row.id, Reason.NOTHING_SUPERVISED, "there is no answer to learn from; drop it")
        return HubEncoded(id=row.id, ids=tuple(ids), labels=tuple(labels), images=row.images, text=text.text)

    def _size(self, row: str, name: str) -> tuple[int, int]:
        if name not in self.sizes:
            try:
                self.sizes[name] = images.image_size(self.pictures.source(self.mark + name))
            except NotFoundError as error:
                raise RowError(row, Reason.NO_PICTURE, str(error)) from error
            except (ImageError, OSError) as error:
                raise RowError(row, Reason.BROKEN_PICTURE, str(error)) from error
        return self.sizes[name]

    def _check_length(self, row: Example, ids: Sequence[int]) -> None:
        if len(ids) > self.max_length:
            shown = f", its {len(row.images)} pictures included" if row.images else ""
            raise RowError(
                row.id,
                Reason.TOO_LONG,
                f"it has {len(ids)} tokens{shown}, and {self.max_length} are the limit; raise --max-length, "
                "shorten it, or have the processor make less of a picture (max_pixels or the like in "
                "preprocessor_config.json)",
            )
