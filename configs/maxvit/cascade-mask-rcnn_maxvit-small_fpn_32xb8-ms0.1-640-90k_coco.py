# This result of the model garden has no file there: the values are those of the tiny and base
# networks at this size, the drop path rate is that of the small one at 896 x 896.
_base_ = './cascade-mask-rcnn_maxvit-tiny_fpn_32xb8-ms0.1-640-90k_coco.py'

checkpoint = 'hybrid_mm://maxvit-small_in1k'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.5 * 10 / 11, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
