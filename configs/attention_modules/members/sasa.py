# Stand-alone self-attention in place of all 3x3 convolutions, convolution stem.
backbone = dict(type='hybrid_mm.SASAResNet', arch='r50', stem='conv')
