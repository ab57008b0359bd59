"""Replies of judges on disk, one small file each, so that asking again costs nothing.

Several processes may share a folder: a file appears whole or not at all. A file that cannot be read is like none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from configs.common.safe_json import read_json

from ...writing import OLD, PARTIAL, make_folder, remove_partial, write_bytes
from .base import JudgeError


class ReplyCache:
    """A folder of replies.

    Args:
        folder: where they lie; made if it is missing. None remembers nothing.

    Raises:
        JudgeError: the folder cannot be made.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            try:
                make_folder(folder)
            except OSError as error:
                raise JudgeError(f"judge: the folder for replies cannot be made: {error}") from None
            remove_partial(folder, OLD, f"*/.*{PARTIAL}")

    def get(self, key: str) -> str | None:
        """The reply under a key, if there is one."""
        if self._folder is None:
            return None
        try:
            content = read_json(self._path(self._folder, key))
        except (OSError, ValueError):
            return None
        reply = content.get("reply") if isinstance(content, dict) else None
        return reply if isinstance(reply, str) else None

    def put(self, key: str, reply: str, about: dict[str, str]) -> None:
        """Keep a reply.

        Args:
            key: see `reply_key`.
            reply: the text.
            about: what else a reader of the file may want to know.

        Raises:
            JudgeError: it cannot be written.
        """
        if self._folder is None:
            return
        path = self._path(self._folder, key)
        try:
            make_folder(path.parent)
            write_bytes(path, json.dumps({**about, "reply": reply}, ensure_ascii=True, indent=1).encode(), sync=False)
        except OSError as error:
            raise JudgeError(f"judge: a reply cannot be kept: {error}") from None

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"


def reply_key(*parts: str) -> str:
    """Name of what was asked: of which judge and model, with which prompt."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
