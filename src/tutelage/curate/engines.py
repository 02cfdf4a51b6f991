"""Which engine does the work of a curation, for as long as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tutelage.curate.request import CurationRequest
from tutelage.curate.stage_work import Engine, LocalEngine
from tutelage.system.ray_cluster import ray_cluster, require_ray


@contextmanager
def engine_for(request: CurationRequest, log: Callable[[str], None]) -> Iterator[Engine]:
    """The engine that is asked for; what it has started is gone when the block is left.

    Args:
        request: what is asked for.
        log: told where nothing happens for long.

    Raises:
        DependencyError: Ray is asked for and not installed.
        EngineError: there is no such cluster.
    """
    if request.engine == "local":
        with LocalEngine(request.process_count) as local:
            yield local
        return
    require_ray("--engine ray", "--engine local")
    from tutelage.curate.ray_engine import RayEngine

    with ray_cluster(request.ray_address, request.process_count) as ray:
        yield RayEngine(ray, request.workers, log)
