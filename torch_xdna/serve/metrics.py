"""Counts in Prometheus' text form. The set of label values is closed: nothing of a client's becomes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class Metrics:
    """One registry per server, so that several may live in a process (tests)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "torch_xdna_"
        self._requests = Counter(
            name + "requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self._latency = Histogram(
            name + "request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._windows = Counter(
            name + "windows",
            "Windows of speech by what computed the encoder; both device and cpu where a device failed midway.",
            ["device"],
            registry=self.registry,
        )
        self._audio = Counter(name + "audio_seconds", "Seconds of recordings.", registry=self.registry)
        self._busy = Counter(name + "model_seconds", "Seconds in the model.", registry=self.registry)
        self._batches = Histogram(
            name + "batch_windows", "Windows per batch.", buckets=_BATCHES, registry=self.registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def ran(self, windows: int, audio_seconds: float, seconds: float, devices: Sequence[str]) -> None:
        for device in devices:
            self._windows.labels(device).inc(windows)
        self._audio.inc(audio_seconds)
        self._busy.inc(seconds)
        self._batches.observe(windows)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A number that is asked for when it is read."""
        Gauge("torch_xdna_" + name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        return generate_latest(self.registry)
