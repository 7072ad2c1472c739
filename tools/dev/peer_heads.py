"""Small heads of detectron2 and Mask2Former: names of their tensors, and what they compute.

    python tools/dev/peer_heads.py

writes ``tests/convert/data/heads/<source>.json``, with checkouts of facebookresearch/detectron2 and
facebookresearch/Mask2Former in reach of Python. No compiled code is needed: an empty module in the
place of detectron2's is enough. Values of tensors follow from their names, as in ``peer_cases.py``.
"""

import importlib.util
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peer_cases import drawn, places
from torch import Tensor, nn

FOLDER = Path(__file__).parents[2] / 'tests/convert/data/heads'
CHANNELS, CLASSES, MAP = 8, 5, (6, 5)
PYRAMID = {'res2': (8, 24, 16), 'res3': (16, 12, 8), 'res4': (24, 6, 4), 'res5': (32, 3, 2)}
WIDTH, QUERIES = 64, 7  # of Mask2Former


def boxes(number: int) -> Tensor:
    """Some boxes (number, 4), the lower right corner after the upper left one."""
    corners = drawn('boxes', (number, 2)) * 20 + 40
    return torch.cat([corners, corners + drawn('sizes', (number, 2)) * 8 + 12], 1)


class RCNN(nn.Module):
    """RPN, box heads and mask head under the names that they have in detectron2's detectors."""

    def __init__(self, stages: int, convs: int, fcs: int, rpn_convs: int, norm: Any) -> None:
        super().__init__()
        from detectron2.layers import ShapeSpec
        from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
        from detectron2.modeling.box_regression import Box2BoxTransform
        from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
        from detectron2.modeling.roi_heads import (
            FastRCNNConvFCHead,
            FastRCNNOutputLayers,
            MaskRCNNConvUpsampleHead,
        )

        shape = ShapeSpec(channels=CHANNELS, height=7, width=7)
        heads = [
            FastRCNNConvFCHead(
                shape, conv_dims=[CHANNELS] * convs, fc_dims=[16] * fcs, conv_norm=norm
            )
            for _ in range(stages or 1)
        ]
        predictors = [
            FastRCNNOutputLayers(
                ShapeSpec(channels=16),
                box2box_transform=Box2BoxTransform((10.0 * k, 10.0 * k, 5.0 * k, 5.0 * k)),
                num_classes=CLASSES,
                cls_agnostic_bbox_reg=bool(stages),
            )
            for k in range(1, (stages or 1) + 1)
        ]
        self.proposal_generator = nn.Module()
        self.proposal_generator.rpn_head = StandardRPNHead(
            in_channels=CHANNELS, num_anchors=3, conv_dims=[-1] * rpn_convs
        )
        self.proposal_generator.anchor_generator = DefaultAnchorGenerator(
            sizes=[[64]], aspect_ratios=[0.5, 1.0, 2.0], strides=[8], offset=0.0
        )
        self.roi_heads = nn.Module()
        self.roi_heads.box_head = nn.ModuleList(heads) if stages else heads[0]
        self.roi_heads.box_predictor = nn.ModuleList(predictors) if stages else predictors[0]
        self.roi_heads.mask_head = MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=CHANNELS, height=14, width=14),
            num_classes=CLASSES,
            conv_dims=[CHANNELS] * 5,
            conv_norm=norm,
        )
        self.heads, self.predictors = [heads], [predictors]  # not registered twice

    def forward(self) -> list[Tensor]:
        """Give logits, deltas, anchors of the RPN, scores and boxes of the heads, and masks."""
        maps = drawn('map', (1, CHANNELS, *MAP)).float()
        logits, deltas = self.proposal_generator.rpn_head([maps])
        anchors = self.proposal_generator.anchor_generator([maps])[0].tensor
        outputs = [logits[0], deltas[0], anchors]
        regions = drawn('regions', (3, CHANNELS, 7, 7)).float()
        for head, predictor in zip(self.heads[0], self.predictors[0], strict=True):
            scores, moves = predictor(head(regions))
            outputs += [scores, predictor.box2box_transform.apply_deltas(moves, boxes(3).float())]
        return [
            *outputs,
            self.roi_heads.mask_head.layers(drawn('masks', (2, CHANNELS, 14, 14)).float()),
        ]


