_base_ = ['./recipes/upernet_swin_8xb2-160k_ade20k.py', './members/swin-t.py']

model = dict(
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.widths),
    auxiliary_head=dict(in_channels=_base_.widths[2]),
)
