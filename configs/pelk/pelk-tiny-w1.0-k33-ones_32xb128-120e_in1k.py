# Table 5 of the paper, which gives one grid, of 33 x 33. It is our reading (unverified) that all
# stages but the last have it, and that the last one has the default grid of 13 x 13.
_base_ = './pelk-tiny_32xb128-120e_in1k.py'

grid = [1] * 33
model = dict(
    backbone=dict(
        kernel_sizes=(33, 33, 33, 13),
        grids=(grid, grid, grid, None),
        pos_embed='none',
        width_factor=1.0,
    ),
    head=dict(in_channels=768),
)
custom_hooks = _base_.custom_hooks[:1]  # not sparse
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(_delete_=True)))
