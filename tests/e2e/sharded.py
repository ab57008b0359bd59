"""One process of a sharded training on the CPU, for test_sharding.py; Accelerate itself shards on accelerators alone.

    python -m tests.e2e.sharded fsdp2|zero2|zero3 KEY VALUE ...     (under a launcher of several processes)

Everything but the start is what `lbk_entry.py train` runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipeline.run.plan import make_session
from pipeline.runtime.launch import start_accelerator
from trainer.check import evaluation_plan
from trainer.config import read_training
from trainer.parallel.sharding import Sharding
from trainer.run import run_stage

KINDS = {
    "fsdp2": Sharding(kind="fsdp2"),
    "zero2": Sharding(kind="zero", stage=2),
    "zero3": Sharding(kind="zero", stage=3),
}


def main() -> None:
    """See the top of the file."""
    kind, *overrides = sys.argv[1:]
    config, catalog = read_training(["configs/collavo_tiny_train.yaml"], overrides)
    accelerator = start_accelerator(1.0, None, os.environ, (), Path(config.SAVE_DIR))
    session = make_session(evaluation_plan(config, catalog), accelerator)
    run_stage(config, accelerator, session, None, KINDS[kind])
    accelerator.end_training()


if __name__ == "__main__":
    main()
