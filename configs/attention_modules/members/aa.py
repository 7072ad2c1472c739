# Attention augmented 3x3 convolutions in c3 to c5.
backbone = dict(type='hybrid_mm.AAResNet', arch='r50')
