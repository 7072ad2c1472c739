# NAT with dilated windows in every second block.
backbone = dict(
    type='hybrid_mm.DiNAT',
    arch=dict(
        embed_dim=32, depths=(2, 3, 5, 3), heads=(2, 4, 8, 16), mlp_ratio=3.0, layer_scale=None
    ),
    dilations=[[1, 8], [1, 4, 1], [1, 2, 1, 2, 1], [1, 1, 1]],
)
widths = [32, 64, 128, 256]
host = 'nat'
