"""What an endpoint's replies cost: counted as they come, written down next to the run, and read when it goes on.

Each process of each session has a file of its own in ``SAVE_DIR/spending``, one JSON line per reply, so that
``MODEL.MAX_COST`` holds for a run however often it was killed. Importing this loads no torch.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.common.safe_json import parse_json
from datasets.evaluation.judges.connection import MOST_TOKENS, Completion

from ..runtime.errors import RunError
from ..runtime.files import append, json_line, make_folder, naming_write_errors
from .options import ModelConfig

if TYPE_CHECKING:
    from ..config import EvalConfig

FOLDER = "spending"
_COUNTS = ("replies", "tokens_in", "tokens_out")
_MILLION = 1e6


@dataclass(frozen=True)
class Tokens:
    """Tokens of some replies.

    Attributes:
        replies: how many.
        sent: tokens of their prompts.
        received: tokens of the replies.
    """

    replies: int = 0
    sent: int = 0
    received: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        """Those of both."""
        return Tokens(self.replies + other.replies, self.sent + other.sent, self.received + other.received)

    def describe(self) -> str:
        """In words."""
        return f"{self.replies} replies, {self.sent} tokens in, {self.received} out"


class Ledger:
    """The lines of a run's folder about one model at one address.

    Args:
        folder: where the files lie.
        rank: of this process.
        model: name on the server.
        address: of the server, as configured; "" for the protocol's own.
    """

    def __init__(self, folder: Path, rank: int, model: str, address: str) -> None:
        self._folder, self._of = folder, {"model": model, "address": address}
        self._file = folder / f"process-{rank}-{secrets.token_hex(4)}.jsonl"
        self._descriptor: int | None = None

    def before(self) -> Tokens:
        """What all lines come to.

        Raises:
            RunError: a file is unreadable.
        """
        return sum(self._lines(), Tokens())

    def _lines(self) -> Iterator[Tokens]:
        """Lines that are whole, of this model and address; a kill may have torn a last one."""
        for file in sorted(self._folder.glob("process-*.jsonl")):
            try:
                content = file.read_bytes()
            except OSError as error:
                raise RunError(f"{file}: what earlier sessions spent cannot be read: {error.strerror}") from None
            for line in content.split(b"\n"):
                if (found := _read(line, self._of)) is not None:
                    yield found

    def add(self, tokens: Tokens) -> None:
        """Write a line.

        Raises:
            WriteError: it cannot be written.
        """
        if self._descriptor is None:
            make_folder(self._folder)
            with naming_write_errors(self._file):
                self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        line = {**self._of, **dict(zip(_COUNTS, (tokens.replies, tokens.sent, tokens.received), strict=True))}
        append(self._descriptor, self._file, json_line(line))


def _read(line: bytes, of: dict[str, str]) -> Tokens | None:
    """One line; None if it is torn, not one of ours, or about another model."""
    try:
        values: Any = parse_json(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or any(values.get(name) != value for name, value in of.items()):
        return None
    counts = [value for name in _COUNTS if type(value := values.get(name)) is int and 0 <= value < MOST_TOKENS]
    return Tokens(*counts) if len(counts) == len(_COUNTS) else None


class Spending:
    """Counts tokens and money.

    Args:
        model: its prices, and ``MAX_COST``; what earlier sessions left of it is divided among the processes.
        processes: how many there are.
        ledger: where replies are written down; None for nowhere.
    """

    def __init__(self, model: ModelConfig, processes: int, ledger: Ledger | None = None) -> None:
        self._prices = (model.PRICE_INPUT, model.PRICE_OUTPUT)
        self._ledger = ledger
        self.before = Tokens() if ledger is None else ledger.before()
        spent = self.cost_of(self.before.sent, self.before.received)
        most = None if model.MAX_COST is None or spent is None else model.MAX_COST - spent
        self._most = None if most is None else most / processes
        self._lock = threading.Lock()
        self._now, self._waiting = Tokens(), 0

    def cost_of(self, tokens_in: float, tokens_out: float) -> float | None:
        """US dollars; None where no price is configured."""
        price_in, price_out = self._prices
        if price_in is None or price_out is None:
            return None
        return (tokens_in * price_in + tokens_out * price_out) / _MILLION

    def reserve(self) -> bool:
        """Whether one more request fits, given what the requests under way will cost by the mean so far."""
        with self._lock:
            every = self.before + self._now
            cost, whole = (self.cost_of(one.sent, one.received) for one in (self._now, every))
            if self._most is not None and cost is not None and whole is not None:
                mean = whole / every.replies if every.replies else 0.0
                if cost + mean * (self._waiting + 1) > self._most:
                    return False
            self._waiting += 1
            return True

    def settle(self, found: Completion | None) -> None:
        """Count a request that came back, or failed.

        Raises:
            WriteError: it cannot be written down.
        """
        with self._lock:
            self._waiting -= 1
            if found is None:
                return
            tokens = Tokens(1, found.input_tokens, found.output_tokens)
            self._now += tokens
            if self._ledger is not None:
                self._ledger.add(tokens)

    def describe(self) -> str:
        """What was spent, in words."""
        return self._now.describe() + self._cost(self._now) + self.earlier()

    def earlier(self) -> str:
        """What earlier sessions spent, in words; "" for nothing."""
        return f", after {self.before.describe()}{self._cost(self.before)} of earlier sessions" * (
            self.before.replies > 0
        )

    def _cost(self, tokens: Tokens) -> str:
        cost = self.cost_of(tokens.sent, tokens.received)
        return "" if cost is None else f", {cost:.4f} US dollars"


def spending_of(config: EvalConfig, environ: Mapping[str, str]) -> Spending:
    """What is spent, and was spent in earlier sessions, on a run's model.

    Raises:
        RunError: the folder is unreadable.
    """
    rank, world = (int(environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    model, folder = config.MODEL, Path(config.SAVE_DIR).expanduser() / FOLDER
    return Spending(model, world, Ledger(folder, rank, model.PATH, model.BASE_URL or ""))
