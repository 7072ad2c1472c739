# timm's MaxViT.
backbone = dict(
    type='hybrid_mm.StudyMaxxVit',
    base='maxvit_tiny_tf',
    img_size=(256, 320),
    dim_head=16,
    embed_dim=(32, 64, 128, 256),
    depths=(1, 1, 2, 1),
    stem_width=32,
)
widths = [32, 64, 128, 256]
peer_of = 'maxvit'
package = 'timm'
