"""The settings of a training job: written into the folder of its run, and read back from there."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from llavar import files
from llavar.errors import ConfigError, LlavarError, NotFoundError
from llavar.images import Tiles, Transform
from llavar.train import home, story
from llavar.train.config import Attention, Policy, StageConfig
from llavar.train.export import SavedAs
from llavar.train.track import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A stage, and what it is done with.

    ``model`` is the folder or the hub id of a whole Llava; ``projector`` a run, a model folder, an
    ``mm_projector.bin`` or ``random``, in place of its own. ``conversation``, ``transform``, ``tiles``,
    ``tower_size`` (pixels; 0: its own) and ``feature_layer`` stand in for what the model folder says.
    ``peak_tflops`` is what one device can do, for the log (0: unknown). ``validate`` are files of held-out
    rows, of which the loss is computed every ``validate_every`` steps; every ``watch_every`` steps (0: never)
    the model is asked the questions of the folder ``watch_data``, or of pictures that are drawn for it.
    ``track`` are trackers besides the log. With LoRA and without ``merge`` the run leaves the adapter alone.
    With ``own_processor`` the model is any image-text-to-text model of transformers, given rows through its
    own processor and chat template.
    """

    stage: StageConfig
    model: str
    data: tuple[str, ...]
    recipe: str = ""
    images: str = ""
    vision_tower: str = ""
    projector: str = ""
    conversation: str = ""
    transform: Transform | None = None
    tiles: Tiles | None = None
    tower_size: int = 0
    feature_layer: int | None = None
    attention: Attention = Attention.AUTO
    bad_rows: Policy = Policy.STOP
    bad_images: Policy = Policy.STOP
    saved_as: SavedAs = SavedAs.STORED
    deterministic: bool = False
    peak_tflops: float = 0.0
    validate: tuple[str, ...] = ()
    validate_every: int = 0
    watch_every: int = 0
    watch_data: str = ""
    track: tuple[Kind, ...] = ()
    merge: bool = True
    own_processor: bool = False

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("no model is named; give --model a model folder or a hub id")
        if not self.data:
            raise ConfigError("no data is named; give --data at least one file of rows")
        if self.tower_size < 0:
            raise ConfigError(f"tower_size is {self.tower_size}; give pixels, or 0 for the tower's own")
        if not 0 <= self.peak_tflops < 1e6:
            raise ConfigError(f"peak_tflops is {self.peak_tflops}; an H100 has 989 in bf16, and 0 is unknown")
        if self.validate_every < 0 or self.watch_every < 0:
            raise ConfigError(
                f"validate_every is {self.validate_every} and watch_every {self.watch_every}; "
                "give steps, or 0 for never"
            )
        if bool(self.validate) != bool(self.validate_every):
            raise ConfigError("--validate and --validate-every go together; give both or neither")
        if not self.merge and self.stage.lora is None:
            raise ConfigError("--no-merge is for a run with LoRA, and this one trains the model itself")
        if self.watch_data and not self.watch_every:
            raise ConfigError(f"--watch-data {self.watch_data} is asked every so many steps; give --watch N")


def record(job: Job, out: Path) -> None:
    """Write the settings into the folder of the run; those of one that never made a step do not count.

    Raises:
        ConfigError: it holds a run with others; the message names the first that differs.
    """
    path = out / home.CONFIG
    if path.exists() and home.has_begun(out):
        held = read_job(out)
        if held == job:
            return
        raise ConfigError(
            f"{out} holds a run with other settings ({_difference(held, job)}); go on with it as "
            f"llavar train {out}, or use another --out"
        )
    if home.has_begun(out):
        raise ConfigError(f"{out} holds checkpoints or a log, and no {home.CONFIG}; use another --out")
    files.write_text(path, _adapter().dump_json(job, indent=1).decode() + "\n")


def read_job(out: Path) -> Job:
    """The settings of the run in ``out``.

    Raises:
        NotFoundError: there is no run.
        ConfigError: its settings are damaged, or of a version that had others.
    """
    path = out / home.CONFIG
    if not path.is_file():
        raise NotFoundError(f"{out} holds no run: there is no {home.CONFIG}; name an earlier --out")
    try:
        return _adapter().validate_json(path.read_bytes(), extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{path} cannot be read: {where}: {first['msg']}; repair it, or begin anew"
        ) from None
    except LlavarError as error:
        raise ConfigError(f"{path} cannot be used: {error}") from error


def _adapter() -> TypeAdapter[Job]:
    return TypeAdapter(Job)


def _difference(held: Job, asked: Job) -> str:
    for name in (item.name for item in fields(Job)):
        one, other = getattr(held, name), getattr(asked, name)
        if isinstance(one, StageConfig) and one != other:
            inner = (item.name for item in fields(StageConfig))
            name = next(n for n in inner if getattr(one, n) != getattr(other, n))
            one, other = getattr(one, name), getattr(other, name)
        if one != other:
            return f"{name} is {story.value(one)} there and {story.value(other)} here"
    return "its format"


def document(job: Job) -> dict[str, object]:
    """The settings as plain values, for a tracker."""
    return _adapter().dump_python(job, mode="json")
