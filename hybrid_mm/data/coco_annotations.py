"""Annotations in a file of COCO's format, one by one."""

from typing import Any

from hybrid_mm.data.coco_lists import CocoFile
from hybrid_mm.data.coco_masks import (
    FewPointsError,
    MaskError,
    are_plain,
    area_of,
    check_filled,
    plain_polygons,
    plain_run_lengths,
    reach,
    totals,
)
from hybrid_mm.data.coco_values import (
    Id,
    as_flag,
    as_number,
    find,
    is_area,
    is_box,
    is_id,
    parsed,
    shown,
)
from hybrid_mm.errors import shorten

_TEXTS_AT_ONCE = 4096  # compressed masks that are looked at together


class AnnotationCheck:
    """One pass over the annotations of a file whose images and categories are read.

    Attributes:
        beyond: Number of boxes that reach out of their image.
    """

    def __init__(self, file: CocoFile):
        self.file, self.use, self.found = file, file.use, file.found
        self.beyond = 0
        self._texts: list[tuple[dict, dict, str]] = []  # annotations with compressed masks

    def run(self) -> None:
        """Check, convert and count all annotations; take the broken images out of the file.

        Raises:
            UserError: Two annotations share an id; one names no image; all are of images that are
                not listed.
        """
        file, content, found = self.file, self.file.content, self.found
        file.number_annotations()
        entries, images = content['annotations'], file.images
        objects = dict.fromkeys(file.categories, 0)
        unlisted = []
        for entry in entries:
            image = images.get(self._image_of(entry))
            if image is None:
                unlisted.append(entry)
            elif self._check(entry, image):
                objects[entry['category_id']] += 1
        self._check_texts()
        for number, count in objects.items():
            found.objects[file.categories[number]] += count
        if unlisted:
            if images and len(unlisted) == len(entries):
                file.refuse(
                    f'all {len(entries)} annotations are of images that are not '
                    f'listed; their image_id is {shown(unlisted[0]["image_id"])}, ..., the ids of '
                    f'the {len(images)} images are {shorten([repr(i) for i in images], 3)}'
                )
            ids = [str(entry['id']) for entry in unlisted]
            found.left_out['of images that are not listed'] = ids
        if unlisted or found.broken:
            for number in found.broken:
                del images[number]
            content['images'] = list(images.values())
            content['annotations'] = [entry for entry in entries if entry['image_id'] in images]

    def _image_of(self, entry: dict) -> Id:
        """Id of the image of an annotation, in the notation of the images."""
        number = entry.get('image_id')
        if type(number) is int and number in self.file.images:
            return number
        if not is_id(number):
            self.file.refuse(
                f'annotation {entry["id"]} has the image_id {shown(number)}; expected the id of an '
                'image'
            )
        self._convert_id(entry, 'image', self.file.images)
        return entry['image_id']

    def _convert_id(self, entry: dict, kind: str, known: dict[Id, Any]) -> bool:
        """Give the id of an image or category its notation there; return whether it is known."""
        key = f'{kind}_id'
        value = entry.get(key)
        found = find(value, known)
        if found is None:
            return False
        if type(found) is not type(value):
            self.file.note(
                f'annotations whose {key} is of another kind than the id of the {kind}; converted',
                str(entry['id']),
            )
        entry[key] = found
        return True

    def _check(self, entry: dict, image: dict) -> bool:
        """Check one annotation; return whether it is an object that is trained.

        What COCO's own files have is recognised without a call for every field.
        """
        box, area, crowd = entry.get('bbox'), entry.get('area'), entry.get('iscrowd')
        category = entry.get('category_id')
        plain_flags = type(crowd) is int and 0 <= crowd <= 1 and 'ignore' not in entry
        if not plain_flags and not self._read_flags(entry):
            return False
        known = type(category) is int and category in self.file.categories
        if not known and not self._read_category(entry):
            return False
        if not is_box(box):
            box = self._read_box(entry)
            if box is None:
                return False
        x, y, w, h = box
        height, width = image['height'], image['width']
        right, bottom = x + w, y + h
        # as MMDetection does it; see CocoDataset.parse_data_info
        inside = x < width and y < height and right > 0 and bottom > 0 and w >= 1 and h >= 1
        if not inside:
            reason = 'with a box of no area inside its image'
            self.found.left_out.setdefault(reason, []).append(str(entry['id']))
            if not is_area(area):
                entry['area'] = max(0, w * h)
        else:
            self.beyond += right > width + 1 or bottom > height + 1
            if not is_area(area):
                self._read_area(entry, image)
        if self.use.masks and (inside or self.use.evaluated):
            inside = self._check_mask(entry, image) and inside
        return inside and not entry['iscrowd'] and not entry.get('ignore')

    def _break(self, entry: dict, problem: str) -> bool:
        name = self.file.images[entry['image_id']]['file_name']
        self.found.broken.setdefault(
            entry['image_id'], f'{name}: annotation {entry["id"]} {problem}'
        )
        return False

    def _read_flags(self, entry: dict) -> bool:
        name = str(entry['id'])
        for key in ('iscrowd', 'ignore'):
            value = entry.get(key)
            flag = 0 if value is None else as_flag(value)
            if flag is None:
                return self._break(entry, f'has {key} {shown(value)}; expected 0 or 1')
            if isinstance(value, str):
                self.file.note(f'annotations with {key} as text; read as numbers', name)
            elif value is None and key == 'iscrowd':
                self.file.note('annotations without iscrowd; taken as 0', name)
            if key == 'iscrowd' or key in entry:
                entry[key] = flag
        return True

    def _read_category(self, entry: dict) -> bool:
        if self._convert_id(entry, 'category', self.file.categories):
            return True
        known = shorten([str(number) for number in self.file.categories])
        value = shown(entry.get('category_id'))
        return self._break(entry, f'has the category {value}; the file has {known}')

    def _read_box(self, entry: dict) -> list | None:
        box = parsed(entry.get('bbox'))
        numbers = [as_number(value) for value in box] if isinstance(box, list) else []
        if len(numbers) != 4 or not is_box(numbers):
            self._break(
                entry,
                f'has the box {shown(entry.get("bbox"))}; expected four finite numbers x, y, '
                'width, height',
            )
            return None
        self.file.note('annotations with a box as text; read as numbers', str(entry['id']))
        entry['bbox'] = numbers
        return numbers

    def _read_area(self, entry: dict, image: dict) -> None:
        area = as_number(entry.get('area'))
        if area is not None and is_area(area):
            kind = 'annotations with an area as text; read as a number'
        else:
            kind = 'annotations without a positive area; computed from their mask or box'
            w, h = entry['bbox'][2:]
            mask = parsed(entry.get('segmentation'))
            area = area_of(mask, image['height'], image['width']) or w * h
        self.file.note(kind, str(entry['id']))
        entry['area'] = area

    # ---- masks

    def _check_mask(self, entry: dict, image: dict) -> bool:
        """Check a mask; return whether it is one that is trained."""
        mask = entry.get('segmentation')
        height, width = image['height'], image['width']
        limit = reach(height, width)
        if type(mask) is list and are_plain(mask, limit):
            return True
        mask = parsed(mask)
        if isinstance(mask, list) and len(mask) == 1 and isinstance(mask[0], dict):
            mask = mask[0]
        if not mask:
            if self.use.masks == 'given':
                return True
            needed = 'masks are evaluated' if self.use.evaluated else 'the pipeline loads masks'
            return self._break(entry, f'has no segmentation, and {needed}')
        try:
            if isinstance(mask, list):
                mask, notes = plain_polygons(mask, limit)
            elif isinstance(mask, dict):
                mask, notes = plain_run_lengths(mask, height, width)
            else:
                raise MaskError(f'the segmentation {shown(mask)}; expected polygons or run lengths')
        except FewPointsError as error:
            if self.use.evaluated:
                return self._break(entry, f'has {error}; masks cannot be compared with it')
            reason = 'whose mask has fewer than three points'
            self.found.left_out.setdefault(reason, []).append(str(entry['id']))
            # MMDetection ignores the object, and looks at the lengths of the polygons
            entry['segmentation'] = mask if isinstance(mask[0], list) else [mask]
            return False
        except MaskError as error:
            return self._break(entry, f'has {error}')
        for note in notes:
            self.file.note(f'annotations {note}', str(entry['id']))
        entry['segmentation'] = mask
        if isinstance(mask, dict):
            if self.use.polygons_only and not entry['iscrowd']:
                return self._break(
                    entry,
                    'has a run-length mask, which MMDetection ignores with poly2mask=False; '
                    'set poly2mask=True of LoadAnnotations',
                )
            if isinstance(mask['counts'], list):
                self._note_empty(entry, sum(mask['counts'][1::2]))
                return True
            self._texts.append((entry, image, mask['counts']))
            if len(self._texts) >= _TEXTS_AT_ONCE:
                self._check_texts()
        return True

    def _check_texts(self) -> None:
        """Check the compressed masks that were collected, all at once."""
        filled, covered = totals([text for _, _, text in self._texts])
        for (entry, image, _), total, inside in zip(
            self._texts, filled.tolist(), covered.tolist(), strict=True
        ):
            try:
                check_filled(total, image['height'], image['width'])
                self._note_empty(entry, inside)
            except MaskError as error:
                self._break(entry, f'has {error}')
        self._texts.clear()

    def _note_empty(self, entry: dict, pixels: int) -> None:
        if not pixels:
            self.file.note('annotations with a box, but a mask of no pixels', str(entry['id']))
