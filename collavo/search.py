"""Greedy search, beam search and sampling over a block of questions, in tensors of fixed shape.

The searches take a step's logits and say which token each row takes next and which row it continues. Nothing is read
back from the device until a search is over, but for `done`, which the caller asks for as often as it likes. Beam
search follows transformers' rules (length penalty, early stopping, several end tokens) and gives its token ids; a
question's result does not change once it is done, however long the others of its block go on.

Shape legend: Q questions, B beams, V vocabulary, N longest reply in tokens, C candidates a step keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

IMPOSSIBLE = -1.0e9
"""Score of what must not be chosen, as transformers has it."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How to search.

    Attributes:
        num_beams: beams; 1 is greedy, or sampling.
        max_new_tokens: longest reply in tokens.
        length_penalty: exponent of the length that a beam's score is divided by.
        early_stopping: end as soon as ``num_beams`` replies have ended, instead of when no better one can follow.
        temperature: of sampling; 0 takes the most probable token.
        top_p: sample among the most probable tokens that make up this share.
        seed: of sampling; a question's draws depend on it and on the question's place in the call alone.
        on_token: called with every token that is chosen for a single question, with one beam; reading it waits for the
            device. None for nobody.

    Raises:
        ValueError: a number out of its range, or sampling with beams.
    """

    num_beams: int
    max_new_tokens: int
    length_penalty: float = 1.0
    early_stopping: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    on_token: Callable[[int], None] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.num_beams < 1 or self.max_new_tokens < 1:
            raise ValueError(f"need at least one beam and one token, not {self.num_beams} and {self.max_new_tokens}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"need temperature >= 0 and 0 < top_p <= 1, not {self.temperature} and {self.top_p}")
        if self.temperature > 0 and self.num_beams > 1:
            raise ValueError("sampling goes with one beam")
        if self.on_token is not None and self.num_beams > 1:
            raise ValueError("tokens are handed over as they come with one beam only")


class Search(Protocol):
    """A search over a block's questions."""

    @property
    def finite(self) -> Tensor:
        """Bool (Q,): whether a question's logits were numbers in every step."""

    @property
    def margin(self) -> Tensor:
        """float32 (Q,): the smallest gap (log-probability; logit in a greedy search) at any decision of a question."""

    def restart(self, draws: Sequence[int]) -> None:
        """Forget everything and begin anew, in the same tensors.

        Args:
            draws: see `start_search`; missing ones (idle questions) are those of the first.
        """

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step.

        Args:
            logits: float32 (Q, B, V), or (Q, 1, V) in the first step, when all beams are one.
        Returns: int64 (Q, B) token of each row, and int64 (Q, B) beam that it continues.
        """

    def select(self, questions: Tensor) -> None:
        """Go on with some of the questions alone.

        Args:
            questions: int64, their numbers.
        """

    def done(self) -> Tensor:
        """Bool (Q,): whether a question's reply can change no more."""

    def sequences(self) -> Tensor:
        """int64 (Q, N): the reply of each question; what follows an end token has no meaning."""


def start_search(generation: Generation, draws: Sequence[int], end_ids: Sequence[int], device: torch.device) -> Search:
    """The search that a generation asks for.

    Args:
        generation: see `Generation`.
        draws: a number for each question that its random draws depend on.
        end_ids: ids that end a reply.
        device: where logits will be.
    """
    ends = torch.tensor(list(end_ids), dtype=torch.long, device=device)
    if generation.num_beams > 1:
        return BeamSearch(generation, len(draws), ends)
    sampled = generation.temperature > 0
    search = SamplingSearch(generation, draws, ends) if sampled else GreedySearch(generation, len(draws), ends)
    return search if generation.on_token is None else WatchedSearch(search, generation.on_token)


def _finite(logits: Tensor) -> Tensor:
    """Bool (Q,): whether all logits (Q, B, V) of a question are numbers; a sum is one only if all its terms are."""
    return logits.sum(dim=(1, 2)).isfinite()


def _select(search: Search, names: Sequence[str], questions: Tensor) -> None:
    """Keep of a search's tensors, whose first dimension is Q, the rows of some questions."""
    for name in names:
        setattr(search, name, getattr(search, name).index_select(0, questions))


