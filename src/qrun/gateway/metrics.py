"""Our own series for `/metrics`, in Prometheus' text format."""

from collections import Counter
from collections.abc import Iterator

__all__ = ["Metrics"]

# Time to first byte: from a cached short prompt on a GPU to a long one on a CPU.
_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What was asked and answered since the start."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.most_in_flight = 0  # since it was last set
        self.frames = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._first_bytes: Counter[float] = Counter()
        self._first_byte_sum_s = 0.0
        self._first_byte_count = 0

    def count_request(self, route: str, status: int) -> None:
        """A request that is done. `status` 499: its client went away."""
        self._requests[route, status] += 1

    def observe_first_byte(self, seconds: float) -> None:
        """The engine's first byte of an answer, `seconds` after the request."""
        self._first_byte_sum_s += seconds
        self._first_byte_count += 1
        bucket = next((limit for limit in _BUCKETS_S if seconds <= limit), None)
        if bucket is not None:
            self._first_bytes[bucket] += 1

    def as_text(self, *, engine_restarts: int) -> str:
        """All series."""
        return "".join(f"{line}\n" for line in self._lines(engine_restarts))

    def _lines(self, engine_restarts: int) -> Iterator[str]:
        yield from _head("qrun_requests_total", "counter", "Requests by route and status (499: the client left).")
        for (route, status), count in sorted(self._requests.items()):
            yield f'qrun_requests_total{{route="{route}",status="{status}"}} {count}'
        yield from _head("qrun_requests_in_flight", "gauge", "Requests being answered.")
        yield f"qrun_requests_in_flight {self.in_flight}"
        yield from _head("qrun_stream_frames_total", "counter", "Frames of streamed answers that passed through.")
        yield f"qrun_stream_frames_total {self.frames}"
        yield from _head("qrun_time_to_first_byte_seconds", "histogram", "From a request to its answer's first byte.")
        below = 0
        for limit in _BUCKETS_S:
            below += self._first_bytes[limit]
            yield f'qrun_time_to_first_byte_seconds_bucket{{le="{limit:g}"}} {below}'
        yield f'qrun_time_to_first_byte_seconds_bucket{{le="+Inf"}} {self._first_byte_count}'
        yield f"qrun_time_to_first_byte_seconds_sum {self._first_byte_sum_s:.6f}"
        yield f"qrun_time_to_first_byte_seconds_count {self._first_byte_count}"
        yield from _head("qrun_engine_restarts_total", "counter", "Times the engine was started again.")
        yield f"qrun_engine_restarts_total {engine_restarts}"


def _head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
