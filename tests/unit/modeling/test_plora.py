"""PLoRA: low-rank paths at image positions only, shared crayon vectors, dropout in training."""

import torch

from modeling.plora import ImageTokens, PLoRALinear


def layer(**settings: float) -> PLoRALinear:
    torch.manual_seed(0)
    return PLoRALinear(12, 20, rank=4, alpha=10.0, **settings).eval()  # type: ignore[arg-type]


def dense(plora: PLoRALinear, x: torch.Tensor, mask: torch.Tensor, crayon: torch.Tensor) -> torch.Tensor:
    """The definition, token by token, with a mask instead of gathered rows."""
    low = x @ plora.image_a.weight.T @ plora.image_b.weight.T
    assert plora.crayon_a is not None and plora.crayon_b is not None
    low = low + crayon @ plora.crayon_a.weight.T @ plora.crayon_b.weight.T
    return x @ plora.base.weight.T + 2.5 * low * mask[..., None]


def test_equals_the_definition_with_shared_vectors() -> None:
    plora, x = layer(), torch.randn(3, 7, 12)
    mask = torch.rand(3, 7) < 0.5
    vectors, index = torch.randn(4, 12), torch.randint(0, 4, (3, 7))
    positions = mask.flatten().nonzero()[:, 0]
    ours = plora(x, ImageTokens(positions, vectors, index.flatten()[positions]))
    torch.testing.assert_close(ours, dense(plora, x, mask.float(), vectors[index]), atol=1e-5, rtol=0)


def test_text_positions_are_untouched_to_the_bit() -> None:
    plora, x = layer(), torch.randn(2, 5, 12)
    ours = plora(x, ImageTokens(torch.tensor([1, 6]), torch.randn(1, 12), torch.zeros(2, dtype=torch.long)))
    text = torch.ones(10, dtype=torch.bool).index_fill_(0, torch.tensor([1, 6]), False)
    assert torch.equal(ours.flatten(0, 1)[text], plora(x, None).flatten(0, 1)[text])
    assert not torch.equal(ours.flatten(0, 1)[~text], plora(x, None).flatten(0, 1)[~text])


def test_training_drops_per_token_although_vectors_are_shared() -> None:
    plora = layer(dropout=0.5).train()
    torch.nn.init.zeros_(plora.image_b.weight)
    x = torch.zeros(1, 6, 12)
    image = ImageTokens(torch.arange(6), torch.ones(1, 12), torch.zeros(6, dtype=torch.long))
    rows = plora(x, image)[0]
    assert len({tuple(row.tolist()) for row in rows}) > 1
    plora.eval()
    rows = plora(x, image)[0]
    torch.testing.assert_close(rows, rows[:1].expand_as(rows))


def test_without_a_crayon_pair_the_vector_is_ignored() -> None:
    plora = PLoRALinear(12, 20, rank=4, alpha=4.0, crayon=False).eval()
    x, positions = torch.randn(1, 3, 12), torch.tensor([0, 2])
    with_vector = plora(x, ImageTokens(positions, torch.randn(1, 12), torch.zeros(2, dtype=torch.long)))
    assert torch.equal(with_vector, plora(x, ImageTokens(positions)))
