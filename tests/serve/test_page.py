"""The page at / in a real browser, headless: a chosen, a dropped and a spoken recording become text."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from scripted import tone
from servers import Process, Running

from torch_xdna import speech
from torch_xdna.serve.guard import Access

playwright = pytest.importorskip("playwright.sync_api")
CLIP = speech.clips()[0]
DROP = """([content, name]) => {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium is installed")
    spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    samples, rate = soundfile.read(CLIP.path)
    soundfile.write(spoken, samples, rate)
    options = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
               f"--use-file-for-fake-audio-capture={spoken}%noloop"]  # fmt: skip
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, process: Process) -> Iterator[Any]:
    """Fails for whatever the page asks of another place, and for its own mistakes."""
    asked, said = [], []
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: "Failed to load resource" in message.text or said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_default_timeout(20_000)
    page.goto(process.address + "/")
    yield page
    page.close()
    assert not said, said
    assert all(url.startswith((process.address, "blob:", "data:")) for url in asked)


def done(page: Any) -> str:
    playwright.expect(page.locator("#status")).to_contain_text("computed on emulator", timeout=20_000)
    return page.inner_text("#text")


def test_a_chosen_file(page: Any, tmp_path: Path) -> None:
    page.set_input_files("#file", CLIP.path)
    assert done(page) == CLIP.text
    assert page.inner_text("#where") == "torch-xdna on emulator"
    with page.expect_download() as download:
        page.click("#srt")
    subtitles = Path(download.value.path()).read_text()
    assert subtitles.startswith("1\n00:00:0") and CLIP.text in subtitles
    page.screenshot(path=tmp_path / "page.png")


def test_a_dropped_file(page: Any) -> None:
    content = base64.b64encode(Path(CLIP.path).read_bytes()).decode()
    page.evaluate(DROP, [content, "<img src=x onerror=alert(1)>"])
    assert done(page) == CLIP.text


def test_a_spoken_recording(page: Any) -> None:
    """The browser's recorder writes webm with opus; its microphone plays a shipped clip."""
    page.click("#speak")
    page.wait_for_selector("#speak.live")
    page.wait_for_timeout(1000 * CLIP.seconds + 500)
    page.click("#speak")
    assert done(page) == CLIP.text


def test_no_recording(page: Any) -> None:
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"only words"})
    page.wait_for_selector("#status.wrong")
    assert "is not audio" in page.inner_text("#status")


def test_a_key(browser: Any, start: Callable[..., Running]) -> None:
    server = start(Access(key="sesame"))
    page = browser.new_page()
    page.goto(server.address + "/")
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": tone(440)})
    page.wait_for_selector("#status.wrong")
    page.fill("#key", "sesame")
    page.press("#key", "Enter")
    playwright.expect(page.locator("#where")).to_have_text("toy on npu")
    page.set_input_files("#file", {"name": "b.wav", "mimeType": "audio/wav", "buffer": tone(440)})
    playwright.expect(page.locator("#text")).to_have_text("440")
    page.close()
