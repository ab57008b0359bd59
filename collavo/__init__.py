"""CoLLaVO: the crayon prompt, the model, its checkpoints and its generation engine.

    from collavo import CoLLaVO

loads torch only then; importing the package alone does not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assistant import CoLLaVO

__all__ = ["CoLLaVO"]

# logged on import on some CPUs: a package that would speed up 4 bit there is absent; nothing here needs it
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    """`CoLLaVO`, once somebody asks for it."""
    if name == "CoLLaVO":
        from .assistant import CoLLaVO

        return CoLLaVO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
