"""The ``EVAL`` section of the configuration: how a run goes. Importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from configs.common.field_types import PositiveInt

MOST_THREADS = 1024
HOURS_OF_A_YEAR = 8784


@dataclass
class RunConfig:
    """How a run goes and what is said of it; none of this changes an answer.

    Attributes:
        STRICT: end at the first unreadable record or image, instead of counting it.
        ON_CHANGE: where SAVE_DIR holds answers of other settings or weights: refuse, restart (ask anew), continue.
        LIMIT: ask only a random part of at most so many records; None for all. What is scored together (pairs of
            questions, passes, sets of figures) stays together, groups keep their shares, and a smaller part lies within
            a larger one.
        SEED: of the random draw for LIMIT.
        PUBLISHED: auto: figures stand next to those published of CoLLaVO-7B where the checkpoint has its sizes; never:
            they do not, this is another model.
        UNTAUGHT: datasets whose kind of question the model never learned; results say so.
        MAX_BATCH: questions that a process answers at a time at most; fewer where memory does not allow so many. No
            reply depends on it.
        REPORT: write SAVE_DIR/report at the end: a page per benchmark with every record, its image, map and reply.
        LOG_WRONG: wrong answers of each benchmark that also go to WANDB and TRAIN.TENSORBOARD, with their images; 0
            for none.
        WORKERS: threads per process that decode images ahead.
        TIMEOUT_HOURS: longest time that processes wait for each other at the end.
    """

    STRICT: bool = False
    ON_CHANGE: Literal["refuse", "restart", "continue"] = "refuse"
    LIMIT: PositiveInt | None = None
    SEED: int = 0
    PUBLISHED: Literal["auto", "never"] = "auto"
    UNTAUGHT: list[str] = field(default_factory=list)
    MAX_BATCH: PositiveInt = 64
    REPORT: bool = True
    LOG_WRONG: Annotated[int, Field(ge=0)] = 0
    WORKERS: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 2
    TIMEOUT_HOURS: Annotated[float, Field(ge=0.01, le=HOURS_OF_A_YEAR)] = 24.0
