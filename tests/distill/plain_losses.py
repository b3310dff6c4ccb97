"""The losses spelled out over lists with `math`, written from the formulas and sharing nothing with torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product

Row = Sequence[float]
Rows = Sequence[Row]
Map = Sequence[Sequence[Sequence[float]]]  # channels, height, width


def mean(values: Iterable[float]) -> float:
    """Give the arithmetic mean."""
    listed = list(values)
    return math.fsum(listed) / len(listed)


def softmax(row: Row, temperature: float) -> list[float]:
    """Give the probabilities of a row of logits."""
    powers = [math.exp((value - max(row)) / temperature) for value in row]
    return [power / math.fsum(powers) for power in powers]


def divergence(p: Row, q: Row) -> float:
    """Give Σ p · ln(p / q)."""
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def standardized(row: Row) -> list[float]:
    """Give (z − mean) / (sample deviation + 1e-7)."""
    middle = mean(row)
    variance = math.fsum((value - middle) ** 2 for value in row) / max(len(row) - 1, 1)
    return [(value - middle) / (math.sqrt(variance) + 1e-7) for value in row]


def kd(student: Rows, teacher: Rows, temperature: float, standardize: bool = False) -> float:
    """Spell out T² · mean over samples of KL."""
    if standardize:
        student, teacher = [standardized(row) for row in student], [standardized(row) for row in teacher]
    pairs = zip(student, teacher, strict=True)
    return temperature**2 * mean(divergence(softmax(t, temperature), softmax(s, temperature)) for s, t in pairs)


def dkd(  # as many as the loss itself has
    student: Rows,
    teacher: Rows,
    target: Sequence[int],
    alpha: float,
    beta: float,
    temperature: float,
    standardize: bool = False,
) -> float:
    """Spell out T² · mean of α · KL(target or not) + β · KL(the others, among themselves)."""
    if standardize:
        student, teacher = [standardized(row) for row in student], [standardized(row) for row in teacher]
    found = []
    for s, t, label in zip(student, teacher, target, strict=True):
        ps, pt = softmax(s, temperature), softmax(t, temperature)
        # adding the others up keeps digits that one less the target's probability loses
        doubts = [math.fsum(p for j, p in enumerate(row) if j != label) for row in (ps, pt)]
        tckd = divergence([pt[label], doubts[1]], [ps[label], doubts[0]])
        others = [[value for j, value in enumerate(row) if j != label] for row in (s, t)]
        nckd = divergence(softmax(others[1], temperature), softmax(others[0], temperature))
        found.append(alpha * tckd + beta * nckd)
    return temperature**2 * mean(found)


def correlation(a: Row, b: Row) -> float:
    """Give Pearson's correlation, with the term that keeps a constant vector finite."""
    mean_a, mean_b = mean(a), mean(b)
    together = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return together / (math.dist(a, [mean_a] * len(a)) * math.dist(b, [mean_b] * len(b)) + 1e-8)


def dist(student: Rows, teacher: Rows, beta: float, gamma: float, tau: float) -> float:
    """Spell out τ² · (β · (1 − mean correlation over rows) + γ · (1 − mean correlation over columns))."""
    s, t = [softmax(row, tau) for row in student], [softmax(row, tau) for row in teacher]
    inter = mean(correlation(a, b) for a, b in zip(s, t, strict=True))
    intra = mean(correlation(a, b) for a, b in zip(zip(*s, strict=True), zip(*t, strict=True), strict=True))
    return tau**2 * (beta * (1 - inter) + gamma * (1 - intra))


def flat(feature: Map) -> list[float]:
    """Give all numbers of one sample's feature."""
    return [value for channel in feature for row in channel for value in row]


def unit(vector: Row) -> list[float]:
    """Give a vector of norm 1; zeros stay zeros."""
    norm = math.hypot(*vector)
    return [value / norm if norm else 0.0 for value in vector]


def dot(a: Row, b: Row) -> float:
    """Give the inner product."""
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def squared(a: Row, b: Row) -> float:
    """Give the mean squared difference."""
    return mean((x - y) ** 2 for x, y in zip(a, b, strict=True))


def hint(student: Sequence[Map], teacher: Sequence[Map]) -> float:
    """Spell out the mean squared error."""
    return mean(squared(flat(s), flat(t)) for s, t in zip(student, teacher, strict=True))


def attention(feature: Map, p: float) -> list[float]:
    """Spell out the mean over channels of |f|^p, of norm 1."""
    height, width = len(feature[0]), len(feature[0][0])
    pixels = product(range(height), range(width))
    return unit([mean(abs(channel[y][x]) ** p for channel in feature) for y, x in pixels])


