"""One self-contained HTML page: its data as JSON, its script and style inside, and a policy that allows nothing else.

Nothing from data or model is ever markup: in the JSON all of ``<``, ``>`` and ``&`` are escaped, the script sets text
only, and the policy allows this script and this style alone (by their hashes), the page's own images, and no network.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import string
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent / "report_page"
_ESCAPES: dict[str, str | int | None] = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def as_json(values: Any) -> str:
    """JSON that can stand inside a script element: ASCII, without ``<``, ``>`` and ``&``."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"), allow_nan=False)  # NaN is no JSON
    return text.translate(str.maketrans(_ESCAPES))


def policy(script: str, style: str, *, served: bool = False) -> str:
    """The content policy of a page: its own script and style, its own images, nothing else.

    Args:
        script: content of its only script element that runs; "" for none.
        style: content of its only style element.
        served: the page talks to the server that it comes from, and shows images that its user chooses.
    """
    rules = ["default-src 'none'", f"style-src {_digest(style)}"]
    rules += ["img-src blob:", "connect-src 'self'"] if served else ["img-src data: 'self'"]
    rules.append(f"script-src {_digest(script) if script else _NONE}")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


_NONE = "'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_page(title: str, data: Any) -> str:
    """A page with the report's script and its data.

    Args:
        title: of the window.
        data: what the script reads, see ``page.js``.
    """
    script = _file("map.js") + "\n" + _file("page.js")
    body = (
        "<noscript>This report needs JavaScript, which runs from this file alone.</noscript>"
        f'<script type="application/json" id="data">{as_json(data)}</script><script>{script}</script>'
    )
    return _filled(title, body, script)


def demo_page(title: str) -> str:
    """The page of ``demo``, which talks to the server that it comes from.

    Args:
        title: of the window.
    """
    script = _file("map.js") + "\n" + _file("demo.js")
    return _filled(title, f"<script>{script}</script>", script, served=True)


def plain_page(title: str, body: str) -> str:
    """A page without any script.

    Args:
        title: of the window.
        body: markup; whoever makes it has escaped what it holds.
    """
    return _filled(title, body, "")


def _filled(title: str, body: str, script: str, *, served: bool = False) -> str:
    style = _file("page.css")
    page = string.Template(_file("page.html"))
    return (
        page.substitute(
            title=html.escape(title), policy=html.escape(policy(script, style, served=served)), style=style, body=body
        )
        .encode("utf-8", "backslashreplace")
        .decode()
    )


@cache
def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip("\n")
