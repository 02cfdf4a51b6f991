"""llama.cpp's server in a process of its own, until a signal ends it.

    python -m benchmarks.serve.llama_cpp FILE.gguf PORT SLOTS CONTEXT THREADS

CONTEXT is in tokens, for each slot.
"""

from __future__ import annotations

import signal
import sys


def main(file: str, port: int, slots: int, context: int, threads: int) -> None:
    """Serve; whatever is not said here is as llama.cpp has it."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.port = file, port
    parameters.n_ctx, parameters.n_parallel, parameters.cont_batching = slots * context, slots, True
    parameters.n_threads_http, parameters.verbosity, parameters.use_jinja = slots + 2, 0, True
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)
    print(f"Listening on {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
