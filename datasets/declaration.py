"""A benchmark as its YAML declares it (``configs/benchmarks/<name>.yaml``), checked and typed.

What differs between two benchmarks stands in its declaration; the loop in ``pipeline`` is the same for all. Templates
hold plain ``{field}`` placeholders only: the first condition moves to a reader or scorer in Python.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from configs.common.checked import KEY
from configs.common.field_types import Label

from .types import DataError


def check_template(prompt: str) -> str:
    """A prompt, checked to hold plain placeholders only.

    Raises:
        ValueError: it holds others, or a single brace.
    """
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(f"the prompt is no template: {error}; write {{{{ and }}}} for braces") from None
    for _, name, spec, conversion in parts:
        if name is not None and (not name.isidentifier() or spec or conversion):
            shown = f"{name[:50]}..." if len(name) > 50 else name
            raise ValueError(f"the prompt holds {{{shown}}}; only plain {{field}} placeholders are allowed")
    return prompt


def placeholders(prompt: str) -> tuple[str, ...]:
    """The fields that a prompt names, each once, in order."""
    return tuple(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None))


PromptTemplate = Annotated[str, AfterValidator(check_template)]
"""A setting that is a prompt's template, see `check_template`."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A published figure to compare with.

    Attributes:
        metric: ``group/name`` of a metric row, or just its name.
        value: the published value, on the scale of the table it comes from (percent for rates).
        tolerance: the difference that is not worth a remark, same scale.
        source: where it was published.
        title: of its column in a summary of several benchmarks; the benchmark's own title if "".
    """

    metric: Label
    value: Annotated[float, Field(strict=False)]  # YAML reads 1e-1 as a text
    tolerance: Annotated[float, Field(strict=False)]
    source: Label = field(metadata={KEY: "from"})
    title: Label = ""


@dataclass(frozen=True, kw_only=True)
class ReleasedRules:
    """What the first CoLLaVO release did otherwise; empty where it kept to the official rule or had none.

    Attributes:
        data: changed options of the reader.
        scorer: changed options of the scorer.
        prompt: in place of the declaration's.
    """

    data: dict[str, Any] = field(default_factory=dict)
    scorer: dict[str, Any] = field(default_factory=dict)
    prompt: PromptTemplate | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: the file's name, e.g. ``pope``.
        dataset: what ``DATASETS.TEST`` calls it, e.g. ``pope_test``; the name if not given.
        section: the config section whose ``TEST.*`` keys override it, e.g. ``POPE``; the upper-cased name if not given.
        pipeline: class of ``pipeline/benchmarks.py`` that runs it; "" for the common one.
        title: for tables.
        version: raised when a score can change; the reason goes into CHANGELOG.md.
        source: paper or repository that defines the benchmark.
        download: where its files can be had: pages and files, each with what it holds.
        reader: name in `datasets.registration.registry.READERS` of what reads the files.
        data: options of the reader (it rejects those it does not know).
        prompt: template over the record's fields.
        num_beams: beams of the search; 1 is greedy. They belong to a model: its profile wins over this.
        max_new_tokens: longest reply in tokens.
        option_wording: wording of an option, with ``{letter}`` and ``{text}``, in place of the reader's; "" for that.
        scorer: name in `datasets.evaluation.registry.SCORERS` of what judges the answers.
        scoring: options of the scorer (it rejects those it does not know).
        released: what the first CoLLaVO release did otherwise.
        rules: whose rules the declaration follows, ``official`` or ``released``.
        expected: published figures to set next to ours.
    """

    name: str
    dataset: str
    section: str
    pipeline: str = ""
    title: str
    version: int
    source: str
    reader: str
    data: Mapping[str, Any]
    prompt: str
    num_beams: int
    max_new_tokens: int
    scorer: str
    scoring: Mapping[str, Any] = field(default_factory=dict)
    released: ReleasedRules = field(default_factory=ReleasedRules)
    rules: str = "official"
    expected: tuple[Expected, ...] = ()
    download: tuple[str, ...] = ()
    option_wording: str = ""

    @property
    def measures_maps(self) -> bool:
        """Whether it measures the segmenter's maps, and so asks no language model."""
        return self.scorer == "panoptic_quality"

    def as_released(self) -> Benchmark:
        """The declaration as the first CoLLaVO release scored it; itself where that made no difference."""
        released = self.released
        if released == ReleasedRules():
            return self
        return replace(
            self,
            data={**self.data, **released.data},
            scoring={**self.scoring, **released.scorer},
            prompt=self.prompt if released.prompt is None else released.prompt,
            rules="released",
        )

    def render(self, fields: Mapping[str, str], absent: Mapping[str, str] | None = None) -> str:
        """Fill the prompt template with a record's fields.

        Args:
            fields: name -> text.
            absent: fields that the record would have if some file were there -> which file.

        Raises:
            DataError: the template names a field that the record does not have.
        """
        try:
            return self.prompt.format_map(dict(fields))
        except KeyError as error:
            if absent and error.args[0] in absent:
                raise DataError(
                    f"benchmark {self.name}: the prompt names {{{error.args[0]}}}, which {absent[error.args[0]]}; or "
                    f"word the prompt without it ({self.section}.TEST.PROMPT)"
                ) from None
            raise DataError(
                f"benchmark {self.name}: the prompt names {{{error.args[0]}}}, a record has only: "
                f"{', '.join(sorted(fields))}"
            ) from None
