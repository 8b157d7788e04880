"""Clusters of pictures: features, k-means, and which clusters go on (section 3.1 of the paper).

Three stages. ``features`` encodes every picture; ``cluster`` fits k-means to a sample of them and gives each
item the number of its cluster; ``keep`` passes the clusters that a person has picked on the contact sheet
(:mod:`llavar.corpus.sheet`), at most so many pictures of each. A change of the pick redoes ``keep`` alone.

The centres can be saved and named in another recipe, so that new pictures fall into the clusters that were
looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from llavar.corpus.crew import Maker
from llavar.corpus.item import Features, Item, Scores
from llavar.corpus.sight import device_of, picture_of
from llavar.corpus.stage import Judge, Outcome
from llavar.errors import ConfigError, DataError, ImageError, NotFoundError
from llavar.records import Reject

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llavar.corpus.sight import Encoder

FEATURES, CLUSTER, KEEP = "features", "cluster", "keep"


class ClusterReason(StrEnum):
    """Why a picture does not go on."""

    CANNOT_OPEN = "the picture cannot be opened"
    NOT_PICKED = "its cluster was not picked"
    CLUSTER_FULL = "its cluster is full"


# ------------------------------------------------------------------------------------------ features


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSettings:
    """The encoder, by a name that says which weights."""

    encoder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStage:
    """Adds an encoder's features. They stay until the item has its cluster."""

    root: Path
    encoder: Maker[Encoder]
    time_limit: float | None = 60.0
    name: ClassVar[str] = FEATURES
    version: ClassVar[int] = 1
    adds: ClassVar[tuple[str, ...]] = ("features",)

    @property
    def settings(self) -> FeatureSettings:
        return FeatureSettings(encoder=self.encoder.name)

    @property
    def device(self) -> str:
        return device_of(self.encoder)

    def basis(self, item: Item) -> object:
        return item.file or item.origin

    def maker(self) -> FeatureStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        encode = self.encoder()

        def encoded(item: Item) -> Outcome:
            try:
                picture = picture_of(item, self.root)
            except (ImageError, NotFoundError, OSError) as error:
                reason = ClusterReason.CANNOT_OPEN
                return Reject(id=item.id, stage=FEATURES, reason=reason, detail=str(error))
            return replace(item, features=packed(self.encoder.name, encode(picture)))

        return encoded


def packed(encoder: str, vector: NDArray[np.floating]) -> Features:
    """Features as they are stored: two bytes a number."""
    return Features(encoder=encoder, vector=vector.astype("<f2").tobytes().hex())


def vectors(items: Iterable[Item]) -> NDArray[np.float32]:
    """Features of items as rows of (N, D).

    Raises:
        DataError: an item has none, or of another length.
    """
    rows = [bytes.fromhex(item.features.vector) if item.features is not None else b"" for item in items]
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise DataError("items come without features of equal length; compute the stage 'features' first")
    return np.frombuffer(b"".join(rows), dtype="<f2").astype(np.float32).reshape(len(rows), -1)


# ------------------------------------------------------------------------------------------ k-means


