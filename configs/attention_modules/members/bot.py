# Global self-attention in place of the 3x3 convolutions of c5.
backbone = dict(type='hybrid_mm.BoTNet', arch='bot50')
