"""Categories of a COCO file, read without the rest of it."""

import json

from hybrid_mm.data.coco_check import coco_categories


def test_categories_at_any_place_of_the_file(tmp_path):
    """After a key of the same name at another level, and longer than one block of reading."""
    names = [f'category number {i} of many' for i in range(1500)]
    categories = [dict(id=i, name=name, supercategory='x' * 30) for i, name in enumerate(names)]
    assert len(json.dumps(categories)) > 2 << 16
    path = tmp_path / 'x.json'
    for content in (
        dict(categories=categories, images=[dict(id=1)] * 5),
        dict(info=dict(categories=[1, 2]), images=[dict(id=1)] * 5000, categories=categories),
    ):
        path.write_text(json.dumps(content))
        assert coco_categories(str(path)) == names
    path.write_text(json.dumps(dict(images=[], categories=categories[:2])))
    assert coco_categories(str(path)) == names[:2]
    path.write_text('{"images": []}')
    assert coco_categories(str(path)) is None
