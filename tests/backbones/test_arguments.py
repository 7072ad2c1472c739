"""Arguments that have to reach the layers, and published defaults that no shape tells."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.backbones import (
    NAT,
    SAN,
    VAN,
    ACmixSwin,
    BoTNet,
    CoAtNet,
    CvT,
    DiNAT,
    DiNATs,
    EAAAResNet,
    ELSASwin,
    HorNet,
    MaxViT,
    RepLKNet,
    SASAResNet,
    ViT,
)
from hybrid_mm.layers import RecursiveGatedConv

SWIN = dict(embed_dim=8, depths=[1, 2], heads=[2, 2])
ELSA = dict(SWIN, group_width=4)
RESNET = dict(stem=8, bottleneck=True, depths=[1, 1, 2, 1], widths=[8] * 4, out_channels=[16] * 4)


@torch.no_grad()
def drawn(model):
    """In double precision and eval mode, every parameter random."""
    torch.manual_seed(0)
    for name, tensor in model.double().state_dict().items():
        if name.endswith('running_var'):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.5)
    return model.eval()


def like(model, other, change=lambda key, value: value):
    """The first with the weights of the second, changed."""
    model.double().eval()
    model.load_state_dict({k: change(k, v.clone()) for k, v in other.state_dict().items()})
    return model


def image(*size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, *size, dtype=torch.float64, generator=generator)


def same(a, b):
    return all(torch.allclose(x, y, rtol=1e-9) for x, y in zip(a, b, strict=True))


@pytest.mark.part_of('network:ACmixSwin', 'network:ELSASwin')
@pytest.mark.parametrize('network', [ACmixSwin, ELSASwin])
def test_qk_scale_of_window_attention(network):
    """Half the logits: a quarter of the default where a head has 4 channels; ELSA's stay."""
    arch, window = (SWIN, 4) if network is ACmixSwin else (ELSA, 4)
    common = dict(window_size=window, out_indices=(0, 1))
    plain = drawn(network(arch, **common))
    same_scale = like(
        network(arch, qk_scale=4**-0.5 if network is ACmixSwin else 8**-0.5, **common), plain
    )
    other = like(network(arch, qk_scale=0.1, **common), plain)
    maps = [model(image(64, 64)) for model in (plain, same_scale, other)]
    index = 0 if network is ACmixSwin else 1
    assert torch.equal(maps[0][index], maps[1][index])
    assert not torch.allclose(maps[0][1], maps[2][1])
    assert torch.equal(maps[0][0], maps[2][0]) == (network is ELSASwin)


@pytest.mark.part_of('network:ACmixSwin', 'network:ELSASwin')
@pytest.mark.parametrize('network', [ACmixSwin, ELSASwin])
def test_dropout_of_weights_and_of_results(network):
    """Behind the projection it leaves zeros; of the weights none."""
    for rates in (dict(attn_drop=0.5), dict(proj_drop=0.5)):
        arch = SWIN if network is ACmixSwin else ELSA
        model = network(arch, window_size=4, out_indices=(0, 1), **rates).train()
        plain = network(arch, window_size=4, out_indices=(0, 1)).train()
        plain.load_state_dict(model.state_dict())
        for stage in (0, 1):
            layer, other = (m.stages[stage].blocks[0].attn for m in (model, plain))
            x = torch.rand(2, 8, 8, 8 * 2**stage)
            zeros = (layer(x, 0) == 0).double().mean().item()
            assert zeros == pytest.approx(0.5 if 'proj_drop' in rates else 0, abs=0.1), rates
            assert not torch.allclose(layer(x, 0), other(x, 0)), rates


@pytest.mark.part_of('network:BoTNet')
@pytest.mark.parametrize(('arch', 'scaled'), [('bot50', True), ('botnet26t', False)])
def test_scaled_positions(arch, scaled):
    """The paper's position term is scaled like the content term, that of timm's variants is not."""
    assert BoTNet.resolve_arch(arch).scale_pos_embed is scaled
    tiny = dict(
        base=arch,
        depths=[1] * 4,
        channels=[8] * 4,
        heads=[2] * 4,
        attention=[False, False, False, True],
        stem=dict(kind='7x7', channels=8, pool=True),
        ratios=[1] * 4,
    )
    model = drawn(BoTNet(tiny, canvas_size=(64, 64)))
    swapped = like(
        BoTNet(dict(tiny, scale_pos_embed=not scaled), canvas_size=(64, 64)),
        model,
        lambda k, v: v * (4**-0.5 if scaled else 4**0.5) if '.rel_' in k else v,
    )
    assert same(model(image(64, 64)), swapped(image(64, 64)))
    assert not same(model(image(64, 64)), like(swapped, model)(image(64, 64)))


