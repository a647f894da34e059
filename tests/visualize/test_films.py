from hiera_video.visualize.films import stems


def test_videos_of_one_name_are_told_apart_by_their_folder():
    videos = ["val/up/0.mp4", "val/down/0.mp4", "val/up/1.mp4", "t.tar::left/0.mp4"]
    assert stems(videos, "out", ending="_mae") == [
        "out/up_0_mae",
        "out/down_0_mae",
        "out/1_mae",
        "out/left_0_mae",
    ]


def test_the_rest_is_numbered_and_stays_in_the_folder():
    videos = ["a/up/0.mp4", "b/up/0.mp4", "a/up/0.avi", "0.mp4", "../0.mp4", "/0.mp4", "up_0.mp4"]
    found = stems(videos, "out", ending="_mae")
    assert len(set(found)) == len(videos)
    assert found[0] == "out/up_0_mae"
    assert all(stem.startswith("out/") and stem.count("/") == 1 for stem in found)
    assert not any(stem.startswith("out/.") for stem in found)
