# Blocked local self-attention (block 8, halo 3) in place of the 3x3 convolutions of c5: the
# ResNet-50 of the paper without its SE and SiLU.
backbone = dict(type='hybrid_mm.HaloNet', arch=dict(base='r50-se-b8', gate=None, act='relu'))
