# survival_prob 0.5 drops 0.5 k / 11 of block k of 11, counted from 0. 115,750 iterations; the
# cosine has taken 90,000, after which the rate stays at 3 %.
_base_ = './cascade-mask-rcnn_maxvit-tiny_fpn_32xb8-ms0.1-896-90k_coco.py'

checkpoint = 'hybrid_mm://maxvit-small_in1k'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.5 * 10 / 11, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
train_cfg = dict(max_iters=115750)
_base_.param_scheduler.append(
    dict(type='ConstantLR', factor=1.0, by_epoch=False, begin=90000, end=115750)
)
