"""A finished run in memory, as large and as hostile as asked, for tests of what shows runs."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pipeline.results.browse.crayons import KeptMap
from pipeline.results.browse.prediction import Prediction
from pipeline.results.browse.runs import BenchmarkRun, RecordImages

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<!-- ]]> \u2028\u2029 & &lt; \\u003c \x00\x1b[2J",
    "\ud800 lone \u202e reversed",
    "javascript:document.title='owned'",
    '"><svg onload=document.title="owned">',
)
VERDICTS = ("right", "wrong", "unreadable", "error")


@dataclass(frozen=True)
class MadeImage:
    """An image in memory."""

    name: str
    shade: int = 0

    def read(self) -> bytes:
        content = io.BytesIO()
        Image.new("RGB", (300, 200), (self.shade, 80, 120)).save(content, "PNG")
        return content.getvalue()


def hostile_run(num: int, name: str = "run", images: int = 3) -> tuple[BenchmarkRun, RecordImages]:
    """A run of ``num`` records; every fourth is right, wrong, unreadable, or without a reply."""
    predictions, sources = [], {}
    for index in range(num):
        verdict, text = VERDICTS[index % 4], HOSTILE[index % len(HOSTILE)]
        given = verdict != "error"
        source = MadeImage(f"<b>{index % images}</b>.jpg", index % images * 40)
        sources[f"r{index}"] = source
        predictions.append(
            Prediction(
                id=f"r{index}",
                image=source.name,
                question=f"question {index} {text}",
                prompt=f"<system> question {index} {text} <end>" if given else None,
                text=text if given else None,
                extracted="" if verdict == "unreadable" else text if given else None,
                target=[text, index],
                score=float(verdict == "right") if given else None,
                verdict=verdict,
                judge=[{"part": "run1", "verdict": "0.5", "reply": text}] if index % 5 == 0 else [],
                group=f"group {index % 40} {text}",
                finished=index % 7 != 0 if given else None,
                error=None if given else f"failed: {text}",
                seconds=0.5,
            )
        )
    run = BenchmarkRun(folder=Path(f"/{name}/zoo"), dataset="zoo", name=name, predictions=predictions)
    kept = KeptMap(side=4, runs=[0, 8, 1, 8], objects=[("</b>dog", 1, (0.0, 0.5, 1.0, 1.0))])
    return run, RecordImages(images=sources, maps={source.name: kept for source in sources.values()})


def other_run(run: BenchmarkRun) -> BenchmarkRun:
    """The same records, of which every third has another reply and credit, and without the last one."""
    changed = [
        replace(p, text="changed", score=1.0, verdict="right", error=None) if index % 3 == 0 else p
        for index, p in enumerate(run.predictions)
    ]
    return replace(run, name="other <b>run</b>", folder=Path("/other/zoo"), predictions=changed[:-1])