class WatchedSearch:
    """A search that hands over the tokens of its first question as they are chosen; see `Search`.

    Args:
        search: of one beam.
        on_token: called with every token.
    """

    def __init__(self, search: Search, on_token: Callable[[int], None]) -> None:
        self._search, self._on_token = search, on_token

    @property
    def finite(self) -> Tensor:
        """See `Search.finite`."""
        return self._search.finite

    @property
    def margin(self) -> Tensor:
        """See `Search.margin`."""
        return self._search.margin

    def restart(self, draws: Sequence[int]) -> None:
        """See `Search.restart`."""
        self._search.restart(draws)

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Search.advance`."""
        tokens, parents = self._search.advance(logits)
        self._on_token(int(tokens[0, 0]))
        return tokens, parents

    def select(self, questions: Tensor) -> None:
        """See `Search.select`."""
        self._search.select(questions)

    def done(self) -> Tensor:
        """See `Search.done`."""
        return self._search.done()

    def sequences(self) -> Tensor:
        """See `Search.sequences`."""
        return self._search.sequences()


class GreedySearch:
    """The most probable token at every step.

    Args:
        generation: see `Generation`.
        num_questions: Q.
        ends: int64, ids that end a reply.
    """

    _per_question: tuple[str, ...] = ("_tokens", "_done", "_parents", "finite", "margin")

    def __init__(self, generation: Generation, num_questions: int, ends: Tensor) -> None:
        self._ends = ends
        self._step = torch.zeros(1, dtype=torch.long, device=ends.device)
        self._tokens = torch.zeros(num_questions, generation.max_new_tokens, dtype=torch.long, device=ends.device)
        self._done = torch.zeros(num_questions, dtype=torch.bool, device=ends.device)
        self._parents = torch.zeros(num_questions, 1, dtype=torch.long, device=ends.device)
        self.finite = torch.ones_like(self._done)
        self.margin = torch.full((num_questions,), float("inf"), device=ends.device)

    def restart(self, draws: Sequence[int]) -> None:
        """See `Search.restart`."""
        for tensor in (self._step, self._tokens, self._done):
            tensor.zero_()
        self.finite.fill_(True)
        self.margin.fill_(float("inf"))

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Search.advance`."""
        best = torch.topk(logits[:, 0], 2, dim=-1)
        self.finite &= self._done | _finite(logits)
        gap = (best.values[:, 0] - best.values[:, 1]).masked_fill_(self._done, float("inf"))
        torch.minimum(self.margin, gap, out=self.margin)
        return self._take(logits[:, 0].argmax(dim=-1))  # the first of equal ones, as transformers' search takes it

    def _take(self, token: Tensor) -> tuple[Tensor, Tensor]:
        self._tokens.index_copy_(1, self._step, token[:, None])
        self._done |= (token[:, None] == self._ends).any(-1)
        self._step += 1
        return token[:, None], self._parents

    def select(self, questions: Tensor) -> None:
        """See `Search.select`."""
        _select(self, self._per_question, questions)

    def done(self) -> Tensor:
        """See `Search.done`."""
        return self._done

    def sequences(self) -> Tensor:
        """See `Search.sequences`."""
        return self._tokens


class SamplingSearch(GreedySearch):
    """A token drawn at every step, by temperature and top-p (Holtzman et al. 2020, arXiv 1904.09751).

    Args:
        generation: see `Generation`.
        draws: a number for each question that its random draws depend on.
        ends: int64, ids that end a reply.
    """

    _per_question = (*GreedySearch._per_question, "_uniform")

    def __init__(self, generation: Generation, draws: Sequence[int], ends: Tensor) -> None:
        super().__init__(generation, len(draws), ends)
        self._temperature, self._top_p = generation.temperature, generation.top_p
        self._seed, self._longest = generation.seed, generation.max_new_tokens
        self._uniform = torch.zeros(len(draws), self._longest, device=ends.device)  # (Q, N)
        self.restart(draws)

    def restart(self, draws: Sequence[int]) -> None:
        """See `Search.restart`."""
        super().restart(draws)
        seeds = [self._seed + draw for draw in draws]
        seeds += seeds[:1] * (len(self._uniform) - len(seeds))
        uniform = [torch.rand(self._longest, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._uniform.copy_(torch.stack(uniform))

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Search.advance`."""
        probabilities, ids = torch.softmax(logits[:, 0] / self._temperature, dim=-1).sort(dim=-1, descending=True)
        self.finite &= self._done | _finite(logits)
        total = probabilities.cumsum(-1)
        kept = torch.where(total - probabilities < self._top_p, probabilities, 0.0).cumsum(-1)  # at least the first
        threshold = self._uniform.index_select(1, self._step) * kept[:, -1:]
        rank = torch.searchsorted(kept, threshold, right=True).clamp_(max=ids.shape[-1] - 1)
        return self._take(ids.gather(-1, rank)[:, 0])


