"""What holds for all tests: Hypothesis without a clock."""

from hypothesis import HealthCheck, settings

from tests.limits import QUICK, examples

# a busy machine needs long for an example, or for drawing one; neither is a fault of what is tested
_NO_CLOCK = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], print_blob=True
)
settings.register_profile("full", _NO_CLOCK)
settings.register_profile("quick", _NO_CLOCK, max_examples=examples(100))
settings.load_profile("quick" if QUICK else "full")
