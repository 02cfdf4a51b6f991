"""Conversation -> Example: what a server would feed, what the model must answer, and the proof that they are one.

Doors: `Tokenizer.load`, `ChatTemplate`, `Renderer.prove`, `Renderer.prompt`, `examples`, `show`.
"""

from tutelage.render.parallel import examples
from tutelage.render.proof import Renderer
from tutelage.render.template import ChatTemplate
from tutelage.render.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "Renderer", "Tokenizer", "examples"]
