"""Mistakes of a user that concern the segmenter; the entry shows their message without a traceback."""


class SegmenterError(Exception):
    """A segmenter that cannot be built or fed: the message names file or setting and says what to do."""
