"""Slow loops written from the formulas, one per loss. No vectorisation on purpose."""

import math


def sinkhorn_loop(logits, temperature, iterations=3):
    n, k = len(logits), len(logits[0])
    q = [[math.exp(logits[i][j] / temperature) for j in range(k)] for i in range(n)]
    total = sum(sum(row) for row in q)
    q = [[v / total for v in row] for row in q]
    for _ in range(iterations):
        for j in range(k):
            mass = sum(q[i][j] for i in range(n))
            for i in range(n):
                q[i][j] /= mass * k
        for i in range(n):
            mass = sum(q[i])
            q[i] = [v / (mass * n) for v in q[i]]
    return [[v * n for v in row] for row in q]


def log_softmax_loop(row, temperature):
    scaled = [v / temperature for v in row]
    peak = max(scaled)
    total = math.log(sum(math.exp(v - peak) for v in scaled)) + peak
    return [v - total for v in scaled]


def dino_loop(student, teacher, temperature=0.1, ignore_diagonal=False):
    total, pairs = 0.0, 0
    for s, student_crop in enumerate(student):
        for t, teacher_crop in enumerate(teacher):
            if ignore_diagonal and s == t:
                continue
            pairs += 1
            for b in range(len(student_crop)):
                log_p = log_softmax_loop(student_crop[b], temperature)
                total -= sum(q * lp for q, lp in zip(teacher_crop[b], log_p, strict=True))
    return total / (pairs * len(student[0]))


def ibot_loop(student, teacher, crop_of_patch, num_crops, temperature=0.1):
    masked = [crop_of_patch.count(c) for c in range(num_crops)]
    total = 0.0
    for i, c in enumerate(crop_of_patch):
        log_p = log_softmax_loop(student[i], temperature)
        total -= sum(q * lp for q, lp in zip(teacher[i], log_p, strict=True)) / masked[c]
    return total / num_crops


def koleo_loop(features, group_size=16, eps=1e-8):
    x = []
    for row in features:
        norm = max(math.sqrt(sum(v * v for v in row)), eps)
        x.append([v / norm for v in row])
    starts = list(range(0, len(x), group_size))
    if len(starts) > 1 and len(x) - starts[-1] < group_size:
        starts.pop()
    total = 0.0
    for g, start in enumerate(starts):
        members = range(start, starts[g + 1] if g + 1 < len(starts) else len(x))
        for i in members:
            nearest = max(
                (j for j in members if j != i), key=lambda j: sum(a * b for a, b in zip(x[i], x[j], strict=True))
            )
            distance = math.sqrt(sum((a - b + eps) ** 2 for a, b in zip(x[i], x[nearest], strict=True)))
            total -= math.log(distance + eps)
    return total / len(x)


def cubic_weight(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def bicubic_loop(grid, height, width):
    """grid: rows of cells of D numbers. Half-pixel centres, Keys' kernel with a = -0.75, edges repeated."""
    rows, columns, dim = len(grid), len(grid[0]), len(grid[0][0])
    out = []
    for i in range(height):
        y = (i + 0.5) * rows / height - 0.5
        line = []
        for j in range(width):
            x = (j + 0.5) * columns / width - 0.5
            cell = [0.0] * dim
            for r in range(math.floor(y) - 1, math.floor(y) + 3):
                for c in range(math.floor(x) - 1, math.floor(x) + 3):
                    weight = cubic_weight(y - r) * cubic_weight(x - c)
                    source = grid[min(max(r, 0), rows - 1)][min(max(c, 0), columns - 1)]
                    cell = [v + weight * s for v, s in zip(cell, source, strict=True)]
            line.append(cell)
        out.append(line)
    return out


def gram_loop(student, anchor, level="image", negatives="keep", chosen=None):
    """student: B grids of h x w x D; anchor: B grids, resized when larger."""
    height, width = len(student[0]), len(student[0][0])
    bags = [[], []]
    for b in range(len(student)):
        finer = anchor[b]
        if (len(finer), len(finer[0])) != (height, width):
            finer = bicubic_loop(finer, height, width)
        for bag, grid in zip(bags, (student[b], finer), strict=True):
            patches = []
            for i in range(height):
                for j in range(width):
                    if chosen is None or chosen[b][i][j]:
                        norm = math.sqrt(sum(v * v for v in grid[i][j]))
                        patches.append([v / norm for v in grid[i][j]])
            bag.append(patches)
    if level == "batch":
        bags = [[[patch for image in bag for patch in image]] for bag in bags]
    total, count = 0.0, 0
    for ours, theirs in zip(*bags, strict=True):
        for i in range(len(ours)):
            for j in range(len(ours)):
                s = sum(a * b for a, b in zip(ours[i], ours[j], strict=True))
                g = sum(a * b for a, b in zip(theirs[i], theirs[j], strict=True))
                if negatives == "drop":
                    s = max(s, 0.0)
                if negatives in ("drop", "drop_teacher"):
                    g = max(g, 0.0)
                total += (s - g) ** 2
                count += 1
    return total / count


def match_loop(student, teacher, kind="cosine"):
    """student, teacher: lists of tokens."""
    total, count = 0.0, 0
    for s, t in zip(student, teacher, strict=True):
        if kind == "cosine":
            dot = sum(a * b for a, b in zip(s, t, strict=True))
            total += 1 - dot / math.sqrt(sum(a * a for a in s) * sum(b * b for b in t))
            count += 1
        else:
            for a, b in zip(s, t, strict=True):
                d = abs(a - b)
                total += d * d / 2 if d < 1 else d - 0.5
                count += 1
    return total / count
