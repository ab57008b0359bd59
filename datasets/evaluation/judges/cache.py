"""Replies of judges on disk, one small file each, so that asking again costs nothing.

Several processes may share a folder: a file appears whole or not at all. A file that cannot be read is like none.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

from configs.common.safe_json import read_json

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
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise JudgeError(f"judge: the folder for replies cannot be made: {error}") from None

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
            path.parent.mkdir(exist_ok=True)
            # of this process and thread alone; not by tempfile, whose files nobody else may read
            draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
            draft.write_text(json.dumps({**about, "reply": reply}, ensure_ascii=True, indent=1), encoding="utf-8")
            os.replace(draft, path)
        except OSError as error:
            raise JudgeError(f"judge: a reply cannot be kept in {self._folder}: {error}") from None

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"


def reply_key(*parts: str) -> str:
    """Name of what was asked: of which judge and model, with which prompt."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
