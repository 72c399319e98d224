"""A session spoken to over the wire, without a browser: exact in what it sends, and free to send what no page would.

    wire = Wire(address); wire.run("compare"); wire.click("compare-sample-benign"); wire.texts()

Speaks Streamlit's own protocol (BackMsg out, ForwardMsg in), so that many sessions cost little and widgets can be
given values that no browser lets a person choose.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from itertools import chain
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import connect
from websockets.typing import Subprotocol

ANSWER_SECONDS = 120  # a run on a busy machine
BOUNDARY = "a-line-that-no-scan-holds"


class Wire:
    """One session; used in one thread."""

    def __init__(self, address: str) -> None:
        """Open a session; nothing runs until `run`."""
        self.address = address
        with urllib.request.urlopen(f"{address}/_stcore/health") as answer:
            cookie = SimpleCookie(answer.headers["Set-Cookie"])
        self.token = cookie["_streamlit_xsrf"].value
        self._open = ExitStack()
        opening = connect(
            f"{address.replace('http', 'ws')}/_stcore/stream",
            subprotocols=[Subprotocol("streamlit"), Subprotocol(self.token)],
            additional_headers={"Cookie": f"_streamlit_xsrf={self.token}", "Origin": address},
            max_size=None,
        )
        self.socket = self._open.enter_context(opening)
        self.page = ""
        self.session_id = ""
        self.states: dict[str, WidgetState] = {}
        self.messages: list[ForwardMsg] = []  # of the last run
        self.heard: list[bytes] = []  # everything that this session was ever sent

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, page: str | None = None, *, page_hash: str = "", fragment: str = "") -> "Wire":
        """Run a page by its address with all widget values set so far; waits until the server rests."""
        if page is not None:
            self.page = page
        message = BackMsg()
        message.rerun_script.page_name = self.page
        message.rerun_script.page_script_hash = page_hash
        message.rerun_script.fragment_id = fragment
        message.rerun_script.widget_states.widgets.extend(self.states.values())
        self.socket.send(message.SerializeToString())
        self.messages = list(self._listen("script_finished"))
        for name in [name for name, state in self.states.items() if _is_trigger(state)]:
            del self.states[name]
        return self

    def set(self, name: str, **value: Any) -> None:
        """Give a widget a value: `set(id, int_value=3)`; any id, any value."""
        state = WidgetState(id=name)
        for kind, content in value.items():
            if kind.endswith("_array_value"):
                getattr(state, kind).data.extend(content)
            elif kind == "string_trigger_value":
                state.string_trigger_value.data = content
            else:
                setattr(state, kind, content)
        self.states[name] = state

    def click(self, key: str) -> "Wire":
        """Press the button with this key, and run."""
        self.set(self.widget(key), trigger_value=True)
        return self.run()

    def upload(self, key: str, *files: tuple[str, bytes]) -> None:
        """Put files into an uploader, as a browser does; `run` makes the page see them."""
        message = BackMsg()
        message.file_urls_request.request_id = "files"
        message.file_urls_request.file_names.extend(name for name, _ in files)
        message.file_urls_request.session_id = self.session_id
        self.socket.send(message.SerializeToString())
        *_, answer = self._listen("file_urls_response")
        state = WidgetState(id=self.widget(key))
        for (name, data), urls in zip(files, answer.file_urls_response.file_urls, strict=True):
            assert self.put(urls.upload_url, name, data) == 204
            info = state.file_uploader_state_value.uploaded_file_info.add(name=name, size=len(data))
            info.file_id = urls.file_id
            info.file_urls.CopyFrom(urls)
        self.states[state.id] = state

    def upload_address(self) -> str:
        """Where the next file of this session may be sent."""
        message = BackMsg()
        message.file_urls_request.request_id = "file"
        message.file_urls_request.file_names.append("large.zip")
        message.file_urls_request.session_id = self.session_id
        self.socket.send(message.SerializeToString())
        *_, answer = self._listen("file_urls_response")
        return str(answer.file_urls_response.file_urls[0].upload_url)

    def put_raw(self, path: str, pieces: Iterator[bytes], length: int) -> int | None:
        """Send a body in pieces; the status, or None when the server hangs up before it is whole."""
        host, port = self.address.removeprefix("http://").split(":")
        sending = HTTPConnection(host, int(port), timeout=ANSWER_SECONDS)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(length),
            "Cookie": f"_streamlit_xsrf={self.token}",
            "X-Xsrftoken": self.token,
        }
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="large.zip"\r\n\r\n'.encode()
        try:
            sending.request("PUT", path, chain([head], pieces), headers)
            return sending.getresponse().status
        except (ConnectionError, BrokenPipeError):
            return None
        finally:
            sending.close()

    def put(self, path: str, name: str, data: bytes) -> int:
        """Send a file's body; the HTTP status. Quotes in the name are written as browsers do."""
        quoted = name.replace('"', "%22")
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n\r\n'.encode()
        request = urllib.request.Request(
            f"{self.address}{path}",
            head + data + f"\r\n--{BOUNDARY}--\r\n".encode(),
            {
                "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                "Cookie": f"_streamlit_xsrf={self.token}",
                "X-Xsrftoken": self.token,
            },
            method="PUT",
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    # ---- what was answered -------------------------------------------------------------------------------------

    def elements(self) -> Iterator[Element]:
        """Every element of the last run."""
        for message in self.messages:
            if message.WhichOneof("type") == "delta" and message.delta.WhichOneof("type") == "new_element":
                yield message.delta.new_element

    def widget(self, key: str) -> str:
        """The id of the widget with this key."""
        for element in self.elements():
            part = getattr(element, element.WhichOneof("type") or "empty")
            name = str(getattr(part, "id", ""))
            if name.endswith(f"-{key}"):
                return name
        raise LookupError(f"no widget {key!r} in this run")

    def component(self, name: str) -> tuple[str, bytes]:
        """Id and message of one of the house's components, as in 'busi_viewer'."""
        found = [e.bidi_component for e in self.elements() if e.WhichOneof("type") == "bidi_component"]
        (one,) = [part for part in found if part.component_name.endswith(name)]
        return one.id, one.bytes

    def report(self, component: str, **values: Any) -> None:
        """What a component's script would tell the server."""
        self.set(component, json_value=json.dumps(values))

    def trigger(self, component: str, event: str, value: Any) -> None:
        """What a component's script would ask for once."""
        payload = json.dumps([{"event": event, "value": value}])
        self.set(f"$$STREAMLIT_INTERNAL_KEY_{component}__events", json_trigger_value=payload)

    def texts(self) -> str:
        """All words of the last run."""
        return " ".join(
            part.body for e in self.elements() for part in (e.markdown, e.html, e.alert, e.text) if part.body
        )

    def crashes(self) -> list[str]:
        """Exceptions that reached the screen in the last run."""
        return [e.exception.type for e in self.elements() if e.WhichOneof("type") == "exception"]

    def _listen(self, until: str) -> Iterator[ForwardMsg]:
        """Messages up to one of this kind; runs that end early for another are waited for."""
        while True:
            data = self.socket.recv(timeout=ANSWER_SECONDS)
            assert isinstance(data, bytes)
            self.heard.append(data)
            message = ForwardMsg()
            message.ParseFromString(data)
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self.session_id = message.new_session.initialize.session_id
            yield message
            if kind == until and not (kind == "script_finished" and message.script_finished == 2):
                return


def _is_trigger(state: WidgetState) -> bool:
    return (state.WhichOneof("value") or "").endswith("trigger_value")
