"""Random weights of detectors with which there is something to compare."""

from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.export.detectors_decoding import Detector
from hybrid_mm.export.whole import whole_graph

__all__ = ['vary_outputs']

# spread and mean of the outputs of last layers by their names in MMDetection
_LAST = {
    **dict.fromkeys(('retina_cls', 'atss_cls', 'conv_cls', 'gfl_cls'), (2.0, -2.0)),
    **dict.fromkeys(('retina_reg', 'atss_reg', 'rpn_reg', 'fc_reg'), (0.5, 0.0)),
    **dict.fromkeys(('rpn_cls', 'fc_cls'), (2.0, 0.0)),
    **dict.fromkeys(('atss_centerness', 'conv_centerness', 'gfl_reg', 'conv_logits'), (1.5, 0.0)),
    'conv_reg': (0.7, 1.0),
}


@torch.no_grad()
def vary_outputs(model: nn.Module, size: tuple[int, int] = (96, 128), seed: int = 0) -> nn.Module:
    """Give a detector random weights with which it finds many different objects.

    With the initial values of a head all scores are nearly equal and below the threshold. Other
    models stay as they are.

    Args:
        model: A model; of a detector of MMDetection, what follows the backbone is changed.
        size: Height and width of a random image, on which the outputs get their spread.
        seed: Seed of the weights and the image.

    Returns:
        The model.
    """
    graph: Any = whole_graph(model, size, 1)
    if not isinstance(graph.module.network, Detector):
        return model
    generator = torch.Generator().manual_seed(seed)
    hooks = []
    for name, module in model.named_modules():
        if name.startswith('backbone') or not hasattr(module, 'weight') or module.weight.ndim < 2:
            continue
        deviation = (2 / module.weight[0].numel()) ** 0.5
        module.weight.normal_(0, deviation, generator=generator)
        if module.bias is not None:
            module.bias.zero_()
        spread = _LAST.get(name.rpartition('.')[2])
        if spread is not None:
            hooks.append(module.register_forward_hook(_Rescale(*spread)))
    graph.module(*graph.inputs.values())
    for hook in hooks:
        hook.remove()
    return model


class _Rescale:
    """Hook that gives the outputs of a layer a spread and a mean when it runs for the first time.

    A head runs on several maps, of which the first decides.
    """

    def __init__(self, spread: float, mean: float) -> None:
        self.spread, self.mean, self.done = spread, mean, False

    def __call__(self, module: Any, _: tuple, output: Tensor) -> Tensor | None:
        if self.done:
            return None
        self.done = True
        factor = self.spread / output.std()
        module.weight.mul_(factor)
        module.bias.fill_(self.mean)
        return output * factor + self.mean
