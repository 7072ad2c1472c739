# MMSegmentation's own file of this name inherits from one with 80k iterations: a slip.
_base_ = './deit-base_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='hybrid_mm://deit-small_in1k')),
    decode_head=dict(in_channels=[384] * 4),
    auxiliary_head=dict(in_channels=384),
)
