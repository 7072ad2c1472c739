"""What the Triton kernels of local attention read of an axis: small integer tables.

A slot is a place in a tile, of a query or of a key. A query sees ``count`` laid-out positions from
``start`` on, and the offset of position p is ``shift + p``. Within one stretch of the layout all
queries see as many positions, and the shift falls from a query to the next, so that a tile meets
few offsets.
"""

import functools
from typing import NamedTuple

import numpy as np

from hybrid_mm.ops.local_attention.axes import Axis
from hybrid_mm.ops.local_attention.pattern import AxisPattern, Pattern, PatternType

NOWHERE = 2**30  # start of a slot without a query, which sees nothing


class QueryTiles(NamedTuple):
    """An axis in tiles of queries.

    Attributes:
        slots: Query (-1: none), start and shift of every slot, (tiles * size, 3).
        tiles: First position that any query of a tile sees, the one after the last, the count and
            the lowest shift, (tiles, 4).
        source: Key of every position, -1 for a zero vector, (positions,).
        spread: By how much shifts of a tile differ at most.
        dense: Every query of a tile sees all that any of them sees.
    """

    slots: np.ndarray
    tiles: np.ndarray
    source: np.ndarray
    spread: int
    dense: bool


class KeyTiles(NamedTuple):
    """An axis in tiles of keys, for their gradients. Mirrored keys have several positions.

    Attributes:
        keys: Key of every slot, -1 for none, (tiles * size,).
        positions: For each copy of a key its position, -1 for none, (copies, tiles * size).
        tiles: First query, number of queries in ``queries`` that see a copy of a tile, their count
            and the lowest position, (copies, tiles, 4).
        queries: Query, start and shift, by rising start, (queries, 3).
        spread: By how much offsets of a tile and of a tile of queries differ at most.
        dense: Queries see all positions of the tiles that they are listed for.
    """

    keys: np.ndarray
    positions: np.ndarray
    tiles: np.ndarray
    queries: np.ndarray
    spread: int
    dense: bool


@functools.lru_cache(maxsize=512)
def query_tiles(kind: PatternType, axis: AxisPattern, length: int, size: int) -> QueryTiles:
    """Cut an axis into tiles of at most ``size`` queries, of one stretch each.

    Args:
        kind: Type of the pattern.
        axis: The pattern of the axis.
        length: Keys of the axis.
        size: Slots of a tile.
    """
    table = _axis(kind, axis, length)
    queries = _queries(table)
    groups = [s[i : i + size] for s in table.segments for i in range(0, len(s), size)]
    slots, tiles = np.empty((len(groups), size, 3), np.int32), np.empty((len(groups), 4), np.int32)
    slots[..., :2] = -1, NOWHERE
    spread, dense = 0, True
    for number, group in enumerate(groups):
        rows = queries[group]
        _, start, count, shift = rows.T
        slots[number, : len(group)] = rows[:, [0, 1, 3]]
        slots[number, len(group) :, 2] = shift[-1]
        tiles[number] = start.min(), (start + count).max(), count[0], shift.min()
        spread = max(spread, int(shift.max() - shift.min()))
        dense = dense and len(set(start)) == 1
    return QueryTiles(slots.reshape(-1, 3), tiles, table.source.astype(np.int32), spread, dense)


@functools.lru_cache(maxsize=512)
def key_tiles(
    kind: PatternType, axis: AxisPattern, length: int, size: int, query_size: int
) -> KeyTiles:
    """Cut an axis into tiles of at most ``size`` keys, of one stretch each.

    Args:
        kind: Type of the pattern.
        axis: The pattern of the axis.
        length: Keys of the axis.
        size: Slots of a tile.
        query_size: Queries that are read at a time.
    """
    table = _axis(kind, axis, length)
    queries = _queries(table)
    queries = queries[np.argsort(queries[:, 1], kind='stable')]
    _, start, count, shift = queries.T
    copies = _copies(table.source, length)
    groups = _key_groups(table, length, size)
    keys = np.full((len(groups), size), -1, np.int32)
    positions = np.full((copies.shape[1], len(groups), size), -1, np.int32)
    tiles = np.zeros((copies.shape[1], len(groups), 4), np.int32)
    spread, dense = 0, True
    for number, group in enumerate(groups):
        keys[number, : len(group)] = group
        positions[:, number, : len(group)] = copies[group].T
        for copy, place in enumerate(copies[group].T):
            place = place[place >= 0]
            if not len(place):
                continue
            low, high = place.min(), place.max()
            those = np.flatnonzero((start <= high) & (start + count > low))
            if not len(those):
                continue
            first, last = those[0], those[-1]
            tiles[copy, number] = first, last + 1 - first, count[first], low
            ends = np.minimum(np.arange(first, last + 1, query_size) + query_size - 1, last)
            fall = shift[first : last + 1 : query_size] - shift[ends]
            spread = max(spread, int(fall.max() + high - low))
            mine = slice(first, last + 1)
            all_seen = (start[mine] <= low) & (start[mine] + count[mine] > high)
            dense = dense and copies.shape[1] == 1 and bool(all_seen.all())
    flat = positions.reshape(len(positions), -1)
    return KeyTiles(keys.ravel(), flat, tiles, queries[:, [0, 1, 3]], spread, dense)


def query_arrays(
    kind: PatternType, axis: AxisPattern, length: int, size: int
) -> tuple[np.ndarray, ...]:
    """Slots, tiles and source of :func:`query_tiles`."""
    return query_tiles(kind, axis, length, size)[:3]


def key_arrays(
    kind: PatternType, axis: AxisPattern, length: int, size: int, query_size: int
) -> tuple[np.ndarray, ...]:
    """Keys, positions, tiles and queries of :func:`key_tiles`."""
    return key_tiles(kind, axis, length, size, query_size)[:4]


def _axis(kind: PatternType, axis: AxisPattern, length: int) -> Axis:
    return Pattern(kind, axis, axis).axes(length, length)[0]


def _queries(axis: Axis) -> np.ndarray:
    """Query, start, count and shift, (queries, 4)."""
    columns = np.arange(axis.queries), axis.start, axis.count, axis.offset - axis.start
    return np.stack(columns, 1).astype(np.int32)


def _copies(source: np.ndarray, length: int) -> np.ndarray:
    """Positions of every key, -1 where it has fewer than others, (keys, copies)."""
    position = np.flatnonzero(source >= 0)
    position = position[np.argsort(source[position], kind='stable')]
    key = source[position]
    number = np.arange(len(key)) - np.searchsorted(key, key)
    copies = np.full((length, number.max() + 1), -1)
    copies[key, number] = position
    return copies


def _key_groups(axis: Axis, length: int, size: int) -> list[np.ndarray]:
    """Keys in the order of the layout, cut where no query sees both sides, and by size.

    Keys that no query sees, between windows that are far apart, come last.
    """
    joined = np.zeros(len(axis.source) + 1, dtype=int)
    np.add.at(joined, axis.start + 1, 1)
    np.add.at(joined, axis.start + axis.count, -1)
    stretch = np.cumsum(np.cumsum(joined[:-1]) == 0)
    groups: dict[int, list[int]] = {}
    seen: set[int] = set()
    for key, number in zip(axis.source.tolist(), stretch.tolist(), strict=True):
        if key >= 0 and key not in seen:
            seen.add(key)
            groups.setdefault(number, []).append(key)
    groups[-1] = [key for key in range(length) if key not in seen]
    return [np.array(g[i : i + size]) for g in groups.values() for i in range(0, len(g), size)]
