"""What a server tells a monitor, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llavar.generate.dialogue import Answering, Load

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

_GAUGES: tuple[tuple[str, str, Callable[[Load], int]], ...] = (
    ("llavar_answers_running", "Answers that are being written.", lambda load: load.running),
    ("llavar_answers_waiting", "Answers that wait for a slot.", lambda load: load.waiting),
    ("llavar_slots", "Answers that can be written at a time.", lambda load: load.slots),
    ("llavar_may_wait", "Answers that may wait.", lambda load: load.may_wait),
)
_COUNTERS: tuple[tuple[str, str, Callable[[Load], int]], ...] = (
    ("llavar_prompt_tokens", "Tokens of prompts, pictures included.", lambda load: load.prompt_tokens),
    (
        "llavar_prompt_tokens_reused",
        "Tokens of prompts that were not computed again.",
        lambda load: load.prompt_tokens_reused,
    ),
    ("llavar_completion_tokens", "Tokens of answers.", lambda load: load.completion_tokens),
    ("llavar_pictures_encoded", "Pictures that went through the tower.", lambda load: load.pictures_encoded),
    ("llavar_pictures_reused", "Pictures that had been through it.", lambda load: load.pictures_reused),
)


class _Loads(Collector):
    """What the engines count themselves, read when a monitor asks."""

    def __init__(self, models: Mapping[str, Answering]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        loads = {name: model.load() for name, model in list(self._models.items())}
        for name, help, value in _GAUGES:
            gauge = GaugeMetricFamily(name, help, labels=["model"])
            for model, load in loads.items():
                gauge.add_metric([model], value(load))
            yield gauge
        for name, help, value in _COUNTERS:
            counter = CounterMetricFamily(name, help, labels=["model"])
            for model, load in loads.items():
                counter.add_metric([model], value(load))
            yield counter
        ended = CounterMetricFamily(
            "llavar_answers", "Answers that ended, by reason.", labels=["model", "finish"]
        )
        for model, load in loads.items():
            for finish, times in load.finished.items():
                ended.add_metric([model, str(finish)], times)
        yield ended


class Exposition:
    """The measurements of one server, in a registry of its own."""

    def __init__(self, models: Mapping[str, Answering]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Loads(models))
        self._requests = Counter(
            "llavar_requests",
            "Requests answered, by route and status (499: the client went away).",
            ["route", "status"],
            registry=self._registry,
        )
        self.open = Gauge(
            "llavar_requests_open", "Requests for answers in hand, in all states.", registry=self._registry
        )
        self._first = self._histogram(
            "llavar_time_to_first_token_seconds", "From the request to its first token."
        )
        self._whole = self._histogram("llavar_answer_seconds", "From the request to the end of its answers.")

    def _histogram(self, name: str, help: str) -> Histogram:
        return Histogram(name, help, ["model"], buckets=_SECONDS, registry=self._registry)

    def request(self, route: str, status: int) -> None:
        self._requests.labels(route, str(status)).inc()

    def first_token(self, model: str, seconds: float) -> None:
        self._first.labels(model).observe(seconds)

    def answered(self, model: str, seconds: float) -> None:
        self._whole.labels(model).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
