"""A page with the viewer on it, driven as a person does, with a count of what the browser sends."""

import time
from collections.abc import Callable
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, WebSocket
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ANSWER_SECONDS = 30  # of the server, on a busy machine
PAUSE_MS = 450  # what a component holds back before it reports, and what a browser takes to draw


class Shown:
    """One page with the viewer on it, and a count of what the browser sent to the server."""

    def __init__(self, page: Page, address: str, **asked: str) -> None:
        self.page = page
        self.sent = 0
        self._waits = False  # for the server to end what was asked last
        page.on("websocket", self._listen)
        page.goto(f"{address}/?{urlencode(asked)}")

    def _listen(self, socket: WebSocket) -> None:
        self._waits = False  # what an earlier connection asked for is answered by nobody
        socket.on("framesent", self._note_sent)
        socket.on("framereceived", self._note_received)

    def _note_sent(self, frame: str | bytes) -> None:
        self.sent += 1
        self._waits |= isinstance(frame, bytes) and BackMsg.FromString(frame).HasField("rerun_script")

    def _note_received(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            message = ForwardMsg.FromString(frame)
            ended = message.WhichOneof("type") == "script_finished"
            if ended and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                self._waits = False

    def settle(self) -> None:
        """Wait until what was done has been reported, answered and drawn."""
        until = time.monotonic() + ANSWER_SECONDS
        self.page.wait_for_timeout(PAUSE_MS)
        while self._waits and time.monotonic() < until:
            self.page.wait_for_timeout(50)
        self.page.wait_for_timeout(PAUSE_MS)

    @property
    def viewer(self) -> Locator:
        return self.page.get_by_test_id("viewer")

    def overlay(self) -> str:
        """The pixels that the model's layers paint, as text."""
        pixels: str = self.page.get_by_test_id("overlay").evaluate(
            "canvas => new Promise(done => requestAnimationFrame(() => done(canvas.toDataURL())))"
        )
        return pixels

    def painted(self) -> int:
        """How many pixels of the overlay are not clear, once the next frame is drawn."""
        count: int = self.page.get_by_test_id("overlay").evaluate(
            """canvas => new Promise(done => requestAnimationFrame(() => {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let count = 0;
                for (let i = 3; i < data.length; i += 4) count += data[i] > 0 ? 1 : 0;
                done(count);
            }))"""
        )
        return count

    def slider(self, selector: str) -> Locator:
        return self.viewer.locator(f"input[type=range]{selector}")

    def drag(self, slider: Locator, shares: list[float]) -> Callable[[], None]:
        """Press at the first share of the slider's track and move to the others; the caller lets go."""
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box is not None
        mouse = self.page.mouse
        for number, share in enumerate(shares):
            mouse.move(box["x"] + 7 + share * (box["width"] - 14), box["y"] + box["height"] / 2, steps=8)
            if number == 0:
                mouse.down()
        return mouse.up
