"""What holds for all tests: a cache folder of their own, Hypothesis without a clock, the same examples everywhere.

The cache folder (kept panoptic maps) is named by the environment, so that processes which tests start share it, too: no
test finds what an earlier run left, and none leaves anything behind.

A fault that new examples find says nothing of the machine that they were drawn on: ``COLLAVO_TESTS=random`` draws
them, and a case that it finds becomes a test of its own.
"""

import gc
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.limits import PROFILE, examples

_CACHE = tempfile.TemporaryDirectory(prefix="collavo-tests-")
"""Goes when the tests end."""
os.environ["XDG_CACHE_HOME"] = _CACHE.name

# a busy machine needs long for an example, or for drawing one; neither is a fault of what is tested
_NO_CLOCK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=True,
    database=None,
)
settings.register_profile("full", _NO_CLOCK)
settings.register_profile("quick", _NO_CLOCK, max_examples=examples(100))
_DRAWN = DirectoryBasedExampleDatabase(".hypothesis/examples")
settings.register_profile("random", _NO_CLOCK, derandomize=False, database=_DRAWN, print_blob=True)
settings.load_profile(PROFILE)


def pytest_collection_finish() -> None:
    """Leave modules and collected tests out of every later search for garbage, which takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world and a tiny checkpoint, see `tests.tiny_training`; nothing in it may be changed."""
    from tests.tiny_training import make_world_and_checkpoint

    folder = tmp_path_factory.mktemp("tiny")
    make_world_and_checkpoint(folder)
    return folder
