# Neighborhood attention transformer.
backbone = dict(
    type='hybrid_mm.NAT',
    arch=dict(
        embed_dim=32, depths=(2, 3, 5, 3), heads=(2, 4, 8, 16), mlp_ratio=3.0, layer_scale=None
    ),
)
widths = [32, 64, 128, 256]
