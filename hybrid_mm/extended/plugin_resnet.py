"""ResNet and ResNeXt of MMDetection with attention modules in and between their blocks.

They serve detection, segmentation and classification alike (MMPretrain's own ResNet takes no
plugins), and their state dicts are those of MMDetection's classes: what is trained with one loads
into the other. Over these they have modules behind whole blocks, another operator in the place of
the 3x3 convolutions, and strict loading of weights.

Status: complete.
"""

from collections.abc import Iterator

from mmcv.cnn import build_plugin_layer
from mmdet.models.backbones.resnet import ResNet
from mmdet.models.backbones.resnext import ResNeXt
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybrid_mm.backbones.base import StrictWeights
from hybrid_mm.convert import SOURCES, convert, detect
from hybrid_mm.convert.core import StateDict


class _Plugins(StrictWeights):
    """What both classes add. Bottleneck depths only: 50, 101, 152.

    Args:
        depth: 50, 101 or 152.
        plugins: Modules within the blocks, as MMDetection takes them: ``dict(cfg=dict(type=...),
            stages=(...), position='after_conv1' | 'after_conv2' | 'after_conv3')``.
        stage_plugins: Modules behind whole blocks: ``dict(cfg=dict(type=...), stages=(...),
            block=-1)``. ``block`` is the index within the stage of the block that the module
            follows: -1 the last one, which is BAM's place; -2 is "before the last residual
            block", the place of a single non-local block. A module is called by its
            abbreviation and the number of the stage, from 1: ``bam1``.
        conv2: Operator in the place of the 3x3 convolutions: ``dict(cfg=dict(type=...),
            stages=(...), norm=True)``; ``norm=False`` leaves out the norm behind it, for an
            operator that has its own. It is built as convolutions are, with the arguments
            (channels, channels, kernel_size=3, stride, padding, dilation, bias=False).
        norm_eval_plugins: With ``norm_eval``, keep the batch norms of modules in eval mode as
            well. False suits weights of a plain ResNet, for which they have no statistics yet.
        **kwargs: Arguments of MMDetection's class.

    Raises:
        ValueError: ``stages`` of the wrong length, a block that a stage does not have, or a name
            given twice (a ``postfix`` in ``cfg`` tells modules of one class apart).
    """

    _behind: dict[tuple[int, int], list[str]] = {}

    def __init__(
        self,
        depth: int = 50,
        plugins: list[dict] | None = None,
        stage_plugins: list[dict] | None = None,
        conv2: dict | None = None,
        norm_eval_plugins: bool = True,
        **kwargs,
    ) -> None:
        if conv2 is not None:
            if kwargs.get('dcn') is not None:
                raise ValueError('conv2 and dcn both replace the 3x3 convolutions: give one')
            stages = conv2.get('stages', (True,) * kwargs.get('num_stages', 4))
            # this is how MMDetection lets another operator into the place of conv2
            kwargs |= dict(dcn=dict(conv2['cfg']), stage_with_dcn=stages)
        self.norm_eval_plugins = norm_eval_plugins
        super().__init__(depth=depth, plugins=plugins, **kwargs)
        if conv2 is not None and not conv2.get('norm', True):
            for stage, name in enumerate(self.res_layers):
                for block in getattr(self, name) if stages[stage] else ():
                    setattr(block, block.norm2_name, nn.Identity())
        self._behind = {}
        for plugin in stage_plugins or ():
            self._add_behind(**plugin)
        self._freeze_stages()

    def _add_behind(self, cfg: dict, stages: tuple[bool, ...] | None = None, block: int = -1):
        stages = (True,) * self.num_stages if stages is None else stages
        if len(stages) != self.num_stages:
            raise ValueError(f'stages of {cfg["type"]}: {self.num_stages} expected, got {stages}')
        for stage, wanted in enumerate(stages):
            blocks = self.stage_blocks[stage]
            if not wanted:
                continue
            if not -blocks <= block < blocks:
                raise ValueError(f'{cfg["type"]}: stage {stage + 1} has no block {block}')
            cfg = dict(cfg)
            channels = self.base_channels * 2**stage * self.block.expansion
            name, module = build_plugin_layer(
                {k: v for k, v in cfg.items() if k != 'postfix'},
                postfix=f'{cfg.get("postfix", "")}{stage + 1}',
                in_channels=channels,
            )
            if hasattr(self, name):
                raise ValueError(f'{name} is there already; give {cfg["type"]} another postfix')
            self.add_module(name, module)
            self._behind.setdefault((stage, block % blocks), []).append(name)

    def plugin_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All modules of ``plugins`` and ``stage_plugins`` with their names in the network."""
        for stage in self.res_layers:
            for index, block in enumerate(getattr(self, stage)):
                for position in (1, 2, 3):
                    for name in getattr(block, f'after_conv{position}_plugin_names', ()):
                        yield f'{stage}.{index}.{name}', getattr(block, name)
        for names in self._behind.values():
            yield from ((name, getattr(self, name)) for name in names)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the maps of ``out_indices``."""
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        outs = []
        for stage, layer in enumerate(self.res_layers):
            for index, block in enumerate(getattr(self, layer)):
                x = block(x)
                for name in self._behind.get((stage, index), ()):
                    x = getattr(self, name)(x)
            if stage in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _freeze_stages(self) -> None:
        super()._freeze_stages()
        for (stage, _), names in self._behind.items():
            if stage < self.frozen_stages:
                for name in names:
                    getattr(self, name).eval().requires_grad_(False)

    def train(self, mode: bool = True):
        """Set the mode; frozen stages and, with ``norm_eval``, batch norms stay in eval mode."""
        super().train(mode)
        if mode and self.norm_eval and not self.norm_eval_plugins:
            for _, plugin in self.plugin_modules():
                for module in plugin.modules():
                    if isinstance(module, _BatchNorm) and module.weight.requires_grad:
                        module.train()
        return self

    # -- weights ---------------------------------------------------------------------------------

    def to_our_layout(self, state: StateDict) -> StateDict:
        """MMDetection's names stay; layouts of other sources are converted."""
        source = detect(state)
        if source is not None and source != 'torchvision-resnet':
            assert source in SOURCES
            state = convert(state, source)
        return {
            k.replace('fc.', 'head.') if k.startswith('fc.') else k: v for k, v in state.items()
        }

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict that fits, or that of a plain ResNet, which has no module's weights.

        The modules then start as they initialise themselves.

        Raises:
            ValueError: Keys or shapes differ, or frozen stages would keep untrained modules.
        """
        own, modules = self.state_dict(), dict(self.plugin_modules())
        of_plugins = [k for k in own if k.startswith(tuple(f'{name}.' for name in modules))]
        if of_plugins and not any(key in state for key in of_plugins):
            trainable = {name for name, p in self.named_parameters() if p.requires_grad}
            parameters = {name for name, _ in self.named_parameters()}
            frozen = [k for k in of_plugins if k in parameters - trainable]
            if frozen:
                raise ValueError(
                    f'{origin} has no weights for {frozen[0]} and {len(frozen) - 1} more of the '
                    f'modules that frozen_stages={self.frozen_stages} would freeze untrained: take '
                    'weights that were trained with the modules, or set frozen_stages=0'
                )
            for module in modules.values():
                if hasattr(module, 'init_weights'):
                    module.init_weights()
            print_log(f'{origin}: a plain ResNet; its {len(modules)} modules start anew', 'current')
            own = self.state_dict()
            state = {**state, **{key: own[key] for key in of_plugins}}
        super().load_strictly(state, origin)


class PluginResNet(_Plugins, ResNet):
    """ResNet, see :class:`_Plugins` for the arguments."""


class PluginResNeXt(_Plugins, ResNeXt):
    """ResNeXt (``groups``, ``base_width``), see :class:`_Plugins` for the other arguments."""
