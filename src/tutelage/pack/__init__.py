"""Example -> PackedSequence -> Batch: which examples, in which order, packed how.

Length is decided here and nowhere else (`within_limit`), order and resume position too (`Sampler`), and document
boundaries and positions (`pack_rows`). Prepared Examples are kept in files (`ExampleStore`), whose key is
their content (`Cache`). Imports without torch.
"""

from tutelage.pack.example_store import ExampleStore
from tutelage.pack.joined_examples import Examples, JoinedExamples
from tutelage.pack.length import within_limit
from tutelage.pack.packing import batches, pack_rows, split_over_ranks
from tutelage.pack.pipeline import proven_rows, store_rows
from tutelage.pack.prepared_cache import Cache
from tutelage.pack.sampler import Sampler

__all__ = [
    "Cache",
    "ExampleStore",
    "Examples",
    "JoinedExamples",
    "Sampler",
    "batches",
    "pack_rows",
    "proven_rows",
    "split_over_ranks",
    "store_rows",
    "within_limit",
]
