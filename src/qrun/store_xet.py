"""Files by huggingface_hub's own path, which uses Xet where a repo has it: only with QRUN_XET=1.

Not run against Xet storage: none was reachable when this was written. What comes is hashed once more here, since the
library falls back to a plain download, whose bytes it does not verify, where hf_xet is not installed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from qrun.hub_errors import AccessDenied, ChecksumWrong, HubUnreachable
from qrun.hub_settings import HubSettings
from qrun.model import ModelFile
from qrun.source import Advance, Report
from qrun.store_layout import RepoLayout
from qrun.store_partial import hash_of
from qrun.store_snapshot import is_in_place

__all__ = ["fetch_by_xet"]


def fetch_by_xet(
    settings: HubSettings,
    layout: RepoLayout,
    commit: str,
    groups: Mapping[str, Sequence[ModelFile]],
    report: Report,
) -> None:
    """Have each file of `groups` (checksum -> files) in its place. Resumes nothing.

    Raises HubUnreachable, AccessDenied, ChecksumWrong, OSError.
    """
    for key, files in groups.items():
        for file in files:
            if not is_in_place(layout, commit, file):
                _fetch(settings, layout, commit, key, file)
            report(Advance(layout.repo_id, file.path, file.size_bytes, file.size_bytes))


def _fetch(settings: HubSettings, layout: RepoLayout, commit: str, key: str, file: ModelFile) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public, without __all__

    disable_progress_bars()  # progress is told to the report, file by file
    try:
        named = hf_hub_download(
            layout.repo_id,
            file.path,
            revision=commit,
            cache_dir=layout.cache_dir,
            endpoint=settings.endpoint,
            token=settings.token,
        )
    except GatedRepoError as error:
        page = f"{settings.endpoint}/{layout.repo_id}"
        raise AccessDenied(layout.repo_id, page, logged_in=settings.token is not None) from error
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise HubUnreachable(settings.endpoint, str(error).partition("\n")[0]) from error
    path = Path(named)
    found = hash_of(key, file.size_bytes)
    with path.open("rb") as opened:
        while piece := opened.read(2**20):
            found.update(piece)
    if found.hexdigest() != key:
        path.resolve().replace(layout.set_aside(key))
        path.unlink(missing_ok=True)
        where = f" (set aside as {layout.set_aside(key)})"
        raise ChecksumWrong(f"{layout.repo_id}/{file.path}", where, expected=key, found=found.hexdigest())