class BeamSearch:
    """Beam search by transformers' rules (`GenerationMixin._beam_search`): equal token ids for equal logits.

    A step keeps the C best continuations of a question, C large enough that B of them go on even if as many as there
    are end tokens end. Those that end and are among the best B compete for the B finished replies by their score over
    length to the power of the penalty; the best B that go on are the next beams.

    Args:
        generation: see `Generation`.
        num_questions: Q.
        ends: int64, ids that end a reply.
    """

    _per_question = (
        *("_running", "_running_scores", "_order", "_replies", "_scores", "_ended", "_improvable"),
        *("finite", "margin"),
    )

    def __init__(self, generation: Generation, num_questions: int, ends: Tensor) -> None:
        self._settings, self._ends = generation, ends
        beams, device = generation.num_beams, ends.device
        self._candidates = max(2, 1 + len(ends)) * beams
        self._unchanged = torch.arange(beams, device=device)
        self._ranked_within = torch.arange(self._candidates, device=device) < beams
        lengths = [float(n**generation.length_penalty) for n in range(1, generation.max_new_tokens + 1)]
        self._lengths = torch.tensor(lengths, device=device)  # what scores are divided by after each step
        self._is_last = torch.arange(generation.max_new_tokens, device=device) == generation.max_new_tokens - 1
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        shape = (num_questions, beams, generation.max_new_tokens)
        self._running = torch.zeros(shape, dtype=torch.long, device=device)
        self._running_scores = torch.zeros(num_questions, beams, device=device)
        self._order = torch.zeros(num_questions, beams, dtype=torch.long, device=device)
        self._replies = torch.zeros(shape, dtype=torch.long, device=device)
        self._scores = torch.zeros(num_questions, beams, device=device)
        self._ended = torch.zeros(num_questions, beams, dtype=torch.bool, device=device)
        self._improvable = torch.ones(num_questions, 1, dtype=torch.bool, device=device)
        self.finite = torch.ones(num_questions, dtype=torch.bool, device=device)
        self.margin = torch.zeros(num_questions, device=device)
        self.restart(())

    def restart(self, draws: Sequence[int]) -> None:
        """See `Search.restart`."""
        for tensor in (self._step, self._running, self._replies, self._ended):
            tensor.zero_()
        self._running_scores.fill_(IMPOSSIBLE)[:, 0] = 0  # the beams begin as one
        self._scores.fill_(IMPOSSIBLE)
        for flags in (self._improvable, self.finite):
            flags.fill_(True)
        self.margin.fill_(float("inf"))

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Search.advance`."""
        num_logits = logits.shape[-1]
        totals = torch.log_softmax(logits, dim=-1) + self._running_scores[..., None]  # (Q, B, V)
        best, index = torch.topk(totals.flatten(1), min(self._candidates, totals[0].numel()))  # (Q, C)
        parents, tokens = index // num_logits, index % num_logits
        sequences = torch.take_along_dim(self._running, parents[..., None], dim=1)
        sequences.index_copy_(2, self._step, tokens[..., None])
        ends = (tokens[..., None] == self._ends).any(-1)
        ends |= self._is_last.index_select(0, self._step)
        length = self._lengths.index_select(0, self._step)
        self._step += 1
        self._note(logits, best)
        self._keep_ended(best, sequences, ends, length)
        torch.topk(best.add_(ends, alpha=IMPOSSIBLE), self._settings.num_beams, out=(self._running_scores, self._order))
        order = self._order
        torch.gather(sequences, 1, order[..., None].expand_as(self._running), out=self._running)
        self._update_improvable(length)
        return tokens.gather(1, order), parents.gather(1, order)

    def _note(self, logits: Tensor, best: Tensor) -> None:
        """Whether all logits are numbers, and how close the cut between the beams and the next best came."""
        beams, open_ = self._settings.num_beams, ~self.done()
        self.finite &= ~open_ | _finite(logits)
        gap = (best[:, beams - 1] - best[:, beams]).masked_fill_(~open_, float("inf"))
        torch.minimum(self.margin, gap, out=self.margin)

    def _keep_ended(self, best: Tensor, sequences: Tensor, ends: Tensor, length: Tensor) -> None:
        """Let the continuations that have just ended compete for the finished replies."""
        ended = ends & self._ranked_within[: ends.shape[1]]
        scores = best / length
        if self._settings.early_stopping:
            scores.add_(self._ended.all(-1, keepdim=True), alpha=IMPOSSIBLE)
        scores.add_(~self._improvable, alpha=IMPOSSIBLE).add_(~ended, alpha=IMPOSSIBLE)
        merged = torch.cat([self._scores, scores], 1)
        order = torch.topk(merged, self._settings.num_beams).indices
        # a search for this question alone would have stopped: equal scores must not change places now
        order = torch.where(self.done()[:, None], self._unchanged, order)
        torch.gather(merged, 1, order, out=self._scores)
        replies = torch.cat([self._replies, sequences], 1)
        torch.gather(replies, 1, order[..., None].expand_as(self._replies), out=self._replies)
        torch.gather(torch.cat([self._ended, ended], 1), 1, order, out=self._ended)

    def _update_improvable(self, length: Tensor) -> None:
        """Whether a running beam could still beat the worst of the finished replies."""
        possible = self._running_scores[:, :1] / length
        worst = torch.where(self._ended, self._scores.min(dim=1, keepdim=True).values, IMPOSSIBLE)
        self._improvable &= (possible > worst).any(-1, keepdim=True)

    def select(self, questions: Tensor) -> None:
        """See `Search.select`."""
        _select(self, self._per_question, questions)

    def done(self) -> Tensor:
        """See `Search.done`."""
        if self._settings.early_stopping:
            return ~self._improvable[:, 0] | self._ended.all(-1)
        return ~self._improvable[:, 0]

    def sequences(self) -> Tensor:
        """See `Search.sequences`."""
        return self._replies[:, 0]
