"""Files of the tiny world: where a release is written, and which scene every image of it shows."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from datasets.registration.formats.base64_images import digest

from .scenes import Pixels, Scene

Format = Literal["JPEG", "PNG"]


class Release:
    """Writes files below one folder.

    Args:
        root: the folder.

    Attributes:
        shown: name of an image, as its benchmark's reader names it -> what it shows; panoptic maps are written for
            all of them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shown: dict[str, Scene] = {}
        self._encoded: dict[tuple[int, str], bytes] = {}
        self._kept: list[Pixels] = []

    def text(self, path: str, content: str) -> None:
        """Write a text file."""
        self.file(path, content.encode("utf-8"))

    def file(self, path: str, content: bytes) -> None:
        """Write a file, whose folder is made if need be."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def json(self, path: str, content: Any) -> None:
        """Write a JSON file."""
        self.text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    def json_lines(self, path: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Write a file of one JSON object a line."""
        self.text(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))

    def table(self, path: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write values separated by tabs, the columns being those of the first row."""
        lines = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
        self.text(path, "".join("\t".join(line) + "\n" for line in lines))

    def image(self, path: str, name: str, scene: Scene, pixels: Pixels | None = None) -> None:
        """Write an image; a path without suffix, or with .jpg, holds a JPEG, any other a PNG.

        Args:
            path: of the file.
            name: the benchmark's name of it.
            scene: whose map belongs to it.
            pixels: the image, where it is not that of the scene as drawn.

        Raises:
            ValueError: another scene has that name.
        """
        self._know(name, scene)
        kind: Format = "PNG" if path.endswith(".png") else "JPEG"
        self.file(path, self._encode(scene.image if pixels is None else pixels, kind))

    def base64(self, scene: Scene) -> str:
        """An image as a table's cell holds it; the table's readers name it by the digest of the cell."""
        cell = base64.b64encode(self._encode(scene.image, "JPEG")).decode("ascii")
        self._know(digest(cell), scene)
        return cell

    def _know(self, name: str, scene: Scene) -> None:
        if self.shown.setdefault(name, scene) is not scene:
            raise ValueError(f"two scenes are called {name}")

    def _encode(self, pixels: Pixels, kind: Format) -> bytes:
        """Encode an image once, however many benchmarks have it."""
        key = id(pixels), kind
        if key not in self._encoded:
            self._encoded[key] = encoded(pixels, kind)
            self._kept.append(pixels)  # so that no other array gets its id
        return self._encoded[key]


def encoded(pixels: Pixels, kind: Format) -> bytes:
    """An image as a file holds it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()