@pytest.mark.part_of('network:HorNet')
def test_scale_of_hornet():
    """1 / 3, on the result of the depthwise convolutions (section 3.1)."""
    arch = dict(depths=[1, 1], dims=[8, 16], orders=[2, 3], filter_sizes=[None, (4, 3)])
    common = dict(out_indices=(0, 1), layer_scale=1.0)
    model = drawn(HorNet(arch, **common))
    other = like(HorNet(arch, scale=1 / 3, **common), model)
    assert same(model(image(32, 48)), other(image(32, 48)))
    layers = [m for m in model.modules() if isinstance(m, RecursiveGatedConv)]
    assert len(layers) == 2
    layer = layers[0]
    x = torch.randn(1, 8, 6, 7, dtype=torch.float64)
    first, context = layer.proj_in(x).split([4, 12], 1)
    context = layer.dwconv(context) / 3
    expected = layer.gates[0](first * context[:, :4]) * context[:, 4:]
    torch.testing.assert_close(layer(x), layer.proj_out(expected))


@pytest.mark.part_of('network:NAT', 'network:DiNAT', 'network:DiNATs')
def test_published_dilations_and_layer_scales():
    long = [1, 2, 1, 3, 1, 4, 1, 5, 1, 2, 1, 3, 1, 4, 1, 5, 1, 5]
    patterns = {
        (DiNAT, 'in1k'): ([1, 8, 1], [1, 4, 1, 4], [1, 2] * 9, [1] * 5),
        (DiNAT, 'in1k-384'): ([1, 13, 1], [1, 6, 1, 6], [1, 3] * 9, [1] * 5),
        (DiNAT, 'coco'): ([1, 28, 1], [1, 7, 1, 14], [1, 3, 1, 5, 1, 7] * 3, [1, 3, 1, 3, 1]),
        (DiNAT, 'ade20k'): ([1, 16, 1], [1, 4, 1, 8], [1, 2, 1, 3, 1, 4] * 3, [1, 2, 1, 2, 1]),
        (DiNAT, 'ade20k-640'): ([1, 20, 1], [1, 5, 1, 10], long, [1, 2, 1, 2, 1]),
        (DiNAT, 'mask2former'): ([1, 14, 1], [1, 4, 1, 7], [1, 2, 1, 3] * 4 + [1, 3], [1] * 5),
        (DiNATs, 'in1k'): ([1, 8], [1, 4], [1, 2] * 9, [1, 1]),
        (DiNATs, 'in1k-384'): ([1, 13], [1, 6], [1, 3] * 9, [1, 1]),
        (DiNATs, 'coco'): ([1, 28], [1, 14], [1, 3, 1, 5, 1, 7] * 3, [1, 3]),
        (DiNATs, 'ade20k'): ([1, 16], [1, 8], [1, 2, 1, 3, 1, 4] * 3, [1, 2]),
        (DiNATs, 'ade20k-640'): ([1, 20], [1, 10], long, [1, 2]),
    }
    for network in (DiNAT, DiNATs):
        assert set(network.recipes) == {name for k, name in patterns if k is network}
    for (network, recipe), expected in patterns.items():
        with torch.device('meta'):
            model = network('large', dilations=recipe)
            default = network('large').dilations
        assert [list(row) for row in model.dilations] == list(expected), (network, recipe)
        assert (default == model.dilations) == (recipe == 'in1k'), (network, recipe)
    scales = {name: arch.layer_scale for name, arch in NAT.arch_zoo.items()}
    assert scales == dict(mini=None, tiny=None, small=1e-5, base=1e-5)
    scales = {name: arch.layer_scale for name, arch in DiNAT.arch_zoo.items()}
    assert scales == dict(mini=None, tiny=None, small=None, base=1e-5, large=None)


@pytest.mark.part_of('network:SASAResNet')
def test_borders_and_scales_of_sasa():
    """By default zeros take part beyond the border, and the logits are not scaled."""
    common = dict(arch=RESNET, heads=2, kernel_size=3)
    model = drawn(SASAResNet(**common))
    maps = model(image(64, 64))
    assert same(maps, like(SASAResNet(**common, border='zero', scale=1.0), model)(image(64, 64)))
    for other in (dict(border='mask'), dict(scale=0.5), dict(scale=(1, 1, 1, 0.5))):
        found = like(SASAResNet(**common, **other), model)(image(64, 64))
        assert torch.equal(found[0], maps[0]) == (other.get('scale') == (1, 1, 1, 0.5))
        assert not torch.allclose(found[3], maps[3]), other


