"""Draw ``assets/crayon_prompt.png``, the README's image of what a crayon prompt is.

python -m assets.crayon_figure
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from collavo.crayon import CrayonPrompt, crayon_prompt, object_list
from modeling.segmenters.base import PanopticMap
from modeling.segmenters.coco import NUM_CLASSES
from pipeline.commands.drawing import colour, write_name

from .tiny.train.scenes import panoptic_map
from .tiny.world import Scene, draw_scene

SEED, SIZE, GRID, SIDE, GAP = 11, 350, 35, 350, 24


def prompt_of(scene: Scene) -> CrayonPrompt:
    """The crayon prompt of a scene's own map, sampled at the middle of every cell."""
    whole = panoptic_map(scene)
    middle = (np.arange(GRID) * SIZE + SIZE // 2) // GRID
    return crayon_prompt(PanopticMap(whole.id_map[np.ix_(middle, middle)], whole.segments), GRID)


def main() -> None:
    """Write the image."""
    scene = draw_scene(np.random.default_rng(SEED), SIZE)
    prompt = prompt_of(scene)
    cells = np.array(
        [
            [colour(int(s) - 1, int(n)) for s, n in zip(*rows, strict=True)]
            for rows in zip(prompt.semantic, prompt.numbering, strict=True)
        ],
        np.uint8,
    )
    sheet = Image.new("RGB", (3 * SIDE + 4 * GAP, SIDE + 3 * GAP), "white")
    pen = ImageDraw.Draw(sheet)
    small, bold = ImageFont.load_default(15), ImageFont.load_default(17)
    sheet.paste(Image.fromarray(scene.image).resize((SIDE, SIDE)), (GAP, 2 * GAP))
    left = 2 * GAP + SIDE
    sheet.paste(Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, 2 * GAP))
    for item in prompt.objects:
        x1, y1, x2, y2 = item.box
        height = (y1 + y2) / 2 if x2 - x1 < 1 else y2 - 0.06  # what spans the image is named below the things
        at = (left + (x1 + x2) / 2 * SIDE, 2 * GAP + height * SIDE)
        write_name(pen, at, f"#{item.number} {item.category}", small)
    titles = ("the image", f"{GRID} x {GRID} image tokens: class and number", "what the model also reads")
    for column, title in enumerate(titles):
        pen.text((GAP + column * (SIDE + GAP), GAP), title, "black", bold, "lm")
    text = f"The image includes {object_list(prompt.objects)}. How many dogs are there?"
    pen.multiline_text((3 * GAP + 2 * SIDE, 2 * GAP), "\n".join(textwrap.wrap(text, 46)), "black", small, spacing=7)
    known = int((prompt.semantic > 0).sum())
    note = (
        f"{known} of {GRID * GRID} tokens carry a semantic query\n(one of {NUM_CLASSES} classes) plus a numbering "
        "query,\nadded inside every decoder layer."
    )
    pen.multiline_text((3 * GAP + 2 * SIDE, SIDE - GAP), note, (90, 90, 90), small, spacing=7)
    sheet.save(Path(__file__).parent / "crayon_prompt.png", optimize=True)


if __name__ == "__main__":
    main()
