"""A curation that kills itself: `python killed_curation.py ROWS OUT EVENTS ENGINE SIGNAL`.

It sends itself the signal after so many reports of progress, and prints first on which addresses it and what it has
started listen.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import cast

import psutil

from tests.support.curation_steps import Break, DropShort, FirstOfEach, Halve, Tidy, Turn
from tutelage.config.curation import CurateSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import Curated, CurationRequest, EngineName

STEPS = (Tidy(), Halve(), FirstOfEach(), DropShort(), Break(), Turn())


def curated(
    rows: Path,
    out: Path,
    *,
    events: int | None = None,
    engine: EngineName = "local",
    ended_by: signal.Signals = signal.SIGKILL,
) -> Curated:
    """Curate in two workers, in chunks of 8 rows; end this process after so many reports, None never."""
    reports = 0

    def count(_title: str, _done: int, _total: int | None) -> None:
        nonlocal reports
        if reports == events:
            print(*sorted(listening()), file=sys.__stdout__, flush=True)  # stdout leads elsewhere while Ray is there
            os.kill(os.getpid(), ended_by)
        reports += 1

    request = CurationRequest((str(rows),), out, CurateSettings(), workers=2, chunk_rows=8, engine=engine)
    return curate(request, steps=STEPS, progress=count)


def listening() -> set[str]:
    """Addresses of this machine at which this process or one that it has started can be reached."""
    here = psutil.Process()
    ports = [port for process in (here, *here.children(recursive=True)) for port in process.net_connections("tcp")]
    return {port.laddr.ip for port in ports if port.status == psutil.CONN_LISTEN}


if __name__ == "__main__":
    rows, out, events, engine, ended_by = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us in the background may have it ignored
    curated(
        Path(rows), Path(out), events=int(events), engine=cast("EngineName", engine), ended_by=signal.Signals[ended_by]
    )
