"""What a training step or a GPU needs of the layers beyond their numbers."""

import pytest
import torch

from mmaudio.model.blocks import SelfAttention
from mmaudio.model.layers import nearest_exact_index, rope_table


@pytest.mark.parametrize(("table", "sizes"), [(rope_table, (11, 8, 1.5)), (nearest_exact_index, (7, 13))])
def test_tables_are_made_once_and_serve_training_after_inference(table, sizes):
    table.cache_clear()
    with torch.inference_mode():
        made = table(*sizes)
    assert not made.is_inference()
    assert table(*sizes) is made
    assert table(*sizes, device=torch.device("meta")).is_meta


def test_fused_attention_can_take_them():
    """Its kernels want channels side by side; torch silently takes the slow one otherwise."""
    attn = SelfAttention(dim=16, num_heads=2)
    assert [x.stride(-1) for x in attn(torch.randn(3, 5, 16), rope_table(5, 8))] == [1, 1, 1]
