# The model garden's file for XL, which names the base network, an evident slip. survival_prob 0.7
# drops 0.3 k / 24 of block k of 24, counted from 0; the cosine takes 115,750 iterations, of which
# 90,000 are trained. The public weights of XL are those of ImageNet-21k, whose inputs are scaled to
# [-1, 1].
_base_ = './cascade-mask-rcnn_maxvit-tiny_fpn_32xb8-ms0.1-896-90k_coco.py'

checkpoint = 'hybrid_mm://maxvit-xlarge_in21k'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        arch='xlarge', drop_path_rate=0.3 * 23 / 24, init_cfg=dict(checkpoint=checkpoint)
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
_base_.param_scheduler[1].end = 115750
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
