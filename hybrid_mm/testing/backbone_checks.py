"""The checks of the contract that every backbone keeps; ``CHECKS`` has them by name."""

import copy
import io
import itertools
import pickle
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from hybrid_mm.backbones.frames.base import BaseBackbone
from hybrid_mm.checkpoints import check_weights
from hybrid_mm.compat.torch_api import COMPILES, as_if_exporting, half_types, tree_leaves
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.testing.outcome import (
    ContractError,
    DoesNotApply,
    error_expected,
    here,
    require,
    require_close,
    require_equal,
    require_finite,
    require_near,
    require_same,
    told,
)
from hybrid_mm.testing.subject import Subject

SIZES = ((32, 32), (97, 131), (200, 333), (33, 47))
CHECKS: dict[str, Callable[[Subject], None]] = {}
"""Checks by name, in the order in which they run."""
SLOW = {'compile_eval', 'compile_training', 'export'}
"""Those that take seconds each and run only if they are asked for."""


def _check(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
    CHECKS[function.__name__] = function
    return function


def drawn(model: Any) -> Any:
    """The model with all parameters and buffers random: nothing is zero or one."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 2)
            else:
                tensor.random_(2, 99)
    return model


@_check
def registered(net: Subject) -> None:
    """Configs of all libraries find the network by ``type='SCOPE.NAME'``, without any import."""
    if net.type is None:
        raise DoesNotApply(
            f'{net.cls.__name__} is in no registry; decorate it with @MODELS.register_module()'
        )
    found = [MODELS]
    for scope in ('mmdet', 'mmseg', 'mmpretrain'):
        try:
            found.append(import_module(f'{scope}.registry').MODELS)
        except ImportError:  # not installed
            continue
    for registry in found:
        model = registry.build(dict(type=net.type, **copy.deepcopy(net.settings)))
        require(
            type(model) is net.cls,
            f'type={net.type!r} in registry {registry.scope}: expected {net.cls}, '
            f'found {type(model)}',
        )


@_check
def initial_values(net: Subject) -> None:
    """They are finite, and one seed of torch, NumPy and Python draws the same ones again."""
    states = []
    for _ in range(2):
        model = net.build()
        if hasattr(model, 'init_weights') and not net.settings.get('init_cfg'):
            model.init_weights()
        states.append(model.state_dict())
    for (key, value), other in zip(states[0].items(), states[1].values(), strict=True):
        require_finite(value, f'initial value of {key}')
        require_same(other, value, f'initial value of {key}, drawn again from the same seed')


@_check
def any_size(net: Subject) -> None:
    """Images of any size from 32 up, odd ones too, in both modes: shapes, finite, contiguous."""
    model = net.build(**net.accepted(drop_path_rate=0.2))
    strides = _strides(net, model)
    for size, training in itertools.product(SIZES, (True, False)):
        model.train(training)
        maps = net.maps(model, net.images(2, *size))
        where = f'image {size[0]} x {size[1]}, {"training" if training else "eval"}'
        require_equal(len(maps), len(strides), f'{where}: number of maps')
        channels = getattr(model, 'out_channels', None)
        if not isinstance(channels, tuple | list):
            channels = [m.shape[1] for m in maps]
        for stride, width, out in zip(strides, channels, maps, strict=True):
            require_equal(tuple(out.shape[:2]), (2, width), f'{where}: batch and channels')
            for value, rows in zip(size, out.shape[2:], strict=True):
                fine = {value // stride, -(-value // stride)}
                if net.expected.rows is not None:
                    fine = {net.expected.rows(value, stride)}
                said = f'; map_strides of {net.name} says {model.map_strides}' if net.ours else ''
                require(
                    rows in fine,
                    f'{where}: {value} pixels at stride {stride}: expected '
                    f'{" or ".join(map(str, sorted(fine)))}, found {rows}{said}',
                )
            require_finite(out, where)
            require(
                out.is_contiguous(),
                f'{where}: expected contiguous maps (RoIAlign of mmcv reads memory as NCHW), '
                f'found strides {out.stride()}',
            )


def _strides(net: Subject, model: Any) -> list[int]:
    """Strides of the maps that are returned."""
    if not net.ours:
        if net.expected.strides is not None:
            return list(net.expected.strides)
        model.eval()
        with torch.no_grad():
            return [round(128 / m.shape[2]) for m in net.maps(model, net.images(1, 128, 128))]
    stages = net.expected.stages or len(model.depths)
    if 'out_indices' not in net.settings:
        require_equal(model.out_indices, tuple(range(min(4, stages))), 'default of out_indices')
    if net.expected.strides is not None:
        require_equal(model.map_strides, tuple(net.expected.strides), 'map_strides')
    return [model.map_strides[i] for i in model.out_indices]


@_check
def deterministic(net: Subject) -> None:
    """In eval mode an image gives the same maps twice, and beside another; float64 stays."""
    model = net.evaluated(**net.accepted(drop_path_rate=0.5)).double()
    x = net.images(1, 64, 96, torch.float64)
    image = x.clone()
    with torch.no_grad():
        maps = net.maps(model, x)
        require_same(x, image, 'the image after the network has seen it')
        again = net.maps(model, x)
        beside = net.maps(model, torch.cat([x, net.images(1, 64, 96, torch.float64)]))
    for i, (a, b, c) in enumerate(zip(maps, again, beside, strict=True)):
        require_equal(a.dtype, torch.float64, f'type of map {i} of a network in float64')
        require_same(a, b, f'map {i} of the same image')
        require_near(c[:1], a, 1e-9, f'map {i} of an image in a batch and on its own')


@_check
def gradient_is_the_derivative(net: Subject) -> None:
    """The gradient of the image is the quotient of differences, with one and with two images.

    Batch 1 in eval mode is where strides can lead torch's CPU batch norm astray.
    """
    model = net.evaluated().double()
    for batch in (1, 2):
        x = net.images(batch, 40, 56, torch.float64).requires_grad_()
        maps = net.maps(model, x)
        dys = [torch.randn_like(m) for m in maps]
        (grad,) = torch.autograd.grad(maps, x, dys)
        u = torch.randn_like(x)
        with torch.no_grad():
            # a larger step meets kinks of ReLU
            ahead, behind = (
                sum((m * dy).sum() for m, dy in zip(model(z), dys, strict=True))
                for z in (x + 1e-7 * u, x - 1e-7 * u)
            )
        difference, expected = (ahead - behind).item() / 2e-7, (grad * u).sum().item()
        if not abs(difference - expected) <= max(1e-5 * abs(expected), 1e-12):
            with torch.no_grad(), _Rounded() as rounded:
                model(x)
            places = ', '.join(rounded.places)
            hint = f'; rounded to less than float64, so that differences say little: {places}'
            raise ContractError(
                f'batch {batch}, derivative along a direction: expected {difference:.8g} from '
                f'differences, found {expected:.8g} from the backward pass{hint if places else ""}'
            )


class _Rounded(TorchDispatchMode):
    """Where tensors in double precision are rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, None] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if func._schema.name == 'aten::_to_copy' and args[0].dtype == torch.float64:
            rounded = out.is_floating_point() and out.dtype != torch.float64
            self.places |= {here(): None} if rounded else {}
        return out


