# Quadratic attention with nine heads in place of all 3x3 convolutions. Its centres and spreads do
# not decay, as the authors train them.
backbone = dict(type='hybrid_mm.QuadraticAttentionResNet', arch='r50')
paramwise_cfg = dict(
    custom_keys={'.centers': dict(decay_mult=0.0), '.spreads': dict(decay_mult=0.0)}
)
