"""How long the Hub is asked again, and when: the rules of waiting, for all requests of one session together.

- What fails is tried again after growing pauses with jitter, until `retry_s` have passed since the first failure. That
  time is shared: while nothing of a kind succeeds, all its requests, at once or one after another, end together. So a
  Hub that is down costs `retry_s` once and not once a call.
- A pause that the Hub asks for holds back every request of that kind. One longer than the time left is an error.

Knows no HTTP. Threads share it; `close` wakes those that wait.
"""

import random
import threading
import time
from dataclasses import dataclass
from typing import Literal, NoReturn

from qrun.hub_errors import HubUnreachable

__all__ = ["Effort", "Kind", "Patience"]

Kind = Literal["api", "file"]  # the Hub counts the two apart (the resource types in its RateLimit header)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 4.0
_SPREAD_S = 0.25  # all threads that were held back would start in the same instant
_LOG_IN = "Wait that long, or log in for a higher limit (hf auth login); --offline uses what is stored."


@dataclass(slots=True)
class _Outage:
    """A time in which nothing has worked: when it began, and when it was last seen."""

    since: float
    last: float


class Patience:
    """What all requests of one session know of the Hub's state. `endpoint` is for messages."""

    def __init__(self, endpoint: str, retry_s: float) -> None:
        self.endpoint = endpoint
        self.retry_s = retry_s
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._held_until: dict[Kind, float] = {}
        self._outages: dict[Kind, _Outage] = {}

    def effort(self, kind: Kind) -> "Effort":
        """The patience with one operation."""
        return Effort(self, kind)

    def close(self) -> None:
        """Wake all who wait: their wait ends with HubUnreachable, as does every later one."""
        self._closed.set()

    def sleep(self, seconds: float) -> None:
        """Wait. Raises HubUnreachable as soon as the session is closed."""
        if self._closed.wait(max(0.0, seconds)):
            raise HubUnreachable(self.endpoint, "the request was given up")

    def hold(self, kind: Kind, seconds: float) -> None:
        """No request of that kind before `seconds` have passed."""
        with self._lock:
            self._held_until[kind] = max(self._held_until.get(kind, 0.0), time.monotonic() + seconds)

    def held_s(self, kind: Kind) -> float:
        """For how long requests of that kind must still wait."""
        with self._lock:
            return self._held_until.get(kind, 0.0) - time.monotonic()

    def failing_since(self, kind: Kind, began: float) -> float:
        """Since when nothing of that kind has worked, told of a try that began at `began` and failed now."""
        now = time.monotonic()
        with self._lock:
            outage = self._outages.get(kind)
            if outage is None or now - outage.last > self.retry_s + _LONGEST_PAUSE_S:  # else the same one goes on
                outage = self._outages[kind] = _Outage(since=began, last=now)
            outage.last = now
            return outage.since

    def works(self, kind: Kind) -> None:
        """An answer of that kind came."""
        if kind in self._outages:  # looked at without the lock: this is called for every piece of a download
            with self._lock:
                self._outages.pop(kind, None)


class Effort:
    """One operation: its tries, the pauses between them, and its end. Of one thread."""

    def __init__(self, patience: Patience, kind: Kind) -> None:
        self._patience = patience
        self._kind: Kind = kind
        self._began = time.monotonic()  # the try under way, or the last bytes that came
        self._ends: float | None = None  # when no further try is made; None: nothing has failed
        self._n_failed = 0
        self._why = ""

    def wait_turn(self) -> None:
        """Wait as long as the Hub holds this kind back. Raises HubUnreachable where that is longer than the time."""
        while (held_s := self._patience.held_s(self._kind)) > 0:
            if held_s > self.left_s():
                why = f"it asks for a pause of {held_s:.0f} s" + (f" ({self._why})" if self._why else "")
                raise HubUnreachable(self._patience.endpoint, why, _LOG_IN)
            self._patience.sleep(held_s + random.uniform(0, _SPREAD_S))  # noqa: S311 - spreads load, hides nothing
        self._patience.sleep(0)  # a session that was closed meanwhile asks nothing
        self._began = time.monotonic()

    def left_s(self) -> float:
        """The time left for further tries."""
        return self._patience.retry_s if self._ends is None else self._ends - time.monotonic()

    def failed(self, why: str) -> None:
        """Pause before the next try. Raises HubUnreachable when the time is over."""
        self._note(why)
        if (left_s := self.left_s()) <= 0:
            self._give_up()
        self._patience.sleep(min(self._growing_pause_s(), left_s))

    def held_back(self, why: str, pause_s: float | None) -> None:
        """The Hub wants fewer requests, after `pause_s` where it says so. `wait_turn` waits, or gives up."""
        self._note(why)
        if not pause_s and self.left_s() <= 0:
            self._give_up()
        self._patience.hold(self._kind, pause_s or self._growing_pause_s())

    def succeeded(self) -> None:
        """Bytes came: the time begins anew with the next failure."""
        self._began = time.monotonic()
        self._ends, self._n_failed = None, 0
        self._patience.works(self._kind)

    def _note(self, why: str) -> None:
        self._why = why
        self._n_failed += 1
        since = self._patience.failing_since(self._kind, self._began)
        ends = since + self._patience.retry_s
        self._ends = ends if self._ends is None else min(self._ends, ends)

    def _growing_pause_s(self) -> float:
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._n_failed - 1, 16))
        return longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, hides nothing

    def _give_up(self) -> NoReturn:
        tries = "1 try" if self._n_failed == 1 else f"{self._n_failed} tries"
        seconds = self._patience.retry_s - self.left_s()
        raise HubUnreachable(self._patience.endpoint, f"{self._why} ({tries} in {seconds:.0f} s)")
