"""Opened models -> a service that answers."""

from __future__ import annotations

from collections.abc import Callable

from tutelage.builders.served_models import ServedEngine, ServedModels
from tutelage.generate.engine import Session
from tutelage.serve.app import Service
from tutelage.serve.asking import Limits
from tutelage.serve.ratings import Ratings
from tutelage.serve.worker import Lane, Worker
from tutelage.system.openmp_wait import end_own_team


def service_of(
    served: ServedModels,
    *,
    limits: Limits,
    most_replies: int,
    cache_tokens: int,
    api_key: str | None,
    is_local: bool,
    log: Callable[[str], None],
    ratings: Ratings | None = None,
) -> Service:
    """Start the worker, and give it to a service.

    Args:
        served: who can be asked.
        limits: of one request.
        most_replies: under way and waiting.
        cache_tokens: under way whose keys and values are in memory, for each engine; half as many of earlier ones.
        api_key: that requests must bring; None: none.
        is_local: it listens on this machine alone.
        log: told a line for each request.
        ratings: takes what people say is better on the page.
    """
    lanes = [_lane(engine, cache_tokens) for engine in served.engines]
    worker = Worker(lanes, most_replies=most_replies)
    end_own_team()  # of this thread, which has loaded the models: from now on the worker's computes
    worker.start()
    return Service(served.models, worker, limits, api_key, is_local, log, ratings=ratings)


def _lane(served: ServedEngine, cache_tokens: int) -> Lane:
    def opened() -> Session:
        return served.engine.session(most_tokens=cache_tokens, prefix_tokens=cache_tokens // 2, mixed=served.mixed)

    return Lane(opened, served.switched)
