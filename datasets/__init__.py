"""Samples and scores of the benchmarks; nothing here knows a model.

From the repository root this package hides the Hugging Face library of the same name from every other library in the
process. Libraries ask it only "is this loader's data one of yours?" (Accelerate does so as soon as two processes run),
and for us the true answer is always no. The two empty classes below give that answer; everything else a library could
ask for fails with a sentence that says why.
"""

from typing import NoReturn


class Dataset:
    """Never instantiated: stands in for the Hugging Face class in ``isinstance`` checks."""


class IterableDataset:
    """Never instantiated: stands in for the Hugging Face class in ``isinstance`` checks."""


def __getattr__(name: str) -> NoReturn:
    """Explain the shadowing where somebody expects the Hugging Face library.

    Raises:
        AttributeError: for dunder names, which Python itself probes for.
        ImportError: for any other name (an AttributeError would lose the sentence in ``from datasets import x``).
    """
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"'datasets.{name}' does not exist: in this process 'datasets' is CoLLaVO's own package, which hides the "
        "Hugging Face library of that name. CoLLaVO reads hub data (parquet, JSON) with pyarrow instead; run code that "
        "needs the Hugging Face library from another directory."
    )
