_base_ = ['./recipes/upernet_convnext_8xb2-160k_ade20k.py', './members/convnext-b.py']

model = dict(
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.widths),
    auxiliary_head=dict(in_channels=_base_.widths[2]),
)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
