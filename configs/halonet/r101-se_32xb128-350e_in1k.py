_base_ = './r50-halo8_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='r101-se'))