@_check
def autocast(net: Subject) -> None:
    """Mixed precision in float16 and bfloat16 is near to float32, with finite gradients."""
    # statistics of a few pixels magnify rounding: a plain ResNet would miss the bound by far
    model = net.trained(**net.accepted(norm_eval=True))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    x = net.images(2, 64, 64)
    state = torch.get_rng_state()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        reference = net.maps(model, x)
    for dtype in half_types():
        model.zero_grad()
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        torch.set_rng_state(state)
        with torch.autocast('cpu', dtype=dtype):
            maps = net.maps(model, x)
        _sum(m.float().pow(2).mean() for m in maps).backward()
        for i, (low, full) in enumerate(zip(maps, reference, strict=True)):
            require_near(low, full, 0.05, f'map {i} with autocast to {dtype} and in float32')
        _require_gradients(model, f'autocast to {dtype}')


def _sum(values: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()


def _require_gradients(model: nn.Module, where: str) -> None:
    """All parameters that are trained have a gradient, a finite one."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    silent = [name for name, p in trained if p.grad is None]
    require(not silent, f'expected a gradient of every parameter, found none of {silent}')
    for name, p in trained:
        if p.grad is not None:
            require_finite(p.grad, f'{where}: gradient of {name}')


@_check
def checkpointing(net: Subject) -> None:
    """``with_cp=True`` changes neither gradients nor running statistics."""
    net.needs_argument('with_cp')
    rate = net.accepted(drop_path_rate=0.3)
    plain, saving = net.trained(**rate, with_cp=False), net.trained(**rate, with_cp=True)
    x = net.images(2, 64, 64).double()
    kept: list[list[int]] = []
    for model in (plain, saving):
        model.double()
        torch.manual_seed(1)
        kept.append([])

        def keep(x: Tensor) -> Tensor:
            kept[-1].append(x.numel())
            return x

        with saved_tensors_hooks(keep, lambda x: x):
            loss = _sum(m.pow(2).mean() for m in net.maps(model, x))
        loss.backward()
    before, after = map(sum, kept)
    require(
        after < before,
        f'expected fewer numbers to be kept for the backward pass with with_cp=True, found {after} '
        f'with and {before} without it',
    )
    moved = [p for p in plain.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    require(bool(moved), 'expected gradients, found only zeros')
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        require_same(b, a, f'buffer {name} with with_cp and without')
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if a.grad is None or b.grad is None:
            require(a.grad is b.grad, f'gradient of {name}: expected in both or none')
            continue
        require_close(b.grad, a.grad, 1e-9, 1e-12, f'gradient of {name} with with_cp and without')


def linear_rates(model: BaseBackbone, rate: float) -> Mapping[str, float]:
    """Drop-path rates that grow linearly over the blocks, from 0 to ``rate``."""
    blocks = [(i, j) for i, depth in enumerate(model.depths) for j in range(depth)]
    return {
        f'stages.{i}.blocks.{j}': rate * number / max(len(blocks) - 1, 1)
        for number, (i, j) in enumerate(blocks)
        if i < len(model.stages)  # the others are not kept
    }


@_check
def drop_path(net: Subject) -> None:
    """Every residual branch is dropped, and only these, at the rates that are expected."""
    net.needs_base()
    model = net.trained(drop_path_rate=0.3)
    used: set[int] = set()

    def drop(self: nn.Module, x: Tensor) -> Tensor:
        used.add(id(self))
        return x * 0

    with mock.patch.object(DropPath, 'forward', drop):
        maps = model(net.images(2, 64, 64))
        _sum((m * torch.randn_like(m)).sum() for m in maps).backward()

    expected = (net.expected.drop_path_rates or linear_rates)(model, 0.3)
    found: dict[str, set[float]] = {}
    for name, module in model.named_modules():
        if isinstance(module, DropPath):
            require(id(module) in used, f'{name}: expected to be called in training, found unused')
            owners = [block for block in expected if name.startswith(f'{block}.')]
            require(len(owners) == 1, f'{name}: expected in one of {list(expected)}')
            found.setdefault(owners[0], set()).add(round(module.rate, 9))
    wanted = {name: {round(rate, 9)} for name, rate in expected.items()}
    for name in {*wanted, *found}:
        require_equal(found.get(name), wanted.get(name), f'drop-path rates of {name}')

    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    for block in expected:
        own = [n for n, _ in model.named_parameters() if n.startswith(f'{block}.')]
        parts: dict[str, set[str]] = {}
        for name in own:
            match = re.search(net.expected.kept, name)
            if match:
                parts.setdefault(match[0], set()).add(name)
        require(
            all(part & moved for part in parts.values()),
            f'{block}: expected gradients of the shortcut while its branches are dropped',
        )
        dropped = set(own).difference(*parts.values())
        if parts and net.expected.before_kept:
            dropped = {n for n in dropped if not re.search(net.expected.before_kept, n)}
        wrong = sorted(dropped & moved)
        require(not wrong, f'{block}: expected all branches to be dropped, found {wrong} kept')
    if net.expected.shortcuts:  # else nothing is left
        first = 'stages.0.embed' if isinstance(model.stem, nn.Identity) else 'stem'
        require(
            any(name.startswith(first) for name in moved),
            f'{first}: expected a gradient while all residual branches are dropped, found none',
        )


@_check
def out_indices(net: Subject) -> None:
    """Any choice of stages gives the maps that the whole network gives there."""
    net.needs_argument('out_indices')
    if net.ours:
        last = net.number_of_stages() - 1
        chosen = tuple(range(last + 1))
        choices: list[Any] = [(0,), (last,), (1, last), 2, (-1,)] if last >= 2 else [(0,), -1]
    else:
        chosen = tuple(i for i in getattr(net.build(), 'out_indices', ()) if i >= 0)
        choices = [(i,) for i in chosen]
    x = net.images(1, 64, 64)
    with torch.no_grad():
        whole = net.evaluated(out_indices=chosen)
        expected = dict(zip(chosen, net.maps(whole, x), strict=True))
        for choice in choices:
            model = net.evaluated(out_indices=choice)
            if not net.ours:  # it may draw its weights in another order
                model.load_state_dict(whole.state_dict(), strict=False)
            maps = net.maps(model, x)
            wanted = (choice,) if isinstance(choice, int) else choice
            require_equal(len(maps), len(wanted), f'out_indices={choice}: number of maps')
            if net.ours:
                shown = tuple(m.shape[1] for m in maps)
                require_equal(model.out_channels, shown, f'out_indices={choice}: out_channels')
            for i, out in zip(wanted, maps, strict=True):
                stage = i % len(chosen) if net.ours else i
                require_same(out, expected[stage], f'out_indices={choice}: map of stage {stage}')


@_check
def bad_out_indices(net: Subject) -> None:
    """Stages that do not exist, twice the same one, or no numbers: an error that says so."""
    net.needs_base()
    n = net.number_of_stages()
    for bad in ('0', 1.5, True, None, ((0,),), (0, '1'), (False,), {0: 1}):
        text = r'out_indices must be one integer or a sequence'
        with error_expected(ValueError, text, f'out_indices={bad!r}'):
            net.build(out_indices=bad)
    for stages in ((n,), (0, 0), (n - 1, -1), (-n - 1,)):
        text = rf'out_indices must be distinct stages in 0..{n - 1}'
        with error_expected(ValueError, text, f'out_indices={stages}'):
            net.build(out_indices=stages)


@_check
def frozen_stages(net: Subject) -> None:
    """A step with SGD moves what is not frozen, all of it, and nothing else."""
    net.needs_argument('frozen_stages')
    if net.ours:
        number = net.number_of_stages()
        for frozen in sorted({-1, 0, 1, number - 1}):
            _freeze(net, frozen, number)
        return
    before = None
    for frozen in (-1, 0, 1):
        model = net.trained(frozen_stages=frozen)
        changed = _changed_by_a_step(net, model)
        still = {n for n, p in model.named_parameters() if not p.requires_grad}
        where = f'frozen_stages={frozen}'
        require(bool(changed), f'{where}: expected some weights to be trained, found none')
        require(not changed & still, f'{where}: expected no change of {sorted(changed & still)}')
        if before is not None:
            require(changed <= before, f'{where} trains more than {frozen - 1} does')
        before = changed
    require(bool(still), 'frozen_stages=1: expected frozen weights, found none')


def _freeze(net: Subject, frozen: int, number: int) -> None:
    model = net.build(frozen_stages=frozen, out_indices=tuple(range(number)))
    where = f'frozen_stages={frozen}'
    for mode in ('eval', 'train'):
        require(getattr(model, mode)() is model, f'{mode}(): expected to return the network')
    changed = _changed_by_a_step(net, model)
    require(bool(changed), f'{where}: expected some weights to change, found none')
    stages = {int(k.split('.')[1]) for k in changed if k.startswith('stages.')}
    require_equal(stages, set(range(max(frozen, 0), number)), f'{where}: stages that change')
    if frozen >= 0:
        stem = 'stages.0.embed' if isinstance(model.stem, nn.Identity) else 'stem'
        wrong = sorted(k for k in changed if k.startswith(stem))
        require(not wrong, f'{where}: expected a frozen stem, found changes of {wrong}')


def _changed_by_a_step(net: Subject, model: nn.Module) -> set[str]:
    """Parameters and buffers that a forward pass, backward pass and step in training change."""
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    _sum(m.pow(2).mean() for m in net.maps(model, net.images(2, 64, 64))).backward()
    optimizer.step()
    after = model.state_dict()
    return {k for k in after if not torch.equal(before[k], after[k])}


@_check
def bad_frozen_stages(net: Subject) -> None:
    """More frozen stages than there are: an error that says so."""
    net.needs_base()
    number = net.number_of_stages()
    for bad in (number + 1, -2):
        text = rf'frozen_stages must lie in -1..{number}'
        with error_expected(ValueError, text, f'frozen_stages={bad}'):
            net.build(frozen_stages=bad)


@_check
def norm_eval(net: Subject) -> None:
    """``norm_eval=True`` keeps all batch norms in eval mode while the network trains."""
    net.needs_argument('norm_eval')
    model = net.trained(norm_eval=True)
    wrong = [n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training]
    require(not wrong, f'expected batch norms in eval mode, found {wrong} in training mode')
    require(model.training, 'expected the network in training mode, found it in eval mode')


@_check
def layer_ids(net: Subject) -> None:
    """Layers of the layer-wise decay: they grow from input to output, the neck has the last."""
    model = net.build()
    if not hasattr(model, 'get_layer_depth'):
        raise DoesNotApply(f'{net.cls.__name__} has no get_layer_depth, nor layer-wise decay')
    names = [name for name, _ in model.named_parameters()]
    ids = [model.get_layer_depth(f'backbone.{name}', 'backbone.')[0] for name in names]
    head, count = model.get_layer_depth('neck.conv.weight', 'backbone.')
    require_equal(head, count - 1, 'layer of a neck')
    wrong = [name for name, i in zip(names, ids, strict=True) if not 0 <= i < count]
    require(not wrong, f'expected layers in 0..{count - 1}, found others of {wrong}')
    if net.ours and type(model).get_layer_depth is BaseBackbone.get_layer_depth:
        blocks = sum(model.depths)
        require_equal((head, count), (blocks + 1, blocks + 2), 'layer of a neck, number of layers')
        for (first, i), (second, j) in itertools.pairwise(zip(names, ids, strict=True)):
            require(
                i <= j,
                'expected layers that grow from the first parameter to the last, found layer '
                f'{i} of {first} before layer {j} of {second}',
            )
        kept = set(range(sum(model.depths[: len(model.stages)]) + 1))
        require_equal(set(ids), kept, 'layers of the parameters')


@_check
def weights_round_trip(net: Subject) -> None:
    """What is saved loads completely; of a ``BaseBackbone`` from a file and strictly as well."""
    source = drawn(net.build())
    state = source.state_dict()
    other = net.build()
    other.load_state_dict(state)
    _require_state(other, state, 'load_state_dict')
    if not net.ours:
        return
    full = {f'backbone.{k}': v for k, v in state.items()}
    files = {
        'full.pth': {'state_dict': full | {'decode_head.weight': torch.zeros(1)}},
        'plain.pth': state,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = str(Path(folder, name))
            torch.save(content, path)
            target = net.build(init_cfg=dict(type='Pretrained', checkpoint=path))
            target.init_weights()
            _require_state(target, state, f'init_cfg, {name}')
    for key, value in state.items():
        if value.ndim > 1 and value.shape[0] != value.shape[1] and key.endswith('.weight'):
            shape = value.transpose(0, 1).shape  # as many elements
            text = rf'1 of another shape: {re.escape(key)} '
            with error_expected(ValueError, text, f'{key} of shape {tuple(shape)}'):
                target.load_strictly({**state, key: torch.rand(shape)}, 'a test')
            return


def _require_state(model: nn.Module, state: Mapping[str, Tensor], how: str) -> None:
    found = model.state_dict()
    for key, value in state.items():
        require_same(found[key], value, f'{how}: {key}')


@_check
def weights_of_another_model(net: Subject) -> None:
    """They are an error that names file and keys, as is a file that does not exist."""
    net.needs_base()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'resnet.pth')
        torch.save({'layer1.0.conv1.weight': torch.zeros(2)}, path)
        for name, kind, text in (
            ('resnet.pth', ValueError, r'resnet.pth does not fit .*layer1.0.conv1'),
            ('none.pth', FileNotFoundError, r'pre-trained weights not found.*init_cfg'),
        ):
            checkpoint = str(path.with_name(name))
            model = net.build(init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
            with error_expected(kind, text, f'checkpoint={name}'):
                model.init_weights()


@_check
def image_channels(net: Subject) -> None:
    """Images of another number of channels; weights for three load on request, and mean the same.

    On an image whose six channels are its three ones twice, such a network gives their maps.
    """
    net.needs_base()
    if net.in_channels != 3:
        raise DoesNotApply('it is not built for images of three channels')
    source, x = drawn_scales(net.build()).eval(), net.images(1, 32, 64)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, 'three.pth'))
        torch.save(source.state_dict(), path)
        init = dict(type='Pretrained', checkpoint=path, inflate_channels=True)
        model = net.build(in_channels=6, init_cfg=init)
        with error_expected(ValueError, 'inflate_channels=True', 'in_channels=6'):
            model.load_pretrained(path)
        model.init_weights()
    model.eval()
    with torch.no_grad():
        maps = zip(net.maps(source, x), net.maps(model, torch.cat([x, x], 1)), strict=True)
        for i, (expected, found) in enumerate(maps):
            require_near(found, expected, 1e-4, f'map {i} of an image of 6 channels')


def _strides_that_count(x: Tensor) -> list[int]:
    """Strides of the axes with more than one element."""
    return [n for n, size in zip(x.stride(), x.shape, strict=True) if size > 1]


class _OneDevice(TorchDispatchMode):
    """No operator takes tensors of several devices, but those that copy between them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        devices = {x.device.type for x in tensors if x.ndim}  # numbers may stay on the CPU
        require(
            len(devices) < 2 or func._schema.name in ('aten::copy_', 'aten::index'),
            f'{func} of tensors on different devices: register what the network keeps by '
            'self.register_buffer, make what it needs with device=x.device',
        )
        return func(*args, **kwargs or {})


@_check
def moves_to_a_device(net: Subject) -> None:
    """With ``to(device)`` all tensors move, and new ones are made there (shown with 'meta')."""
    model = net.evaluated()
    internal = set(vars(nn.Module()))
    kept = [
        f'{name}.{attribute}'.lstrip('.')
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if attribute not in internal and any(isinstance(x, Tensor) for x in tree_leaves(value))
    ]
    require(
        not kept,
        f'expected tensors in parameters and buffers only, found others, which stay on the CPU: '
        f'{kept}; use self.register_buffer(NAME, tensor, persistent=False)',
    )
    try:
        with torch.no_grad(), _OneDevice():
            maps = net.maps(model.to('meta'), net.images(1, 64, 96).to('meta'))
    except ContractError as error:
        if error.__cause__ is None or isinstance(error.__cause__, ContractError):
            raise
        raise DoesNotApply(f'it does not run without data: {told(error.__cause__)}') from error
    for i, out in enumerate(maps):
        require_equal(out.device.type, 'meta', f'device of map {i} of a network and image on meta')


class _FakesFit(TorchDispatchMode):
    """Compares what operators of some libraries return with what they announce to compilers."""

    def __init__(self, namespaces: set[str]) -> None:
        super().__init__()
        self.namespaces = namespaces

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **kwargs or {})
        if func.namespace in self.namespaces:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                fakes = tree_map_only(Tensor, mode.from_tensor, (args, kwargs or {}))
                announced = func(*fakes[0], **fakes[1])
            pairs = zip(tree_leaves(found), tree_leaves(announced), strict=True)
            for i, (a, b) in enumerate(pairs):
                kinds = [(tuple(y.shape), y.dtype) for y in (a, b)]
                require_equal(kinds[0], kinds[1], f'{func}, output {i}')
                what = f'{func}, strides of output {i} of {tuple(a.shape)}'
                require_equal(_strides_that_count(a), _strides_that_count(b), what)
        return found


