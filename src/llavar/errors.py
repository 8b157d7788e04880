"""The exception tree.

Every error that a user can cause is a :class:`LlavarError`; each also inherits the standard library's
error that it refines, so that ``except ValueError`` keeps working. A message is one sentence that holds
the value, the limit it broke and the remedy. All of them pickle, because workers raise them too.
"""


class LlavarError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(LlavarError, ValueError):
    """A setting has a value that cannot work."""


class DataError(LlavarError, ValueError):
    """A row of data cannot be used."""


class ContextLengthError(DataError):
    """A prompt is longer than the model takes."""


class ImageError(LlavarError, ValueError):
    """A picture cannot be opened, or is outside the limits."""


class FetchError(LlavarError, OSError):
    """A URL cannot be fetched, or must not be."""


class BudgetError(LlavarError, RuntimeError):
    """What may be asked of a server is used up."""


class ModelError(LlavarError, ValueError):
    """A checkpoint or tokenizer cannot be used."""


class StorageError(LlavarError, OSError):
    """Something cannot be written: the disk is full, or takes nothing."""


class MissingExtraError(LlavarError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class NotFoundError(LlavarError, FileNotFoundError):
    """A file or folder that was named does not exist."""
