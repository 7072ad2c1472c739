# SLaK's README names 61 x 61 only: the sizes after the first stage continue those of its 51 and 31.
_base_ = './slak-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(kernel_sizes=(61, 59, 57, 13)))
