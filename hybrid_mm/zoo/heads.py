"""Heads that configs are written for, and the data that they need."""

from dataclasses import dataclass

from hybrid_mm.errors import UserError, warn
from hybrid_mm.zoo.splits import UserData


@dataclass(frozen=True)
class Head:
    """A detector or decoder that configs are written for.

    Attributes:
        base: File of ``configs/_base_/models``.
        layout: Layout of the data that it needs: 'coco' or 'masks'.
        masks: Whether it needs instance masks.
    """

    base: str
    layout: str
    masks: bool = False


NEW_HEADS = {
    'mask-rcnn': Head('mask-rcnn_r50_fpn.py', 'coco', True),
    'cascade-mask-rcnn': Head('cascade-mask-rcnn_r50_fpn.py', 'coco', True),
    'retinanet': Head('retinanet_r50_fpn.py', 'coco'),
    'upernet': Head('upernet_r50.py', 'masks'),
    'semantic-fpn': Head('fpn_r50.py', 'masks'),
}


def check_head(head: str, data: UserData) -> None:
    """Check that a head can learn from the data.

    Raises:
        UserError: The head needs label maps and the data have boxes, or the other way round, or it
            needs instance masks and most objects have none.
    """
    wanted = NEW_HEADS[head]
    layouts = {'coco': 'boxes in a COCO file', 'masks': 'images with label maps'}
    if wanted.layout != data.layout:
        fitting = [name for name, other in NEW_HEADS.items() if other.layout == data.layout]
        raise UserError(
            f'--head {head} needs {layouts[wanted.layout]}, but {data.root} holds '
            f'{layouts[data.layout]}; use --head {", ".join(fitting)}'
        )
    if wanted.masks and data.polygons < 0.5:
        raise UserError(
            f'--head {head} needs instance masks, but {100 * (1 - data.polygons):.0f}% of the '
            f'objects in {data.root} have none; use --head retinanet'
        )
    if wanted.masks and data.polygons < 1:
        warn(f'{100 * (1 - data.polygons):.2g}% of the objects have no mask')
