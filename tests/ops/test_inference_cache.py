"""Values that layers keep between forward passes: never wrong, whatever happens to the weights."""

import copy
import pickle

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import LeViT
from hybrid_mm.layers.folded_norm import Conv2dNorm, LinearNorm
from hybrid_mm.ops.inference_cache import InferenceCache, from_weights, keeps


class Net(nn.Module):
    """A convolution and a linear layer with norms, which keep what they merge."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = Conv2dNorm(3, 4), LinearNorm(4, 5)
        self.cache = InferenceCache()

    def forward(self, x):
        with self.cache.of(self):
            return self.linear(self.conv(x).permute(0, 2, 3, 1), 'hardswish')


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().eval()
    for norm in (net.conv.norm, net.linear.norm):
        for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            values.uniform_(0.5, 2)
    return net


X = torch.randn(1, 3, 3, 4, generator=torch.Generator().manual_seed(1))


def plain(net):
    """The layers one by one, with gradients: nothing is kept."""
    y = net.linear.linear(net.conv.norm(net.conv.conv(X)).permute(0, 2, 3, 1))
    return nn.functional.hardswish(net.linear.norm(y.permute(0, 3, 1, 2).flatten(2))).unflatten(
        2, y.shape[1:3]
    )


def check(net):
    with torch.no_grad():
        found = net(X)
        torch.testing.assert_close(found, plain(net).permute(0, 2, 3, 1))
    return found


def train_once(net):
    net.train()
    net(X)  # moves the running statistics
    net.eval()


def set_inner(net):
    net.linear.linear = nn.Linear(4, 5, bias=False)


def set_outer(net):
    other = LinearNorm(4, 5).eval()
    other.norm.running_var.fill_(3.0)
    net.linear = other


CHANGES = {
    'in place': lambda net: net.linear.linear.weight.requires_grad_(False).mul_(2),
    'one entry': lambda net: net.linear.linear.weight.requires_grad_(False)[4, 3].add_(2),
    'through .data': lambda net: net.linear.linear.weight.data.mul_(2),
    'statistics': lambda net: net.conv.norm.running_mean.data.add_(1),
    'shift of the norm': lambda net: net.linear.norm.bias.data.add_(1),
    'other memory': lambda net: setattr(net.conv.conv.weight, 'data', torch.ones(4, 3, 3, 3)),
    'other parameter': lambda net: setattr(
        net.conv.conv, 'weight', nn.Parameter(torch.ones(4, 3, 3, 3))
    ),
    'loaded': lambda net: net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()}),
    'eps': lambda net: setattr(net.linear.norm, 'eps', 1.0),
    'trained': train_once,
    'layer replaced': set_inner,
    'layers replaced': set_outer,
}


@pytest.mark.parametrize('change', CHANGES)
def test_follows_every_change_of_the_weights(net, change):
    before = check(net)
    CHANGES[change](net)
    assert not torch.allclose(check(net), before, atol=1e-4)
    check(net)


@pytest.mark.parametrize('put', [set_inner, set_outer])
def test_follows_changes_of_a_layer_put_in_later(net, put):
    check(net)
    put(net)
    check(net)
    net.linear.linear.weight.data.mul_(2)
    check(net)


def test_keeps_values_without_gradients_only(net):
    made = []

    def value():
        with net.cache.of(net):
            return from_weights(net.conv, 'key', lambda: made.append(1)), keeps(net.conv)

    assert not value()[1]  # with gradients
    with torch.no_grad():
        assert value()[1]
        assert value()[1]
        assert len(made) == 2
        with torch.autocast('cpu'):
            assert not value()[1]
        assert not keeps(net.conv)  # outside of the network
    net.double()
    with torch.no_grad():
        assert not value()[1]


def test_hooks_on_a_layer_are_called(net):
    check(net)
    net.linear.linear.register_forward_hook(lambda module, args, y: y + 1)
    check(net)


def test_copies_are_empty(net):
    check(net)
    assert net.cache.values
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert not other.cache.values
        other.linear.linear.weight.data.mul_(2)
        check(other)
        check(net)


def test_levit_keeps_weights_and_biases_and_deploys():
    torch.manual_seed(0)
    arch = dict(
        embed_dims=(16, 16, 24), key_dims=(4, 4, 4), heads=(1, 2, 2), depths=(1, 1, 1),
        mlp_ratios=(2, 2, 2), value_ratios=(2, 2, 2), shrink_heads=(None, 2, 2),
        shrink_key_dims=(None, 4, 4), shrink_value_ratios=(None, 4, 4),
        shrink_mlp_ratios=(None, 2, 2),
    )  # fmt: skip
    net = LeViT(arch, img_size=64, zero_init_residual=False).eval()
    for name, value in net.state_dict().items():
        if 'distance_bias' in name or 'running_mean' in name:
            value.normal_()
    x = torch.randn(2, 3, 64, 64)
    wanted = [y.detach() for y in net(x)]
    with torch.no_grad():
        for network in (net, copy.deepcopy(net)):
            if network is not net:
                network.switch_to_deploy()
            for _ in range(2):
                for found, expected in zip(network(x), wanted, strict=True):
                    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
            layers = {type(layer).__name__ for layer, _ in network._cache.values}
            assert layers == {'LinearNorm', 'Conv2dNorm', 'LeViTAttention'}
