"""The source of one MODEL, opened by the user's settings: what `resolve_here` decides from and `qrun show` tells of."""

from dataclasses import dataclass
from pathlib import Path

from qrun.config import Config
from qrun.errors import ModelNotFound, NotAModel, UsageError
from qrun.hub_client import HubClient
from qrun.hub_errors import HubUnreachable
from qrun.hub_settings import HubSettings
from qrun.kept_files import KeptFiles
from qrun.names import ModelRef
from qrun.source import FoundModel, Source
from qrun.source_hub import HubSource
from qrun.source_pick import pick_source
from qrun.source_stored import StoredSource
from qrun.store import Store
from qrun.store_ledger import Ledger

__all__ = ["ModelSource", "open_source"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where `model` is looked up. `is_hub`: on the Hub, or offline in what is stored of it; else on the user's disk."""

    model: ModelRef
    source: Source
    client: HubClient
    files: KeptFiles
    hub: HubSettings
    is_hub: bool

    def find(self) -> FoundModel:
        """What the source has of the model.

        Raises what `Source.find` raises; offline, what is not stored is HubUnreachable.
        """
        try:
            return self.source.find(self.model)
        except (ModelNotFound, NotAModel) as missing:  # the latter of a download that was broken off
            if not self.hub.offline or not self.is_hub:
                raise
            raise HubUnreachable(
                self.hub.shown_endpoint,
                f"offline was asked for, and no model named {self.model.text!r} is stored",
                "Run it once without --offline (and HF_HUB_OFFLINE), or name what qrun list shows.",
                missing.nearest if isinstance(missing, ModelNotFound) else (),
            ) from missing


def open_source(
    model: ModelRef, config: Config, hub: HubSettings, *, models_dir: Path | None, refresh: bool
) -> ModelSource:
    """The source of `model`; nothing is asked yet. Raises UsageError for `refresh` where nothing may be asked."""
    if refresh and hub.offline:
        raise UsageError("to decide anew the Hub must be asked: leave out --offline (and HF_HUB_OFFLINE).")
    client = HubClient(hub, refresh=refresh)
    files = KeptFiles(Store(hub, client), config.places, Ledger(config.ledger_dir))
    the_hub: Source = StoredSource(hub) if hub.offline else HubSource(client, files, endpoint=hub.shown_endpoint)
    source = pick_source(model, models_dir or config.models_dir, lambda: the_hub)
    return ModelSource(model, source, client, files, hub, source is the_hub)
