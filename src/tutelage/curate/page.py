"""The page of a finished curation: drawn, drawn anew where it would look otherwise now, or taken away."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tutelage.curate.funnel import Funnel
from tutelage.curate.licenses import licenses_of
from tutelage.curate.out_folder import PAGE, begin_output, read_hashes, write_hashes
from tutelage.curate.output import rows_by_source
from tutelage.curate.overview.gather import overview_of
from tutelage.curate.overview.parts import PageWriter
from tutelage.curate.overview.rows_map import vectors_name
from tutelage.curate.request import CurationRequest
from tutelage.curate.stages import Stage, Workshop

DRAWING = "drawing the page"


def write_page(
    request: CurationRequest, stages: Sequence[Stage], funnel: Funnel, page: PageWriter | None, workshop: Workshop
) -> None:
    """Draw the page of a finished output, or take it away, unless the page that is asked for is there.

    Args:
        request: what was asked for.
        stages: reading first.
        funnel: their books.
        page: draws it; None leaves it out.
        workshop: told how long it took.

    Raises:
        OSError: the disk refuses.
    """
    out, hashes = request.out, read_hashes(request.out)
    key = None if page is None else f"{page.key} {vectors_name()}"
    if hashes.get("page") == key:
        return
    if page is None:
        begin_output(out)
        (out / PAGE).unlink(missing_ok=True)
    else:
        workshop.progress(DRAWING, 0, None)
        started = time.perf_counter()
        licenses = licenses_of(request.sources, request.settings.licenses)
        overview = overview_of(request, stages, funnel, licenses, rows_by_source(stages[0]))
        begin_output(out)
        page(overview, out / PAGE)
        workshop.seconds.update({PAGE: time.perf_counter() - started})
    write_hashes(out, hashes["key"], page=key)