def k_means(
    points: NDArray[np.float32], count: int, *, seed: int = 0, rounds: int = 100
) -> NDArray[np.float32]:
    """Centres (K, D) of at most ``count`` clusters of ``points`` (N, D); fewer where points coincide.

    Lloyd's algorithm from k-means++ (Arthur and Vassilvitskii, 2007), until nobody changes sides. A cluster
    that loses all its points takes the point that is farthest from its centre. Equal arguments give equal
    centres on one machine.
    """
    rng = np.random.default_rng(seed)
    centres = _spread(points, count, rng)
    before: NDArray[np.int64] | None = None
    for _ in range(rounds):
        nearest, distances = assigned(points, centres)
        if before is not None and np.array_equal(nearest, before):
            break
        before = nearest
        order = np.argsort(nearest, kind="stable")
        ordered = nearest[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        filled = ordered[starts]
        sums = np.add.reduceat(points[order].astype(np.float64), starts, axis=0)
        sizes = np.diff(starts, append=len(points))
        centres[filled] = sums / sizes[:, None]
        for place in sorted({*range(len(centres))}.difference(filled.tolist())):
            farthest = int(distances.argmax())
            centres[place], distances[farthest] = points[farthest], 0.0
    return centres


def _spread(points: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """First centres: each a point drawn with the square of its distance to those before as its weight."""
    chosen = [int(rng.integers(len(points)))]
    distances = _squares(points, points[chosen])[:, 0]
    nothing = 1e-6 * float((points**2).sum(axis=1).mean())  # what rounding makes of the distance to itself
    while len(chosen) < count:
        distances[distances <= nothing] = 0.0
        if not distances.any():  # every point has a centre in its place
            break
        weights: NDArray[np.float64] = np.cumsum(distances, dtype=np.float64)
        chosen.append(int(weights.searchsorted(rng.random() * float(weights[-1]), side="right")))
        distances = np.minimum(distances, _squares(points, points[chosen[-1:]])[:, 0])
    return points[chosen].copy()


def assigned(
    points: NDArray[np.float32], centres: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest centre of each point (N,), and the square of the distance to it (N,)."""
    nearest = np.empty(len(points), dtype=np.int64)
    distances = np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), 4096):  # (4096, K) at a time
        squares = _squares(points[start : start + 4096], centres)
        place = squares.argmin(axis=1)
        nearest[start : start + 4096] = place
        distances[start : start + 4096] = np.take_along_axis(squares, place[:, None], axis=1)[:, 0]
    return nearest, distances


def _squares(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances (N, K)."""
    inner = points @ centres.T
    squares = (points**2).sum(axis=1)[:, None] - 2 * inner + (centres**2).sum(axis=1)[None]
    return np.maximum(squares, 0.0)


# ------------------------------------------------------------------------------------------ clusters


@dataclass(frozen=True, slots=True, kw_only=True)
class Centres:
    """Fitted clusters: whose features they are of, and a row of numbers for each."""

    encoder: str
    centres: tuple[tuple[float, ...], ...]

    def matrix(self) -> NDArray[np.float32]:
        """(K, D)."""
        return np.asarray(self.centres, dtype=np.float32)


_CENTRES = TypeAdapter(Centres)


def read_centres(path: Path) -> Centres:
    """Centres that were saved.

    Raises:
        NotFoundError: there is no such file.
        DataError: it holds none.
    """
    if not path.is_file():
        raise NotFoundError(
            f"there is no file {str(path)!r} of cluster centres; name the one beside the sheet"
        )
    try:
        found = _CENTRES.validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} holds no cluster centres ({error.error_count()} faults)") from error
    if not found.centres or len({len(row) for row in found.centres}) != 1 or not found.centres[0]:
        raise DataError(f"{path} holds no centres, or of different lengths; save them again")
    return found


def parsed_centres(decision: bytes) -> Centres:
    """The centres in the decision of :class:`ClusterStage`."""
    return _CENTRES.validate_json(decision)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """How many clusters, fitted to how many pictures."""

    count: int = 100
    sample: int = 50_000
    """Pictures that k-means sees at most, drawn by the hash of their ids."""
    seed: int = 0
    centres: str = ""
    """Hash of saved centres, where those are used."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.sample < self.count:
            raise ConfigError(
                f"count is {self.count} and sample {self.sample}, but 1 <= count <= sample has to hold; give "
                "100 and 50000, for example"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStage:
    """Gives every item the number of its cluster, and takes its features away."""

    settings: ClusterSettings = ClusterSettings()
    fixed: Centres | None = None
    """Centres to use instead of fitting some."""
    name: ClassVar[str] = CLUSTER
    version: ClassVar[int] = 1

    def decide(self, shards: Iterable[list[Item]]) -> bytes:
        """The centres, as JSON: k-means on the sample, or those that are fixed.

        Raises:
            ConfigError: fixed centres are of another encoder.
        """
        encoder = next((item.features.encoder for items in shards for item in items if item.features), "")
        if self.fixed is not None:
            if self.fixed.encoder != encoder and encoder:
                raise ConfigError(
                    f"the saved centres are of the encoder {self.fixed.encoder!r} and the features of "
                    f"{encoder!r}; name the same model"
                )
            return _CENTRES.dump_json(self.fixed)
        limit = _sample_limit(shards, self.settings.sample)
        parts = [
            vectors(drawn)
            for items in shards
            if (drawn := [item for item in items if _draw(item.id) <= limit])
        ]
        if not parts:
            return _CENTRES.dump_json(Centres(encoder=encoder, centres=()))
        centres = k_means(np.concatenate(parts), self.settings.count, seed=self.settings.seed)
        rows = tuple(tuple(round(float(value), 6) for value in row) for row in centres)
        return _CENTRES.dump_json(Centres(encoder=encoder, centres=rows))

    def judge(self, decision: bytes) -> Judge:
        centres = parsed_centres(decision).matrix()

        def placed(items: Sequence[Item]) -> list[Outcome]:
            if not items:
                return []
            nearest, _ = assigned(vectors(items), centres)
            return [_placed(item, int(number)) for item, number in zip(items, nearest, strict=True)]

        return placed


def _placed(item: Item, cluster: int) -> Item:
    return replace(item, features=None, scores=replace(item.scores or Scores(), cluster=cluster))


def _draw(id: str) -> int:
    """A number that looks random and follows from the id: the lowest are drawn."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big")


def drawn_first(items: Sequence[Item], count: int) -> list[Item]:
    """Of ``items``, the ``count`` that are drawn first, in that order."""
    return sorted(items, key=lambda item: _draw(item.id))[:count]


def _sample_limit(shards: Iterable[list[Item]], size: int) -> int:
    """The highest draw among the ``size`` lowest ones."""
    draws = np.array([_draw(item.id) for items in shards for item in items], dtype=np.uint64)
    if len(draws) <= size:
        return 2**64 - 1
    return int(np.partition(draws, size - 1)[size - 1])


# ------------------------------------------------------------------------------------------ which go on


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepSettings:
    """Which clusters go on, and how many pictures of each."""

    keep: tuple[int, ...] | None = None
    """Numbers of clusters; None keeps all of them."""
    at_most: int | None = 52_000
    """Pictures of a cluster that go on, drawn by the hash of their ids; the paper's number. None: all."""

    def __post_init__(self) -> None:
        if self.keep is not None and (not self.keep or min(self.keep) < 0):
            raise ConfigError(f"keep is {list(self.keep)}; give numbers of clusters from the contact sheet")
        if self.at_most is not None and self.at_most < 1:
            raise ConfigError(f"at_most is {self.at_most} pictures of a cluster; give at least 1, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepStage:
    """Passes the clusters that were picked, and no more of each than wanted."""

    settings: KeepSettings = KeepSettings()
    name: ClassVar[str] = KEEP
    version: ClassVar[int] = 1

    def decide(self, shards: Iterable[list[Item]]) -> bytes:
        """For every cluster that is too full, the highest draw that still goes on, as JSON."""
        most = self.settings.at_most
        if most is None:
            return b"{}"
        draws: dict[int, list[int]] = {}
        for items in shards:
            for item in items:
                number = _cluster_of(item)
                if self._picked(number):
                    held = draws.setdefault(number, [])
                    held.append(_draw(item.id))
                    if len(held) >= 2 * most + 1000:  # the lowest ones are enough
                        draws[number] = sorted(held)[: most + 1]
        limits = {number: sorted(held)[most - 1] for number, held in draws.items() if len(held) > most}
        return json.dumps(limits, sort_keys=True).encode()

    def judge(self, decision: bytes) -> Judge:
        limits = {int(number): limit for number, limit in json.loads(decision).items()}
        return lambda items: [self._judged(item, limits) for item in items]

    def _judged(self, item: Item, limits: dict[int, int]) -> Outcome:
        number = _cluster_of(item)
        if not self._picked(number):
            return Reject(id=item.id, stage=KEEP, reason=ClusterReason.NOT_PICKED, detail=f"cluster {number}")
        if number in limits and _draw(item.id) > limits[number]:
            detail = f"cluster {number}, {self.settings.at_most} go on"
            return Reject(id=item.id, stage=KEEP, reason=ClusterReason.CLUSTER_FULL, detail=detail)
        return item

    def _picked(self, number: int) -> bool:
        return self.settings.keep is None or number in self.settings.keep


def _cluster_of(item: Item) -> int:
    return -1 if item.scores is None or item.scores.cluster is None else item.scores.cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChoice:
    """What a recipe says about clusters."""

    count: int = 100
    sample: int = 50_000
    seed: int = 0
    model: str = ""
    """An image encoder of Hugging Face (CLIP and its kin): id or folder; without one, colours and edges."""
    device: str = "cpu"
    time_limit: float = 60.0
    centres: Path | None = None
    """Centres that ``llavar corpus cluster`` has saved, instead of new ones."""
    keep: tuple[int, ...] | None = None
    at_most: int | None = 52_000

    def __post_init__(self) -> None:
        self.fit("")
        self.pick()

    def fit(self, centres: str) -> ClusterSettings:
        return ClusterSettings(count=self.count, sample=self.sample, seed=self.seed, centres=centres)

    def pick(self) -> KeepSettings:
        return KeepSettings(keep=self.keep, at_most=self.at_most)


def cluster_stage(choice: ClusterChoice) -> ClusterStage:
    """The stage of a choice. Raises NotFoundError, DataError: the saved centres cannot be read."""
    if choice.centres is None:
        return ClusterStage(settings=choice.fit(""))
    fixed = read_centres(choice.centres)
    digest = hashlib.sha256(choice.centres.read_bytes()).hexdigest()[:16]
    return ClusterStage(settings=choice.fit(digest), fixed=fixed)
