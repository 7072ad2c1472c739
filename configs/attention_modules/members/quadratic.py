# Quadratic attention with nine heads in the place of all 3x3 convolutions.
backbone = dict(type='hybrid_mm.QuadraticAttentionResNet', arch='r50')