@pytest.mark.part_of('network:EAAAResNet')
def test_weights_of_evolving_logits():
    """alpha * convolved + (1 - alpha) * mixed, mixed being (1 - beta) * new + beta * previous."""
    kwargs = dict(arch=RESNET, heads=2, upsilon=0.25, canvas_size=(64, 64))
    model = drawn(EAAAResNet(**kwargs))
    layer = model.stages[2].blocks[1].conv2
    assert (layer.alpha, layer.beta) == (1.0, 0.5)
    x, previous = torch.randn(1, 8, 4, 4, dtype=torch.float64), torch.randn(1, 2, 16, 16).double()
    for alpha, beta in ((1.0, 0.5), (0.7, 0.2)):
        own = like(EAAAResNet(**kwargs, alpha=alpha, beta=beta), model).stages[2].blocks[1].conv2
        # without the previous logits and the convolution, what is left is their own share
        zero = like(EAAAResNet(**kwargs, alpha=0.0, beta=0.0), model).stages[2].blocks[1].conv2
        new = zero(x, previous)[1]
        mixed = (1 - beta) * new + beta * previous
        convolved = F.relu(F.conv2d(mixed, own.evolve.weight, own.evolve.bias, padding=1))
        expected = alpha * convolved + (1 - alpha) * mixed
        torch.testing.assert_close(own(x, previous)[1], expected)


@pytest.mark.part_of('network:ViT')
def test_positions_of_another_size():
    """Absolute ones are interpolated by cubes, patches of another size as well."""
    arch = dict(embed_dim=16, heads=2, depths=[1, 1])
    common = dict(img_size=64, out_indices=(1,), class_token=False)
    source = drawn(ViT(arch, pretrain_img_size=64, **common)).float()
    target = ViT(arch, pretrain_img_size=96, **common)
    target.load_strictly(source.state_dict(), 'a test')
    token, grid = source.stem.position.detach().split([1, 16], 1)
    grid = grid.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (6, 6), mode='bicubic', align_corners=False).flatten(2)
    torch.testing.assert_close(target.stem.position[:, 1:], expected.transpose(1, 2))
    assert torch.equal(target.stem.position[:, :1], token)
    patches = ViT(arch, 14, pretrain_img_size=56, **dict(common, img_size=56))
    patches.load_strictly(source.state_dict(), 'a test')
    expected = F.interpolate(source.stem.proj.weight, (14, 14), mode='bicubic', align_corners=False)
    torch.testing.assert_close(patches.stem.proj.weight, expected)


@pytest.mark.part_of('network:DiNATs', 'network:EAAAResNet')
@pytest.mark.parametrize(
    ('network', 'name'), [(DiNATs, 'window_size'), (EAAAResNet, 'min_key_dim')]
)
def test_arguments_that_a_network_sets_itself(network, name):
    with pytest.raises(ValueError, match=f'{network.__name__} sets {name} itself; leave it out'):
        network(**{name: 3})


@pytest.mark.part_of('network:VAN')
def test_whole_number_as_layer_scale_of_van():
    """A parameter of integers would have no gradient."""
    arch = dict(embed_dims=[8, 8], depths=[1, 1], mlp_ratios=[1, 1])
    scale = VAN(arch, layer_scale=1, out_indices=(1,)).stages[0].blocks[0].layer_scale_1
    assert scale.dtype == torch.float32
    assert bool((scale == 1).all())


@pytest.mark.part_of('network:NAT')
def test_whole_number_as_layer_scale_of_nat():
    arch = dict(embed_dim=8, depths=[1, 1], heads=[1, 2], mlp_ratio=2, layer_scale=1)
    scale = NAT(arch, out_indices=(1,)).stages[0].blocks[0].gamma1
    assert scale.dtype == torch.float32
    assert bool((scale == 1).all())


@pytest.mark.parametrize(
    ('network', 'positions'),
    [
        pytest.param(VAN, 4, marks=pytest.mark.part_of('network:VAN')),
        pytest.param(SAN, 3, marks=pytest.mark.part_of('network:SAN')),
        pytest.param(CvT, 8, marks=pytest.mark.part_of('network:CvT')),
        pytest.param(RepLKNet, 1, marks=pytest.mark.part_of('network:RepLKNet')),
    ],
)
def test_number_of_channels_by_position(network, positions):
    """It was the next argument once, and must not be taken for another one."""
    parameters = list(inspect.signature(network).parameters.values())
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters[:positions])
    with pytest.raises(TypeError, match='positional'):
        network(*(p.default for p in parameters[:positions]), 3)


@pytest.mark.part_of('network:MaxViT', 'network:CoAtNet')
def test_arguments_of_layers_are_dicts():
    for network, key in ((MaxViT, 'conv'), (MaxViT, 'norm'), (CoAtNet, 'attention')):
        arch = {**next(iter(network.arch_zoo.values())).to_dict(), key: [1]}
        expected = rf'{network.__name__}: arch\.{key} must be a dict, got \(1,\)'
        with pytest.raises(ValueError, match=expected):
            network(arch)
