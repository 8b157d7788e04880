"""Uploading to the Hugging Face hub, where that was asked for."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from llavar.errors import FetchError
from llavar.version import __version__


def hub_api() -> Any:
    """The client of the hub, with the login of whoever runs this."""
    from huggingface_hub import HfApi

    return HfApi()


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Create the repository if it is not there and upload the folder; returns its URL.

    Raises:
        FetchError: no login, no network, or the hub refuses. The folder stays as it is.
    """
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = hub_api()
    again = f"the folder is whole, so try again with: hf upload {repo} {shlex.quote(str(folder))}"
    try:
        url = api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=str(folder),
            repo_type="model",
            commit_message=f"llavar convert export {__version__}",
        )
    except LocalTokenNotFoundError as error:
        raise FetchError(
            f"nobody is logged in to the hub, so {repo} was not written; run hf auth login; {again}"
        ) from error
    except Exception as error:  # which HTTP client it has, and so which errors, changes with its version
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise FetchError(f"the hub did not take {repo}: {reason}; {again}") from error
    return str(url)
