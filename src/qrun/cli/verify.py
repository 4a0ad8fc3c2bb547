"""`qrun verify [NAME...]`: stored files held against their checksums."""

import click

from qrun.config import read_config
from qrun.render_progress import show_transfer
from qrun.render_store import show_checked
from qrun.store_verify import checked_error, files_to_check, verify
from qrun.stored_names import repos_named, stored_models

__all__ = ["verify_"]


@click.command("verify")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def verify_(names: tuple[str, ...], *, as_json: bool) -> None:
    """Check the stored files of NAME, or all, against their checksums."""
    cache_dir = read_config().hub.cache_dir
    repos = repos_named(names, cache_dir) if names else stored_models(cache_dir)
    to_check = [file for repo in repos for _, file in files_to_check(repo)]
    with show_transfer(sum(file.size_bytes or 0 for file in to_check), len(to_check)) as report:
        checked = [one for repo in repos for one in verify(cache_dir, repo, report)]
    show_checked(checked, as_json=as_json)
    if error := next(filter(None, map(checked_error, checked)), None):
        raise error
