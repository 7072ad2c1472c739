# Pre-training for detectors: one position table per axis, which follows the size of the image.
_base_ = './lesa-r50_4xb32-95e_in1k.py'

model = dict(backbone=dict(positions='axial'))
