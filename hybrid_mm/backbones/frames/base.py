"""What all backbones share: arch tables, pyramid outputs, freezing, checkpointing, weights."""

import contextlib
import difflib
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hybrid_mm.checkpoints import MissingCheckpointError, read_checkpoint, weights_of
from hybrid_mm.convert import convert, differences
from hybrid_mm.convert.core import StateDict

_NORMS = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm}


def build_norm(cfg: dict, channels: int) -> nn.Module:
    """Build a batch normalisation from an OpenMMLab ``norm_cfg``.

    Args:
        cfg: ``type`` ('BN' or 'SyncBN'), optionally ``requires_grad`` and arguments of the layer.
        channels: Number of channels.

    Raises:
        ValueError: Another type.
    """
    cfg = dict(cfg)
    kind, requires_grad = cfg.pop('type', None), cfg.pop('requires_grad', True)
    if kind not in _NORMS:
        raise ValueError(f'norm_cfg type must be one of {sorted(_NORMS)}, got {kind!r}')
    norm = _NORMS[kind](channels, **cfg)
    norm.requires_grad_(requires_grad)
    return norm


_SIGNED = ('frozen_stages', 'out_indices')


"""Arguments that may be negative."""


_ZERO = (
    'depth', 'ratio', 'drop', 'scale', 'halo', 'lam', 'group', 'partial', 'attention', 'padding',
    '_blocks',
)  # fmt: skip


"""Parts of the names of arguments whose numbers may be zero; so may flags and floats."""


def check_numbers(name: str, value: Any, owner: str) -> None:
    """Check that the numbers in an argument are finite and not negative, and sizes not zero.

    Args:
        name: Of the argument.
        value: A number, or numbers in lists, tuples and dicts; anything else passes.
        owner: Class, for the message.

    Raises:
        ValueError: Names the argument and the number.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            check_numbers(f'{name}.{key}', item, owner)
    elif isinstance(value, list | tuple):
        for item in value:
            check_numbers(name, item, owner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        zero = isinstance(value, float) or (
            any(part in name for part in _ZERO) and not name.endswith('.depths')
        )
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            wanted = 'not be negative' if zero else 'be positive'
            raise ValueError(f'{name} of {owner} must {wanted} and finite, got {value}')


def _check_all(given: dict[str, Any], owner: str) -> None:
    for name, value in given.items():
        check_numbers(name, value, owner)


def _checked_init(init: Callable[..., None]) -> Callable[..., None]:
    """An ``__init__`` whose bad numbers end in a ValueError that tells the arguments."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: 'BaseBackbone', *args: Any, **kwargs: Any) -> None:
        outermost, self.__dict__['_in_init'] = not self.__dict__.get('_in_init'), True
        if not outermost:
            init(self, *args, **kwargs)
            return
        owner = type(self).__name__
        given = dict(signature.bind(self, *args, **kwargs).arguments)  # TypeError if there is none
        given |= given.pop('kwargs', {})
        given.pop('self')
        numbers = {k: v for k, v in given.items() if k not in (*_SIGNED, 'init_cfg')}
        try:
            init(self, *args, **kwargs)  # which may say better what is wrong
            _check_all(numbers, owner)
            empty = [name for name, weight in self.named_parameters() if not weight.numel()]
            if empty:
                raise ValueError(f'{owner}: {empty[0]} has no elements with {given}')
        except TypeError as error:
            twice = re.search(r"multiple values for keyword argument '(\w+)'", str(error))
            if not twice:
                raise
            raise ValueError(f'{owner} sets {twice[1]} itself; leave it out') from error
        except _CONSTRUCTION_ERRORS as error:
            _check_all(numbers, owner)
            raise ValueError(
                f'{owner} cannot be built with {given}: {type(error).__name__}: {error}'
            ) from error
        del self.__dict__['_in_init']

    return checked


_CONSTRUCTION_ERRORS = (RuntimeError, ArithmeticError, LookupError, AssertionError)


"""What torch and Python raise when sizes do not go together."""