@_check
def announced_shapes(net: Subject) -> None:
    """Custom operators return the shapes, types and strides that they announce to compilers."""
    model = net.trained()
    own = {'hybrid_mm', net.cls.__module__.partition('.')[0]}
    with _FakesFit(own):
        maps = net.maps(model, net.images(2, 97, 131))
        _sum(m.pow(2).mean() for m in maps).backward()


class _Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name)
        return func(*args, **kwargs or {})


@_check
def exported_formulation(net: Subject) -> None:
    """While exporting, the maps are the same, by operators that exporters know."""
    model = net.evaluated()
    x = net.images(1, 97, 131)
    with torch.no_grad():
        expected = net.maps(model, x)
        with as_if_exporting(), _Operators() as operators:
            found = net.maps(model, x)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        error, limit = (a - b).abs().max().item(), 1e-5 * b.abs().max().item()
        require(error <= limit, f'map {i}: expected within {limit:.1e}, found {error:.1e} off')
    plain = re.compile(r'(aten|prim|prims)::(?!_fft|view_as_complex)')
    strange = sorted(name for name in operators.names if not plain.match(name))
    require(
        not strange,
        f'expected operators of torch without complex numbers while '
        f'hybrid_mm.ops.export.exporting(), found {strange}',
    )


@_check
def traced(net: Subject) -> None:
    """``torch.jit.trace`` records torch's operators, for any number of images of a size.

    Given images of another size, the graph gives the same maps as the network, or an error.
    """
    model = net.evaluated()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # sizes become constants; torch deprecates the tracer
        graph = torch.jit.trace(model, net.images(1, 48, 64), check_trace=False)
        file = io.BytesIO()
        torch.jit.save(graph, file)
        file.seek(0)
        graph = torch.jit.load(file)
        names = {node.kind() for node in graph.inlined_graph.nodes()}
        strange = sorted(name for name in names if not name.startswith(('aten::', 'prim::')))
        require(not strange, f"expected torch's own operators in the graph, found {strange}")
        any_size = getattr(model, 'traces_any_size', False)
        # others may compute with the number of images in Python, as MMDetection's Swin does
        others = ((3, 48, 64), (1, 64, 48), (2, 65, 99)) if net.ours else ()
        for size in ((1, 48, 64), *others):
            x = net.images(*size)
            try:
                found = graph(x)
            except RuntimeError as error:
                other = size[1:] != (48, 64)
                require(
                    other and not any_size,
                    f'{size[0]} images of {size[1]} x {size[2]} in a graph traced with one of '
                    f'48 x 64: {str(error).strip().splitlines()[-1]}',
                )
                continue
            for i, (a, b) in enumerate(zip(found, net.maps(model, x), strict=True)):
                require_near(
                    a, b, 1e-5, f'map {i} of {size[0]} images of {size[1]} x {size[2]}, traced'
                )


