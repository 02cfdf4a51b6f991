"""A curation that asks a judge: `python -m tests.support.judged_curation ROWS OUT URL` for one that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tutelage.config.curation import CurateSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import Curated, CurationRequest


def judged(rows: Path, out: Path, url: str, *, steps: tuple[str, ...] = ("judge",), said: list[str] | None = None,
           select: dict[str, Any] | None = None, **judge: Any) -> Curated:  # fmt: skip
    """Curate with a judge at `url`, in one worker."""
    table = {"url": url, "model": "m", "retries": 1, "timeout": 5.0, "parallel": 1, **judge}
    settings = CurateSettings.model_validate({"steps": list(steps), "judge": table, "select": select or {}})
    request = CurationRequest((str(rows),), out, settings, workers=1)
    return curate(request, log=(said if said is not None else []).append)


if __name__ == "__main__":
    judged(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
