"""Published data sets as they lie on disk, and the plain folders that stand for any other.

One file a kind of truth (classes, masks, boxes, videos, instances). Each has a frozen dataclass that lists files and an
`open_` function that finds them; a missing file is one line that says what is expected where. Nothing is downloaded.
"""