@_check
def every_parameter_has_a_gradient(net: Subject) -> None:
    """Whatever stages are returned: distributed training waits for all parameters."""
    choices: list[Any] = [None]
    if net.ours:
        last = net.number_of_stages() - 1
        wanted = ((0,), (last,), (0, min(2, last)), (max(last - 1, 0),))
        choices += dict.fromkeys(tuple(dict.fromkeys(choice)) for choice in wanted)
    for choice in choices:
        model = net.trained(**({} if choice is None else dict(out_indices=choice)))
        _sum(m.sin().sum() for m in net.maps(model, net.images(2, 64, 64))).backward()
        silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        where = f'out_indices={choice}: ' if choice else ''
        require(
            not silent, f'{where}expected a gradient of every parameter, found none of {silent}'
        )


@_check
def weights_of_stages_that_are_not_there(net: Subject) -> None:
    """They are left out of a file, in each way to load one; nothing else may be missing."""
    net.needs_base()
    last = net.number_of_stages() - 1
    if last < 1:
        raise DoesNotApply('the network has one stage')
    whole = drawn(net.build(out_indices=tuple(range(last + 1))))
    full = whole.state_dict()
    for wanted in dict.fromkeys(((0,), tuple(dict.fromkeys((0, last - 1))))):
        where = f'out_indices={wanted}'
        model = net.build(out_indices=wanted)
        require_equal(len(model.stages), wanted[-1] + 1, f'{where}: stages that are built')
        require_equal(list(model.depths), list(whole.depths), f'{where}: depths')
        own = model.state_dict()
        odd = [k for k in full if k not in own and not model.leaves_out(k)]
        require(not odd, f'{where}: expected leaves_out() of all that is not there, not of {odd}')
        model.load_state_dict(full)
        detector = nn.ModuleDict(dict(backbone=net.build(out_indices=wanted)))
        prefixed = {f'backbone.{key}': value for key, value in full.items()}
        for state in (prefixed, check_weights(detector, dict(state_dict=prefixed), 'a test')):
            detector.load_state_dict(state)
        strict = net.build(out_indices=wanted)
        strict.load_strictly(full, 'a test')
        for loaded in (model, detector['backbone'], strict):
            _require_state(loaded, {key: full[key] for key in loaded.state_dict()}, where)
        strict.load_strictly(own, 'a test')  # what such a network saves
        key = f'stages.{last + 1}.blocks.0.weight'
        with error_expected(RuntimeError, re.escape(key), f'{where}: {key}'):
            model.load_state_dict({**full, key: torch.rand(1)})
        with error_expected(ValueError, 'missing', f'{where}: its weights in the whole network'):
            whole.load_strictly(own, 'a test')


