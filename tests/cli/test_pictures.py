"""Pictures of translations: labels, grids, sheets and their files."""

import cv2
import pytest
import torch
from torch import Tensor

from live2diff_core.cli.pictures import BAND, GREY, grid, labelled, save_png, sheet
from live2diff_core.errors import SinkError

HEIGHT, WIDTH = 12, 40


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def cell(rgb: Tensor, row: int, column: int) -> Tensor:
    """Pixels below the label of a cell."""
    top, left = row * (HEIGHT + BAND) + BAND, column * WIDTH
    return rgb[:, top : top + HEIGHT, left : left + WIDTH]


def is_grey(rgb: Tensor) -> bool:
    return bool((rgb == torch.tensor(GREY).view(3, 1, 1)).all())


def test_a_picture_lies_whole_below_its_label():
    rgb = labelled(picture(0), "ink")
    assert (rgb.shape, rgb.dtype) == ((3, BAND + HEIGHT, WIDTH), torch.uint8)
    assert torch.equal(rgb[:, BAND:], picture(0))
    assert not is_grey(rgb[:, :BAND])


def test_different_labels_look_different_and_none_is_a_blank_band():
    ink, neon, none = (labelled(picture(0), text)[:, :BAND] for text in ("ink", "neon", ""))
    assert not torch.equal(ink, neon)
    assert is_grey(none)


def test_pixels_in_the_unit_range_are_rounded_to_bytes():
    rgb = torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0]).expand(3, 1, 6)
    below = labelled(rgb, "")[0, BAND]
    assert below.tolist() == [0, 0, 64, 128, 255, 255]


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (4, 3, 2), (5, 2, 3)])
def test_a_grid_shows_every_picture_in_reading_order(count, columns, rows):
    rgb = grid({f"style {i}": picture(i) for i in range(count)}, columns)
    assert rgb.shape == (3, rows * (HEIGHT + BAND), columns * WIDTH)
    for index in range(count):
        assert torch.equal(cell(rgb, index // columns, index % columns), picture(index))
    for index in range(count, rows * columns):
        assert is_grey(cell(rgb, index // columns, index % columns))


def test_a_sheet_has_a_row_for_each_name():
    rgb = sheet({"input": [picture(0), picture(1)], "ink": [picture(2), picture(3)]})
    assert rgb.shape == (3, 2 * (HEIGHT + BAND), 2 * WIDTH)
    for index in range(4):
        assert torch.equal(cell(rgb, index // 2, index % 2), picture(index))


def test_a_sheet_names_a_row_once():
    rgb = sheet({"input": [picture(0), picture(1)]})
    assert not is_grey(rgb[:, :BAND, :WIDTH])
    assert is_grey(rgb[:, :BAND, WIDTH:])


def test_a_sheet_fills_up_pictures_of_less_height():
    low = picture(1, HEIGHT - 4, WIDTH + 6)
    rgb = sheet({"input": [picture(0), low]})
    assert rgb.shape == (3, HEIGHT + BAND, 2 * WIDTH + 6)
    assert torch.equal(rgb[:, BAND:-4, WIDTH:], low)
    assert is_grey(rgb[:, -4:, WIDTH:])


def test_a_picture_file_gives_back_every_pixel(tmp_path):
    save_png(tmp_path / "sheet.png", picture(0))
    loaded = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_COLOR)
    assert loaded is not None
    rgb = cv2.cvtColor(loaded, cv2.COLOR_BGR2RGB)
    assert torch.equal(torch.from_numpy(rgb).permute(2, 0, 1), picture(0))


@pytest.mark.parametrize("name", ["missing/sheet.png", "."])
def test_a_place_that_cannot_be_written_is_named(tmp_path, name):
    with pytest.raises(SinkError, match="cannot be written") as caught:
        save_png(tmp_path / name, picture(0))
    assert str(tmp_path / name) in str(caught.value)
