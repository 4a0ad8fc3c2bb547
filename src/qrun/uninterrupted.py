"""Waiting that cancellation delays and does not break, for clean-up that has to be done before anyone goes on."""

import asyncio
from typing import Any

__all__ = ["wait_uninterrupted"]


async def wait_uninterrupted(task: "asyncio.Task[Any]") -> None:
    """Wait until `task` is done, whatever its outcome; a cancellation of the caller is raised after that."""
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as cancelled:
            interrupted = cancelled
    if interrupted is not None:
        raise interrupted
