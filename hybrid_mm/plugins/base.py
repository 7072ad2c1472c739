"""Base classes of the attention modules: initialisation, norms inside a frozen ResNet, gates."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybrid_mm.compat.workarounds import b16_plugins_in_turn
from hybrid_mm.ops.argument_types import typed_arguments
from hybrid_mm.ops.arguments import one_of
from hybrid_mm.ops.fusing import is_plain

__all__ = ['Plugin', 'ResNetModule', 'SpatialOperator', 'follow_mode']

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {'relu': F.relu, 'silu': F.silu}
_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    'sigmoid': torch.sigmoid,
    'hard_sigmoid': F.hardsigmoid,
}


def activation(name: str, owner: object) -> Callable[[Tensor], Tensor]:
    """Activation of a module by name: 'relu' or 'silu'."""
    one_of(owner, _ACTIVATIONS, act=name)
    return _ACTIVATIONS[name]


def gate_function(name: str, owner: object) -> Callable[[Tensor], Tensor]:
    """Gate of a module by name: 'sigmoid' or 'hard_sigmoid'; both are 1/2 at 0."""
    one_of(owner, _GATES, gate=name)
    return _GATES[name]


def reset_defaults(module: nn.Module) -> None:
    """Reset all layers inside a module to torch's initial values."""
    for layer in module.modules():
        if layer is not module and hasattr(layer, 'reset_parameters'):
            layer.reset_parameters()


def follow_mode(module: nn.Module, norm_eval: bool = False) -> None:
    """Set the batch norms of a plugin to the mode of the plugin.

    ``norm_eval=True`` of a ResNet puts every batch norm in it into eval mode. That is right for
    norms with pre-trained statistics, but those of a plugin would keep mean 0 and variance 1. The
    mode of the plugin itself is not affected: it is in eval mode in evaluation and in frozen
    stages only.

    Args:
        module: The plugin.
        norm_eval: Keep its batch norms in eval mode instead.
    """
    mode = module.training and not norm_eval
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and layer.training != mode:
            layer.train(mode)


def apply_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a norm; a single value per channel is normalised by the running statistics.

    A single value, of a pooled map or a map of one position in a batch of one image, has no
    variance.

    Args:
        norm: Any norm; only batch norm in training differs from calling it.
        x: (N, C) or (N, C, H, W).
    """
    alone = isinstance(norm, _BatchNorm) and norm.training and x.numel() == x.shape[1]
    if alone and not (isinstance(norm, nn.SyncBatchNorm) and torch.distributed.is_initialized()):
        if not is_plain(norm):
            norm.training = False
            try:
                return norm(x)
            finally:
                norm.training = True
        return F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    return norm(x)


class ResNetModule(BaseModule):
    """Base class of modules in a ResNet; sets their initial values after those of the ResNet.

    When trained from scratch, the ResNets of MMDetection and MMSegmentation initialise every
    convolution in them as He et al. and every batch norm with weight 1, which would undo the zeros
    of a gate that starts as the identity. MMEngine calls ``init_weights`` of children last, and
    that of this class calls :meth:`reset_parameters`. A subclass calls it at the end of its
    constructor, and overrides it if the published initial values are not those of torch.

    Args:
        norm_cfg: Norm, if the module has one; by default batch norm.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let every constructor check the types of its arguments."""
        super().__init_subclass__(**kwargs)
        if '__init__' in vars(cls):
            cls.__init__ = typed_arguments(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.norm_cfg = norm_cfg or dict(type='BN')

    def build_norm(self, channels: int, pooled: bool = False) -> nn.Module:
        """Build a norm.

        Args:
            channels: Number of channels.
            pooled: Normalise (N, C) instead of maps.
        """
        cfg = dict(self.norm_cfg)
        if pooled and cfg.get('type') == 'BN':
            cfg['type'] = 'BN1d'
        return build_norm_layer(cfg, channels)[1]

    def reset_parameters(self) -> None:
        """Set the initial values."""
        reset_defaults(self)

    def init_weights(self) -> None:
        """Called last by the ``init_weights`` of the network around it."""
        self.reset_parameters()
        self._is_init = True


class Plugin(ResNetModule):
    """Base class of attention modules for the ``plugins=`` of a ResNet; (N, C, H, W) to the same.

    A subclass has a name in the block (``_abbr_``), takes ``in_channels`` as its first argument and
    overrides :meth:`attend`.

    Args:
        norm_cfg: Norm, if the module has one.
        norm_eval: Keep the batch norms of the module in eval mode during training. By default they
            train, even in a ResNet with ``norm_eval=True`` (see :func:`follow_mode`).
        init_identity: Use the gate 2 sigmoid(.) with zeros in the layer before it, so that the
            module starts as the identity: for ResNets whose weights were trained without it. An
            extension that is in none of the papers.
    """

    _abbr_: ClassVar[str]

    def __init__(
        self,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_identity: bool = False,
    ) -> None:
        super().__init__(norm_cfg)
        b16_plugins_in_turn()
        self.norm_eval = norm_eval
        self.init_identity = init_identity
        self.gain = 2.0 if init_identity else 1.0

    def attend(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        follow_mode(self, self.norm_eval)
        return self.attend(x)


class SpatialOperator(ResNetModule):
    """Base class of operators that replace the 3x3 convolution of a bottleneck.

    A subclass first takes the arguments of that convolution, as ``conv_cfg`` and ``dcn`` types of
    mmcv do, and maps (N, in_channels, H, W) to (N, out_channels, ceil(H / stride),
    ceil(W / stride)). Its batch norms follow ``norm_eval`` of the network.

    Args:
        kernel_size: Must be 3.
        padding: Must be None or the dilation.
        dilation: Dilation of the convolution.
        bias: Must be False.
        norm_cfg: Norm, if the operator has one.

    Raises:
        ValueError: The convolution has other arguments.
    """

    # whether it has its own norm, so that the norm after the convolution is removed
    replaces_norm: ClassVar[bool] = False

    def __init__(
        self,
        kernel_size: int,
        padding: int | None,
        dilation: int,
        bias: bool,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__(norm_cfg)
        self.must_be('kernel_size', kernel_size, 3)
        self.must_be('padding', padding, None, dilation)
        self.must_be('bias', bias, False)

    def must_be(self, name: str, value: Any, *possible: Any) -> None:
        """Check an argument of the convolution that the operator does not support.

        Raises:
            ValueError: The value is not one of the possible ones.
        """
        if value not in possible:
            raise ValueError(
                f'{type(self).__name__} replaces convolutions with {name} '
                f'{" or ".join(map(str, possible))}, got {value}'
            )
