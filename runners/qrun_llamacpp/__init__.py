"""llama.cpp for qrun: GGUF files, served by llama.cpp's own server or by the same server core in a Python wheel."""

from qrun_llamacpp.runner import LlamaCppRunner

__all__ = ["LlamaCppRunner"]
