"""A sign that the Hub is being asked, on a terminal's stderr; in a pipe, and where no answer is waited for, none."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["show_asking"]

_PATIENCE_S = 0.5  # a decision that was kept is there before anything could be read
_CLEAR_LINE = "\r\x1b[K"  # ECMA-48: erase to the end of the line


@contextmanager
def show_asking() -> Iterator[None]:
    """Say that the Hub is being asked, if what is done in the block takes a while, and take it back at its end."""
    if not sys.stderr.isatty():
        yield
        return
    shown = threading.Event()

    def show() -> None:
        shown.set()
        sys.stderr.write("Asking the Hub ...")
        sys.stderr.flush()

    waiting = threading.Timer(_PATIENCE_S, show)
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()
        waiting.join()  # it may be about to write
        if shown.is_set():
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
