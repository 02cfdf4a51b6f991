"""tutelage: supervised fine-tuning that shows its work.

The names below are the public API; everything else may move. They are loaded when they are first used, so importing
this package needs neither torch nor a second.

The rooms, in the order a row walks through them:
    formats    bytes -> Conversation
    curate     similarity between splits
    render     Conversation -> Example, with the proof
    pack       Example -> packed sequence -> Batch
    model      verbs on a model: load, adapt, attend, loss
    train      settings -> a run; the loop
    evaluate   model -> numbers
    report     numbers -> one offline page
    api        these names
    cli        the `tutelage` program
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.api.actions import audit, evaluate, export, plan, train
    from tutelage.api.examples import Example, Renderer, load_data
    from tutelage.api.run import Run
    from tutelage.api.trainer import Trainer
    from tutelage.config.settings import Settings
    from tutelage.errors import TutelageError
    from tutelage.ledger import Ledger
    from tutelage.types import Conversation, Message

_MODULES = {
    "tutelage.api.actions": ("audit", "evaluate", "export", "plan", "train"),
    "tutelage.api.examples": ("Example", "Renderer", "load_data"),
    "tutelage.api.run": ("Run",),
    "tutelage.api.trainer": ("Trainer",),
    "tutelage.config.settings": ("Settings",),
    "tutelage.errors": ("TutelageError",),
    "tutelage.ledger": ("Ledger",),
    "tutelage.types": ("Conversation", "Message"),
}

__all__ = [
    "Conversation",
    "Example",
    "Ledger",
    "Message",
    "Renderer",
    "Run",
    "Settings",
    "Trainer",
    "TutelageError",
    "audit",
    "evaluate",
    "export",
    "load_data",
    "plan",
    "train",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'tutelage' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps the verbs: Python sets each room that it imports, such as `tutelage.train`, as an attribute up here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
