_base_ = './pelk-tiny-w1.0-k33-ones_32xb128-120e_in1k.py'

grid = [8, 4, 2, 1, 1, 1, 1, 1, 2, 4, 8]
model = dict(backbone=dict(grids=(grid, grid, grid, None)))
