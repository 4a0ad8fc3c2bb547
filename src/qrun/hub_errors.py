"""What the Hub, the network and the disk refuse: the part of the tree in `errors` that downloads can end in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qrun.errors import FileDamaged, QrunError
from qrun.units import size

__all__ = ["AccessDenied", "ChecksumWrong", "DiskFull", "HubUnreachable", "RangesIgnored", "TokenRefused"]


@dataclass(eq=False)
class HubUnreachable(QrunError):
    """The Hub did not answer, answered with errors, or may not be asked (`--offline`)."""

    endpoint: str
    why: str
    remedy: str = "Check the connection, or name a mirror with HF_ENDPOINT; --offline uses what is stored."
    nearest: Sequence[str] = ()
    exit_code: ClassVar[int] = 5
    name: ClassVar[str] = "hub_unreachable"

    def __str__(self) -> str:
        """Which Hub, why, and what to do."""
        return f"the Hub at {self.endpoint} cannot be reached: {self.why}. {self.remedy}"


@dataclass(eq=False)
class RangesIgnored(HubUnreachable):
    """A server that sends the whole file where a part was asked for. From byte 0 on it can still be read."""

    remedy: str = "Name another mirror with HF_ENDPOINT."


@dataclass(eq=False)
class AccessDenied(QrunError):
    """A gated or private repo. `page` is where its terms are accepted; `logged_in` whether a token was sent."""

    repo_id: str
    page: str
    logged_in: bool
    exit_code: ClassVar[int] = 6
    name: ClassVar[str] = "access_denied"

    def __str__(self) -> str:
        """Where to accept, and how to log in."""
        login = "your token has no access yet" if self.logged_in else "then log in: hf auth login, or set HF_TOKEN"
        return f"{self.repo_id} is gated: accept its terms at {self.page}; {login}."


@dataclass(eq=False)
class TokenRefused(AccessDenied):
    """A token that the Hub does not know: then even open repos are closed. `page` is where tokens are made."""

    def __str__(self) -> str:
        """What is wrong with it, and the ways out."""
        return (
            "the Hub refuses your token: it is expired, revoked or mistyped. Log in again (hf auth login) with one "
            f"from {self.page}, or do without: unset HF_TOKEN, hf auth logout."
        )


@dataclass(eq=False)
class ChecksumWrong(FileDamaged):
    """Bytes whose sha256 (or git id) is not the one that the Hub names. They are set aside, never used."""

    expected: str = ""
    found: str = ""
    remedy: str = "Fetch it again; where that does not help, the repo or what lies between is at fault."
    name: ClassVar[str] = "checksum_wrong"

    def __str__(self) -> str:
        """The file, both checksums and what to do."""
        kind = "sha256" if len(self.expected) == 64 else "git id"  # noqa: PLR2004  # hex digits of a sha256
        return f"{self.path} is damaged: its {kind} is {self.found}, not {self.expected}{self.why}. {self.remedy}"


@dataclass(eq=False)
class DiskFull(QrunError):
    """Not enough room in `path` for what is to be fetched."""

    path: str
    needed_bytes: int | None = None
    free_bytes: int | None = None
    remedy: str = "Free some (qrun prune, qrun rm), or move the cache with HF_HUB_CACHE."
    exit_code: ClassVar[int] = 9
    name: ClassVar[str] = "disk_full"

    def __str__(self) -> str:
        """The need, what is free, and what to do."""
        if self.needed_bytes is None or self.free_bytes is None:
            return f"the disk of {self.path} is full. {self.remedy}"
        return f"{self.path} has {size(self.free_bytes)} free and needs {size(self.needed_bytes)}. {self.remedy}"
