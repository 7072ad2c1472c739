"""What all backbones share: variants, construction, returned maps, freezing, layer ids."""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import TypedDict

from hybrid_mm.backbones.frames.arch import Arch
from hybrid_mm.backbones.frames.other_names import Names, takes_other_names
from hybrid_mm.backbones.frames.strict_weights import StrictWeights, check_init_cfg
from hybrid_mm.compat.torch_api import compiled_if_possible
from hybrid_mm.convert.core import StateDict
from hybrid_mm.layers.drop import drop_path_schedule
from hybrid_mm.ops.argument_types import typed_arguments
from hybrid_mm.ops.arguments import fraction, positive, stage_indices
from hybrid_mm.ops.export import for_one_size
from hybrid_mm.ops.layout import dense_gradient

__all__ = ['BaseBackbone', 'SharedArguments']

# the others have a check and a message of their own
_typed = functools.partial(typed_arguments, but=('arch', 'out_indices', 'init_cfg'))


class SharedArguments(TypedDict, total=False):
    """Arguments that all backbones take, by keyword; see :class:`BaseBackbone`."""

    in_channels: int
    out_indices: int | Sequence[int]
    drop_path_rate: float
    frozen_stages: int
    norm_eval: bool
    with_cp: bool
    init_cfg: dict[str, Any] | None


