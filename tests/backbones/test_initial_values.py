"""What every layer starts from, as the papers' codes draw it, and the numbers of the norms."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

from hybrid_mm.backbones import BaseBackbone
from hybrid_mm.registry import MODELS

SPEC = importlib.util.spec_from_file_location('contract', Path(__file__).with_name('test_all.py'))
CONTRACT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CONTRACT)
# as they are without these: the published initialisation
CASES = {
    name: {k: v for k, v in cfg.items() if k not in ('zero_init_residual', 'layer_scale')}
    for name, cfg in CONTRACT.CASES.items()
}
_ENCODER = dict(
    type='hybrid_mm.QuadraticAttentionEncoder',
    channels=24,
    depth=2,
    heads=3,
    hidden_channels=32,
    positions=5,
)
CASES |= {f'encoder-{mode}': dict(_ENCODER, mode=mode) for mode in ('isotropic', 'learned')}
CASES['simple_fpn'] = dict(type='hybrid_mm.SimpleFPN', in_channels=16, out_channels=8)


# Each gives the distribution of a parameter of a module: its kind and standard deviation, limit or
# value.


def normal(std, mean=0.0):
    return lambda p, m: ('normal', std(p, m) if callable(std) else std, mean)


def uniform(limit):
    return lambda p, m: ('uniform', limit(p, m))


def constant(value):
    return lambda p, m: ('constant', value(p, m) if callable(value) else value)


def fan_in(p, m):
    return (p if p.ndim > 1 else m.weight)[0].numel()


def fan_out(p, m):
    return len(p) * p[0, 0].numel() / getattr(m, 'groups', 1)


def lecun(p, m):
    return 'cut', fan_in(p, m) ** -0.5


def ghosts(p, m):
    """Factors, if there are any, and summands of ELSA."""
    return torch.tensor([1.0, 0.02])[-len(p) :].view(-1, 1, 1, 1)


def shifts(p, m):
    """The k-th of 9 inputs of every channel is moved by the k-th tap."""
    return torch.eye(9).view(9, 3, 3).expand_as(p)


TORCH = uniform(lambda p, m: fan_in(p, m) ** -0.5)
HE = normal(lambda p, m: (2 / fan_out(p, m)) ** 0.5)
HE_OF_ALL = normal(lambda p, m: (2 / (len(p) * p[0, 0].numel())) ** 0.5)  # groups not counted
XAVIER = uniform(lambda p, m: (6 / (p.shape[0] + p.shape[1])) ** 0.5)
SMALL = normal(0.02)
BY_WIDTH = normal(lambda p, m: p.shape[-1] ** -0.5)
BY_INPUT = normal(lambda p, m: fan_in(p, m) ** -0.5)
ZERO, ONE = constant(0.0), constant(1.0)

LINEARS = [(r'.*(qkv|[qkv]|proj|reduction|kv|post_proj|mlp\.fc[12])\.weight', SMALL),
           (r'.*(qkv|[qkv]|proj|kv|post_proj|mlp\.fc[12])\.bias', ZERO)]  # fmt: skip
MIX = [(r'.*\.rate[12]', constant(0.5)), (r'.*mix\.dep_conv\.weight', constant(shifts))]
ZERO_LAST = [(r'.*\.blocks\.\d+\.norm3\.weight', ZERO)]
CONVS = [(r'.*(conv\d?|shortcut\.conv)\.weight', HE)]
EMBED = [(r'stages\.0\.embed\.proj\.(weight|bias)', TORCH)]
SWIN = [*EMBED, (r'.*\.relative_bias', SMALL), *LINEARS]
NAT = [(r'.*embed\.conv[12]\.(weight|bias)', TORCH), (r'.*downsample\.conv\.weight', TORCH),
       (r'.*\.relative_bias', SMALL), (r'.*\.gamma[12]', constant(0.1)), *LINEARS]  # fmt: skip
CONVNEXT = [
    (r'.*\.gamma[12]?', constant(1e-6)), (r'.*(conv|fc[12]|spectrum|pos_embed)(\.weight)?', SMALL),
    (r'.*(proj_in|proj_out|gates\.\d)\.weight', SMALL), (r'.*\.bias', ZERO),
]  # fmt: skip
GATES = [
    (r'.*\.gate\..*', TORCH),
    (r'.*\.conv2\.(q|kv|qkv)\.weight', BY_INPUT), (r'.*\.conv2\.qkv\.bias', ZERO),
    (r'.*\.(rel_[hw]|emb_[hw])', BY_WIDTH),
    (r'stem\.layers\.\d\.conv\.weight', HE), *CONVS,
]  # fmt: skip

# Where the paper is silent, what its code does; norms have weight 1 and bias 0 if no rule says
# otherwise. The first rule that fits counts.
RULES = {
    # official classification code: He over the fan-out of every convolution
    'VAN': [(r'.*layer_scale_[12]', constant(0.01)), (r'.*\.weight', HE), (r'.*\.bias', ZERO)],
    # tables N(0, d^-0.5); the convolutions are torchvision's
    'AAResNet': [*ZERO_LAST, (r'.*\.rel_[hw]', BY_WIDTH),
                 (r'.*(conv_out|qkv_conv|attn_out)\.weight', HE), *CONVS],
    # TensorFlow's variance scaling; tables as those of AA-ResNet, see official_tables
    'EAAAResNet': [(r'.*\.rel_[hw]', BY_WIDTH),
                   (r'.*\.weight', lecun), (r'.*\.bias', ZERO)],
    'LESAResNet': [*ZERO_LAST, (r'.*conv_offset\.(weight|bias)', ZERO),
                   (r'.*\.rel_[hw]', BY_WIDTH), (r'.*\.qkv\.weight', BY_INPUT),
                   (r'.*(local|mix|reason|project)\.weight', HE_OF_ALL), *CONVS],
    # the tables are half as wide as a head
    'SASAResNet': [*ZERO_LAST, (r'.*\.emb_(row|col|mix)', BY_WIDTH),
                   (r'.*\.rel_[hw]', normal(lambda p, m: (2 * p.shape[-1]) ** -0.5)),
                   (r'.*(query_conv|key_conv|value_conv)(\.\d)?\.weight', HE), *CONVS],
    # nine heads on the taps of the convolution whose weights they have
    'QuadraticAttentionResNet': [
        *ZERO_LAST, (r'.*\.spreads', ONE),
        (r'.*\.centers', constant(lambda p, m: torch.cartesian_prod(*[torch.arange(-1., 2)] * 2))),
        (r'.*\.value\.weight', normal(lambda p, m: (2 / (9 * len(p))) ** 0.5)), *CONVS],
    # the shift is the paper's; queries, keys and values are three convolutions, each with its fan
    'ACmixResNet': [*MIX, (r'.*qkv\.weight', normal(lambda p, m: (2 / (len(p) / 3)) ** 0.5)),
                    (r'.*(qkv|position)\.bias', TORCH), (r'.*(position|fc)\.weight', HE), *CONVS],
    'ACmixSwin': [*MIX, (r'.*mix\.fc\.(weight|bias)', TORCH), *SWIN],
    'ELSASwin': [(r'.*\.ghost_head', normal(ghosts)),
                 (r'.*(pre_proj|attn\.conv|to_weights)\.(weight|bias)', TORCH), *SWIN],
    'NAT': NAT, 'DiNAT': NAT, 'DiNATs': SWIN,
    'PVT': [(r'.*embed\.proj\.(weight|bias)|.*attn\.reduce\.(weight|bias)', TORCH), *MIX,
            (r'.*mix\.fc\.(weight|bias)', TORCH), (r'.*\.position', SMALL), *LINEARS],
    'SAN': [*MIX, (r'(?!.*norm).*\.(weight|bias)', TORCH)],
    'SLaK': CONVNEXT, 'PeLK': CONVNEXT, 'HorNet': CONVNEXT,
    # Flax: lecun_normal, queries normal with variance 1 / d cut at two deviations
    'QnAViT': [(r'.*\.query', lambda p, m: ('cut', 0.87962566 * m.width**-0.5)),
               (r'.*\.scale', SMALL), (r'.*\.relative_bias', ZERO),
               (r'(?!.*norm).*\.weight', lecun), (r'.*\.bias', ZERO)],
    'RepLKNet': [(r'.*conv\.weight', TORCH)],
    # TensorFlow's code: all kernels alike
    'MaxViT': [(r'.*(conv[123]|fc[12]|qkv|proj|shortcut|table)(\.weight)?', SMALL),
               (r'.*\.bias', ZERO)],
    # timm: EfficientNet's convolutions, linear layers by Xavier
    'CoAtNet': [(r'.*\.gamma[12]', ONE), (r'.*\.table', SMALL),
                (r'(stem|stages\.[01])\..*(conv[123]|gate\.fc[12]|shortcut)\.weight', HE),
                (r'.*(fc[12]|qkv|proj|shortcut)\.weight', XAVIER), (r'.*\.bias', ZERO)],
    'MViTv2': [*EMBED, (r'.*pool_[qkv]\.weight', TORCH), (r'.*\.rel_[hw]', SMALL), *LINEARS],
    'ViT': [(r'stem\.proj\.(weight|bias)', TORCH), (r'stem\.(position|class_token)', SMALL),
            (r'.*\.rel_[hw]|.*relative\.(table|tokens)|.*residual\.norm3\.weight', ZERO),
            (r'.*residual\.conv\d\.weight', HE), *LINEARS],
    'CvT': [(r'.*embed\.proj\.(weight|bias)|.*conv_[qkv]\.conv\.weight', TORCH),
            (r'.*class_token', SMALL), *LINEARS],
    # the last norm of a branch with a shortcut is zero
    'LeViT': [(r'.*distance_bias', ZERO), (r'.*blocks\.\d+\.attn\.proj\.norm\.weight', ZERO),
              (r'.*mlp\.fc2\.norm\.weight', ZERO), (r'.*(conv|linear)\.weight', TORCH)],
    # timm; a last norm is zero where there is a shortcut
    'HaloNet': GATES, 'BoTNet': GATES,
    # BERT's; centres and spreads as the official runs
    'QuadraticAttentionEncoder': [
        (r'embed\.(weight|bias)', TORCH), (r'.*\.centers', normal(2.0)),
        (r'.*\.spreads', normal(0.01, 1.0)), (r'.*(table|head)_[hw]', SMALL),
        (r'(?!.*norm).*\.weight', SMALL), (r'.*\.bias', ZERO)],
    'SimpleFPN': [(r'levels\.\d\.\d\.(weight|bias)', TORCH)],
}  # fmt: skip


def test_every_registered_backbone_has_rules():
    MODELS.import_from_location()
    classes = {n: c for n, c in MODELS.module_dict.items() if inspect.isclass(c)}
    assert {n for n, c in classes.items() if issubclass(c, BaseBackbone)} <= set(RULES)


def distribution(model, kind, name, parameter):
    """Number of the rule, and the distribution."""
    owner, _, leaf = name.rpartition('.')
    module = model.get_submodule(owner)
    if kind in ('HaloNet', 'BoTNet') and re.fullmatch(r'.*\.norm3\.weight', name):
        block = model.get_submodule(owner.rpartition('.')[0])
        return -1, ('constant', float(block.shortcut is None))
    is_norm = 'Norm' in type(module).__name__ and parameter.ndim == 1
    for i, (pattern, rule) in enumerate(RULES[kind]):
        if re.fullmatch(pattern, name) and not (is_norm and rule not in (ZERO, ONE)):
            return i, rule(parameter, module)
    assert is_norm, f'no rule for {name}'
    return -1, ('constant', float(leaf == 'weight'))


def standardised(parameter, kind, size, mean=0.0):
    """Values less their mean, divided by the standard deviation; limits are checked."""
    largest = parameter.abs().max().item()
    if kind == 'uniform':
        assert largest <= size * (1 + 1e-6)
        size /= 3**0.5
    elif kind == 'cut':
        assert largest <= 2 * size / 0.87962566 * (1 + 1e-6)
    return ((parameter - mean) / size).flatten()


def check(values, uniform, what):
    """Mean 0 and deviation 1 within five standard errors, and tails as they should be."""
    number = len(values)
    deviation = values.square().mean().sqrt().item()
    assert deviation == pytest.approx(1, abs=5 / (2 * number) ** 0.5), f'{what}: {deviation}'
    assert abs(values.mean().item()) < 5 / number**0.5, what
    if number > 100:
        assert (values.abs().max() < 1.8) == uniform, what


@pytest.mark.parametrize('name', [CONTRACT.marked(n, cfg) for n, cfg in CASES.items()])
def test_initial_values(name):
    cfg = CASES[name]
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    groups = {}
    for key, parameter in model.named_parameters():
        parameter = parameter.detach()
        rule, (kind, value, *mean) = distribution(model, type(model).__name__, key, parameter)
        if kind == 'constant':
            value = torch.as_tensor(value).expand_as(parameter)
            torch.testing.assert_close(parameter, value, rtol=1e-6, atol=0, msg=f'{key}: {value}')
            continue
        values = standardised(parameter, kind, value, *mean)
        if len(values) >= 64:
            check(values, kind == 'uniform', key)
        groups.setdefault((rule, kind), []).append(values)
    for (rule, kind), values in groups.items():
        check(torch.cat(values), kind == 'uniform', f'rule {rule}')


# epsilon of the layer norms; of PVT in all places but the blocks, which have 1e-6
LAYER_NORMS = {
    **dict.fromkeys(('VAN', 'ACmixSwin', 'ELSASwin', 'NAT', 'DiNAT', 'DiNATs', 'CvT', 'MaxViT',
                     'PVT'), 1e-5),
    **dict.fromkeys(('SLaK', 'PeLK', 'HorNet', 'QnAViT', 'CoAtNet', 'MViTv2', 'ViT', 'SimpleFPN'),
                    1e-6),
    'QuadraticAttentionEncoder': 1e-12,
}  # fmt: skip


def norms(model):
    """Kinds, epsilons and momenta by name."""
    for name, module in model.named_modules():
        if 'Norm' in type(module).__name__ and hasattr(module, 'eps'):
            yield name, module.eps, getattr(module, 'momentum', None)


@pytest.mark.parametrize('name', [CONTRACT.marked(n, cfg) for n, cfg in CASES.items()])
def test_norms(name):
    kind = CASES[name]['type'].split('.')[1]
    with torch.device('meta'):
        model = MODELS.build(CASES[name])
    for key, eps, momentum in norms(model):
        if momentum is not None:
            expected = (1e-3, 0.01) if kind == 'MaxViT' else (1e-5, 0.1)
            assert (eps, momentum) == expected, key
        elif kind == 'PVT' and re.search(r'blocks\.\d\.norm', key):
            assert eps == 1e-6, key
        elif kind in LAYER_NORMS:
            assert eps == LAYER_NORMS[kind], key


@pytest.mark.part_of('network:MaxViT', 'network:CoAtNet')
def test_norms_of_the_variants():
    """TensorFlow's numbers in the networks ported from it, PyTorch's in those trained by timm."""
    variants = {('MaxViT', arch): (1e-3, 0.01, 1e-5) for arch in ('tiny', 'xlarge')}
    variants |= {('MaxViT', arch): (1e-5, 0.1, 1e-6) for arch in ('tiny-rw', 'pico-rw')}
    variants |= {('CoAtNet', arch): (1e-5, 0.1, 1e-6) for arch in ('0', '5', '0-rw', 'rmlp-2-rw')}
    heads = {('CoAtNet', '5'): 64}
    for (kind, arch), (eps, momentum, ln_eps) in variants.items():
        cfg = dict(type=kind, arch=arch, norm_outputs=True, head_width=heads.get((kind, arch), 32))
        with torch.device('meta'):
            found = {(e, m) for _, e, m in norms(MODELS.build(cfg))}
        assert found == {(eps, momentum), (ln_eps, None)}, (kind, arch)


@pytest.mark.part_of('network:MaxViT', 'network:CoAtNet')
def test_norms_of_an_arch():
    """Numbers of the arch reach every norm; those of norm_cfg come before them."""
    for name in ('maxvit', 'coatnet', 'coatnet-rw'):
        arch = dict(CASES[name]['arch'], norm=dict(eps=0.25, momentum=0.5), ln_eps=0.125)
        with torch.device('meta'):
            model = MODELS.build({**CASES[name], 'arch': arch, 'norm_outputs': True})
            other = MODELS.build(
                {**CASES[name], 'arch': arch, 'norm_cfg': dict(type='SyncBN', eps=0.75)}
            )
        assert {(e, m) for _, e, m in norms(model)} == {(0.25, 0.5), (0.125, None)}
        assert {(e, m) for _, e, m in norms(other) if m} == {(0.75, 0.5)}
