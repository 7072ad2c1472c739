# Quadratic attention with nine heads in place of all 3x3 convolutions.
backbone = dict(type='hybrid_mm.QuadraticAttentionResNet', arch='r50')
