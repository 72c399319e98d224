"""No share on screen is rounded to all or none of the scans."""

import pytest

from pages.components.limits_panel import _share


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(281, 282, "> 99%"), (282, 282, "100%"), (1, 300, "< 1%"), (0, 300, "0%"), (9, 10, "90%"), (198, 200, "99%")],
)
def test_a_share_is_all_or_none_only_where_it_is(part: int, whole: int, said: str) -> None:
    assert _share(part, whole) == said
