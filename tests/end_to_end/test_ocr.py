"""Documents through the built-in recipe `ocr`, in a sandbox: read, told in the results, its models told by `memory`."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from protocol.messages import ModelMemory
from supervisor.recipes import all_recipes
from tests.end_to_end.bed import Bed, wait_for

pytestmark = pytest.mark.skipif("ocr" not in all_recipes({}), reason="not installed: the extra 'ocr'")


def page(path: Path, line: str) -> None:
    """Writes a page with one line of text."""
    picture = Image.new("RGB", (900, 300), "white")
    ImageDraw.Draw(picture).text((60, 110), line, "black", ImageFont.load_default(size=48))
    picture.save(path)


def test_documents_are_read_and_the_model_is_told(bed: Bed) -> None:
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        page(Path(bed.photo(name)), f"Invoice number 100{name[0]}")
    bed.start("--workers", "1")
    client = bed.client()
    batch = bed.submit(client, names, recipe="ocr", out=None)
    client.wait(batch, timeout_seconds=90)
    results = list(client.iter_results(batch))
    assert len(results) == 6
    for each in results:
        found = each["values"]["ocr"]
        assert f"100{Path(each['path']).stem}" in found["text"], each
        assert found["side"] == 960 and not each["outputs"]
    models: list[ModelMemory] = []

    def known() -> bool:
        models[:] = client.memory().models
        return bool(models) and models[0].uses == 6

    wait_for(known, "the model's six uses are told")
    [model] = models
    assert model.name == "ocr" and 40_000_000 < model.bytes < 250_000_000
    leased = client.request_memory(10_000_000, purpose="notebook")
    assert leased.bytes == 10_000_000
    purposes = {lease.purpose for lease in client.memory().memory_leases.leases}
    assert purposes == {"model ocr", "notebook"}
    client.release_memory(leased.lease)
    tracked = client.track_memory(5_000_000, "a table")
    client.renew_memory(tracked.lease)
    client.release_memory(tracked.lease)
    assert {lease.purpose for lease in client.memory().memory_leases.leases} == {"model ocr"}