def mask2former() -> nn.Module:
    """Pixel decoder and queries under the names that they have in Mask2Former."""
    from detectron2.layers import ShapeSpec

    folder = Path(importlib.util.find_spec('mask2former').submodule_search_locations[0])
    for name in ('', '.modeling', '.modeling.pixel_decoder', '.modeling.transformer_decoder'):
        # without what they import themselves: data sets, evaluation
        package = types.ModuleType(f'mask2former{name}')
        package.__path__ = [str(folder.joinpath(*name.split('.')))]
        sys.modules[package.__name__] = package
    sys.modules['MultiScaleDeformableAttention'] = types.ModuleType('compiled')
    from mask2former.modeling.pixel_decoder.msdeformattn import MSDeformAttnPixelDecoder
    from mask2former.modeling.transformer_decoder import mask2former_transformer_decoder as decoder

    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sem_seg_head = nn.Module()
            self.sem_seg_head.pixel_decoder = MSDeformAttnPixelDecoder(
                {k: ShapeSpec(channels=v[0], stride=2 ** int(k[3])) for k, v in PYRAMID.items()},
                transformer_dropout=0.0,
                transformer_nheads=8,
                transformer_dim_feedforward=16,
                transformer_enc_layers=2,
                conv_dim=WIDTH,
                mask_dim=WIDTH,
                norm='GN',
                transformer_in_features=['res3', 'res4', 'res5'],
                common_stride=4,
            )
            self.sem_seg_head.predictor = decoder.MultiScaleMaskedTransformerDecoder(
                WIDTH,
                True,
                num_classes=CLASSES,
                hidden_dim=WIDTH,
                num_queries=QUERIES,
                nheads=8,
                dim_feedforward=16,
                dec_layers=4,
                pre_norm=False,
                mask_dim=WIDTH,
                enforce_input_project=False,
            )
            self.criterion = nn.Module()
            self.criterion.register_buffer('empty_weight', torch.ones(CLASSES + 1))

        def forward(self) -> list[Tensor]:
            maps = {key: drawn(key, (2, *shape)).float() for key, shape in PYRAMID.items()}
            features, _, levels = self.sem_seg_head.pixel_decoder.forward_features(maps)
            found = self.sem_seg_head.predictor(levels, features)
            return [features, found['pred_logits'], found['pred_masks']]

    return Segmenter()


CASES: dict[str, dict[str, Callable[[], nn.Module]]] = {
    'detectron2': {
        'mask-rcnn_r50_fpn': lambda: RCNN(0, 0, 2, 1, ''),
        'mask-rcnn_r50_fpn_4conv1fc-ln': lambda: RCNN(0, 4, 1, 2, 'LN'),
        'cascade-mask-rcnn_r50_fpn_4conv1fc': lambda: RCNN(3, 4, 1, 2, 'BN'),
        'cascade-mask-rcnn_r50_fpn_4conv1fc-ln': lambda: RCNN(3, 4, 1, 2, 'LN'),
    },
    'mask2former': {'mask2former_r50_instance': mask2former},
}


def case(make: Callable[[], nn.Module]) -> dict[str, Any]:
    """Run heads: a case as it is stored, with values of the outputs at a few places."""
    model = make().eval()
    values = {
        key: drawn(key, value.shape).float() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(values)
    with torch.no_grad():
        outputs: Sequence[Tensor] = model.float()()
    return dict(
        tensors={key: list(value.shape) for key, value in values.items()},
        outputs=[[list(x.shape), [float(f'{v:.7g}') for v in places(x)]] for x in outputs],
    )


def main() -> None:
    """Write the cases of all sources."""
    sys.modules.setdefault('detectron2._C', types.ModuleType('compiled'))
    for source, cases in CASES.items():
        found = {name: case(make) for name, make in cases.items()}
        text = ',\n'.join(
            f'{json.dumps(name)}: {json.dumps(value)}' for name, value in found.items()
        )
        (FOLDER / f'{source}.json').write_text(f'{{{text}}}\n')


if __name__ == '__main__':
    main()
