"""The profile of a model: what belongs to it and not to a benchmark, as ``configs/models/<family>.yaml`` says it.

A new family is one such file. A setting of the command line or of a configuration file wins over the profile, and the
profile over a benchmark's declaration. Importing this loads no torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from configs.common.field_types import NonNegativeFloat, PositiveInt
from configs.common.safe_json import read_json
from configs.common.words import did_you_mean, shown
from configs.keys import Key, Section, build, section_of
from configs.load import REPOSITORY, ConfigError, as_yaml, find_file, load
from datasets.declaration import Benchmark, PromptTemplate, check_template

FOLDER = REPOSITORY / "configs" / "models"
DEFAULTS = {"collavo": "collavo", "hf": "default", "endpoint": "endpoint"}
"""Profile of each kind of model where nothing says more."""
_SAMPLING = ("temperature", "top_p", "seed", "length_penalty", "early_stopping")
_APART = ("title", "source", "match", "classes", "rendered", "rendered_source", "published", "note")
"""Fields that shape no reply, and so are no part of a run's identity."""


def _text_template(text: str) -> str:
    """A template of a whole prompt, checked.

    Raises:
        ValueError: it does not hold ``{question}`` once, or other placeholders than that, image and system.
    """
    check_template(text)
    names = [name for name in ("image", "question", "system") if f"{{{name}}}" in text]
    if text and ("question" not in names or text.count("{question}") != 1):
        raise ValueError("a prompt's template names {question} once")
    try:
        text.format(image="", question="", system="")
    except (KeyError, IndexError, ValueError):
        raise ValueError("a prompt's template knows {image}, {question} and {system}") from None
    return text


def _option_template(text: str) -> str:
    """The wording of an option, checked.

    Raises:
        ValueError: it does not hold both ``{letter}`` and ``{text}``.
    """
    if text and not ("{letter}" in text and "{text}" in text):
        raise ValueError("the wording of an option names {letter} and {text}")
    return check_template(text)


TextTemplate = Annotated[str, AfterValidator(_text_template)]


@dataclass
class PromptProfile:
    """How a question is put to the model.

    Attributes:
        template: the whole prompt, with ``{image}``, ``{question}`` and perhaps ``{system}``; "" for the chat template
            of the checkpoint. Tokens that the tokenizer adds itself (a begin token) are not part of it.
        text_only: the same for a question without an image; "" for ``template`` without its ``{image}``.
        image: what ``{image}`` stands for; "" for the processor's image token.
        system: text of the system's turn; None for none, or what the chat template has by itself.
        image_place: whether a message holds its images before or after the text.
        several: stands before each image where a record has several, with its ``{number}``.
        options: wording of an option, with ``{letter}`` and ``{text}``; "" for the benchmark's own.
        questions: benchmark -> template over the record's fields, in place of the declaration's.
    """

    template: TextTemplate = ""
    text_only: TextTemplate = ""
    image: str = ""
    system: str | None = None
    image_place: Literal["before", "after"] = "before"
    several: PromptTemplate = ""
    options: Annotated[str, AfterValidator(_option_template)] = ""
    questions: dict[str, PromptTemplate] = field(default_factory=dict)


@dataclass
class GenerationProfile:
    """How a reply is generated. What is None is as the benchmark declares it, or neutral.

    Attributes:
        num_beams: beams of the search; 1 is greedy.
        length_penalty: exponent of the length that a beam's score is divided by.
        early_stopping: end a search as soon as there are ``num_beams`` whole replies.
        max_new_tokens: longest reply in tokens.
        temperature: of sampling; 0 takes the most probable token.
        top_p: share of probability that is sampled from.
        seed: of sampling.
        repetition_penalty: of the transformers library; 1 is none.
        keep: names of the checkpoint's generation_config.json that are taken over; all others are neutral. The end
            tokens are always taken over.
        stop: further texts that end a reply.
    """

    num_beams: PositiveInt | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    max_new_tokens: PositiveInt | None = None
    temperature: NonNegativeFloat | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    keep: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)


