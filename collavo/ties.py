"""Finding the answers that rounding could change, and those that were never computed.

A batched matrix product rounds a little differently for another batch size, so the same question asked in another
company can get other last digits in its scores. That changes an answer only where two candidates are almost equal. The
tracker below measures how close the decisions of a search came; what comes closer than a margin is asked again alone,
which makes every answer independent of batch size, number of processes and resumption.

A search over scores that are NaN or infinite still chooses tokens. The tracker marks the questions that this happened
to: the mark is kept on the device and read once, so that no step waits for it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor


class MarginTracker(LogitsProcessor):
    """Watches a greedy or beam search and keeps, per question, the smallest gap at a decision.

    With K beams a step keeps the K best continuations that do not end, and lets those among the K best of all that do
    end become answers: both cuts, between rank K and K + 1, are decisions.

    Args:
        num_questions: rows of the batch before beams.
        num_beams: K; 1 is greedy.
        prompt_length: tokens before the first generated one.
        end_ids: ids that end an answer.
    """

    def __init__(self, num_questions: int, num_beams: int, prompt_length: int, end_ids: list[int]) -> None:
        self.num_questions, self.num_beams, self.prompt_length = num_questions, num_beams, prompt_length
        self.end_ids = end_ids
        self.margins = torch.full((num_questions,), float("inf"))
        self._finite: Tensor | None = None  # (questions,), on the scores' device
        self._totals: list[dict[tuple[int, ...], Tensor]] = []  # per question: beam so far -> scores of its successors

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Look at one step's candidates; the scores pass through unchanged.

        Args:
            input_ids: int64 (questions * K, length), the running beams.
            scores: (questions * K, vocabulary): log-probabilities, or logits in a greedy search.
        """
        finite = torch.isfinite(scores).view(self.num_questions, -1).all(dim=-1)
        self._finite = finite if self._finite is None else self._finite & finite
        log_probs = torch.log_softmax(scores.float(), dim=-1).view(self.num_questions, self.num_beams, -1)
        beams = input_ids[:, self.prompt_length :].view(self.num_questions, self.num_beams, -1).tolist()
        previous, self._totals = self._totals, []
        for question, (sequences, step) in enumerate(zip(beams, log_probs, strict=True)):
            alive = {tuple(ids): row for ids, row in zip(reversed(sequences), reversed(step), strict=True)}
            if previous:
                alive = {ids: row + _total(previous[question], ids) for ids, row in alive.items()}
            self._totals.append(alive)
            margin = self._margin(torch.stack(list(alive.values())))
            self.margins[question] = torch.minimum(self.margins[question], margin.cpu())
        return scores

    def finite(self) -> list[bool]:
        """Per question, whether all scores of all its steps were finite; waits for the device."""
        return [True] * self.num_questions if self._finite is None else self._finite.tolist()

    def _margin(self, totals: Tensor) -> Tensor:
        """Smaller gap of the two cuts, over all continuations (beams, vocabulary)."""
        rank = self.num_beams
        best = torch.topk(totals.flatten(), min(rank + 1, totals.numel())).values
        going_on = totals.clone()
        going_on[:, self.end_ids] = float("-inf")
        best_going_on = torch.topk(going_on.flatten(), min(rank + 1, totals.numel())).values
        gaps = [row[rank - 1] - row[rank] for row in (best, best_going_on) if len(row) > rank]
        return torch.stack([*gaps, torch.tensor(float("inf"), device=totals.device)]).min()

    def note_final(self, final_scores: Tensor) -> None:
        """Take in the choice among finished answers.

        Args:
            final_scores: (questions * K,), scores of the K best answers of each question, best first.
        """
        ranked = final_scores.float().view(self.num_questions, -1).cpu()
        if ranked.shape[1] > 1:
            self.margins = torch.minimum(self.margins, ranked[:, 0] - ranked[:, 1])


def _total(successors: dict[tuple[int, ...], Tensor], ids: tuple[int, ...]) -> Tensor:
    """Score of a beam: that of its parent's continuation by the beam's last token."""
    parent = successors.get(ids[:-1])
    if parent is None:  # a finished question's filler beams: they decide nothing
        return torch.tensor(float("-inf"), device=next(iter(successors.values())).device)
    return parent[ids[-1]]
