# The paper states 160k iterations only: the other values are those of SLaK's file of this size.
_base_ = './pelk-base_upernet_4xb4-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://pelk-base-101_in1k'
model = dict(
    backbone=dict(
        kernel_sizes=(101, 69, 67, 13), center_size=7, init_cfg=dict(checkpoint=checkpoint)
    )
)
