"""The configuration's error."""


class ConfigError(Exception):
    """A mistake in the configuration: the message names file or key and says what was expected."""
