"""Downloads that broke off are called cut, with the bytes that are here and, where something tells, that were to be."""

import re

import pytest
import torch
from safetensors.torch import save_file

from opendino.errors import WeightsError
from opendino.weights.cut import cut_archive
from opendino.weights.read import read_tensors


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    whole = {f"blocks.{number}.weight": torch.randn(40, 50) for number in range(300)}
    # Types of other sizes, and two names of one storage, which is stored once.
    return {**whole, "half": torch.randn(999).half(), "counts": torch.arange(77), "twin": whole["blocks.0.weight"][3:]}


def written(tensors, form, path):
    if form == "safetensors":
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    return path.read_bytes()


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert "copy it again" in str(caught.value) and "\n" not in str(caught.value)
    return caught.value.cause


def numbers(words):
    return [int(number.replace(",", "")) for number in re.findall(r"([\d,]{2,}) (?:of|bytes)", words)]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_a_cut_file_is_called_cut_at_every_length(form, share, tensors, tmp_path):
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.pth")
    whole = written(tensors, form, path)
    path.write_bytes(whole[: int(share * len(whole))])
    words = refusal(path)
    assert words.startswith("is cut") and f"{int(share * len(whole)):,}" in words
    if form == "safetensors" and share > 0.02:  # at 0.02 the header itself is cut
        assert numbers(words)[-1] == len(whole)
    if form == "zip" and share > 0.02:
        assert 0.9 * len(whole) < numbers(words)[-1] <= len(whole)


def test_storages_are_counted_once(tensors, tmp_path):
    whole = written(tensors, "zip", tmp_path / "model.pth")
    (tmp_path / "model.pth").write_bytes(whole[: len(whole) // 2])
    assert numbers(cut_archive(tmp_path / "model.pth").cause)[-1] == 300 * 40 * 50 * 4 + 999 * 2 + 77 * 8


def test_a_file_that_lacks_its_last_bytes_alone_says_so(tensors, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(written(tensors, "zip", path)[:-30])
    assert "its end is not there" in refusal(path)


@pytest.mark.parametrize("tail", [b"", b"\x80", b"\xff" * 900, b"\x80\x02" + b"X\xff\xff\xff\x7f"])
def test_bytes_that_are_no_archive_after_all_are_one_line(tail, tmp_path):
    (tmp_path / "model.pth").write_bytes(b"PK\x03\x04" + tail)
    assert "is cut" in refusal(tmp_path / "model.pth")
