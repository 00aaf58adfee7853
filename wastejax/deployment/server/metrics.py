"""What a server counts, for Prometheus."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "Metrics"]
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds

disable_created_metrics()  # a second line for every number, which nobody reads


class Metrics:
    """Counters of a server.

    Attributes:
        waiting: images that were taken and are not answered yet.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._registry = CollectorRegistry()
        given: dict[str, Any] = {"namespace": "wastejax", "registry": self._registry}
        self._requests = Counter("requests", "Answered requests.", ("path", "status"), **given)
        self._images = Counter("images", "Images by what came of them.", ("outcome",), **given)
        for outcome in ("answered", "rejected", "unreadable"):
            self._images.labels(outcome)
        self._batches = Counter("batches", "Batches of the network by their size.", ("size",), **given)
        waiting = Gauge("waiting_images", "Images taken and not answered yet.", **given)
        waiting.set_function(lambda: self.waiting)
        self._seconds = Histogram(
            "predict_seconds", "Time from a request's head to its answer.", buckets=BOUNDS, **given
        )

    def request(self, path: str, status: int) -> None:
        """Counts an answered request; `path` must be one of a few."""
        self._requests.labels(path, status).inc()

    def image(self, outcome: str) -> None:
        """Counts an image: 'answered', 'rejected' as unsure, or 'unreadable'."""
        self._images.labels(outcome).inc()

    def batch(self, size: int) -> None:
        """Counts a batch of the network."""
        self._batches.labels(size).inc()

    def duration(self, seconds: float) -> None:
        """Counts the time of an answered prediction."""
        self._seconds.observe(seconds)

    def collected(self, counts: Mapping[str, int]) -> None:
        """Also tells what came of the images that are kept, see `Collector.counts`."""
        self._registry.register(_Collected(counts))

    def text(self) -> bytes:
        """Returns all of it as Prometheus reads it."""
        return generate_latest(self._registry)


class _Collected(Collector):
    """Counters that something else counts."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yields one counter for each outcome."""
        family = CounterMetricFamily(
            "wastejax_collected", "Images to keep by what came of them.", labels=["outcome"]
        )
        for outcome in ("kept", "busy", "failed", "removed"):
            family.add_metric([outcome], self._counts.get(outcome, 0))
        yield family
