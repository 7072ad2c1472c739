"""End-to-end graphs of segmenters."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.export.graphs import ExportError, Network, largest_difference

__all__ = ['SlidingWindows', 'WholeImage', 'segmenter_graph', 'target_size']

# heads of MMSegmentation whose logits are one map, as predict returns it
_HEADS = ('BaseDecodeHead', 'BaseCascadeDecodeHead', 'EncHead', 'DAHead', 'Mask2FormerHead')
_BYTE = 256


def segmenter_graph(model: Any, probabilities: bool = False) -> Network:
    """The network of a segmenter.

    Args:
        model: Segmenter of MMSegmentation.
        probabilities: Return the probabilities of the classes as well.

    Raises:
        ExportError: Its head has no end-to-end graph.
    """
    heads: Any = (
        model.decode_head if isinstance(model.decode_head, nn.ModuleList) else [model.decode_head]
    )
    kind = type(model).__name__
    if kind not in ('EncoderDecoder', 'CascadeEncoderDecoder'):
        raise ExportError(f'{kind} has no end-to-end graph; use --raw or --backbone-only')
    owner = type(heads[-1]).predict.__qualname__.partition('.')[0]
    if owner not in _HEADS:
        raise ExportError(
            f'{kind} with {type(heads[-1]).__name__}: only heads of one map of logits have an '
            'end-to-end graph; use --backbone-only'
        )
    if (model.test_cfg or {}).get('mode', 'whole') == 'slide':
        return SlidingWindows(model, probabilities)
    return WholeImage(model, probabilities)


class WholeImage(Network):
    """A segmenter that looks at the whole image at once: the label map, (N, H, W).

    Args:
        model: Segmenter of MMSegmentation.
        probabilities: Return the probabilities of the classes as well.
    """

    def __init__(self, model: Any, probabilities: bool = False) -> None:
        super().__init__()
        self.model: Any = model
        self.outputs = ('label_map', 'probabilities') if probabilities else ('label_map',)
        self.settings = {'size': torch.zeros(2, dtype=torch.int64)}
        self.aligned = bool(model.align_corners)
        # Mask2Former's maps are sums of probabilities, not logits
        self.sums = type(model.decode_head).__name__ == 'Mask2FormerHead'
        self.threshold = None
        if model.out_channels == 1:
            head = model.decode_head
            last: Any = head[-1] if isinstance(head, nn.ModuleList) else head
            self.threshold = float(last.threshold)
            self.properties = {'thresholds': {'class': self.threshold}}

    def forward(self, x: Tensor, size: tuple[int, int], *settings: Tensor) -> tuple[Tensor, ...]:
        """See :class:`hybrid_mm.export.graphs.Network`."""
        return self.results(self.scores(x, size, *settings))

    def logits(self, x: Tensor) -> Tensor:
        """Logits of prepared images, (N, C, H', W'), at their size."""
        if not self.sums:
            return self.model.encode_decode(x, [dict(img_shape=x.shape[2:])])
        # as Mask2FormerHead.predict, which copies the sizes, as the tracer cannot
        scores, masks = (
            found[-1] for found in self.model.decode_head(self.model.extract_feat(x), [])
        )
        masks = F.interpolate(masks, x.shape[2:], mode='bilinear', align_corners=False)
        scores = scores.softmax(-1)[..., :-1]
        return torch.einsum('bqc, bqhw -> bchw', scores, masks.sigmoid())

    def scores(self, x: Tensor, size: tuple[int, int], wanted: Tensor) -> Tensor:
        """Logits at the size of the label map.

        Args:
            x: Prepared images.
            size: Height and width of the images before padding.
            wanted: Height and width of the label map, (2,); those of the images if they are 0.
        """
        return self.resized(self.logits(x)[:, :, : size[0], : size[1]], wanted)

    def resized(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Logits of the size of the images, at that of the label map."""
        size = target_size(logits, wanted, 2 if self.aligned else 1)
        return F.interpolate(logits, size, mode='bilinear', align_corners=self.aligned)

    def results(self, scores: Tensor) -> tuple[Tensor, ...]:
        """Outputs of logits at the size of the label map."""
        if self.threshold is not None:
            probabilities = scores.sigmoid()
            labels = probabilities[:, 0] > self.threshold
        else:
            labels = scores.argmax(1)
        labels = labels.to(torch.uint8 if scores.shape[1] <= _BYTE else torch.int32)
        if len(self.outputs) == 1:
            return (labels,)
        if self.threshold is None:
            probabilities = scores / scores.sum(1, keepdim=True) if self.sums else scores.softmax(1)
        return labels, probabilities

    def difference(
        self, found: dict[str, Tensor], x: Tensor, size: tuple[int, int], *settings: Tensor
    ) -> float:
        """See :class:`hybrid_mm.export.graphs.Network`.

        Labels may differ where the two best classes are equal up to rounding.
        """
        scores = self.scores(x, size, *settings)
        expected = dict(zip(self.outputs, self.results(scores), strict=True))
        labels, others = expected.pop('label_map'), found['label_map']
        if labels.shape != others.shape or labels.dtype != others.dtype:
            raise ExportError(
                f'label_map is {others.dtype}, {tuple(others.shape)}, instead of {labels.dtype}, '
                f'{tuple(labels.shape)}'
            )
        worst = largest_difference(expected, found)
        differs = labels != others
        if not differs.any():
            return worst
        largest = scores.abs().max().clamp(min=1e-12)
        if self.threshold is not None:
            at = torch.logit(torch.tensor(self.threshold))
            gap = (scores[:, 0] - at).abs()
        else:
            gap = scores.amax(1) - scores.gather(1, others.long()[:, None])[:, 0]
        return max(worst, (gap[differs].max() / largest).item())


class SlidingWindows(WholeImage):
    """A segmenter that looks at windows, whose logits are averaged where they overlap.

    The windows are those of MMSegmentation's ``test_cfg`` with ``mode='slide'``: the last ones are
    moved back into the image, and an image smaller than a window is one window.

    Args:
        model: Segmenter of MMSegmentation.
        probabilities: Return the probabilities of the classes as well.

    Attributes:
        crop: Height and width of a window.
        stride: Of the windows, along both axes.
    """

    def __init__(self, model: Any, probabilities: bool = False) -> None:
        super().__init__(model, probabilities)
        self.crop: tuple[int, int] = tuple(model.test_cfg.crop_size)
        self.stride: tuple[int, int] = tuple(model.test_cfg.stride)
        self.properties['windows'] = {'crop': self.crop, 'stride': self.stride}

    def logits(self, x: Tensor) -> Tensor:
        """Logits of prepared images, (N, C, H', W'), at their size."""
        return self.model.slide_inference(x, [{}])


def target_size(maps: Tensor, wanted: Tensor, least: int = 1) -> tuple[int, int]:
    """Height and width that maps are resized to: ``wanted``, (2,), or their own if it is 0.

    Args:
        maps: (N, C, h, w).
        wanted: Height and width, an input of the graph.
        least: What the tracer may assume of both. With ``align_corners``, torch computes a length
            of one in another way than all others, and ONNX's ``Resize`` knows both.
    """
    own = [torch.full((1,), length, dtype=torch.int64) for length in maps.shape[2:]]
    height, width = torch.where(wanted > 0, wanted, torch.cat(own)).unbind()
    return _length(height, least), _length(width, least)


def _length(length: Tensor, least: int) -> int:
    """A number of pixels as the tracer needs it: not below ``least``, of 31 bits."""
    found: int = length.item()  # type: ignore[assignment]  # int() would fix it
    torch._check(found >= least)
    torch._check(found < 2**31)
    return found
