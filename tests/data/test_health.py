"""When bad videos are too many."""

import pytest
import torch

from hiera_video.data.dataset import Failure
from hiera_video.data.health import ENOUGH_VIDEOS, FIRST_VIDEOS, BadVideos
from hiera_video.data.loader import Batch
from hiera_video.utils.errors import UserError


def batch(num_good, *bad):
    failures = tuple(Failure(path, f"{path}: broken.") for path in bad)
    return Batch(torch.empty(0), torch.empty(0), torch.empty(0), failures, num_videos=num_good)


def test_each_video_is_named_once_with_its_first_reason():
    videos = BadVideos(1.0)
    assert videos.add(batch(2, "a", "b", "a")) == ["a: broken.", "b: broken."]
    assert videos.add(batch(2, "b", "c")) == ["c: broken."]
    assert (videos.num_tried, videos.num_failed) == (9, 5)
    assert list(videos.reasons) == ["a", "b", "c"]


def test_a_run_whose_first_videos_all_fail_stops_whatever_the_share_allowed():
    videos = BadVideos(1.0)
    videos.add(batch(0, *map(str, range(FIRST_VIDEOS - 1))))
    videos.check()
    videos.add(batch(0, "last"))
    with pytest.raises(UserError, match=r"not one of the first 20.*0: broken.*DATA.PATH_PREFIX"):
        videos.check()


def test_one_good_video_among_the_first_is_enough_to_go_on():
    videos = BadVideos(1.0)
    videos.add(batch(1, *map(str, range(ENOUGH_VIDEOS))))
    videos.check(at_end=True)


@pytest.mark.parametrize(("num_bad", "stops"), [(10, False), (11, True)])
def test_more_than_the_allowed_share_stops_once_enough_were_tried(num_bad, stops):
    videos = BadVideos(0.1)
    videos.add(batch(9))
    videos.add(batch(0, *["a"] * num_bad))
    videos.check()  # of 20, one bad file may be drawn by chance
    videos.add(batch(ENOUGH_VIDEOS - 9 - num_bad))
    if stops:
        with pytest.raises(UserError, match=r"got 0.1: 11 of 100 were not.*1 files, the first: a"):
            videos.check()
    else:
        videos.check()


def test_the_end_of_an_epoch_judges_few_videos_too():
    videos = BadVideos(0.25)
    videos.add(batch(6, "a", "b"))
    videos.check(at_end=True)
    videos.add(batch(0, "c"))
    with pytest.raises(UserError, match="MAX_BAD_FRACTION"):
        videos.check(at_end=True)
