"""A moving picture has one picture for each step, and formats that cannot move show the last."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from toymodels import plotting
from toymodels.errors import InputError

STEPS = [1.0, 2.0, 4.0]


def draw(axes, step):
    axes.bar([0], [step], color="red")
    axes.set(ylim=(0, 4), title=f"step {step:g}")


def moving():
    return plotting.animate(draw, STEPS, size=(2, 1.5), per_second=5)


def red(picture):
    colors = np.asarray(picture.convert("RGB")).astype(int)
    return int(((colors[..., 0] > 200) & (colors[..., 1] < 60)).sum())


def test_a_gif_shows_every_step_and_holds_the_last(tmp_path):
    file = tmp_path / "moving.gif"
    moving().savefig(file, dpi=80)
    with Image.open(file) as picture:
        assert (picture.n_frames, picture.size) == (3, (160, 120))
        heights, times = [], []
        for number in range(3):
            picture.seek(number)
            heights.append(red(picture))
            times.append(picture.info["duration"])
    shares = np.array(heights) / heights[-1]
    np.testing.assert_allclose(shares, [0.25, 0.5, 1], atol=0.05)  # bars are whole pixels high
    assert times[:2] == [200, 200]
    assert times[2] > 1000


def test_other_formats_show_the_last_step(tmp_path):
    figure = moving()
    for _ in range(2):  # also after the picture has moved
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        assert figure.axes[0].get_title() == "step 4"
        figure.savefig(tmp_path / "moving.gif")
    figure.savefig(tmp_path / "moving.png")
    with Image.open(tmp_path / "moving.png") as picture:
        assert red(picture) > 0


def test_a_page_holds_all_pictures_and_needs_no_other_file(tmp_path):
    figure = moving()
    file = tmp_path / "moving.html"
    figure.savefig(file)
    page = file.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64") == len(STEPS)
    assert figure.axes[0].get_title() == "step 4"


def test_axes_stay_in_their_places(tmp_path):
    figure = plotting.animate(lambda axes, step: axes.set_ylim(0, 10**step), [1, 6], size=(3, 2))
    places = []
    figure.canvas.mpl_connect(
        "draw_event", lambda _: places.append(figure.axes[0].get_position().bounds)
    )
    figure.savefig(tmp_path / "moving.gif")
    assert len(places) >= 2
    assert set(places) == {places[0]}


def test_a_moving_picture_needs_steps():
    with pytest.raises(InputError, match="steps is empty: give at least one step"):
        plotting.animate(draw, [])
