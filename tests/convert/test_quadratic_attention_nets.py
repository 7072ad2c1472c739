"""Layout of the attention-CNN code."""

import pytest
import torch

from hybrid_mm.backbones import QuadraticAttentionEncoder
from hybrid_mm.convert import convert, detect, unwrap
from hybrid_mm.layers.attention.quadratic_attention import MODES

SELF = {
    'centers': 'attention_centers', 'spreads': 'attention_spreads',
    'table_h': 'col_embeddings.weight', 'table_w': 'row_embeddings.weight',
    'head_h': 'head_keys_col.weight', 'head_w': 'head_keys_row.weight',
}  # fmt: skip
PARTS = {
    'proj': 'attention.output.dense', 'norm1': 'attention.output.LayerNorm',
    'fc1': 'intermediate.dense', 'fc2': 'output.dense', 'norm2': 'output.LayerNorm',
}  # fmt: skip


def make(mode):
    return QuadraticAttentionEncoder(mode, channels=6, depth=2, heads=3, hidden_channels=4)


def official(mode, model=None):
    """A model of ours and its weights under the official names, with buffers and classifier."""
    model = model or make(mode)
    state = {'attention_mask': torch.tensor(1.0)}
    for key, value in model.state_dict().items():
        parts = key.split('.')
        if parts[0] == 'embed':
            # patches there: row, column, colour
            value = value.permute(0, 2, 3, 1).flatten(1) if value.ndim > 1 else value
            state[f'features_upscale.{parts[1]}'] = value
            continue
        inner = '.'.join(parts[3:])
        if parts[2] == 'attn':
            name = f'attention.self.{SELF.get(inner, inner)}'
        else:
            name = f'{PARTS[parts[2]]}.{inner}'
        state[f'encoder.layer.{parts[1]}.{name}'] = value
    buffer = 'R' if mode in ('isotropic', 'full') else 'relative_indices'
    for i in range(2):
        state[f'encoder.layer.{i}.attention.self.{buffer}'] = torch.zeros(3, 3)
    state['classifier.weight'], state['classifier.bias'] = torch.randn(10, 6), torch.randn(10)
    return model, state


@pytest.mark.parametrize('mode', MODES)
def test_round_trip(round_trip, mode):
    def layout(model):
        state = official(mode, model)[1]
        return {key: v for key, v in state.items() if not key.startswith('classifier')}

    round_trip(lambda: make(mode), layout, 'attention-cnn', strange='encoder.layer.0.gain')


@pytest.mark.parametrize('mode', MODES)
def test_classifier_and_buffers(mode):
    model, state = official(mode)
    assert detect(state) == 'attention-cnn'
    out = convert(unwrap(dict(epoch=3, test_accuracy=0.9, model_state_dict=state)))
    assert torch.equal(out.pop('head.weight'), state['classifier.weight'])
    assert torch.equal(out.pop('head.bias'), state['classifier.bias'])
    own = model.state_dict()
    assert out.keys() == own.keys()
    assert all(torch.equal(out[k], own[k]) for k in own)
    assert detect(out) is None


def test_patches():
    """The convolution is the linear layer on patches flattened as row, column, colour."""
    model, state = official('isotropic')
    x = torch.rand(1, 3, 6, 8)
    patches = x.permute(0, 2, 3, 1).reshape(1, 3, 2, 4, 2, 3).permute(0, 1, 3, 2, 4, 5).flatten(3)
    linear = torch.nn.functional.linear(
        patches, state['features_upscale.weight'], state['features_upscale.bias']
    )
    torch.testing.assert_close(model.embed(x).permute(0, 2, 3, 1), linear)


def test_unknown_keys():
    _, state = official('learned')
    with pytest.raises(ValueError, match=r"do not know the key 'encoder.layer.0.crossattention.q'"):
        convert({**state, 'encoder.layer.0.crossattention.q': torch.zeros(1)})
    with pytest.raises(ValueError, match='square RGB patches'):
        convert({**state, 'features_upscale.weight': torch.zeros(6, 13)})
