"""TokenCut as slowly and plainly as its paper reads: every edge by a loop, the generalised eigenproblem as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Box = tuple[int, int, int, int]


def slow_token_cut(patches: Sequence[Sequence[Sequence[float]]], tau: float) -> tuple[Box, float, np.ndarray]:
    """Box (x0, y0, x1, y1) in patches, ends exclusive; the second smallest eigenvalue; the foreground [h, w] bool."""
    from scipy.linalg import eig

    height, width = len(patches), len(patches[0])
    tokens = [patch for row in patches for patch in row]
    count = len(tokens)
    graph = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            dot = sum(a * b for a, b in zip(tokens[i], tokens[j], strict=True))
            cosine = dot / (math.hypot(*tokens[i]) * math.hypot(*tokens[j]))
            graph[i, j] = 1.0 if cosine > tau else 1e-5
    degree = np.zeros((count, count))
    for i in range(count):
        degree[i, i] = sum(graph[i])
    # (D - A) y = lambda D y, by the solver for any two matrices.
    values, vectors = eig(degree - graph, degree)
    second = sorted(range(count), key=lambda i: values[i].real)[1]
    vector = vectors[:, second].real
    average = sum(vector) / count
    seed = max(range(count), key=lambda i: abs(vector[i]))
    above = [value > average for value in vector]
    foreground = [side == above[seed] for side in above]
    # Flood from the seed to the four neighbours.
    found, waiting = {seed}, [seed]
    while waiting:
        row, column = divmod(waiting.pop(), width)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            index = r * width + c
            if 0 <= r < height and 0 <= c < width and foreground[index] and index not in found:
                found.add(index)
                waiting.append(index)
    rows, columns = [index // width for index in found], [index % width for index in found]
    mask = np.array([index in found for index in range(count)]).reshape(height, width)
    return (min(columns), min(rows), max(columns) + 1, max(rows) + 1), float(values[second].real), mask
