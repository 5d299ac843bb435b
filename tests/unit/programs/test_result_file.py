"""What an evaluator has left in its output folder: read without following a link, and bounded."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from flavor.errors import InvalidInfo
from flavor.programs.result_file import clear_result, read_result
from flavor.records.evaluation_report import MAX_BYTES, MOST_IMAGE_BYTES
from tests.infos import png


def write(folder, *filenames):
    images = [{"title": name, "filename": name} for name in filenames]
    (folder / "result.json").write_text(json.dumps({"metadata": {"datasetSize": 1}, "results": {"images": images}}))


def test_a_report_and_its_images(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.png").write_bytes(png(3, 4))
    write(tmp_path, "plots/a.png")
    found = read_result(tmp_path)
    assert found is not None
    (image,) = found.report.images
    digest = hashlib.sha256(png(3, 4)).hexdigest()
    assert (image.digest, image.extension, image.size_bytes) == (digest, ".png", len(png(3, 4)))
    assert found.images == {digest: png(3, 4)}
    assert found.size_bytes == len(found.data) + len(png(3, 4))


def test_nothing_was_written(tmp_path):
    assert read_result(tmp_path) is None


def test_an_old_one_is_removed_and_a_link_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    (tmp_path / "result.json").symlink_to(secret)
    with pytest.raises(InvalidInfo, match=r"result.json: it is a link"):
        read_result(tmp_path)
    clear_result(tmp_path)
    assert read_result(tmp_path) is None
    assert secret.exists()
    clear_result(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_is_refused(tmp_path, make):
    make(tmp_path / "result.json")
    with pytest.raises(InvalidInfo, match="it is no plain file"):
        read_result(tmp_path)


def test_one_that_is_too_large_is_refused(tmp_path):
    with (tmp_path / "result.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InvalidInfo, match=f"it has more than {MAX_BYTES} bytes"):
        read_result(tmp_path)


class TestImages:
    def refused(self, folder, name):
        write(folder, name)
        with pytest.raises(InvalidInfo) as caught:
            read_result(folder)
        return str(caught.value).partition("results.")[2]

    def test_it_is_not_there(self, tmp_path):
        assert "'a.png': there is no such file in $OUTPUT_PATH" in self.refused(tmp_path, "a.png")

    def test_it_is_a_link(self, tmp_path):
        outside = tmp_path / "outside.png"
        outside.write_bytes(png())
        (folder := tmp_path / "output").mkdir()
        (folder / "a.png").symlink_to(outside)
        assert "it is a link, or lies behind one" in self.refused(folder, "a.png")

    def test_it_lies_behind_a_link(self, tmp_path):
        (outside := tmp_path / "outside").mkdir()
        (outside / "a.png").write_bytes(png())
        (folder := tmp_path / "output").mkdir()
        (folder / "in").symlink_to(outside)
        assert "it is a link, or lies behind one" in self.refused(folder, "in/a.png")

    def test_it_is_no_image(self, tmp_path):
        (tmp_path / "a.png").write_text("patient 7")
        assert "it is neither a PNG nor a JPEG image" in self.refused(tmp_path, "a.png")

    def test_it_is_too_large(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png() + b"\0" * MOST_IMAGE_BYTES)
        assert f"it has more than {MOST_IMAGE_BYTES} bytes" in self.refused(tmp_path, "a.png")

    def test_all_of_them_are_too_large(self, tmp_path):
        for name in "abcde":
            (tmp_path / f"{name}.png").write_bytes(png().ljust(MOST_IMAGE_BYTES, name.encode()))
        write(tmp_path, *(f"{name}.png" for name in "abcde"))
        with pytest.raises(InvalidInfo, match=r"results\.images have \d+ bytes"):
            read_result(tmp_path)
