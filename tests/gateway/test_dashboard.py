"""The dashboard in a real browser: it loads, follows a batch, shows a death, and its buttons act."""

import contextlib
import os
import signal

import pytest

from tests.end_to_end.bed import Bed, wait_for
from tests.galleries import small_jpeg, write
from tests.gateway.browser import Page, Refused, browse, needs_chromium
from tests.gateway.web import Web, start

pytestmark = [needs_chromium, pytest.mark.timeout(300)]

LOADED = "document.querySelectorAll('.worker').length === 2 && document.querySelectorAll('.u-wrap canvas').length === 4"

DEATH = ".worker[data-slot='0'] .death"


def text(selector: str) -> str:
    """Returns an expression for the text of the first element that fits."""
    return f"(document.querySelector({selector!r}) || {{}}).textContent"


def busy(bed: Bed, images: int = 40) -> None:
    """Puts images among the photos of which each takes a while."""
    bed.write_config(
        slow=[{"operation": "thumbnail", "sizes": [64]}, {"operation": "misbehave.hang", "seconds": 0.2}],
        crash=[{"operation": "misbehave.crash", "only": "bad*"}],
    )
    bed.fill(images, directory=bed.photo("many"))


def status_worker(web: Web, slot: int) -> dict[str, object]:
    """Returns a worker as the status has it."""
    found: dict[str, object] = web.get("/status").json["workers"][slot]
    return found


def test_it_follows_a_batch_and_shows_a_worker_that_is_killed(bed: Bed) -> None:
    busy(bed)
    web = start(bed)
    with browse(bed.directory) as page:
        page.open(web.url)
        page.wait(LOADED, "the page shows workers and charts")
        page.wait(f"{text('#state')} === 'serving'", "it is connected")
        batch = web.post("/batches", {"paths": [bed.photo("many")], "recipe": "slow", "out": bed.out}).json["batch"]
        page.wait(f"{text(f'[data-batch={batch}] .quiet')}.includes('running')", "the batch is shown running")
        page.wait("Number(document.querySelector('#queue').textContent) > 0", "images wait")
        page.wait(
            "document.querySelector('.worker .now .name').textContent.endsWith('.jpg')", "a current image is named"
        )
        pid = wait_for(lambda: _pid(web), "a worker to kill")
        os.kill(pid, signal.SIGKILL)
        page.wait(f"{text(DEATH)}.includes('killed_outside')", "its death is shown at the worker")
        page.wait(f"{text('#decisions')}.includes('(pid {pid}) ended')", "and among the decisions")
        page.wait("marks.some((mark) => mark.kind === 'death' && mark.slot === 0)", "and on the time line")
        page.wait("seen.rss[0].filter((rss) => rss > 0).length > 3 && seen.batch[0].length > 3", "curves grow")
        page.wait(f"{text(f'[data-batch={batch}] .quiet')}.includes('finished')", "the batch is shown finished")
        page.wait(
            "[...document.querySelectorAll('#recent img')].some((image) => image.naturalWidth === 64)", "pictures"
        )
        assert page.complaints == []
    assert web.finish(batch)["counts"]["done"] == 40


def _pid(web: Web) -> int:
    found = status_worker(web, 0)
    return int(str(found["pid"])) if found["state"] == "BUSY" else 0


def test_its_buttons_act(bed: Bed) -> None:
    busy(bed)
    web = start(bed)
    for name in ("bad-1.jpg", "bad-2.jpg"):
        write(bed.photos, f"killers/{name}", small_jpeg(1))
    batch = web.post("/batches", {"paths": [bed.photo("killers")], "recipe": "crash", "out": bed.out}).json["batch"]
    assert web.finish(batch)["counts"]["quarantined"] == 2
    with browse(bed.directory) as page:
        page.open(web.url)
        page.wait("document.querySelectorAll('#quarantine [data-path]').length === 2", "the quarantine is shown")
        assert "SIGSEGV" in page.value(text("#quarantine"))
        page.value(
            f"document.querySelector('[data-path=\"{bed.photo('killers/bad-1.jpg')}\"] [data-verb=drop]').click()"
        )
        page.wait("document.querySelectorAll('#quarantine [data-path]').length === 1", "one is dropped")
        page.value("document.querySelector('#quarantine [data-verb=retry]').click()")
        page.wait(f"{text('#said')}.includes('tried again')", "the other is tried again")
        wait_for(lambda: web.get("/quarantine").json, "and kills again")
        page.value("document.querySelector('#pause').focus()")
        page.press("Enter", 13)
        page.wait(f"{text('#state')} === 'paused: paused at the dashboard'", "it is paused by the keyboard")
        assert web.get("/ready").status == 503
        page.wait(f"{text('#pause')} === 'Resume'", "the button turns")
        held = web.post("/batches", {"paths": [bed.photo("many")], "recipe": "slow", "out": bed.out}).json["batch"]
        page.wait(f"document.querySelector('[data-batch={held}] button') !== null", "what waits can be cancelled")
        page.value(f"document.querySelector('[data-batch={held}] button').click()")
        assert web.finish(held)["counts"]["cancelled"] == 40
        page.value("document.querySelector('#pause').click()")
        page.wait(f"{text('#state')} === 'serving'", "it goes on")
        assert page.complaints == []


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True)], ids=["phone", "dark"])
def test_it_fits_the_screen_and_the_scheme(web: Web, width: int, dark: bool) -> None:
    with browse(web.bed.directory) as page:
        page.open(web.url, width=width, height=740, dark=dark)
        page.wait(LOADED, "the page is there")
        page.wait(f"{text('#state')} === 'serving'", "it is connected")
        assert page.value("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        background = page.value("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(16, 19, 23)") is dark
        assert page.picture().startswith(b"\x89PNG")
        assert page.complaints == []


def test_the_way_in_and_when_the_supervisor_is_gone(bed: Bed) -> None:
    web = start(bed, "--http-token", "a-token-for-a-browser")
    with browse(bed.directory) as page:
        page.open(web.url)
        page.wait(
            "location.pathname === '/login' && document.querySelector('#token') !== null", "it asks for the token"
        )
        _enter(page, "wrong")
        page.wait("!document.querySelector('#wrong').hidden", "a wrong one is refused")
        _enter(page, "a-token-for-a-browser")
        page.wait(
            "location.pathname === '/' && document.querySelectorAll('.worker').length === 2", "the right one lets in"
        )
        assert page.value("document.cookie") == "", "no script sees the session"
        web.command.signal(signal.SIGKILL)
        page.wait(f"['not connected', 'no supervisor'].includes({text('#state')})", "it says that nobody is there")


def _enter(page: Page, token: str) -> None:
    with contextlib.suppress(Refused):  # the page goes while it is asked
        page.value(
            f"document.querySelector('#token').value = {token!r}; document.querySelector('form').requestSubmit()"
        )