@dataclass
class BoxProfile:
    """How the model writes boxes; see ``datasets/evaluation/grounding.py``. What is None is as declared.

    Attributes:
        scale: what coordinates count to: 1, 100, 1000, 1024; 0 for pixels.
        frame: what they are measured on: the image, the image padded to a square, or the image as it is resized.
        order: corners as x1 y1 x2 y2, or y1 x1 y2 x2.
        tags: whether coordinates stand in tags, like ``<loc_12>`` or ``{<12>}``.
        factor: of ``resized``: sides are multiples of it.
        min_pixels: of ``resized``: least number of pixels.
        max_pixels: of ``resized``: largest number of pixels.
    """

    scale: NonNegativeFloat | None = None
    frame: Literal["image", "padded", "resized"] | None = None
    order: Literal["xyxy", "yxyx"] | None = None
    tags: bool | None = None
    factor: PositiveInt | None = None
    min_pixels: PositiveInt | None = None
    max_pixels: PositiveInt | None = None


@dataclass
class PublishedFigure:
    """A figure that the model's authors, or others, published.

    Attributes:
        benchmark: name of its declaration, e.g. ``pope``.
        metric: as in a declaration's ``expected``.
        value: on the scale of the table that it comes from.
        source: where it was published.
        title: of its column; "" for that of the benchmark's first published figure.
        model: which size it is of, e.g. ``7B``.
    """

    benchmark: str
    metric: str
    value: float
    source: str
    title: str = ""
    model: str = ""


@dataclass
class ModelProfile:
    """A model family.

    Attributes:
        title: for tables and messages.
        kind: which module answers for it, as ``MODEL.NAME``.
        source: where its settings are taken from, a line each.
        note: what its user must know; said at the start.
        match: keys of a checkpoint's config.json with their values; a checkpoint that has all of one entry is of this
            family. The family with the most such keys wins.
        loader: class of the transformers library that loads it.
        classes: names of the model classes of that library that checkpoints of the family have.
        image_processor: settings of the image processor, over the checkpoint's.
        pad_to_square: pad images to a square with the processor's mean colour before anything else.
        image_backend: which of the library's image processors, where there are two; auto is the library's choice.
        batch: whether questions may be answered together (those whose images have equal shapes), or each alone.
        images: whether a record may have several images.
        prompt: see `PromptProfile`.
        generation: see `GenerationProfile`.
        boxes: see `BoxProfile`.
        rendered: what the family's chat template makes of one image and ``{question}``, as its authors published it; a
            checkpoint that makes something else of them is named.
        rendered_source: where that is published, with the commit.
        published: figures of known checkpoints, which ``compare --published`` shows.
    """

    title: str = ""
    kind: Literal["collavo", "hf", "endpoint"] = "hf"
    source: list[str] = field(default_factory=list)
    note: str = ""
    match: list[dict[str, str]] = field(default_factory=list)
    loader: Literal["image_text_to_text", "causal_lm", "multimodal_lm"] = "image_text_to_text"
    classes: list[str] = field(default_factory=list)
    image_processor: dict[str, Any] = field(default_factory=dict)
    pad_to_square: bool = False
    image_backend: Literal["auto", "torchvision", "pil"] = "auto"
    batch: Literal["together", "alone"] = "together"
    images: Literal["one", "several"] = "several"
    prompt: PromptProfile = field(default_factory=PromptProfile)
    generation: GenerationProfile = field(default_factory=GenerationProfile)
    boxes: BoxProfile = field(default_factory=BoxProfile)
    rendered: str = ""
    rendered_source: str = ""
    published: list[PublishedFigure] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ResolvedProfile:
    """A profile with what the configuration changes in it.

    Attributes:
        name: of its file.
        where: the file.
        profile: what counts.
        changed: dotted names of what the configuration changes.
        guessed: whether nothing but the kind of model chose it.
    """

    name: str
    where: str
    profile: ModelProfile
    changed: tuple[str, ...] = ()
    guessed: bool = False

    def parts(self) -> dict[str, Any]:
        """What of it can change a reply, for a run's identity; without what has its neutral value."""
        held = asdict(self.profile)
        return {"name": self.name, **_stated({name: value for name, value in held.items() if name not in _APART})}

    def declared(self, benchmark: Benchmark) -> Benchmark:
        """A declaration with what the profile says over it; one that asks no model is as it is."""
        if benchmark.measures_maps:
            return benchmark
        generation, prompt = self.profile.generation, self.profile.prompt
        changes: dict[str, Any] = {
            "num_beams": generation.num_beams,
            "max_new_tokens": generation.max_new_tokens,
            "prompt": prompt.questions.get(benchmark.name),
            "option_wording": prompt.options or None,
        }
        boxes = {name: value for name, value in asdict(self.profile.boxes).items() if value is not None}
        if boxes and benchmark.scorer == "grounding":
            changes["scoring"] = {**benchmark.scoring, **boxes}
        return replace(benchmark, **{name: value for name, value in changes.items() if value is not None})

    def search(self) -> dict[str, Any]:
        """Settings of ``collavo.search.Generation`` besides beams and length."""
        held = asdict(self.profile.generation)
        return {name: held[name] for name in _SAMPLING if held[name] is not None}

    def described(self) -> str:
        """The profile in words, for the start of a run."""
        head = f"profile:      {self.name}" + (f" ({shown(self.profile.title)})" if self.profile.title else "")
        if self.guessed:
            head += ": a default, since nothing says which model this is (MODEL.PROFILE); check the prompt"
        lines = [head, *(f"  {shown(line)}" for line in as_yaml(_without(self.parts(), "name")).splitlines())]
        if self.changed:
            lines.append(f"  changed by the configuration: {', '.join(self.changed)}")
        if self.profile.note:
            lines.append(f"  note: {self.profile.note}")
        return "\n".join(lines)


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that say something: no empty texts, lists and mappings, nothing that is left open."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        found = _stated(value) if isinstance(value, Mapping) and name != "image_processor" else value
        if found is not None and found != "" and found != [] and found != {}:
            kept[name] = found
    return kept


