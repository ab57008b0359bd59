"""Mutations of important lines, each of which the named tests must notice; ``python -m tests.mutants`` tries them.

A mutation stands for its kind: when it survives, the tests lack a case, and get one. Whoever rewrites a mutated line
moves its mutation along; ``tests/unit/test_mutations.py`` says which text is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One change of one line.

    Attributes:
        file: from the root of the repository.
        old: text that stands in it exactly once.
        new: what replaces it.
        tests: files, folders or single tests that must fail then; separated by spaces.
    """

    file: str
    old: str
    new: str
    tests: str


def _of(file: str, tests: str, *changes: tuple[str, str]) -> Iterator[Mutation]:
    for old, new in changes:
        yield Mutation(file=file, old=old, new=new, tests=tests)


_EVALUATION = "tests/unit/evaluation"

MUTATIONS: tuple[Mutation, ...] = (
    # --- reading a reply ---------------------------------------------------------------------------------------------
    *_of(
        "datasets/evaluation/parsing/letters.py",
        f"{_EVALUATION}/test_letters.py",
        ("tokens.index(said[0]) >= len(tokens) - _LAST_TOKENS", "tokens.index(said[0]) > len(tokens) - _LAST_TOKENS"),
        ("len(said_lower) > 2 * sum(", "len(said_lower) >= 2 * sum("),
        ("str(said[0]) if len(said) == 1 else", "str(said[0]) if said else"),
        ("if not said and UNSURE in tokens:", "if UNSURE in tokens:"),
        ("letter = text.strip()[:1].upper()", "letter = text.strip()[:1]"),
        ('plain = _NEGATED.sub(" ", _plain(text))', "plain = _plain(text)"),
        ("    if len(standing) == 1:\n", "    if standing:\n"),
        ("if not any(option != other and option in other for other", "if not any(option == 0 for other"),
        ('return longest[0] if len(longest) == 1 else ""', 'return longest[0] if longest else ""'),
    ),
    *_of(
        "datasets/evaluation/yes_no.py",
        f"{_EVALUATION}/test_yes_no.py",
        ('text.partition(".")[0].replace(",", "")', 'text.replace(",", "")'),
        ('word in ("No", "not", "no")', 'word in ("No", "no")'),
        ('return "no" if any(word in', 'return "no" if all(word in'),
        ("precision = tp / (tp + fp) if", "precision = tp / (tp + fn) if"),
        ("f1 = 2 * precision * recall / (precision + recall)", "f1 = precision * recall / (precision + recall)"),
        ("value = None if None in values else sum(", "value = sum("),
    ),
    *_of(
        "datasets/evaluation/mme.py",
        f"{_EVALUATION}/test_mme.py",
        ('if word in head[:4]), "")', 'if word in head), "")'),
        ("both = [float(all(", "both = [float(any("),
        ("sum(values) if len(values) == len(names) else None", "sum(values)"),
    ),
    *_of(
        "datasets/evaluation/vqa_accuracy.py",
        f"{_EVALUATION}/test_vqa_accuracy.py",
        ("_FULL_AGREEMENT = 3", "_FULL_AGREEMENT = 2"),
        ("min(1.0, (matches - 1) / _FULL_AGREEMENT)", "min(1.0, matches / _FULL_AGREEMENT)"),
        ("if word not in _ARTICLES)", ")"),
        ('if grouped or f"{mark} " in text', 'if f"{mark} " in text'),
    ),
    *_of(
        "datasets/evaluation/relaxed.py",
        f"{_EVALUATION}/test_relaxed.py",
        ("abs(said - right) / abs(right) <= tolerance", "abs(said - right) / abs(right) < tolerance"),
        ("if right and said is not None:", "if right is not None and said is not None:"),
        ("return number if math.isfinite(number) else None", "return number"),
        ("/ 100 if percent else float(text)", "if percent else float(text)"),
    ),
    *_of(
        "datasets/evaluation/grounding.py",
        f"{_EVALUATION}/test_grounding.py",
        ("union = _area(a) + _area(b) - common", "union = _area(a) + _area(b)"),
        ("iou >= self.threshold - _ROUNDING", "iou > self.threshold + _ROUNDING"),
        ("return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)", "return x1, y1, x2, y2"),
        ('if self.box == "xywh" else (x, y, z, w)', 'if self.box == "xyxy" else (x, y, z, w)'),
    ),
    *_of(
        "datasets/evaluation/circular.py",
        f"{_EVALUATION}/test_choice_sets.py",
        ("question: float(all(s.score.value == 1.0", "question: float(any(s.score.value == 1.0"),
        ('        if any(s.record.meta["pass"] == 0 for s in members)\n', ""),
    ),
    *_of(
        "datasets/evaluation/choice.py",
        f"{_EVALUATION}/test_choice_sets.py {_EVALUATION}/test_judging.py",
        ("        if ruled.extracted or not text.strip():\n            return ruled\n", "        return ruled\n"),
        ('missing = 0.0 if self.missing == "wrong" else None', "missing = None"),
        ('no_answer=letter in ("", letters.UNSURE)', 'no_answer=letter == ""'),
    ),
    *_of(
        "datasets/evaluation/hallusion.py",
        f"{_EVALUATION}/test_judged_sets.py",
        ('return said[0] if len(said) == 1 else ""', 'return said[0] if said else ""'),
        ("UNCLEAR if not said else CORRECT", "INCORRECT if not said else CORRECT"),
    ),
    *_of(
        "datasets/evaluation/parsing/numbers.py",
        f"{_EVALUATION}/test_numbers.py {_EVALUATION}/test_relaxed.py",
        ("if self.unit and other.unit and self.unit != other.unit:", "if self.unit != other.unit:"),
        ("if 1.0 in (self.factor, other.factor) else (scaled,)", ""),
    ),
    # --- figures -----------------------------------------------------------------------------------------------------
    *_of(
        "datasets/evaluation/statistics/intervals.py",
        f"{_EVALUATION}/test_intervals.py",
        ("max(between_clusters, between_samples)", "between_samples"),
        ("unseen = Z * Z / (clusters + Z * Z)", "unseen = Z * Z / (samples + Z * Z)"),
        ("effective = spread / variance * ratio * ratio", "effective = spread / variance"),
        ("half = math.sqrt(extra * spread + extra * extra / 4)", "half = math.sqrt(extra * spread)"),
        ("w * (e.value - e.low if w > 0 else e.value - e.high)", "w * (e.value - e.low)"),
        ("    np.fill_diagonal(together, 1.0)\n", "    together = np.eye(len(parts))\n"),
    ),
    *_of(
        "datasets/evaluation/statistics/rates.py",
        f"{_EVALUATION}/test_rates.py {_EVALUATION}/test_choice_sets.py {_EVALUATION}/test_yes_no.py",
        ("    if not groups or not all(groups):\n", "    if not groups:\n"),
        ("or (missing is not None and s.record.target is not None)", "or missing is not None"),
        ('return ("image", image.name) if image else', 'return ("image", scored.record.id) if image else'),
    ),
    # --- who asks what, and what is kept -----------------------------------------------------------------------------
    *_of(
        "pipeline/run/questions.py",
        "tests/unit/pipeline/test_shard.py",
        ("rank = loads.index(min(loads))", "rank = 0"),
        ("world > total + IMAGE_COST * (pieces - 1)", "world > total + 2 * IMAGE_COST * pieces"),
        ("loads[rank] += costs[index]", "loads[rank] += 1"),
        ("for index in sorted(indices) for question in", "for index in indices for question in"),
        ("return number + IMAGE_COST * len(images)", "return number"),
        ("size = min(most, 2 * size)", "size = 2 * size"),
    ),
    *_of(
        "pipeline/run/journal.py",
        "tests/unit/pipeline/test_journal.py",
        ("        if not entry.settled or entry.run not in rank:\n", "        if entry.run not in rank:\n"),
        (
            "        if not entry.settled or entry.run not in rank:\n",
            "        if not entry.settled:\n            continue\n        if rank.setdefault(entry.run, 0) < 0:\n",
        ),
        ("_order(entry, rank) < _order(", "_order(entry, rank) > _order("),
        ("        if torn:\n", "        if False:\n"),
        ("isinstance(values[name], kind) for name, kind", "values[name] is kind or True for name, kind"),
        ("os.O_CREAT | os.O_APPEND", "os.O_CREAT | os.O_TRUNC"),
    ),
    *_of(
        "datasets/subsample.py",
        "tests/unit/datasets/test_subsample.py",
        ("        if drawn and room < 0:\n", "        if room < 0:\n"),
        ("room -= len(members[name])", "room -= 1"),
        ("((index + 1) * total // len(parts[key]), chance", "(index + 1, chance"),
        ("_order(members, strata, 0, str(seed))", '_order(members, strata, 0, "")'),
    ),
    # --- the crayon prompt -------------------------------------------------------------------------------------------
    *_of(
        "collavo/crayon.py",
        "tests/unit/collavo/test_crayon.py",
        ("prompt.semantic[shown] = segment.category_id + 1", "prompt.semantic[shown] = segment.category_id"),
        ("number if number <= MAX_INSTANCES else 0", "min(number, MAX_INSTANCES)"),
        ("        if not shown.any():\n            continue\n        counts", "        counts"),
        ("int(columns[-1]) + 1, int(rows[-1]) + 1", "int(columns[-1]), int(rows[-1])"),
        (
            "return left / width, top / height, right / width, bottom / height",
            "return top / height, left / width, bottom / height, right / width",
        ),
        (".max(-1) >= LEAST_SHARE * step * step", ".max(-1) > LEAST_SHARE * step * step"),
        ("if segment.id in seen or segment.id < 1:", "if segment.id < 1:"),
        ("box = _box(panoptic.id_map == segment.id)", "box = _box(shown)"),
    ),
    # --- the prompt's prefix -----------------------------------------------------------------------------------------
    *_of(
        "modeling/image.py",
        "tests/unit/collavo/test_engine.py",
        ("        digest.update(pixels.data)\n", ""),
    ),
    *_of(
        "collavo/images.py",
        "tests/unit/collavo/test_engine.py",
        ("        while len(self._crayons) > CRAYONS_KEPT:\n", "        while False:\n"),
    ),
    *_of(
        "collavo/decoding.py",
        "tests/unit/collavo/test_engine.py",
        ("self.cache.reorder(self._parents, number)", "self.cache.reorder(self._parents, 0)"),
    ),
    *_of(
        "collavo/decoding.py",
        "tests/unit/collavo/test_block_rows.py",
        ("(self._next_parents - self._first_rows)[places]", "self._next_parents[places]"),
        ("self._tokens[rows], self._positions[rows]", "self._tokens[rows], self._positions[: len(rows)]"),
        ("self._left |= {", "self._left = {"),
    ),
    *_of(
        "collavo/block_rows.py",
        "tests/unit/collavo/test_block_rows.py",
        ("while compared < COMPARED:", "while compared < 1:"),
        ("all(count * size % VECTOR == 0 for size in floats)", "True"),
        ("if not torch.equal(", "if not torch.allclose("),
    ),
    *_of(
        "collavo/engine.py",
        "tests/unit/collavo/test_engine.py",
        ("        if ids[: len(stem)] != stem:\n", "        if False:\n"),
        ("else self.image.key, self.stem\n", "else self.image.key, ()\n"),
        ("kept = new_ids[: ends[0]] if ends else new_ids", "kept = new_ids"),
        ('question = query.question.replace(IMAGE_TAG, "")', "question = query.question"),
        ("[p.prefix_length + len(p.suffix) for", "[p.prefix_length + len(p.suffix) - 1 for"),
        ("if window and (too_large or len(window) >= self.budget.most):", "if False:"),
    ),
    *_of(
        "modeling/shared_prefix.py",
        "tests/unit/modeling/test_shared_prefix.py tests/unit/collavo/test_engine.py",
        ("share = torch.sigmoid(second_lse - first_lse)", "share = torch.sigmoid(first_lse - second_lse)"),
        (
            "own, own_lse = attend(query, key, value, scaling, causal=True)",
            "own, own_lse = attend(query, key, value, scaling)",
        ),
        ("        self.mask[..., prompt_slots:] = 0\n", "        self.mask[...] = 0\n"),
        ("scaling, mask=shared.mask[..., : key.shape[-2]])", "scaling)"),
        (
            "generated.copy_(generated.index_select(2, parents))",
            "generated.copy_(generated.index_select(2, parents.flip(0)))",
        ),
        ("i == 0 or prefix is not prefixes[i - 1]", "i == 0"),
        (
            "        if num_generated == 0:\n            return\n",
            "        if num_generated <= 1:\n            return\n",
        ),
    ),
    *_of(
        "collavo/search.py",
        "tests/unit/collavo/test_search.py",
        ("float(n**generation.length_penalty)", "float(n)"),
        ("self._candidates = max(2, 1 + len(ends)) * beams", "self._candidates = 1 + beams"),
        (
            "self._running_scores.fill_(IMPOSSIBLE)[:, 0] = 0  # the beams begin as one\n",
            "self._running_scores.fill_(0.0)\n",
        ),
        ("best.add_(ends, alpha=IMPOSSIBLE)", "best"),
        ("ended = ends & self._ranked_within[: ends.shape[1]]", "ended = ends"),
        ("(possible > worst).any(-1, keepdim=True)", "(possible < worst).any(-1, keepdim=True)"),
        ("torch.where(total - probabilities < self._top_p", "torch.where(total < self._top_p"),
        ("self.finite &= ~open_ | _finite(logits)", "self.finite &= open_ | _finite(logits)"),
    ),
    *_of(
        "collavo/search.py",
        "tests/unit/collavo/test_block_rows.py",
        (
            "beams, open_ = self._settings.num_beams, ~self.done()",
            "beams, open_ = self._settings.num_beams, self._improvable[:, 0]",
        ),
    ),
    # --- PLoRA, adapters, what is frozen -----------------------------------------------------------------------------
    *_of(
        "modeling/plora.py",
        "tests/unit/modeling/test_plora.py",
        ("self.scale = alpha / rank", "self.scale = 1.0"),
        ("delta = delta + self._crayon_path(image)", "delta = self._crayon_path(image)"),
        ("if self.crayon_a is not None and image.crayon is not None:", "if False:"),
        (
            "(image.crayon)).index_select(0, image.crayon_index)",
            "(image.crayon)).index_select(0, image.crayon_index.flip(0))",
        ),
        ("index_add(0, image.positions, delta)", "index_copy(0, image.positions, delta)"),
    ),
    *_of(
        "trainer/parallel/trainable.py",
        "tests/unit/trainer/test_one_update.py",
        (
            "            parameter.requires_grad_(id(parameter) in wanted)\n",
            "            parameter.requires_grad_(True)\n",
        ),
        ("        if id(parameter) not in wanted and not keep_gradients:\n            parameter.grad = None\n", ""),
        ('[crayon_parameters(model)] if crayon != "none" and "queries" in parts else []', "[crayon_parameters(model)]"),
    ),
    *_of(
        "trainer/optimizer.py",
        "tests/unit/trainer/test_one_update.py",
        ("[group for group in everything if not group[FROZEN]]", "list(everything)"),
    ),
    *_of(
        "trainer/parallel/placement.py",
        "tests/unit/trainer/test_one_update.py",
        ("not among or (not images and id(group) in shared)", "not among"),
        ("nn.utils.clip_grad_norm_(moving, clip or math.inf)", "nn.utils.clip_grad_norm_(moving, math.inf)"),
        ("        if math.isfinite(norm) and not drop:\n", "        if True:\n"),
    ),
    *_of(
        "trainer/loop.py",
        "tests/unit/trainer/test_one_update.py",
        ("total[0] += loss.detach().double()", "total[0] = loss.detach().double()"),
        ("        if stop and not math.isfinite(loss):\n", "        if False:\n"),
        ('group["lr"] = rate * group[FACTOR]', 'group["lr"] = rate'),
    ),
    *_of(
        "trainer/schedule.py",
        "tests/unit/trainer/test_parts.py",
        ("return highest * (step + 1) / rise", "return highest * step / rise"),
        ("max(1, steps - 1 - rise)", "max(1, steps - rise)"),
    ),
    *_of(
        "trainer/data/batches.py",
        "tests/unit/trainer/test_side_by_side.py",
        (
            "seen = (of_column == of_row) | ((of_column == 0) & (of_row > 0))",
            "seen = (of_column == of_row) | (of_row > 0)",
        ),
        ("return torch.where(parts > 0, within + shared,", "return torch.where(parts > 0, within,"),
        ("return int((self.labels[:, 1:] != IGNORE_INDEX).sum())", "return int((self.labels != IGNORE_INDEX).sum())"),
    ),
    *_of(
        "collavo/model.py",
        "tests/unit/collavo/test_model.py tests/unit/trainer/test_parts.py",
        (
            "loss = _summed_loss(logits, labels) / num_items_in_batch",
            "loss = _summed_loss(logits, labels)",
        ),
        ("torch.unique(semantic * rows + numbering", "torch.unique(semantic + numbering"),
        ("return (attention_mask.long().cumsum(-1) - 1).clamp", "return attention_mask.long().cumsum(-1).clamp"),
    ),
    *_of(
        "collavo/training_inputs.py",
        "tests/unit/collavo/test_training_inputs.py",
        ("labels += [*[IGNORE_INDEX] * len(asked), *reply, stop]", "labels += [*asked, *reply, stop]"),
        ("        done = closed + 1\n", "        done = closed\n"),
    ),
)
