"""Photographs: what is cut out of them, and what tells their class."""

import hashlib
import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from blindspots.data import pictures
from blindspots.steps import artifacts, image_sets
from scripts import fetch_pictures


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def gradient(width, height):
    """A picture whose red grows to the right and whose green grows downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 9)], axis=2).round().astype(np.uint8))


def test_the_middle_is_cut_out_after_resizing_the_shorter_side():
    found = pictures.prepare(encoded(gradient(400, 200)), resize=100, size=50)
    assert found.shape == (3, 50, 50)
    assert found.dtype == np.uint8
    red, green, blue = found.astype(float)
    # 200 x 100 after resizing: columns 75 to 124 of 200, rows 25 to 74 of 100.
    assert red.mean(0) == pytest.approx(255 * (np.arange(75, 125) + 0.5) / 200, abs=2)
    assert green.mean(1) == pytest.approx(255 * (np.arange(25, 75) + 0.5) / 100, abs=2)
    assert (blue == 9).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_kind_of_picture_has_three_colours(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert pictures.prepare(encoded(gradient(40, 30).convert(mode), kind), 30, 20).shape == (3, 20, 20)


def test_16_bits_of_grey_become_the_same_grey_in_8():
    deep = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = pictures.prepare(encoded(Image.fromarray(deep), kind), 40, 40)
        assert (np.abs(found - deep / 257) <= 0.5).all()


def test_a_16_bit_negative_is_turned_as_an_8_bit_one_is():
    deep = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    content = io.BytesIO()
    Image.fromarray(deep).save(content, "TIFF", tiffinfo={262: 0})  # PhotometricInterpretation: white is 0
    found = pictures.prepare(content.getvalue(), 40, 40)
    assert (np.abs(found - (255 - deep / 257)) <= 0.5).all()
    flat = (deep // 257).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(flat).save(
        content, "TIFF", tiffinfo={262: 0}
    )  # of 8 bits Pillow writes and reads the negative
    assert np.array_equal(pictures.prepare(content.getvalue(), 40, 40)[0], flat)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pictures_are_what_another_decoder_makes_of_them(mode):
    content = encoded(gradient(50, 40).convert(mode))
    other = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB).numpy()
    assert np.array_equal(pictures.prepare(content, 40, 40), other[:, :, 5:45])


def test_transparent_pixels_have_their_colours():
    picture = gradient(40, 40)
    picture.putalpha(Image.fromarray(np.tile(np.arange(0, 200, 5, dtype=np.uint8), (40, 1))))
    assert np.array_equal(
        pictures.prepare(encoded(picture), 40, 40), np.asarray(gradient(40, 40)).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(orientation):
    turned, exif = gradient(50, 40), Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    other = decode_image(content, ImageReadMode.RGB, apply_exif_orientation=True).numpy()
    middle = other[:, :, 5:45] if other.shape[2] > 40 else other[:, 5:45]
    assert np.array_equal(pictures.prepare(buffer.getvalue(), 40, 40), middle)


def test_of_several_pictures_in_a_file_the_first_one_is_taken():
    first, second = gradient(40, 40).convert("P"), Image.new("P", (40, 40))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    assert np.array_equal(
        pictures.prepare(buffer.getvalue(), 40, 40), np.asarray(first.convert("RGB")).transpose(2, 0, 1)
    )


@pytest.mark.parametrize(("mode", "kind"), [("F", "TIFF"), ("I", "TIFF"), ("LAB", "TIFF")])
def test_pixels_of_which_it_is_not_known_what_is_white_are_refused(mode, kind):
    picture = Image.new(mode, (40, 40))
    with pytest.raises(
        ValueError, match=f"of Pillow's mode {mode}, whose white is not known: save it as 8-bit RGB"
    ):
        pictures.prepare(encoded(picture, kind), 40, 40)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_pictures_are_refused(kind):
    whole = encoded(gradient(64, 64), kind)
    for content in (b"", b"text", whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match="no picture, or damaged"):
            pictures.prepare(content, 32, 16)


def test_classes_are_numbers_or_places_in_the_order_of_words():
    assert pictures.classes(["a_3.jpg", "b_11.jpg", "c_3.jpg"], r"_(\d+)\.", 12) == [3, 11, 3]
    names = ["n02_cat/1.jpg", "n01_dog/7.jpg", "n02_cat/2.jpg", "n03/1.jpg"]
    assert pictures.classes(names, r"^(n\d\d)", 3) == [1, 0, 1, 2]


@pytest.mark.parametrize(
    ("names", "pattern", "count", "words"),
    [
        (["a_3.jpg", "b.jpg"], r"_(\d+)\.", 12, r"b\.jpg does not tell its class"),
        (["a_3.jpg", "b_12.jpg"], r"_(\d+)\.", 12, r"b_12\.jpg is of class 12, of 12 classes from 0 on"),
        (["n1", "n2"], r"(n\d)", 3, "finds 2 classes in the names, which have to be 3"),
    ],
)
def test_names_that_tell_no_class_are_refused(names, pattern, count, words):
    with pytest.raises(ValueError, match=words):
        pictures.classes(names, pattern, count)


def program(place, **changes):
    settings = {
        "classes": 4,
        "resize": 20,
        "size": 16,
        "folder": None,
        "label": r"_(\d)\.",
        "sample": "all",
        "seed": 0,
    }
    settings |= {"files": {}} | changes
    sources = json.dumps({"sources": [{"kind": "folder", "path": str(place)}]})
    return fetch_pictures.main(
        ["--output", str(place / "p.h5"), "--settings", json.dumps(settings), "--unrecorded", sources]
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_pictures.downloads, "default_cache", lambda: tmp_path / "cache")
    for number, label in enumerate([2, 0, 3, 1, 1]):
        (tmp_path / f"p{number}_{label}.png").write_bytes(encoded(gradient(30 + number, 25)))
    return tmp_path


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.png"))}


def test_verified_files_become_one_artifact(folder):
    assert program(folder, files=hashes(folder)) == 0
    images = image_sets.read(folder / "p.h5", "pictures")
    assert images.labels.tolist() == [2, 0, 3, 1, 1]
    assert images.pixels.shape == (5, 3, 16, 16)
    assert images.pixels.dtype == np.float32
    wanted = pictures.prepare((folder / "p3_1.png").read_bytes(), 20, 16) / np.float32(255)
    assert np.array_equal(images.pixels[3], wanted)
    some = image_sets.read(folder / "p.h5", "pictures", np.array([4, 0]))
    assert np.array_equal(some.pixels, images.pixels[[4, 0]])
    with artifacts.read(folder / "p.h5") as file:
        named = dict(zip(file["pictures/names"][()], file["pictures/sha256"][()], strict=True))
        assert {name.decode(): digest.decode() for name, digest in named.items()} == hashes(folder)


def test_a_folder_of_ones_own_is_read_as_it_is(folder):
    (folder / "more").mkdir()
    (folder / "more/q_2.JPG").write_bytes(encoded(gradient(40, 40), "JPEG"))
    (folder / "notes.txt").write_text("no picture")
    assert program(folder, folder=str(folder)) == 0
    with artifacts.read(folder / "p.h5") as file:
        assert file["pictures/names"][0].decode() == "more/q_2.JPG"
        assert len(file["pictures/images"]) == 6


def test_what_of_a_folder_is_left_out_is_told(folder, capfd):
    (folder / "q_2.webp").write_bytes(encoded(gradient(40, 40), "WEBP"))
    (folder / "q_3.BMP").write_bytes(encoded(gradient(40, 40), "BMP"))
    (folder / "r_3.jfif").write_bytes(encoded(gradient(40, 40), "JPEG"))
    (folder / "s_3.tga").write_bytes(encoded(gradient(40, 40), "TGA"))
    for name in ("._p0_2.png", ".DS_Store", ".hidden.txt", "a.txt", "b.txt", "README"):
        (folder / name).write_bytes(b"none")
    assert program(folder, folder=str(folder)) == 0
    with artifacts.read(folder / "p.h5") as file:
        assert len(file["pictures/images"]) == 9
    assert f"9 pictures in {folder}; left out: 3 hidden, 2 .txt, 1 readme" in capfd.readouterr().err.lower()


def test_a_sample_of_a_folder_has_the_classes_of_all(folder):
    assert program(folder, folder=str(folder), sample=2, seed=1) == 0
    with artifacts.read(folder / "p.h5") as file:
        names, labels = (
            [name.decode() for name in file["pictures/names"]],
            file["pictures/labels"][()].tolist(),
        )
    assert len(names) == 2
    assert [int(name[-5]) for name in names] == labels


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folder": "nowhere"}, "pictures.folder: nowhere is no folder"),
        ({"label": "(x)"}, "pictures.label: p0_2.png does not tell its class"),
        ({"label": r"p(\d)_"}, "is of class 4, of 4 classes"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(folder, capfd, changes, words):
    assert program(folder, **({"files": hashes(folder)} | changes)) == 1
    assert words in capfd.readouterr().err
    assert not (folder / "p.h5").exists()


def test_a_name_that_cannot_be_written_is_told(folder, capfd):
    os.rename(folder / "p0_2.png", os.fsencode(folder) + b"/caf\xe9_2.png")
    assert program(folder, folder=str(folder)) == 1
    said = capfd.readouterr().err
    assert "is no readable name: rename that file" in said
    assert "Traceback" not in said


def test_a_folder_without_pictures_and_a_damaged_picture_are_told(folder, capfd):
    (folder / "empty").mkdir()
    assert program(folder, folder=str(folder / "empty")) == 1
    assert "has no picture (.avif, .bmp, .gif, .jfif, " in capfd.readouterr().err
    (folder / "p0_2.png").write_bytes(b"text")
    assert program(folder, folder=str(folder)) == 1
    assert "p0_2.png: it is no picture, or damaged" in capfd.readouterr().err


def test_what_editors_hide_and_links_that_lead_back_are_no_pictures(folder, capfd):
    for place in (".ipynb_checkpoints", "deep/.hidden"):
        (folder / place).mkdir(parents=True)
        (folder / place / "copy_2.png").write_bytes((folder / "p0_2.png").read_bytes())
    before = len(list(folder.glob("*.png")))
    (folder / "deep/up").symlink_to("..")
    (folder / "deep/other").symlink_to(folder.parent / "other")
    (folder.parent / "other").mkdir()
    (folder.parent / "other/linked_1.png").write_bytes((folder / "p0_2.png").read_bytes())
    (folder.parent / "other/back").symlink_to(folder)
    assert program(folder, folder=str(folder)) == 0
    with artifacts.read(folder / "p.h5") as file:
        names = [name.decode() for name in file["pictures/names"]]
    assert len(names) == before + 1
    assert "deep/other/linked_1.png" in names


def test_a_picture_of_too_many_pixels_and_a_name_without_its_group_are_told(folder, capfd, monkeypatch):
    assert program(folder, folder=str(folder), label=r"^p(?:x(\d))?") == 1
    said = capfd.readouterr().err
    assert "does not tell its class: nothing in it matches the group of" in said
    assert "Traceback" not in said
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    assert program(folder, folder=str(folder)) == 1
    said = capfd.readouterr().err
    assert ".png: it has too many pixels" in said
    assert "Traceback" not in said


def test_a_file_with_another_hash_is_refused(folder, capfd):
    assert program(folder, files=hashes(folder) | {"p0_2.png": "0" * 64}) == 1
    assert "p0_2.png has SHA-256" in capfd.readouterr().err