@_check
def copies(net: Subject) -> None:
    """A deep copy and a pickled network compute the same as the original."""
    model = drawn_scales(net.build())
    model.eval()
    x = net.images(1, 64, 64)
    others = {'copy.deepcopy': copy.deepcopy(model)}
    if getattr(sys.modules[net.cls.__module__], net.cls.__qualname__, None) is net.cls:
        stored = io.BytesIO()  # pickle finds a class by its name, not one inside of a function
        try:
            pickle.dump(model, stored)
        except Exception as error:
            raise ContractError(f'expected a network that can be pickled, found {error}') from error
        others['pickle'] = pickle.loads(stored.getvalue())
    with torch.no_grad():
        expected = net.maps(model, x)
        for how, other in others.items():
            for i, (a, b) in enumerate(zip(net.maps(other, x), expected, strict=True)):
                require_same(a, b, f'{how}: map {i}')


def drawn_scales(model: nn.Module) -> nn.Module:
    """The model with vectors (biases, norms, layer scales) as after some training."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim < 2:
                p.add_(torch.rand_like(p) * 0.1)
    return model


@_check
def compile_eval(net: Subject) -> None:
    """``torch.compile`` without graph breaks (from torch 2.4 on) in eval mode."""
    model = net.evaluated()
    x = net.images(1, 64, 96)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=COMPILES, backend='eager')
        for i, (a, b) in enumerate(zip(compiled(x), net.maps(model, x), strict=True)):
            require_close(a, b, 1.3e-6, 1e-5, f'map {i} compiled and not')
    torch._dynamo.reset()


@_check
def compile_training(net: Subject) -> None:
    """``torch.compile`` without graph breaks, as in eval mode, and with a backward pass."""
    model = net.trained()
    compiled = torch.compile(model, fullgraph=COMPILES, backend='eager')
    x = net.images(2, 64, 96)
    maps = [network(x) for network in (compiled, model)]
    for i, (a, b) in enumerate(zip(*maps, strict=True)):
        # another choice among exact algorithms, magnified by batch norms of few pixels
        require_near(a, b, 1e-3, f'map {i} compiled and not')
    _sum(m.pow(2).mean() for m in maps[0]).backward()
    _require_gradients(model, 'compiled')
    torch._dynamo.reset()


@_check
def export(net: Subject) -> None:
    """``torch.export`` at a fixed size; the graph computes the same."""
    if not COMPILES:
        raise DoesNotApply('torch.export of torch before 2.4 knows too little of Python')
    model = net.evaluated()
    x = net.images(1, 64, 96)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        found = program.module()(x)
        for i, (a, b) in enumerate(zip(found, net.maps(model, x), strict=True)):
            require_near(a, b, 1e-5, f'map {i} of the exported graph')