class StrictWeights:
    """Mixin for modules of MMEngine: a ``Pretrained`` init_cfg is loaded strictly."""

    def init_weights(self) -> None:
        """Initialise; a ``Pretrained`` init_cfg is loaded strictly from ours or official files."""
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            self.load_pretrained(self.init_cfg['checkpoint'], self.init_cfg.get('prefix'))
            self._is_init = True
        else:
            super().init_weights()

    def to_our_layout(self, state: StateDict) -> StateDict:
        """Bring the weights of a file into our layout; a classifier's head is named ``head.``."""
        return convert(state)

    def load_pretrained(self, path: str, prefix: str | None = None) -> None:
        """Load weights from a file or URL in our or an official layout.

        Args:
            path: Checkpoint of a backbone, classifier, detector or segmenter.
            prefix: Part of the file to take; by default ``backbone.`` where such keys exist.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It cannot be read, or the weights belong to another model (the first
                differences are named).
        """
        try:
            loaded = read_checkpoint(path)
        except MissingCheckpointError as error:
            raise FileNotFoundError(
                f'pre-trained weights not found: {error}. Put the file there, point '
                'model.backbone.init_cfg.checkpoint at it, or train from scratch with '
                '--cfg-options model.backbone.init_cfg=None'
            ) from error
        state = self.to_our_layout(weights_of(loaded, path))
        prefix = prefix or 'backbone.'
        prefix = prefix if prefix.endswith('.') else prefix + '.'
        if any(key.startswith(prefix) for key in state):
            state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        else:
            heads = [key for key in state if key.startswith('head.')]
            state = {k: v for k, v in state.items() if k not in heads}
            if heads:
                print_log(f'{path}: left out the classifier ({", ".join(heads)})', 'current')
        self.load_strictly(state, path)

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        found = differences(self.state_dict(), state)
        if found:
            raise ValueError(
                f'{origin} does not fit this {type(self).__name__}. Tensors {"; ".join(found)}. '
                'Check arch and the arguments of the backbone against those that the file was '
                'trained with'
            )
        # what may be missing are the step counters of batch norms, which start at zero then
        self.load_state_dict(state, strict=False)


