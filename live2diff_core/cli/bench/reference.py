"""A checkout of the reference implementation beside our engine."""

from pathlib import Path
from typing import Any

from .job import Job


def compare(job: Job, checkout: Path) -> dict[str, Any]:
    """The step of both on the same weights and inputs. Raises ConfigError for a wrong folder."""
    # It imports what only a comparison needs.
    from ...metrics.reference import beside

    return beside(job.model, checkout, job.config, job.frames)
