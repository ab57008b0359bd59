"""Build DeepSpeed's communication extension for CPU processes, as a part of the set-up.

    python -m tests.e2e.build_deepspeed

DeepSpeed compiles it when it first joins CPU processes, which takes minutes on a busy machine. Built here, it lies in
torch's cache of extensions and is loaded from there. Without DeepSpeed or a compiler this says so and does nothing; the
tests that need it then skip, with the reason.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

NEEDED = ("c++", "ninja")


def lacking() -> str:
    """Why the extension cannot be built; "" if it can."""
    if importlib.util.find_spec("deepspeed") is None:
        return "the package deepspeed is not installed (bash install --test)"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"{' and '.join(missing)} is not on the path; DeepSpeed compiles its communication" if missing else ""


def main() -> int:
    """See the top of the file."""
    if reason := lacking():
        sys.stderr.write(f"ZeRO is not tested: {reason}\n")
        return 0
    os.environ["DS_ACCELERATOR"] = "cpu"
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder  # after the accelerator is chosen

    ShareMemCommBuilder().load(verbose=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
