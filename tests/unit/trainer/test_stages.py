"""Every stage that a configuration may name has an entry, and no other."""

from __future__ import annotations

from typing import get_args, get_type_hints

from trainer.config import LoopConfig
from trainer.stages.registry import STAGES


def test_every_stage_of_the_configuration_is_registered() -> None:
    assert set(get_args(get_type_hints(LoopConfig)["STAGE"])) == set(STAGES)
