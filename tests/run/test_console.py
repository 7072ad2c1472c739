"""Durations and the progress of long work, against those computed by hand."""

from hybrid_mm.run.console import duration, progress, track


def test_durations():
    minute, hour, day = 60, 3600, 86400
    for seconds, text in (
        (0.0123, '0.012 s'),
        (0.999, '1 s'),
        (1, '1 s'),
        (1.6, '2 s'),
        (59, '59 s'),
        (89.4, '89 s'),
        (90, '2 min'),
        (149, '2 min'),
        (151, '3 min'),
        (59 * minute, '59 min'),
        (60 * minute, '60 min'),
        (89 * minute, '89 min'),
        (90 * minute, '1 h 30 min'),
        (2 * hour, '2 h 0 min'),
        (25 * hour, '25 h 0 min'),
        (48 * hour - minute, '47 h 59 min'),
        (2 * day, '2 days 0 h'),
        (3 * day + 4 * hour + 50 * minute, '3 days 4 h'),
        (100 * day, '100 days 0 h'),
    ):
        assert duration(seconds) == text, seconds


def test_time_left(capsys, monkeypatch):
    """A line each 30 s at most: 40 of 100 steps in 50 s leave 75 s."""
    now = [1000.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    with progress('reading', 100) as advance:
        for seconds, steps in ((25, 10), (25, 30), (29, 9), (1, 1), (500, 49), (500, 1)):
            now[0] += seconds
            for _ in range(steps - 1):
                advance()
            advance('next.png')
    assert capsys.readouterr().err.splitlines() == [
        # the first step after a pause: 11 steps in 50 s, 89 are left
        *('reading 11/100, 7 min left', 'reading: next.png 50/100, 80 s left'),
        'reading 51/100, 9 min left',
    ]
    assert list(track([3, 1, 2], 'x')) == [3, 1, 2]
