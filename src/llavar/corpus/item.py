"""A picture's whole life as one typed record, from where it was found to the rows it gave.

Every stage adds its part and leaves the rest as it was, so that each row of the finished data can say where
it comes from. Shards of items are Parquet files whose columns are these fields (:mod:`llavar.corpus.shards`).
"""

from __future__ import annotations

from dataclasses import dataclass

from llavar.records import Conversation, Reading, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What another program noted of a picture that it had fetched. Nobody here has seen that file.

    ``sha256`` is of what a server sent, and the size is that picture's, -1 where nothing was noted. The file
    that the program left may be another one, resized and encoded anew.
    """

    sha256: str = ""
    width: int = -1
    height: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Which bytes of a tar a picture is."""

    offset: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a picture was found. ``source`` names an entry of the recipe; ``caption`` is its text there.

    The numbers are those of LAION's metadata, -1 where the source has none: probability of a watermark and
    of unsafe content, similarity of picture and caption. ``stamp`` says which state of a file in a folder was
    found, and ``member`` where a picture lies in a tar (the folder of its ``path``), until it is opened: from
    there on its hashes do.
    """

    source: str
    url: str = ""
    path: str = ""
    caption: str = ""
    language: str = ""
    watermark: float = -1.0
    unsafe: float = -1.0
    similarity: float = -1.0
    stamp: str = ""
    member: Member | None = None
    download: Download | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFile:
    """The picture as it lies on the disk. ``path`` is relative to the corpus, or absolute outside of it.

    ``sha256`` is of the file; ``original_sha256`` of what was fetched, where it was encoded anew.
    """

    path: str
    sha256: str
    width: int
    height: int
    bytes: int
    original_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What equal and nearly equal pictures have in common, as hexadecimal digits."""

    pixels: str
    perceptual: str
    """256 bits: pictures differ by how many of them differ."""
    content: str = ""
    """The picture without flat margins, very small, as base64; only until near duplicates were looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How much of a text-rich picture it is: probability 0 to 1, by which scorer; and its cluster."""

    text: float | None = None
    scorer: str = ""
    cluster: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What an encoder made of a picture: numbers of two bytes each (little-endian), as hexadecimal digits."""

    encoder: str
    vector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A stage-2 conversation and who made it: teacher, hash of the prompt, tokens used and their price."""

    conversation: Conversation
    teacher: str
    prompt_sha256: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    support: tuple[str, ...] = ()
    """Lines of OCR that the answers rest on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """How many pieces of personal data were masked, by kind (:mod:`llavar.corpus.privacy`)."""

    email: int = 0
    iban: int = 0
    card: int = 0
    phone: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One picture. Parts that no stage has added yet are None or empty."""

    id: str
    origin: Origin
    file: PictureFile | None = None
    fingerprint: Fingerprint | None = None
    features: Features | None = None
    """Only until the picture has its cluster."""
    scores: Scores | None = None
    readings: tuple[Reading, ...] = ()
    """What each OCR engine read, without the time it took: equal runs give equal files."""
    agreement: float | None = None
    """How far the engines agree, 0 to 1, where there are several (:mod:`llavar.corpus.agreement`)."""
    description: str = ""
    """A caption of the picture with its text painted over, where the recipe wants one."""
    masked: Masked = Masked()
    stage1: Conversation | None = None
    stage2: Taught | None = None
    notes: tuple[Reject, ...] = ()
    """Why a row that the recipe asks for is missing, where the item has the other one or may get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An item that ended here, and why."""

    reject: Reject
    item: Item
