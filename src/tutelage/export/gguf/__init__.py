"""Writes a Hugging Face folder, or a LoRA adapter, as GGUF for llama.cpp and Ollama, and proves it there."""