class BaseBackbone(StrictWeights):
    """Base of the backbones: a stem, and stages of blocks that give one map each.

    A constructor has one order: its arguments, ``super().__init__(arch, **kwargs)``, checks and
    settings, among them ``depths`` and ``stage_channels``, and :meth:`build` as its last line. That
    calls :meth:`make_stem`, :meth:`make_stage` for every stage, :meth:`reset_parameters` and
    :meth:`finish`. Frames that several networks share leave :meth:`build` to them.

    Stages behind the last returned one are not kept: every parameter of a network is part of its
    maps, as distributed training asks. Initial values, drop-path rates and layer ids are those of
    the whole network, and the weights of a whole one load: those of stages, and of norms of maps,
    that are not there are left out.

    Maps have strides 4, 8, 16 and 32 if the class does not say otherwise (:attr:`map_strides`).

    Args:
        arch: Name of a variant in ``arch_zoo``, or a dict with the fields of its ``arch_class``.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned, one or several; negative ones count from the
            end.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0 at the first one
            unless the class says otherwise.
        frozen_stages: -1 freezes nothing, 0 the stem (or the patch embedding of the first stage),
            n the stem and the first n stages. Frozen parts stay in eval mode.
        norm_eval: Keep batch normalisation in eval mode during training.
        with_cp: Recompute each block in the backward pass instead of keeping its activations.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=PATH_OR_URL)`` takes our layout
            and the official ones, strictly. With ``inflate_channels=True`` weights for images of
            three channels are spread over ``in_channels``.

    Attributes:
        arch: The variant, an instance of ``arch_class``.
        depths: Number of blocks of each stage of the whole network.
        stage_channels: Channels of each stage's map.
        other_names: Names of arguments in MMPretrain, where a network there has them under another
            name, with ours; values and defaults are ours.
        traces_any_size: Whether what ``torch.jit.trace`` records takes images of any size, whatever
            the variant; if not, it takes those of the size that it was traced with.

    Raises:
        ValueError: An unknown variant, or a value out of range; the text names the argument.
    """

    arch_class: ClassVar[type[Arch]]
    arch_zoo: ClassVar[Mapping[str, Any]] = {}
    arch_aliases: ClassVar[Mapping[str, str]] = {}
    other_names: ClassVar[Names] = {}
    traces_any_size: ClassVar[bool] = False

    arch: Any
    depths: Sequence[int]
    stage_channels: Sequence[int]
    drop_path_rates: Sequence[Sequence[float]]
    stem: Any
    stages: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let every constructor rename its arguments and check their types."""
        super().__init_subclass__(**kwargs)
        if '__init__' in vars(cls):
            cls.__init__ = takes_other_names(_typed(cls.__init__))  # type: ignore[method-assign]

    @_typed
    def __init__(
        self,
        arch: str | Mapping | Arch,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        check_init_cfg(init_cfg, type(self).__name__)
        super().__init__(init_cfg)
        positive(self, in_channels=in_channels)
        fraction(self, drop_path_rate=drop_path_rate)
        self.arch = self.resolve_arch(arch)
        self.in_channels = in_channels
        self.out_indices = stage_indices(self, out_indices=out_indices)
        self.drop_path_rate = drop_path_rate
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.stem = nn.Identity()

    @classmethod
    def resolve_arch(cls, arch: str | Mapping | Arch) -> Any:
        """Return a variant, given by name or as a dict with the fields of ``arch_class``.

        Raises:
            ValueError: Unknown name (the nearest are named), missing or unknown keys, or values
                out of range.
        """
        if isinstance(arch, str):
            arch = cls.arch_zoo[cls._known_name(arch)]
        if isinstance(arch, Mapping):
            return cls.arch_class.from_dict(arch, cls.__name__)
        if not isinstance(arch, cls.arch_class):
            raise ValueError(
                f'arch of {cls.__name__} must be a name, a dict or {cls.arch_class.__name__}, '
                f'got {arch!r}'
            )
        arch.check(cls.__name__)
        return arch

    @classmethod
    def _known_name(cls, arch: str) -> str:
        name = cls.arch_aliases.get(arch.lower(), arch.lower())
        if name not in cls.arch_zoo:
            known = [*cls.arch_zoo, *cls.arch_aliases]
            near = difflib.get_close_matches(arch.lower(), known, n=3)
            hint = f'did you mean {" or ".join(map(repr, near))}? ' if near else ''
            raise ValueError(
                f'{cls.__name__} has no arch {arch!r}: {hint}known are {", ".join(known)}'
            )
        return name

    # -- construction: what a subclass replaces --------------------------------------------------

    def build(self) -> None:
        """Make all modules from the settings; the last line of a constructor."""
        self.stem = self.make_stem()
        self.drop_path_rates = drop_path_schedule(self.drop_path_rate, self.depths)
        self.stages = nn.ModuleList(self.make_stage(stage) for stage in range(len(self.depths)))
        self.reset_parameters()
        self.finish()

    def make_stem(self) -> nn.Module:
        """Modules before the first stage; an identity if that begins with an embedding."""
        return nn.Identity()

    def make_stage(self, stage: int) -> nn.Module:
        """One of the stages, a module with ``blocks``; see :class:`.blocks.Stage`.

        Args:
            stage: Index of the stage, from 0; ``self.drop_path_rates[stage]`` has the rates of its
                blocks.
        """
        raise NotImplementedError(f'{type(self).__name__} needs the method make_stage')

    def reset_parameters(self) -> None:
        """Set initial values, where the modules have not set their own."""

    def finish(self) -> None:
        """Check what can be checked of the whole network, leave out what gives no map, freeze.

        Raises:
            ValueError: Indices of stages that do not exist, or weights without elements.
        """
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
        for name, weight in self.named_parameters():
            if not weight.numel():
                raise ValueError(
                    f'{type(self).__name__}: {name} has no elements, a width or ratio is too '
                    f'small: {self.arch}'
                )
        needed = self.out_indices[-1] + 1
        self.stages = self.stages[:needed]
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def returns(self, stage: int) -> bool:
        """Whether the map of a stage is returned; during construction as well."""
        n = len(self.depths)
        return stage in {i % n for i in self.out_indices if -n <= i < n}

    def need_last_map_only(self, **argument: bool) -> None:
        """Check that the last stage alone is returned if an argument of classifiers is set.

        Raises:
            ValueError: Another stage is returned.
        """
        ((name, value),) = argument.items()
        last = len(self.depths) - 1
        if value and self.out_indices != (last,):
            raise ValueError(
                f'{name} gives no maps: out_indices must be ({last},), got {self.out_indices}'
            )

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned maps, for the ``in_channels`` of a neck or head."""
        return tuple(self.stage_channels[i] for i in self.out_indices)

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Nominal strides of the maps of all stages: a map has about H / stride rows."""
        return tuple(4 * 2**stage for stage in range(len(self.stage_channels)))

    # -- forward ---------------------------------------------------------------------------------

    @compiled_if_possible
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map an image (N, in_channels, H, W), H and W from 32, to the maps of ``out_indices``."""
        self.check_input(x)
        if torch.jit.is_tracing() and not self.traces_any_size:
            return for_one_size(self._forward, x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = []
        state: Any = self.stem(x)
        for i in range(self.out_indices[-1] + 1):
            state = self.run_stage(i, state)
            if i in self.out_indices:
                # mmcv's RoIAlign reads memory as NCHW whatever the strides are: channels-last maps
                # (of a layer norm) would silently give it wrong features.
                outs.append(dense_gradient(self.returned_map(i, state).contiguous()))
        return tuple(outs)

    def run_stage(self, stage: int, state: Any) -> Any:
        """Apply a stage.

        Args:
            stage: Its index.
            state: What the stem or the previous stage gave: a map, or a tuple of a map and what
                goes with it (the size of a map of tokens, attention logits).

        Returns:
            The next state, of which :meth:`returned_map` takes the map.
        """
        return self.stages[stage](state)

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

    def returned_map(self, stage: int, state: Any) -> Tensor:
        """The map of a stage as it is returned, (N, C, H, W)."""
        return state

    def leaves_out(self, key: str) -> bool:
        """Whether a key of a state dict belongs to what only maps that are not returned need.

        These are the stages behind the last returned one, and the norms of single maps.
        """
        match = re.match(r'stages\.(\d+)\.(norm\.)?', key)
        if match is None:
            return False
        stage = int(match[1])
        if stage >= len(self.stages):
            return stage < len(self.depths)
        norm = getattr(self.stages[stage], 'norm', None)
        return (
            match[2] is not None
            and (norm is None or isinstance(norm, nn.Identity))
            and (stage not in self.out_indices or self.may_lack_norm(stage))
        )

    def may_lack_norm(self, stage: int) -> bool:
        """Whether a returned map may have no norm here while a file has one."""
        return False

    def norms_of_maps(self, *stages: int) -> StateDict:
        """Our weights of the norms of the maps of these stages, by default of all."""
        chosen = stages or range(len(self.depths))
        names = tuple(f'stages.{stage}.norm.' for stage in chosen)
        return {key: value for key, value in self.state_dict().items() if key.startswith(names)}

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
            block), sum(depths) + 1 everything after the backbone.
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
