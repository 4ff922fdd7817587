"""The overview of a folder: groups, doubles, neighbours and odd ones of vectors whose answer is known."""

import numpy as np
import pytest

from opendino.features.explore import folders_agree, look_over

pytest.importorskip("sklearn", reason="scikit-learn is not installed: the map not tried")


@pytest.fixture(scope="module")
def seen():
    """Groups of 20, 14 and 10 around three directions, a double of row 3, and one picture like none."""
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 16), (20, 14, 10), 0)
    vectors = centres + generator.normal(0, 0.05, centres.shape)
    odd = np.zeros((1, 16))
    odd[0, 9] = 1
    vectors = np.concatenate([vectors, vectors[3:4], odd]).astype(np.float32) + 5  # a direction that all share
    hashes = [*map(str, range(44)), "3", "odd"]
    return look_over(vectors, hashes), vectors


def test_groups_are_found_and_the_largest_comes_first(seen):
    groups = seen[0].groups
    assert [len(set(part.tolist())) for part in (groups[:20], groups[20:34], groups[34:44])] == [1, 1, 1]
    assert groups[0] == 0 and np.all(np.diff(np.bincount(groups)) <= 0)
    for group, rows in enumerate(seen[0].usual):
        assert set(groups[list(rows)]) == {group}
    assert not {3, 44} <= set(seen[0].usual[0]), "a double is shown twice"


def test_neighbours_are_those_of_a_slow_loop(seen):
    overview, vectors = seen
    centred = vectors.astype(float) - vectors.astype(float).mean(0)
    for row in (0, 25, 45):
        cosine = [a @ centred[row] / np.linalg.norm(a) / np.linalg.norm(centred[row]) for a in centred]
        order = [other for other in np.argsort(cosine)[::-1] if other != row][:8]
        assert overview.neighbours[row].tolist() == order
        np.testing.assert_allclose(overview.cosines[row], np.array(cosine)[order], atol=1e-5)


def test_doubles_pairs_and_the_odd_one(seen):
    overview = seen[0]
    assert overview.doubles == ((3, 44),) and overview.strangeness.argmax() == 45
    assert all(a < b and (a, b) != (3, 44) for a, b, _ in overview.pairs)
    assert [cosine for *_, cosine in overview.pairs] == sorted((one[2] for one in overview.pairs), reverse=True)


def test_alike_pictures_stand_together_on_the_map(seen):
    places = seen[0].places
    assert places.min() == 0 and places.max() == 1 and places.shape == (46, 2)
    inside = np.linalg.norm(places[:20] - places[:20].mean(0), axis=1).mean()
    assert inside < np.linalg.norm(places[:20].mean(0) - places[20:34].mean(0))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_very_few_pictures_are_enough(count):
    vectors = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    overview = look_over(vectors, [str(row) for row in range(count)])
    assert overview.places.shape == (count, 2) and np.isfinite(overview.places).all()
    assert overview.neighbours.shape[1] == min(8, count - 1)


def test_agreement_with_folders_is_that_of_a_count():
    labels, neighbours = ["a", "a", "a", "b", "b", None], np.array([[1], [2], [3], [4], [0], [0]])
    share, chance = folders_agree(labels, neighbours)
    assert share == 3 / 5  # rows 0, 1 and 3
    assert chance == pytest.approx((3 * 2 / 5 + 2 * 1 / 5) / 5)
    assert folders_agree(["a"] * 6, neighbours) is None and folders_agree([None] * 6, neighbours) is None


def test_nearly_equal_pairs_are_counted_without_equal_files():
    vectors = np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32)
    vectors[1] = vectors[0] * 2
    vectors[3] = vectors[2]
    # Directions are taken after the mean: a multiple of a vector is no longer quite in its direction.
    made = look_over(vectors, ["x" if row in (2, 3) else str(row) for row in range(20)])
    assert made.nearly_equal in (0, 1) and made.doubles == ((2, 3),)
    assert look_over(vectors, [str(row) for row in range(20)]).nearly_equal == made.nearly_equal + 1