def profile_names() -> list[str]:
    """Names of the shipped profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_profile(name: str, settings: Mapping[str, Any] = {}) -> ResolvedProfile:
    """Read a profile.

    Args:
        name: of a file in ``configs/models``, or the path of a YAML file.
        settings: of the configuration, over the file's.

    Raises:
        ConfigError: there is none of this name, or a key or value in it is wrong; with file and line.
    """
    path = FOLDER / f"{name}.yaml"
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = find_file(name)
    elif not path.is_file():
        hint = did_you_mean(name, profile_names())
        raise ConfigError(f"MODEL.PROFILE: there is no '{shown(name)}'{hint} There are: {', '.join(profile_names())}")
    stamp = path.stat()
    profile = _read(path, stamp.st_mtime_ns, stamp.st_size)
    if not settings:
        return ResolvedProfile(name=path.stem, where=str(path), profile=profile)
    keys = section_of(ModelProfile)
    try:
        words = [word for pair in _as_overrides(settings, keys) for word in pair]
        values = load(keys, [path], words).values
    except ConfigError as error:
        raise ConfigError(f"MODEL.SETTINGS: {error}") from None
    return ResolvedProfile(
        name=path.stem, where=str(path), profile=build(ModelProfile, values), changed=tuple(words[::2])
    )


@functools.lru_cache(maxsize=128)
def _read(path: Path, changed: int, size: int) -> ModelProfile:
    """A file's profile, read once as long as the file does not change."""
    return build(ModelProfile, load(section_of(ModelProfile), [path], []).values)


def _as_overrides(settings: Mapping[str, Any], keys: Section, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A mapping of settings as dotted names with the text of their values."""
    for name, value in settings.items():
        node = keys.get(str(name))
        if isinstance(value, Mapping) and not isinstance(node, Key) and node is not None:
            yield from _as_overrides(value, node, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "None" if value is None else value if isinstance(value, str) else json.dumps(value)


def profile_of_checkpoint(folder: Path) -> str:
    """The family of a checkpoint by its config.json; "" where none fits, or there is no such file."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return ""
    return profile_of_config(config) if isinstance(config, Mapping) else ""


def profile_of_config(config: Mapping[str, Any]) -> str:
    """The family of a checkpoint's configuration; "" where none fits."""
    best, name = 0, ""
    for path in sorted(FOLDER.glob("*.yaml")):
        for entry in load_profile(path.stem).profile.match:
            if len(entry) > best and all(_has(config, key, value) for key, value in entry.items()):
                best, name = len(entry), path.stem
    return name


def _has(config: Mapping[str, Any], dotted: str, value: str) -> bool:
    held: Any = config
    for part in dotted.split("."):
        held = held.get(part) if isinstance(held, Mapping) else None
    return value in map(str, held) if isinstance(held, list) else str(held) == value


def published_rows(names: Iterable[str] | None = None) -> dict[str, list[PublishedFigure]]:
    """Published figures by the title of their model (and size), with their source each.

    Args:
        names: of profiles; None for all that are shipped.
    """
    rows: dict[str, list[PublishedFigure]] = {}
    for name in profile_names() if names is None else names:
        profile = load_profile(name).profile
        for figure in profile.published:
            rows.setdefault(f"{profile.title} {figure.model}".strip(), []).append(figure)
    return rows
