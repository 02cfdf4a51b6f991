"""Example -> Row -> Batch: who is in, in which order, packed how.

Length is decided here and nowhere else (`within_limit`), order and resume position too (`Order`), and document
boundaries and positions (`pack_rows`). Imports without torch.
"""

from tutelage.pack.batches import batches, pack_rows
from tutelage.pack.length import within_limit
from tutelage.pack.order import Order

__all__ = ["Order", "batches", "pack_rows", "within_limit"]
