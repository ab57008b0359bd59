"""Panoptic quality: how many segments of each class are found, and how well they fit.

An image's reply is what ``pipeline/models/segmenter_maps.py`` says of its map, as JSON: the segments, and under
``quality`` the matches of every class that is in the ground-truth map or in the found one. Sums run over all images;
PQ, SQ and RQ are averaged over the classes that occur.

Source: Kirillov et al. 2019 (arXiv 1801.00868).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from configs.common.safe_json import parse_json

from ..types import Metric, Record, Score, Scored
from .base import Scorer, Submission
from .submission import PANOPTIC


@dataclass(frozen=True, kw_only=True)
class PanopticQualityScorer(Scorer):
    """COCO's rule; there is nothing to choose."""

    submission: ClassVar[Submission | None] = PANOPTIC

    def own_reply(self, record: Record) -> str:
        """What is said of a map that is the true one: every segment but crowds is matched, with an overlap of 1."""
        number = Counter(segment["category_id"] for segment in record.target if not segment["iscrowd"])
        return json.dumps({"quality": {str(category): [num, num, 0, 0] for category, num in number.items()}})

    def score(self, record: Record, text: str) -> MapScore:
        """Read an image's matches; its value is their panoptic quality regardless of class, 1 for nothing at all."""
        try:
            content = parse_json(text)
            tallies = {int(name): _tally(row) for name, row in content["quality"].items()}
            unlisted = int(content.get("unlisted", 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return MapScore(value=None, extracted="", no_answer=True, explanation=f"says nothing of a map ({error!r})")
        whole = summed_matches(tallies.values())
        said = f"{whole.tp} of {whole.tp + whole.fn} segments found, {whole.fp} too many"
        return MapScore(
            value=whole.pq if whole.occurs else 1.0, extracted=said, tallies=tallies, unlisted=unlisted, explanation=""
        )

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """PQ, SQ and RQ over all classes, things and stuff, and of every class; images without a map are left out."""
        each: dict[int, list[SegmentMatches]] = defaultdict(list)
        categories: dict[int, tuple[str, bool]] = {}
        counted = unlisted = 0
        for item in scored:
            if isinstance(item.score, MapScore) and item.score.tallies is not None:
                counted += 1
                unlisted += item.score.unlisted
                categories |= item.record.meta["categories"]
                for category, tally in item.score.tallies.items():
                    each[category].append(tally)
        sums = {category: summed_matches(tallies) for category, tallies in sorted(each.items())}
        sums = {category: tally for category, tally in sums.items() if tally.occurs}
        things = [tally for category, tally in sums.items() if categories[category][1]]
        stuff = [tally for category, tally in sums.items() if not categories[category][1]]
        groups = {"": list(sums.values()), "things": things, "stuff": stuff}
        metrics = [metric for name, members in groups.items() for metric in _averages(members, name, counted)]
        if unlisted:
            metrics.append(Metric(name="unlisted_segments", value=unlisted, num=counted, kind="count"))
        for category, tally in sums.items():
            group, num = f"class/{categories[category][0]}", sum(t.occurs for t in each[category])
            metrics += _averages([tally], group, num)[:3]
            metrics += [Metric(name=n, value=getattr(tally, n), num=num, group=group, kind="count") for n in _COUNTS]
        return metrics


@dataclass(frozen=True, kw_only=True)
class SegmentMatches:
    """Matches of one class, or of several.

    Attributes:
        iou: sum of the overlaps (intersection over union) of the matched segments.
        tp: true segments with a match.
        fp: found segments without one.
        fn: true segments without one.
    """

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    @property
    def occurs(self) -> bool:
        """Whether there is anything to find, or anything was found."""
        return self.tp + self.fp + self.fn > 0

    @property
    def sq(self) -> float:
        """Segmentation quality: mean overlap of the matches; 0 without any."""
        return self.iou / self.tp if self.tp else 0.0

    @property
    def rq(self) -> float:
        """Recognition quality: F1 of finding segments; 0 where there is nothing."""
        return self.tp / (self.tp + (self.fp + self.fn) / 2) if self.occurs else 0.0

    @property
    def pq(self) -> float:
        """Panoptic quality."""
        return self.sq * self.rq


def summed_matches(tallies: Iterable[SegmentMatches]) -> SegmentMatches:
    """The sum; that of the overlaps is rounded once, so that it does not depend on their order."""
    all_of = list(tallies)
    return SegmentMatches(
        iou=math.fsum(t.iou for t in all_of),
        tp=sum(t.tp for t in all_of),
        fp=sum(t.fp for t in all_of),
        fn=sum(t.fn for t in all_of),
    )


@dataclass(frozen=True, kw_only=True)
class MapScore(Score):
    """A verdict on one image's map.

    Attributes:
        tallies: COCO's class id -> its matches; None where the text says nothing of a map.
        unlisted: found segments of classes that the annotations do not know; they count as not found.
    """

    tallies: Mapping[int, SegmentMatches] | None = None
    unlisted: int = 0


def _tally(row: Any) -> SegmentMatches:
    iou, tp, fp, fn = row
    return SegmentMatches(iou=float(iou), tp=int(tp), fp=int(fp), fn=int(fn))


_COUNTS = ("tp", "fp", "fn")


def _averages(classes: Sequence[SegmentMatches], group: str, num: int) -> list[Metric]:
    """PQ, SQ and RQ averaged over classes, and how many these are; undefined over none."""
    found = []
    for name in ("pq", "sq", "rq"):
        values = [getattr(tally, name) for tally in classes]
        mean = math.fsum(values) / len(values) if values else None
        found.append(Metric(name=name.upper(), value=mean, num=num, group=group))
    return [*found, Metric(name="classes", value=len(classes), num=num, group=group, kind="count")]
