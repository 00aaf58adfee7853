"""What a server counts, in the text format of Prometheus (exposition format 0.0.4)."""

from collections import Counter
from collections.abc import Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """Counters of a server.

    Attributes:
        waiting: images that were taken and are not answered yet.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._pictures: Counter[str] = Counter()
        self._batches: Counter[int] = Counter()
        self._buckets = [0] * len(BOUNDS)
        self._seconds = 0.0
        self._timed = 0

    def request(self, path: str, status: int) -> None:
        """Counts an answered request; `path` must be one of a few."""
        self._requests[path, status] += 1

    def picture(self, outcome: str) -> None:
        """Counts an image: 'answered', 'rejected' as unsure, or 'unreadable'."""
        self._pictures[outcome] += 1

    def batch(self, size: int) -> None:
        """Counts a batch of the network."""
        self._batches[size] += 1

    def duration(self, seconds: float) -> None:
        """Counts the time of an answered prediction."""
        self._seconds += seconds
        self._timed += 1
        for i, bound in enumerate(BOUNDS):
            self._buckets[i] += seconds <= bound

    def text(self) -> str:
        """Returns all of it as Prometheus reads it."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# HELP wastejax_requests_total Answered requests."
        yield "# TYPE wastejax_requests_total counter"
        for (path, status), count in sorted(self._requests.items()):
            yield f'wastejax_requests_total{{path="{path}",status="{status}"}} {count}'
        yield "# HELP wastejax_pictures_total Images by what came of them."
        yield "# TYPE wastejax_pictures_total counter"
        for outcome in ("answered", "rejected", "unreadable"):
            yield f'wastejax_pictures_total{{outcome="{outcome}"}} {self._pictures[outcome]}'
        yield "# HELP wastejax_batches_total Batches of the network by their size."
        yield "# TYPE wastejax_batches_total counter"
        for size, count in sorted(self._batches.items()):
            yield f'wastejax_batches_total{{size="{size}"}} {count}'
        yield "# HELP wastejax_waiting_pictures Images taken and not answered yet."
        yield "# TYPE wastejax_waiting_pictures gauge"
        yield f"wastejax_waiting_pictures {self.waiting}"
        yield "# HELP wastejax_predict_seconds Time from a request's head to its answer."
        yield "# TYPE wastejax_predict_seconds histogram"
        for bound, count in zip(BOUNDS, self._buckets, strict=True):
            yield f'wastejax_predict_seconds_bucket{{le="{bound}"}} {count}'
        yield f'wastejax_predict_seconds_bucket{{le="+Inf"}} {self._timed}'
        yield f"wastejax_predict_seconds_sum {self._seconds:.6f}"
        yield f"wastejax_predict_seconds_count {self._timed}"
