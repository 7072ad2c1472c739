# The paper trains B6 on ImageNet-22k first, by a recipe that is not published. This one trains it
# on ImageNet-1k alone, and evaluates fine-tuned weights; the drop path rate is that of the ADE20K
# config (both unverified).
_base_ = './van-b0_8xb128_in1k.py'

model = dict(backbone=dict(arch='b6', drop_path_rate=0.5), head=dict(in_channels=768))
