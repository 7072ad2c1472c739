# The published classifier; detectors start from one that widens its maps in attention, as the other
# sizes do (leave dim_mul_in_att out).
_base_ = './mvitv2-tiny_8xb128-300e_in1k.py'

model = dict(
    backbone=dict(arch='large', dim_mul_in_att=False, drop_path_rate=0.5),
    head=dict(in_channels=1152),
)
