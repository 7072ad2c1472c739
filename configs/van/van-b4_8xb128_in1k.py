# The drop path rate is not published: 0.4 is that of the ADE20K configs (unverified).
_base_ = './van-b0_8xb128_in1k.py'

model = dict(backbone=dict(arch='b4', drop_path_rate=0.4), head=dict(in_channels=512))
