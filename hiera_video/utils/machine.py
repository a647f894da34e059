"""The machine that the code runs on, and times as people read them."""


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    minutes, sec = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{sec:02d}"
