"""One client for servers that speak OpenAI's chat completions: judges, teachers, and models under test.

A call either returns a :class:`Reply` or raises one sentence; there is no text that stands for a failure.
What may pass by itself (429, 5xx, a cut or slow connection) is asked again with growing pauses, what will not
(other 4xx) is reported at once in the server's own words. Everything here may be called from many threads.
The API key is sent to the endpoint and goes nowhere else: not into messages, files or ``repr``.
"""

from llavar.llm.client import Client
from llavar.llm.limits import Budget, Cache
from llavar.llm.many import Done, many
from llavar.llm.protocol import KEY_VARIABLE, Delta, Endpoint, Message, Reply, whole

__all__ = [
    "KEY_VARIABLE",
    "Budget",
    "Cache",
    "Client",
    "Delta",
    "Done",
    "Endpoint",
    "Message",
    "Reply",
    "many",
    "whole",
]
