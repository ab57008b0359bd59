"""A process that joins the others within seconds, or never; for test_launcher_kills.py.

python -m tests.e2e.joining SECONDS [ABSENT RANK]     (under a launcher of several processes)
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta

from pipeline.run.plan import run_guarded
from pipeline.runtime.launch import start_accelerator
from tests.limits import LIMIT


def main() -> int:
    """See the top of the file."""
    seconds, *absent = sys.argv[1:]
    if os.environ["RANK"] in absent:
        time.sleep(LIMIT)

    def work(folders: object) -> None:
        accelerator = start_accelerator(1.0, None, os.environ, join=timedelta(seconds=float(seconds)))
        accelerator.wait_for_everyone()
        sys.stdout.write(f"process {accelerator.process_index} of {accelerator.num_processes} is there\n")

    return run_guarded(work, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
