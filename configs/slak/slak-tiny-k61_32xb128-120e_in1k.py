# The sizes after the first stage are our reading (unverified).
_base_ = './slak-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(kernel_sizes=(61, 59, 57, 13)))
