"""Impasto: the server that runs Stable Diffusion for a painter's editor."""

__version__ = "0.1.0"
__all__ = ["__version__"]