class BaseBackbone(StrictWeights, BaseModule):
    """Base of the backbones: one map per stage, at strides 4, 8, 16 and 32.

    A subclass fills ``arch_zoo``, calls ``super().__init__``, takes its settings from
    :meth:`resolve_arch`, and builds ``self.stages`` (an ``nn.ModuleList`` of modules that have
    ``blocks``), ``self.depths`` and ``self.stage_channels``; a convolution stem before the first
    stage is ``self.stem``. It then calls :meth:`finish`.

    Args:
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        frozen_stages: -1 freezes nothing, 0 the stem (or the patch embedding of the first stage),
            n the stem and the first n stages. Frozen parts stay in eval mode.
        norm_eval: Keep batch normalisation in eval mode during training.
        with_cp: Recompute each block in the backward pass instead of keeping its activations.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=PATH_OR_URL)`` takes our layout
            and the official ones, strictly.
    """

    arch_zoo: ClassVar[dict[str, dict]] = {}
    arch_aliases: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.out_indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.stem: nn.Module = nn.Identity()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if '__init__' in vars(cls):
            cls.__init__ = _checked_init(cls.__init__)

    @classmethod
    def resolve_arch(cls, arch: str | dict) -> dict:
        """Settings of a variant, by name or as a dict with the keys of the table.

        Raises:
            ValueError: Unknown name (the nearest are named), or missing or unknown keys.
        """
        if isinstance(arch, str):
            name = cls.arch_aliases.get(arch.lower(), arch.lower())
            if name not in cls.arch_zoo:
                known = [*cls.arch_zoo, *cls.arch_aliases]
                near = difflib.get_close_matches(arch.lower(), known, n=3)
                hint = f'did you mean {" or ".join(map(repr, near))}? ' if near else ''
                raise ValueError(
                    f'{cls.__name__} has no arch {arch!r}: {hint}known are {", ".join(known)}'
                )
            return dict(cls.arch_zoo[name])
        keys = set(next(iter(cls.arch_zoo.values())))
        if set(arch) != keys:
            raise ValueError(
                f'arch of {cls.__name__} must have the keys {sorted(keys)}: '
                f'missing {sorted(keys - set(arch))}, unknown {sorted(set(arch) - keys)}'
            )
        lengths = {
            key: len(value) for key, value in arch.items() if isinstance(value, list | tuple)
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(f'arch of {cls.__name__}: one entry per stage expected, got {lengths}')
        return dict(arch)

    def finish(self) -> None:
        """Check the indices and freeze; the subclass calls it when its modules exist."""
        n = len(self.stages)
        bad = [i for i in self.out_indices if not -n <= i < n]
        if (
            bad
            or not self.out_indices
            or len({i % n for i in self.out_indices}) < len(self.out_indices)
        ):
            raise ValueError(
                f'out_indices must be distinct stages in 0..{n - 1}, got {self.out_indices}'
            )
        self.out_indices = tuple(sorted(i % n for i in self.out_indices))
        if not -1 <= self.frozen_stages <= n:
            raise ValueError(f'frozen_stages must lie in -1..{n}, got {self.frozen_stages}')
        for module in self._frozen_modules():
            module.requires_grad_(False)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned maps, for the ``in_channels`` of a neck or head."""
        return tuple(self.stage_channels[i] for i in self.out_indices)

    # -- forward ---------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map an image (N, in_channels, H, W), H and W from 32, to the maps of ``out_indices``."""
        self.check_input(x)
        outs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages[: self.out_indices[-1] + 1]):
            x = stage(x)
            if i in self.out_indices:
                # mmcv's RoIAlign reads memory as NCHW whatever the strides are: channels-last maps
                # (of a layer norm) would silently give it wrong features.
                outs.append(self.returned_map(i, x).contiguous())
        return tuple(outs)

    def check_input(self, x: Tensor) -> None:
        """Check the shape of an image.

        Raises:
            ValueError: It is not (N, in_channels, H, W).
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} takes images (N, {self.in_channels}, H, W), '
                f'got {tuple(x.shape)}; see in_channels'
            )

    def returned_map(self, stage: int, x: Tensor) -> Tensor:
        """The output of a stage as it is returned, (N, C, H, W)."""
        return x

    # -- freezing --------------------------------------------------------------------------------

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stem = self.stages[0].embed if isinstance(self.stem, nn.Identity) else self.stem
        return [stem, *self.stages[: self.frozen_stages]]

    def train(self, mode: bool = True) -> 'BaseBackbone':
        """Set the mode; frozen parts and, with ``norm_eval``, batch norms stay in eval mode."""
        super().train(mode)
        if mode:
            for module in self._frozen_modules():
                module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    # -- layers ----------------------------------------------------------------------------------

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter for layer-wise learning-rate decay, as MMPretrain counts.

        Args:
            param_name: Full name of the parameter.
            prefix: Name of this backbone in the model, with the final dot.

        Returns:
            The layer id and the number of layers: 0 the stem, 1 to sum(depths) the blocks (a
            down-sampling counts to the first block after it, a norm after a stage to its last
            block), sum(depths) + 1 everything behind the backbone.
        """
        num_layers = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        name = param_name[len(prefix) :]
        match = re.match(r'stages\.(\d+)\.(?:blocks\.(\d+)\.|(\w+))', name)
        if match is None:
            return (0 if name.startswith('stem.') else num_layers - 1), num_layers
        stage, block, part = int(match[1]), match[2], match[3]
        first = 1 + sum(self.depths[:stage])
        if block is not None:
            return first + int(block), num_layers
        if part.startswith(('embed', 'downsample')):
            stem = stage == 0 and isinstance(self.stem, nn.Identity)
            return (0 if stem else first), num_layers
        return first + self.depths[stage] - 1, num_layers


@contextlib.contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their running statistics, not these a second time."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    buffers = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        for name, buffer in norm._buffers.items():
            norm._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for norm, kept in zip(norms, buffers, strict=True):
            norm._buffers.update(kept)


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, with_cp: bool, *arguments: Any) -> Tensor:
    """Run blocks in turn, each under gradient checkpointing if asked for.

    Gradients and running statistics equal those of a run without checkpointing.

    Args:
        blocks: Modules that map a tensor to a tensor.
        x: Input of the first block.
        with_cp: Recompute each block in the backward pass.
        *arguments: What every block gets besides the tensor.
    """
    for block in blocks:
        if with_cp and torch.is_grad_enabled():
            x = checkpoint(
                block,
                x,
                *arguments,
                use_reentrant=False,
                context_fn=lambda block=block: (
                    contextlib.nullcontext(),
                    _frozen_statistics(block),
                ),
            )
        else:
            x = block(x, *arguments)
    return x
