"""Headless Chromium over its DevTools protocol, with the standard library alone."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find():
    """The browser's path, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """A page of a headless Chromium, offline. ``problems``: what its console said of errors."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [
            find(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--remote-debugging-port=0",
            "--remote-allow-origins=*",
            f"--user-data-dir={self.folder.name}",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.problems, self.count = [], 0
        try:
            self.socket = self._connect()
            for domain in ("Page", "Runtime", "Log"):
                self.ask(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()

    def _connect(self, patience=600):
        port_file, until = (
            Path(self.folder.name) / "DevToolsActivePort",
            time.monotonic() + patience,
        )
        while not (port_file.exists() and port_file.read_text().strip()):
            assert time.monotonic() < until and self.process.poll() is None, (
                "the browser did not start"
            )
            time.sleep(0.1)
        port = int(port_file.read_text().split()[0])
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        pages = json.loads(direct.open(f"http://127.0.0.1:{port}/json", timeout=patience).read())
        target = next(page for page in pages if page["type"] == "page")
        path = urllib.parse.urlparse(target["webSocketDebuggerUrl"]).path
        connection = socket.create_connection(("127.0.0.1", port), timeout=patience)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        head += "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        connection.sendall(
            f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.stream = connection.makefile("rb")
        while self.stream.readline().strip():
            pass
        return connection

    def ask(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        self.count += 1
        self._send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._receive())
            self._note(message)
            if message.get("id") == self.count:
                assert "error" not in message, message["error"]
                return message["result"]

    def _note(self, message):
        said = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(said["exceptionDetails"]["text"])
        if message.get("method") == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.problems.append(said["entry"]["text"])
        if message.get("method") == "Runtime.consoleAPICalled" and said["type"] in (
            "error",
            "assert",
        ):
            self.problems.append(str(said["args"]))

    def _send(self, text):
        data, mask = text.encode(), os.urandom(4)
        if len(data) < 126:
            size = bytes([0x80 | len(data)])
        else:
            size = (
                b"\xfe" + struct.pack(">H", len(data))
                if len(data) < 65536
                else b"\xff" + struct.pack(">Q", len(data))
            )
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self.socket.sendall(b"\x81" + size + mask + masked)

    def _receive(self):
        whole = b""
        while True:
            first, second = self.stream.read(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(self.stream.read(2 if size == 126 else 8), "big")
            whole += self.stream.read(size)
            if first & 0x80:
                return whole

    def open(self, path, *, width=1000, height=900, dark=False):
        """Load a file at a size, and wait until it is there."""
        mobile = width < 500
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=Path(path).absolute().as_uri())
        until = time.monotonic() + 600
        while (
            self.run("document.readyState") != "complete"
            or self.run("location.protocol") != "file:"
        ):
            assert time.monotonic() < until, "the page did not load"
            time.sleep(0.05)

    def run(self, script):
        """The value of a JavaScript expression in the page."""
        result = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def screenshot(self, path, whole=True):
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))
