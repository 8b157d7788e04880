"""A folder whose pictures never come, importable by name in worker processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from llavar.data.pictures import FolderPictures


class Endless(FolderPictures):
    """Waits for ever, or takes the process with it."""

    def source(self, name: str) -> Path:
        if name == "dies.png":
            os._exit(5)
        threading.Event().wait()
        raise AssertionError("nobody sets it")
