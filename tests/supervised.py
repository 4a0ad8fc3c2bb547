"""A qrun in little, for the tests of orphans: supervises one engine and streams from it until it is ended.

`supervised.py ENGINE EXECUTABLE MODEL LOG` prints one line of JSON when the stream has begun (the engine's process and
its socket), then reads on. It takes no signal itself: SIGTERM ends it as it ends any process, SIGINT as `asyncio.run`
has it.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from engine_launches import LAUNCHES, StandInRunner, open_stream
from qrun.supervisor import Supervisor


async def supervise(engine: str, executable: Path, model: Path, log_path: Path) -> None:
    """Stream until the end."""
    launch = LAUNCHES[engine](executable, model)
    async with Supervisor(launch, runner=StandInRunner(), log_path=log_path, environ=os.environ) as supervisor:
        launched = await supervisor.ready()
        async with open_stream(launched) as stream:
            await stream.readuntil(b"data: ")
            print(json.dumps({"engine": supervisor.pid, "socket": str(launched.address.socket)}), flush=True)
            while await stream.read(65536):
                pass


if __name__ == "__main__":
    asyncio.run(supervise(sys.argv[1], *map(Path, sys.argv[2:])))
