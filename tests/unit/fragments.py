"""What a browser asks for when something in a fragment is touched: that fragment alone, not its page."""

from functools import partial

import pytest
from streamlit.runtime.scriptrunner import RerunData
from streamlit.testing.v1 import AppTest, local_script_runner


def run_fragment_alone(page: AppTest) -> AppTest:
    """Run the only fragment of a page again; what is on the page then is what that fragment drew.

    AppTest itself can only run whole pages, where `require_admin` would refuse before the fragment is asked.
    """
    (fragment,) = page._fragment_storage._fragments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_script_runner, "RerunData", partial(RerunData, fragment_id_queue=[fragment]))
        return page.run()
