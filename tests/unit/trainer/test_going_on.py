"""Held-out loss, other settings, other data, other optimizers, packed rows: what they change, and what they leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from collavo.checkpoint.finetuned_checkpoint import read_state
from collavo.errors import CheckpointError
from collavo.load_collavo import load_model
from collavo.options import LLMConfig
from collavo.trainable_parts import PARTS, is_crayon
from configs.load import ConfigError
from pipeline.runtime.errors import RunError
from pipeline.runtime.session import AgreedError
from tests.tiny_training import STEP
from tests.unit.collavo.test_xcomposer2 import as_base, base_weights, write_base
from tests.unit.trainer.test_updates import Run, configured, files, losses, run
from trainer.check import check
from trainer.config import read_training
from trainer.data.batches import Batch, collate
from trainer.held_out import validate
from trainer.loop import BatchTotals
from trainer.merge import merge
from trainer.run import _go_on, load_job

__all__ = ["run"]
CIT = ("TRAIN.STAGE", "cit")
CPU = torch.device("cpu")
WORLD_WITH_DROPOUT = 3
pytestmark = pytest.mark.slow  # whole training runs


def rows(save: Path, key: str) -> list[dict[str, Any]]:
    return [row for line in (save / "log.jsonl").read_text().splitlines() if key in (row := json.loads(line))]


def test_a_held_out_share_is_not_trained_on_and_changes_nothing_else(run: Run, tiny: Path, tmp_path: Path) -> None:
    """Images that are held out of one source are held out of the other; validating draws no dropout."""
    more = (*CIT, "DATA.VALIDATION", 0.3, "LORA.DROPOUT", 0.2)
    (often, job, _), (seldom, *_) = (
        run("often", *more, "TRAIN.VALIDATE_EVERY", 1),
        run("seldom", *more, "TRAIN.VALIDATE_EVERY", 99),
    )
    assert files(often, 4) == files(seldom, 4)
    found = rows(often, "validation_loss")
    assert [row["step"] for row in found] == [1, 2, 3, 4] and len(rows(seldom, "validation_loss")) == 1
    assert {key for key in found[0] if key.startswith("validation/")} == {
        "validation/panoptic",
        "validation/tiny_instruct",
    }
    data: Any = job
    trained = {s.image.name.split("/")[-1] for s in data.data._batches.by_adapter["vl_cit"]._samples if s.image}
    held = {s.image.name.split("/")[-1] for s in data.held_out._batches.by_adapter["vl_cit"]._samples if s.image}
    images = {p.image.name for p in data.held_out._batches.by_adapter["image_cit"]._images}
    assert held and images and not trained & (held | images)


def test_a_share_that_holds_nothing_out_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DATA\.VALIDATION 0\.0001: this share holds out none of the samples"):
        load_job(configured(tiny, tmp_path, *CIT, "DATA.VALIDATION", 0.0001, "TRAIN.PATIENCE", 3), CPU)


def test_the_held_out_loss_is_that_of_the_model_row_by_row(run: Run, tiny: Path, tmp_path: Path) -> None:
    save, job, _ = run("out", *CIT, "DATA.VALIDATION", 0.3, "TRAIN.BATCH_SIZE", 3)
    data: Any = job
    model = data.model.eval()
    total = labels = 0.0
    for adapter, source in data.held_out._batches.by_adapter.items():
        for index in range(len(source.lengths)):
            batch = collate([source.example(index, 2**40)], data._parts.processor)
            with torch.no_grad():
                total += float(batch.losses(model, BatchTotals(samples=1, labels=1))[0])
            labels += batch.num_labels
        assert adapter in ("image_cit", "vl_cit")
    (row,) = rows(save, "validation_loss")[-1:]
    assert row["validation_loss"] == pytest.approx(total / labels, rel=1e-5) and row["validation_labels"] == labels
    kept = json.loads((save / "validation.json").read_text())
    assert [one["step"] for one in kept["validations"]] == [1, 2, 3, 4]


def test_the_best_checkpoint_stays_and_patience_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainer.run as module

    values = iter([5.0, 3.0, 4.0, 6.0, 2.0])

    def validated(*args: Any) -> Any:
        found = validate(*args)
        return type(found)(step=found.step, loss=next(values), sources=found.sources, labels=found.labels)

    monkeypatch.setattr(module, "validate", validated)
    more = ("DATA.VALIDATION", 0.3, "TRAIN.VALIDATE_EVERY", 1, "TRAIN.SAVE_EVERY", 99, "TRAIN.KEEP", 1)
    save, *_ = run("out", *more, "TRAIN.STEPS", 9, "TRAIN.PATIENCE", 2)
    assert [row["step"] for row in rows(save, "validation_loss")] == [1, 2, 3, 4]
    assert sorted(path.name for path in (save / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]
    assert json.loads((save / "validation.json").read_text())["best"] == 2


def test_other_settings_go_on_where_that_is_asked_for(run: Run) -> None:
    save, *_ = run("out", "TRAIN.STEPS", 2)
    asked = ("RESUME", True, "TRAIN.STEPS", 4, "TRAIN.LR", 1e-4)
    with pytest.raises(
        (RunError, AgreedError), match=r"(?s)TRAIN.LR: 0.001 -> 0.0001.*steps: 2 -> 4.*ON_CHANGE continue"
    ):
        run("out", *asked)
    run("out", *asked, "TRAIN.ON_CHANGE", "continue")
    assert [row["step"] for row in rows(save, "loss")] == [1, 2, 3, 4]
    assert rows(save, "loss")[-1]["learning_rate"] <= 1e-4


def test_another_model_is_no_continuation_whatever_is_asked_for(run: Run) -> None:
    run("out", *CIT, "TRAIN.STEPS", 2)
    with pytest.raises((RunError, AgreedError), match=r"(?s)LORA: .*it is another model"):
        run("out", *CIT, "TRAIN.STEPS", 2, "RESUME", True, "TRAIN.ON_CHANGE", "continue", "LORA.R", 2)


def weights(save: Path, step: int, name: str) -> dict[str, Tensor]:
    return load_file(save / STEP.format(step) / name / "adapter_model.safetensors")


def test_step_two_goes_on_with_the_sets_of_another_training(run: Run, tiny: Path) -> None:
    first, *_ = run("first", *CIT)
    start = first / STEP.format(4)
    more = ("RESUME_FROM", start, "TRAIN.LR", 1e-12, "TRAIN.LR_END", 0, "TRAIN.STEPS", 1)
    second, *_ = run("second", *CIT, *more)
    fresh, *_ = run("fresh", *CIT, *more, "LORA.FRESH", True)
    for name in ("image_cit", "vl_cit"):
        for key, tensor in weights(first, 4, name).items():
            torch.testing.assert_close(weights(second, 1, name)[key], tensor, atol=1e-8, rtol=0)
            if "lora_B" in key:
                assert not weights(fresh, 1, name)[key].abs().max() > 1e-8
    state = json.loads((second / STEP.format(1) / "state.json").read_text())
    assert state["started_from"] == str(tiny / "checkpoint")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("TRAIN.STAGE", "cpt"), "stage cpt trains none; lbk_entry.py merge"),
        ((*CIT, "TRAIN.ADAPTERS", "vl_only"), r"TRAIN.ADAPTERS dual goes on with them"),
        ((*CIT, "LORA.R", 8), r"set LORA.R 4 LORA.ALPHA 4 to go on with them"),
    ],
)
def test_sets_that_do_not_fit_are_refused_with_what_would(
    more: Sequence[object], message: str, run: Run, tiny: Path, tmp_path: Path
) -> None:
    first, *_ = run("first", *CIT, "TRAIN.STEPS", 1)
    config = configured(tiny, tmp_path / "out", "RESUME_FROM", first / STEP.format(1), *more)
    with pytest.raises(RunError, match=message):
        check(config, read_training([], [])[1])


def test_an_8_bit_optimiser_goes_on_bit_for_bit(run: Run) -> None:
    more = (*CIT, "TRAIN.OPTIMIZER", "paged_adamw_8bit", "LORA.R", 64, "LORA.ALPHA", 64)
    straight, *_ = run("straight", *more)
    again = straight.with_name("again")
    shutil.copytree(straight, again)
    shutil.rmtree(again / STEP.format(3))
    shutil.rmtree(again / STEP.format(4))
    run("again", *more, "RESUME", True)
    assert losses(again) == losses(straight)
    kept = [{k: v for k, v in files(save, 4).items() if k != "optimizer.safetensors"} for save in (again, straight)]
    assert kept[0] == kept[1]
    state = load_file(straight / STEP.format(4) / "optimizer.safetensors")
    halves = {tensor.dtype for key, tensor in state.items() if key.endswith("state1") and tensor.numel() >= 4096}
    assert halves == {torch.uint8}


def test_32_bit_adamw_of_bitsandbytes_is_adamw(run: Run) -> None:
    (ours, *_), (theirs, *_) = run("ours", *CIT), run("theirs", *CIT, "TRAIN.OPTIMIZER", "paged_adamw")
    assert losses(theirs) == pytest.approx(losses(ours), rel=1e-4)


@pytest.mark.parametrize("questions", [1, 3])
def test_packed_rows_have_the_loss_and_gradient_of_separate_ones(
    questions: int, run: Run, tiny: Path, tmp_path: Path
) -> None:
    """In float64: several images in a row, texts, and questions side by side."""
    more = (*CIT, "TRAIN.QUESTIONS", questions, "TRAIN.BATCH_SIZE", 8)
    found = []
    for pack in (False, True):
        job = load_job(configured(tiny, tmp_path, *more, "TRAIN.PACK", pack), CPU)
        job.model.double()
        job.train_mode()
        gradients = []
        for step in range(3):
            (batch,) = next(iter(job.data.batches(step, step + 1, 0, 1)))
            assert isinstance(batch, Batch)
            job.model.zero_grad(set_to_none=True)
            totals = BatchTotals(samples=len(batch.ids), labels=batch.num_labels)
            loss, by_source = batch.losses(job.model, totals)
            loss.backward()
            named = job.model.named_parameters()
            gradients.append(
                (len(batch.input_ids), float(loss), by_source, {n: p.grad for n, p in named if p.grad is not None})
            )
        found.append(gradients)
    assert any(packed[0] < plain[0] for plain, packed in zip(*found, strict=True))
    for plain, packed in zip(*found, strict=True):
        assert packed[1] == pytest.approx(plain[1], rel=1e-12)
        largest = max(float(value.abs().max()) for value in plain[3].values())
        for name, value in plain[3].items():
            torch.testing.assert_close(packed[3][name], value, rtol=1e-9, atol=1e-12 * largest)


def test_processes_draw_other_dropout_masks() -> None:
    config = SimpleNamespace(TRAIN=SimpleNamespace(SEED=5), LORA=SimpleNamespace(DROPOUT=0.0))
    states = []
    for rank in range(WORLD_WITH_DROPOUT):
        torch.manual_seed(5)
        torch.rand(3)  # adapters are drawn alike everywhere
        _go_on(config, None, None, SimpleNamespace(rank=rank, world=WORLD_WITH_DROPOUT))  # type: ignore[arg-type]
        states.append(torch.rand(4))
    torch.manual_seed(5)
    torch.rand(3)
    assert torch.equal(states[0], torch.rand(4))  # one process draws what it always drew
    assert not any(torch.equal(states[0], other) for other in states[1:]) and not torch.equal(states[1], states[2])


def test_epochs_count_passes_over_the_conversations(tiny: Path, tmp_path: Path) -> None:
    job = load_job(configured(tiny, tmp_path, *CIT, "TRAIN.STEPS", "None", "TRAIN.EPOCHS", 2), CPU)
    steps = job.steps
    assert job.data.passes(steps)["tiny_instruct"] == pytest.approx(2, abs=8 / 13)
    by_size = load_job(configured(tiny, tmp_path, *CIT, "TRAIN.IMAGE_SHARE", "None", "TRAIN.STEPS", 4), CPU)
    many = by_size.data.passes(4000)
    assert many["panoptic"] == pytest.approx(many["tiny_instruct"], rel=0.1)


def test_weights_and_limits_of_sources(tiny: Path, tmp_path: Path) -> None:
    data = tiny / "data"
    listed = (
        f"[{{FILE: {data}/LLaVA/tiny_instruct.json, IMAGES: {data}, WEIGHT: 3, MAX_SAMPLES: 5}}, "
        f"{{FILE: {data}/LLaVA/tiny_instruct.json, IMAGES: {data}}}]"
    )
    job = load_job(configured(tiny, tmp_path, *CIT, "DATA.CONVERSATIONS", listed), CPU)
    passes = job.data.passes(500)
    assert passes["tiny_instruct"] == pytest.approx(3 * passes["tiny_instruct (2)"])


def test_targets_and_ranks_are_those_asked_for_and_load_anywhere(run: Run, tiny: Path, tmp_path: Path) -> None:
    more = (*CIT, "LORA.TARGETS", "[w2, wqkv]", "LORA.RANKS", "{vl_cit: 2}", "TRAIN.STEPS", 2)
    save, job, _ = run("out", *more)
    folder = save / STEP.format(2)
    for name, rank in (("image_cit", 4), ("vl_cit", 2)):
        held = weights(save, 2, name)
        assert {key.split(".")[-4] for key in held} == {"wqkv", "w2"}
        assert {tensor.shape[0] for key, tensor in held.items() if "lora_A" in key} == {rank}
    state = read_state(folder)
    assert (state.ranks, state.targets, state.rank_of("image_cit")) == ({"vl_cit": 2}, ("wqkv", "w2"), 4)
    loaded = load_model(LLMConfig(BITS=32, DTYPE="fp32"), folder, CPU)
    trained = dict(job.model.named_parameters())
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, trained[name]), name
    run("out", *more, "TRAIN.STEPS", 2, "RESUME", True)
    config = configured(tiny, tmp_path / "other", *CIT, "RESUME_FROM", folder)
    with pytest.raises(RunError, match=r"LORA.RANKS \{'vl_cit': 2\} and LORA.TARGETS \[wqkv, w2\]: set these"):
        check(config, read_training([], [])[1])
    with pytest.raises(ConfigError, match="LORA.RANKS: 'nope' is no adapter of TRAIN.ADAPTERS dual"):
        configured(tiny, tmp_path, "LORA.RANKS", "{nope: 3}")


def test_a_base_without_a_crayon_prompt_gets_a_fresh_one(run: Run, tiny: Path, tmp_path: Path) -> None:
    """It changes no answer at first, is trained, and the checkpoint loads over the same base."""
    bare = tmp_path / "bare"
    shutil.copytree(tiny / "checkpoint", bare)
    tensors = load_file(bare / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not is_crayon(name)}
    save_file(kept, bare / "model.safetensors", {"format": "pt"})
    llm = LLMConfig(BITS=32, DTYPE="fp32")
    with pytest.raises(CheckpointError, match="has no crayon prompt; train one first"):
        load_model(llm, bare, CPU)
    save, job, before = run("out", "RESUME_FROM", bare, "TRAIN.STEPS", 2)
    fresh = {name: tensor for name, tensor in before.items() if is_crayon(name)}
    assert fresh.keys() == {name for name in tensors if is_crayon(name)}
    assert all(not tensor.any() for name, tensor in fresh.items() if ".crayon_b." in name)
    assert fresh["crayon.semantic.weight"].std() == pytest.approx(1, abs=0.05)
    loaded = dict(load_model(llm, save / STEP.format(2), CPU).named_parameters())
    for name, tensor in load_file(save / STEP.format(2) / "crayon.safetensors").items():
        assert torch.equal(loaded[name], tensor)
    assert any(not torch.equal(loaded[name], tensor) for name, tensor in fresh.items() if ".crayon_b." in name)
    del tensors["crayon.numbering.weight"]
    save_file(tensors, bare / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks crayon.numbering.weight"):
        load_job(configured(tiny, tmp_path / "other", "RESUME_FROM", bare), CPU)


def test_step_1_begins_from_internlm_xcomposer2_vl(run: Run, tiny: Path, tmp_path: Path) -> None:
    """Its first update is that of the same weights in our layout, and what it leaves can be merged and asked."""
    base = tmp_path / "internlm-xcomposer2-vl-7b"
    as_base(tiny / "checkpoint", base)
    tensors = load_file(tiny / "checkpoint" / "model.safetensors")
    write_base(base, base_weights(tensors))
    bare = tmp_path / "bare"
    shutil.copytree(tiny / "checkpoint", bare)
    kept = {name: tensor for name, tensor in tensors.items() if not is_crayon(name)}
    save_file(kept, bare / "model.safetensors", {"format": "pt"})
    # CoLLaVO's config.json says the dropout, the base's code has 0.05
    values = json.loads((bare / "config.json").read_text())
    values["text_config"]["plora_dropout"] = 0.05
    (bare / "config.json").write_text(json.dumps(values))
    (mine, *_), (same, *_) = (
        run("mine", "RESUME_FROM", base, "TRAIN.STEPS", 2),
        run("same", "RESUME_FROM", bare, "TRAIN.STEPS", 2),
    )
    assert losses(mine) == losses(same) and losses(mine)[0] > 0
    folder = mine / STEP.format(2)
    assert (folder / "crayon.safetensors").read_bytes() == (same / STEP.format(2) / "crayon.safetensors").read_bytes()
    merge(folder, tmp_path / "whole", dtype="fp32", released=False)
    llm = LLMConfig(BITS=32, DTYPE="fp32")
    merged, loaded = load_model(llm, tmp_path / "whole", CPU).state_dict(), load_model(llm, folder, CPU).state_dict()
    assert merged.keys() == loaded.keys() and all(torch.equal(merged[name], loaded[name]) for name in merged)


@pytest.mark.parametrize("part", ["projector", "tower"])
def test_parts_of_the_base_are_trained_kept_and_loaded(part: str, run: Run, tiny: Path, tmp_path: Path) -> None:
    starts = PARTS[part]
    save, job, before = run("out", *CIT, "TRAIN.PARTS", f"[{part}]", "TRAIN.STEPS", 3)
    trained = dict(job.model.named_parameters())
    moved = {name for name, tensor in job.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in moved if ".lora_" not in name} and all(
        name.startswith(starts) for name in moved if ".lora_" not in name
    )
    folder = save / STEP.format(3)
    assert read_state(folder).parts == (part,)
    loaded = load_model(LLMConfig(BITS=32, DTYPE="fp32"), folder, CPU)
    assert all(torch.equal(parameter, trained[name]) for name, parameter in loaded.named_parameters())
    # a later stage that trains none of it keeps it
    more = ("RESUME_FROM", folder, "TRAIN.STEPS", 1)
    later, other, _ = run("later", *CIT, *more)
    assert read_state(later / STEP.format(1)).parts == (part,)
    for name, parameter in other.model.named_parameters():
        assert not name.startswith(starts) or torch.equal(parameter, trained[name]), name
