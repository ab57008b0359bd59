"""`lbk_entry.py train` with the weights in float64: where rounding is 1e-16, equal sums are equal.

    python -m tests.e2e.float64 CONFIG KEY VALUE ...     (alone, or under a launcher of several processes)

In float32 two orders of adding up differ by 1e-7, and what compares numbers turns that into more: X-Decoder's losses
take the points where masks are least certain, and another point is another loss; AdamW's first steps on gradients that
are rounding and nothing else are as long as any other.
"""

from __future__ import annotations

import sys
from typing import Any

import trainer.run
from trainer.config import read_training
from trainer.run import load_job, train
from trainer.stages.base import StageJob


def in_float64(*arguments: Any, **settings: Any) -> StageJob:
    """A job whose model is in float64."""
    job = load_job(*arguments, **settings)
    job.model.double()
    return job


def main() -> int:
    """See the top of the file."""
    file, *overrides = sys.argv[1:]
    trainer.run.load_job = in_float64
    return train(*read_training([file], overrides))


if __name__ == "__main__":
    sys.exit(main())
