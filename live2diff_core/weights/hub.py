"""Files of the Hugging Face hub, through its own client: cached there, fetched only when asked."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ..errors import WeightsMissingError
from .files import sha256

logger = logging.getLogger(__name__)

# All that the client raises: its HTTP errors have the transport's base, and a second transport
# (hf_xet) raises RuntimeError.
FAILURES: tuple[type[Exception], ...] = (
    *HfHubHTTPError.__bases__,
    OSError,
    EntryNotFoundError,
    HFValidationError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class HubId:
    """`owner/name`, of which the files that fit the patterns, or `owner/name/path/of/one/file`."""

    repository: str
    file: str | None
    patterns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, patterns: Sequence[str]) -> "HubId":
        """Patterns count for a repository alone."""
        owner, name, *path = text.split("/")
        return cls(f"{owner}/{name}", "/".join(path) or None, tuple(patterns))

    @property
    def files(self) -> str:
        """The file or files, for a message."""
        if self.file is not None:
            return self.file.rsplit("/", 1)[-1]
        return f"a folder with {', '.join(self.patterns)}"

    def find(self, download: bool) -> Path:
        """Ask the client; without download nothing is requested. Raises its errors."""
        local = not download
        with _without_telemetry() if local else nullcontext():
            if self.file is not None:
                return Path(hf_hub_download(self.repository, self.file, local_files_only=local))
            found = snapshot_download(
                self.repository, allow_patterns=list(self.patterns), local_files_only=local
            )
        folder = Path(found)
        absent = [p for p in self.patterns if "*" not in p and not (folder / p).is_file()]
        if absent or not any(folder.glob("*")):
            raise LocalEntryNotFoundError(f"it lacks {', '.join(absent or self.patterns)}")
        return folder


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """The client asks the hub what to tell of this computer even where it looks into its cache."""
    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def fetch(hub_id: str, patterns: Sequence[str], *, download: bool, folder: Path) -> Path:
    """The local copy of `owner/name` (a folder) or `owner/name/path/of/file`.

    What the hub's cache holds is used as it is, without a request. Anything else is requested only
    with download; the client shows its progress and goes on after a broken connection, and the
    SHA-256 of every file is logged. patterns: the files of a repository; one without * must be
    there. folder: where a message says to put the files by hand. Raises WeightsMissingError.
    """
    wanted = HubId.parse(hub_id, patterns)
    by_hand = f"put {wanted.files} into {folder}"
    try:
        return wanted.find(download=False)
    except LocalEntryNotFoundError as error:
        if not download:
            raise WeightsMissingError(
                f"{hub_id} is not on this computer: {by_hand}, or let --download (download=True) "
                "fetch it from the hub"
            ) from error
    except HFValidationError as error:
        raise WeightsMissingError(f"{hub_id} is no id of the hub: {_reason(error)}") from error
    try:
        path = wanted.find(download=True)
    except FAILURES as error:
        raise WeightsMissingError(
            f"{hub_id} could not be fetched: {_reason(error)}; or {by_hand}"
        ) from error
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            logger.info("%s: %d bytes, SHA-256 %s", file, file.stat().st_size, sha256(file))
    return path


def _reason(error: BaseException) -> str:
    """What went wrong and what to do, in one line; the client tells it in several."""
    first = error.__cause__ or error
    if isinstance(first, OfflineModeIsEnabled):
        return "the hub is switched off here (HF_HUB_OFFLINE): unset it"
    if isinstance(error, GatedRepoError):
        return "its owner must grant access: ask on its page, then run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository, or it is private (`hf auth login`)"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return "the hub's repository has no such file"
    return " ".join(str(first).split()) or type(first).__name__
