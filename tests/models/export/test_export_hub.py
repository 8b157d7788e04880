"""The export to the hub: its card, and uploads to a stand-in for the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub import metadata_load
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from llavar.errors import ConfigError, FetchError
from llavar.models.export import push as pushing
from llavar.models.export.base import Checked, Options, Order
from llavar.models.export.run import run
from llavar.models.export.source import open_source
from llavar.models.export.targets.hub import TARGET
from llavar.study.nano import weights

NANO = weights.folder("nano")


class Hub:
    """Notes what it is asked; ``failure`` is raised instead of an upload."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.files: list[str] = []
        self.failure = failure

    def create_repo(self, repo: str, **named: Any) -> str:
        self.asked.append(("create_repo", {"repo": repo, **named}))
        return f"https://hub.invalid/{repo}"

    def upload_folder(self, **named: Any) -> SimpleNamespace:
        if self.failure:
            raise self.failure
        self.files = sorted(path.name for path in Path(named["folder_path"]).iterdir())
        self.asked.append(("upload_folder", named))
        return SimpleNamespace(oid="0")


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "nano"
    shutil.copytree(NANO, folder)
    return folder


@pytest.fixture(autouse=True)
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches the hub."""

    def refuse() -> None:
        raise AssertionError("the hub was asked for")

    monkeypatch.setattr(pushing, "hub_api", refuse)


def test_the_card_says_what_was_said(tmp_path: Path):
    options = Options(
        license="cc-by-nc-4.0", base_models=("a/llama", "b/clip"), datasets=("c/llavar",), push=""
    )
    done = run(NANO, tmp_path / "out", "hub", options)
    metadata = metadata_load(done.folder / "README.md")
    assert metadata == {
        "license": "cc-by-nc-4.0",
        "base_model": ["a/llama", "b/clip"],
        "datasets": ["c/llavar"],
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["llava", "llavar"],
    }
    assert done.pushed == ""
    assert done.notes == ()
    assert done.command == f"hf upload OWNER/NAME {tmp_path / 'out'}"


def test_the_card_keeps_what_the_models_card_says(nano: Path, tmp_path: Path):
    (nano / "README.md").write_text(
        "---\nlicense: mit\nbase_model: d/vicuna\ndatasets:\n- e/one\n- f/two\ntags: [ocr]\n---\n"
        "# Mine\n\nTrained on signs.\n"
    )
    done = run(nano, tmp_path / "out", "hub")
    metadata = metadata_load(done.folder / "README.md")
    assert metadata
    assert (metadata["license"], metadata["base_model"]) == ("mit", ["d/vicuna"])
    assert (metadata["datasets"], metadata["tags"]) == (["e/one", "f/two"], ["ocr"])
    text = (done.folder / "README.md").read_text()
    assert "Trained on signs." in text
    assert text.count("\n---\n") == 1, "one block of metadata"


@pytest.mark.parametrize(
    "card",
    [None, "", "# no metadata\n", "---\n: : [\n---\n", "---\n- a list\n---\n", "---\nlicense: [1]\n---\n"],
)
def test_without_a_known_licence_it_is_other(nano: Path, tmp_path: Path, card: str | None):
    (nano / "README.md").unlink()
    if card is not None:
        (nano / "README.md").write_text(card)
    order = Order(source=open_source(nano), options=Options(), name="out")
    (tmp_path / "README.md").write_text(TARGET.card(order, Checked(sentence="Checked.")))
    metadata = metadata_load(tmp_path / "README.md")
    assert metadata
    assert metadata["license"] == "other"
    assert any("say --license" in note for note in TARGET.notes(order))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(license="My Own\nlicense"), "none of the hub's identifiers"),
        (Options(push="name"), "'name' is no name on the hub; write it as OWNER/NAME"),
        (Options(push="../x/y"), "OWNER/NAME"),
        (Options(base_models=("a b/c",)), "OWNER/NAME"),
    ],
)
def test_names_are_checked_first(tmp_path: Path, options: Options, message: str):
    with pytest.raises(ConfigError, match=message):
        run(NANO, tmp_path / "out", "hub", options)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- uploading


@pytest.mark.parametrize("private", [False, True])
def test_it_is_uploaded_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool):
    hub = Hub()
    monkeypatch.setattr(pushing, "hub_api", lambda: hub)
    done = run(NANO, tmp_path / "out", "hub", Options(push="me/nano", private=private))
    (first, created), (second, uploaded) = hub.asked
    assert (first, second) == ("create_repo", "upload_folder")
    assert created == {"repo": "me/nano", "repo_type": "model", "private": private, "exist_ok": True}
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/nano", str(tmp_path / "out"))
    assert {"README.md", "model.safetensors", "checksums.sha256"} <= set(hub.files)
    assert done.pushed == "https://hub.invalid/me/nano"
    assert 'from_pretrained("me/nano"' in (done.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            httpx.ConnectError("no route to host"),
            "did not take me/nano: no route to host; .*hf upload me/nano",
        ),
        (OfflineModeIsEnabled("offline mode is enabled"), "offline mode is enabled; the folder is whole"),
        (LocalTokenNotFoundError("token"), "nobody is logged in to the hub.*hf auth login"),
        (
            HfHubHTTPError(
                "403 Forbidden\nyou may not",
                response=httpx.Response(403, request=httpx.Request("PUT", "https://hub.invalid")),
            ),
            "403 Forbidden you may not",
        ),
        (TimeoutError(), "TimeoutError"),
        (RuntimeError("[Errno -2] Name or service not known"), "Name or service not known; the folder"),
    ],
)
def test_a_failed_upload_leaves_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
):
    monkeypatch.setattr(pushing, "hub_api", lambda: Hub(failure))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FetchError, match=message):
        pushing.push(tmp_path, "me/nano", private=False)
    assert (tmp_path / "config.json").is_file()
