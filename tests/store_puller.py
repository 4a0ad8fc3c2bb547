"""A process that fetches a repo into a store, as `qrun pull` does below its options: for tests that end it.

    python store_puller.py ENDPOINT CACHE REPO_ID [RETRY_S]

Prints each `Advance` as JSON and at last the path; a refusal is one line on stderr and its exit code.
"""

import json
import sys
from pathlib import Path

from qrun.errors import QrunError
from qrun.hub_client import HubClient
from qrun.hub_settings import HubSettings
from qrun.source import Advance
from qrun.store import Store, Wanted


def settings_of(endpoint: str, cache: Path, *, retry_s: float = 20.0) -> HubSettings:
    """The Hub at `endpoint`, with everything that is kept in or beside `cache`."""
    return HubSettings(
        cache_dir=cache,
        listings_dir=cache.parent / "listings",
        token_path=cache.parent / "token",
        endpoint=endpoint,
        retry_s=retry_s,
    )


def wanted_of(client: HubClient, repo_id: str, *paths: str) -> Wanted:
    """All files of main, or those of `paths`."""
    info = client.repo(repo_id)
    assert info is not None
    return Wanted(repo_id, info.commit, "main", tuple(file for file in info.files if not paths or file.path in paths))


def _tell(advance: Advance) -> None:
    print(json.dumps([advance.path, advance.done_bytes, advance.total_bytes]), flush=True)


def _main(endpoint: str, cache: str, repo_id: str, retry_s: str = "20") -> int:
    settings = settings_of(endpoint, Path(cache), retry_s=float(retry_s))
    client = HubClient(settings)
    try:
        print(Store(settings, client).fetch(wanted_of(client, repo_id), _tell))
    except QrunError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
