"""What Pillow's decoders let out on damaged bytes, so that every place that opens an image catches the same."""

from __future__ import annotations

import struct

from PIL import Image

DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError,
    RuntimeError, MemoryError, struct.error,
)  # fmt: skip
"""Seen on altered files of all common formats."""
UNREADABLE = (*DAMAGE, Image.DecompressionBombError)
"""The same for an image of any size."""
