# timm's MaxViT.
backbone = dict(
    type='hybrid_mm.StudyMaxxVit',
    base='maxvit_tiny_tf',
    img_size=(256, 320),
    dim_head=12,
    embed_dim=(24, 48, 96, 192),
    depths=(1, 1, 3, 2),
    stem_width=24,
)
widths = [24, 48, 96, 192]
peer_of = 'maxvit'
package = 'timm'
