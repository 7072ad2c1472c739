# Kernel size 65 is in the paper, not in the official code; it follows the rule of the others.
_base_ = './van-lska-tiny_4xb128_in1k.py'

model = dict(backbone=dict(kernel_size=65))
