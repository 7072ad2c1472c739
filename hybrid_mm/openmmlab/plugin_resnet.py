"""ResNet and ResNeXt of MMDetection for detection, segmentation and classification.

MMPretrain's own ResNet takes no plugins, and MMSegmentation has ResNets of its own. The classes
here have all arguments and the state dicts of MMDetection's, so weights load from one into the
other; added is strict loading of weights. To place modules where ``plugins=`` cannot, use them as
``base`` of :class:`~hybrid_mm.plugins.AttentionResNet`.

Status: complete.
"""

from collections.abc import Iterator

from mmdet.models.backbones.resnet import ResNet
from mmdet.models.backbones.resnext import ResNeXt
from mmengine.logging import print_log
from torch import Tensor, nn

from hybrid_mm.backbones.frames.strict_weights import StrictWeights
from hybrid_mm.convert import convert, detect
from hybrid_mm.convert.core import StateDict

__all__ = ['PluginResNeXt', 'PluginResNet']


class _Strict(StrictWeights):
    """Strict loading of weights, either with those of the plugins or of a plain ResNet.

    Plugins without weights in the file keep their initial values, and their batch norms train.
    Plugins with weights in the file follow ``norm_eval`` of the network.
    """

    def plugins_by_name(self) -> Iterator[tuple[str, nn.Module]]:
        """All plugins, within blocks and between them, with their names in the network."""
        for layer in self.res_layers:
            for name, block in getattr(self, layer).named_children():
                if not name.isdecimal():  # inserted between the blocks by AttentionResNet
                    yield f'{layer}.{name}', block
                for position in (1, 2, 3):
                    for plugin in getattr(block, f'after_conv{position}_plugin_names', ()):
                        yield f'{layer}.{name}.{plugin}', getattr(block, plugin)

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode as MMDetection does, but return the network, as torch does."""
        super().train(mode)
        return self

    def to_our_layout(self, state: StateDict) -> StateDict:
        """Keep MMDetection's names; convert layouts of other sources."""
        source = detect(state)
        if source not in (None, 'torchvision-resnet'):
            state = convert(state, source)
        return {f'head.{k[3:]}' if k.startswith('fc.') else k: v for k, v in state.items()}

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict that matches the network, or that of a plain ResNet.

        Raises:
            ValueError: Keys or shapes differ, or an untrained plugin is in a frozen stage.
        """
        own, plugins = self.state_dict(), dict(self.plugins_by_name())
        theirs = [key for key in own if key.startswith(tuple(f'{name}.' for name in plugins))]
        if theirs and not any(key in state for key in theirs):
            self._start_plugins(plugins, origin)
            own = self.state_dict()
            state = {**state, **{key: own[key] for key in theirs}}
        elif self.norm_eval:
            for plugin in plugins.values():
                plugin.norm_eval = True
        super().load_strictly(state, origin)

    def _start_plugins(self, plugins: dict[str, nn.Module], origin: str) -> None:
        for name, plugin in plugins.items():
            parameters = list(plugin.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                raise ValueError(
                    f'{origin} has no weights for {name}, and frozen_stages={self.frozen_stages} '
                    'would freeze it untrained: take weights that were trained with the plugins, '
                    'or set frozen_stages=0'
                )
            if hasattr(plugin, 'init_weights'):
                plugin.init_weights()
        print_log(
            f'{origin}: a plain ResNet; its {len(plugins)} plugins keep their initial values',
            'current',
        )


class PluginResNet(_Strict, ResNet):
    """MMDetection's ResNet with strict loading of weights."""


class PluginResNeXt(_Strict, ResNeXt):
    """MMDetection's ResNeXt with strict loading of weights."""
