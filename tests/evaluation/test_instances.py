"""Retrieval sets: a limit leaves every picture a mate."""

import pytest

from opendino.evaluation.datasets.instances import open_instances
from opendino.evaluation.protocol import Job
from tests.evaluation.layouts.drawing import picture, save


@pytest.mark.parametrize("limit", [2, 5, 12, 39, None])
def test_a_limit_takes_fewer_classes_rather_than_pictures_without_a_mate(tmp_path, limit):
    for label in range(10):
        for number in range(4 if label else 1):
            save(tmp_path / f"class-{label}" / f"{number}.jpg", picture(label, number)[0])
    data = open_instances(Job(tmp_path, limit))
    assert len(data.gallery) == min(limit or 37, 37)
    # The one picture of class-0 has no mate; a limit leaves it out.
    assert len(data.questions) == len(data.gallery) - (len(data.gallery) == 37)
    assert all(question.easy for question in data.questions)
