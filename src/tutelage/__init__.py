"""tutelage: supervised fine-tuning that shows its work.

The rooms, in the order a row walks through them:
    formats    bytes -> Conversation
    curate     how alike splits are
    render     Conversation -> Example, with the proof
    pack       Example -> Row -> Batch
    model      verbs on a model: load, adapt, attend, loss
    train      settings -> a run; the loop
    evaluate   model -> numbers
    report     numbers -> one offline page
    cli        the `tutelage` program
Importing this package, and every room up to `pack`, needs no torch.
"""

from tutelage.errors import TutelageError
from tutelage.ledger import Ledger
from tutelage.types import Address, Batch, Conversation, Drop, Example, Message, PackedSequence, Turn

__all__ = [
    "Address",
    "Batch",
    "Conversation",
    "Drop",
    "Example",
    "Ledger",
    "Message",
    "PackedSequence",
    "Turn",
    "TutelageError",
]
