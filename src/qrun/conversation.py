"""Questions to a running engine from the terminal, without any port: over the private socket that only qrun knows.

The event loop runs on a thread of its own, so that Ctrl-C reaches whoever waits for an answer as KeyboardInterrupt, and
the line editor keeps the main thread.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import aiohttp

from qrun.errors import EngineFailed, Failure, QrunError
from qrun.gateway.assemble import EngineRefusal, SseReader
from qrun.gateway.envelope import ApiError, refused_by_engine
from qrun.gateway.upstream import Call, Upstream, engine_lost
from qrun.supervisor import Supervisor

__all__ = ["Conversation", "Piece"]

Piece = Literal["text", "reasoning"]
_T = TypeVar("_T")
_WAIT_S = 600.0  # for an engine that is being started again


class _Unheard(Exception):
    """`say` failed: nobody reads the answer any more. Not to be taken for the engine's connection breaking."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


class Conversation:
    """A chat with one model. A context manager: the engine is started on entry and gone on exit.

    `say` is called with each piece of an answer as it comes, on another thread.
    """

    def __init__(self, make_supervisor: Callable[[], Supervisor], say: Callable[[Piece, str], None]) -> None:
        self._make_supervisor = make_supervisor
        self._say = say
        self._messages: list[dict[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qrun-conversation", daemon=True)

    def __enter__(self) -> Self:
        """Start the engine and wait until it answers. Raises EngineFailed."""
        self._thread.start()
        self._supervisor = self._make_supervisor()
        self._upstream = Upstream(self._supervisor, wait_s=_WAIT_S)
        try:
            self._run(self._supervisor.ready())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def ask(self, prompt: str) -> None:
        """Send `prompt` with all that was said before, and wait for the whole answer.

        Raises Failure for a prompt that is too long, EngineFailed for an engine that died under it; KeyboardInterrupt
        ends the answer alone: what came of it stays part of the conversation.
        """
        self._messages.append({"role": "user", "content": prompt})
        told: list[str] = []
        try:
            self._run(self._answer(told))
        except ApiError as error:
            self._messages.pop()
            raise _as_refusal(error) from error
        except _Unheard as unheard:
            raise unheard.reason from unheard
        except KeyboardInterrupt:
            self._messages.append({"role": "assistant", "content": "".join(told)})
            raise
        self._messages.append({"role": "assistant", "content": "".join(told)})

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run `work` on the loop's thread; an interrupt here cancels it there."""
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        except BaseException:
            waiting.cancel()
            raise

    def _close(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await self._upstream.close()
        await self._supervisor.stop()

    async def _answer(self, told: list[str]) -> None:
        """Stream one answer to `say`; its text is added to `told`. Raises ApiError."""
        body = json.dumps({"messages": self._messages, "stream": True}).encode()

        async def attempt(session: aiohttp.ClientSession) -> None:
            if told:  # a second try would say the beginning twice
                raise engine_lost("it died")
            async with self._upstream.send(session, Call("POST", "/v1/chat/completions", body)) as answer:
                if answer.status != HTTPStatus.OK:
                    raise refused_by_engine(answer.status, await answer.read(), prompt_param="messages")
                reader = SseReader()
                while chunk := await answer.content.readany():
                    for event in reader.feed(chunk):
                        self._tell(event, told)

        try:
            await self._upstream.twice(attempt)
        except EngineRefusal as refusal:
            raise refused_by_engine(500, refusal.body, prompt_param="messages") from refusal

    def _tell(self, event: dict[str, Any], told: list[str]) -> None:
        for choice in event.get("choices", ()):
            delta = choice.get("delta", {})
            try:
                if reasoning := delta.get("reasoning_content"):
                    self._say("reasoning", reasoning)
                if text := delta.get("content"):
                    told.append(text)
                    self._say("text", text)
            except OSError as error:
                raise _Unheard(error) from error


def _as_refusal(error: ApiError) -> QrunError:
    """What the front would answer, as what a command ends with: 5xx is the engine's fault, all else the request's."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return EngineFailed("the engine", error.message.rstrip("."))
    return Failure(error.message)
