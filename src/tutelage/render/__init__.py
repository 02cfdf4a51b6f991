"""Conversation -> Example: what a server would feed, what the model must answer, and the proof that they are one.

Doors: `Tokenizer.load`, `ChatTemplate`, `Renderer.prove`, `Renderer.prompt`, `examples`, `show`.
"""

from tutelage.render.chat_template.template import ChatTemplate
from tutelage.render.renderer import Renderer
from tutelage.render.tokenizer import Tokenizer
from tutelage.render.workers import examples

__all__ = ["ChatTemplate", "Renderer", "Tokenizer", "examples"]
