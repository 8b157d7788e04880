"""LLaVAR: teach a vision-language model to read the text inside images.

``llavar.load("nano")`` gives a :class:`Reader`; everything else is reached through the ``llavar`` command
and the subpackages. Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llavar.errors import LlavarError
from llavar.version import __version__

if TYPE_CHECKING:
    from llavar.study.reader import Reader

__all__ = ["LlavarError", "Reader", "__version__", "load"]


def load(model: str = "nano", *, template: str = "") -> Reader:
    """A model that answers questions about pictures: ``nano``, a folder, or the hub id of a Llava checkpoint.

    Raises:
        LlavarError: there is no such model, or it cannot be used.
    """
    from llavar.study.reader import Reader

    return Reader.load(model, template=template)


def __getattr__(name: str) -> object:
    # Reader brings torch along, so it is imported when it is asked for.
    if name == "Reader":
        from llavar.study.reader import Reader

        return Reader
    raise AttributeError(f"module 'llavar' has no attribute {name!r}")
