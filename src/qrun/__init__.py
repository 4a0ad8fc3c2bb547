"""qrun: name a model; the best quantization for this machine is chosen, fetched and served."""

__version__ = "0.1.0"
__all__ = ["__version__"]