def at(student: Sequence[Map], teacher: Sequence[Map], p: float) -> float:
    """Spell out the mean squared difference of attention maps."""
    pairs = zip(student, teacher, strict=True)
    return mean(squared(attention(s, p), attention(t, p)) for s, t in pairs)


def sp(student: Sequence[Map], teacher: Sequence[Map]) -> float:
    """Spell out the squared Frobenius distance of the row-normalised Gram matrices over B²."""
    grams = []
    for features in (student, teacher):
        rows = [flat(feature) for feature in features]
        grams.append([unit([dot(a, b) for b in rows]) for a in rows])
    cells = product(range(len(student)), repeat=2)
    return math.fsum((grams[0][i][j] - grams[1][i][j]) ** 2 for i, j in cells) / len(student) ** 2


def smooth_l1(a: float, b: float) -> float:
    """Give half the square of a difference below 1, the difference less a half above."""
    difference = abs(a - b)
    return difference**2 / 2 if difference < 1 else difference - 0.5


def relative_distances(rows: Rows) -> list[float]:
    """Give all B² distances over the mean of the positive ones."""
    distances = [math.dist(a, b) for a, b in product(rows, repeat=2)]
    positive = [distance for distance in distances if distance > 0]
    return [distance / mean(positive) if positive else 0.0 for distance in distances]


def cosines(rows: Rows) -> list[float]:
    """Give the cosine at i between j and k, for all B³."""
    found = []
    for i, j, k in product(range(len(rows)), repeat=3):
        to_j, to_k = ([x - y for x, y in zip(rows[other], rows[i], strict=True)] for other in (j, k))
        found.append(dot(unit(to_j), unit(to_k)))
    return found


def rkd(student: Rows, teacher: Rows, distance_weight: float, angle_weight: float) -> float:
    """Spell out the weighted smooth-L1 means of relative distances and of angles' cosines."""
    distance = mean(map(smooth_l1, relative_distances(student), relative_distances(teacher)))
    return distance_weight * distance + angle_weight * mean(map(smooth_l1, cosines(student), cosines(teacher)))


def neighbours(rows: Rows) -> list[list[float]]:
    """Give (cosine + 1) / 2 of all pairs, each row divided by its sum."""
    similar = [[(dot(unit(a), unit(b)) + 1) / 2 for b in rows] for a in rows]
    return [[value / math.fsum(row) for value in row] for row in similar]


def pkt(student: Rows, teacher: Rows) -> float:
    """Spell out the mean over B² of Pt · ln((Pt + 1e-7) / (Ps + 1e-7))."""
    cells = zip(
        [value for row in neighbours(student) for value in row],
        [value for row in neighbours(teacher) for value in row],
        strict=True,
    )
    return mean(t * math.log((t + 1e-7) / (s + 1e-7)) for s, t in cells)


def crd(  # as many as the loss itself has, its constants one by one
    anchor: Rows,
    positive: Rows,
    negatives: Rows,
    samples: int,
    temperature: float,
    normalizer: float = 1.0,
    excluded: Sequence[Sequence[bool]] | None = None,
) -> float:
    """Spell out −ln h(positive) − Σ ln(1 − h(negative)), h = e / (e + K / M)."""
    prior = len(negatives) / samples

    def odds(a: Row, b: Row) -> tuple[float, float]:
        power = math.exp(dot(a, b) / temperature) / normalizer
        return power / (power + prior), prior / (power + prior)  # h and 1 − h, each with all its digits

    found = []
    for i, (a, b) in enumerate(zip(anchor, positive, strict=True)):
        others = [row for j, row in enumerate(negatives) if excluded is None or not excluded[i][j]]
        found.append(-math.log(odds(a, b)[0]) - math.fsum(math.log(odds(a, row)[1]) for row in others))
    return mean(found)


def averaged(feature: Map, size: int) -> Map:
    """Average each channel over a grid; a cell reaches from floor(i · H / size) to ceil((i + 1) · H / size)."""

    def span(i: int, length: int) -> range:
        return range(i * length // size, -(-(i + 1) * length // size))

    return [
        [
            [mean(channel[y][x] for y in span(i, len(channel)) for x in span(j, len(channel[0]))) for j in range(size)]
            for i in range(size)
        ]
        for channel in feature
    ]


def hierarchical_context(student: Sequence[Map], teacher: Sequence[Map]) -> float:
    """Spell out the weighted mean of errors over the feature and its 4x4, 2x2 and 1x1 averages."""
    errors, weights = [hint(student, teacher)], [1.0]
    for size in (4, 2, 1):
        if size < len(student[0][0]):
            errors.append(hint([averaged(f, size) for f in student], [averaged(f, size) for f in teacher]))
            weights.append(weights[-1] / 2)
    return math.fsum(w * e for w, e in zip(weights, errors, strict=True)) / math.fsum(weights)
