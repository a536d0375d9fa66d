"""The log: what matters enough, once a line, and nothing that could act on a terminal or give a secret away."""

import io
import json

from protocol.messages import Decision
from supervisor.mechanism.log import LINES_A_KIND, PERIOD_SECONDS, Log


def decision(kind: str, message: str = "so it is", **fields: object) -> Decision:
    return Decision(number=1, at=0.0, kind=kind, message=message, **fields)  # type: ignore[arg-type]


class Written:
    """A log into memory, with a clock that stands."""

    def __init__(self, **options: object) -> None:
        self.now = 0.0
        self._stream = io.StringIO()
        self.log = Log(self._stream, clock=lambda: self.now, **options)  # type: ignore[arg-type]

    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()


def test_everyday_adjustments_are_for_those_who_ask() -> None:
    calm, all_of_it, grave = Written(), Written(least="debug"), Written(least="error")
    for each in (calm, all_of_it, grave):
        for kind in ("shrunk", "level", "death", "quarantined"):
            each.log.decision(decision(kind, kind))
    assert [line.split()[1] for line in calm.lines()] == ["level", "death", "quarantined"]
    assert len(all_of_it.lines()) == 4
    assert [line.split()[1] for line in grave.lines()] == ["quarantined"]


def test_many_of_one_kind_are_counted_and_the_count_is_told() -> None:
    written = Written()
    for _ in range(LINES_A_KIND + 5):
        written.log.decision(decision("death", "again"))
    assert len(written.lines()) == LINES_A_KIND
    written.now = PERIOD_SECONDS
    written.log.decision(decision("death", "later"))
    assert "death: 5 more like these" in written.lines()[-2] and written.lines()[-1].endswith("later")


def test_json_has_the_figures_and_stays_one_line() -> None:
    written = Written(form="json")
    written.log.decision(
        decision(
            "hard_limit", "worker 1\nis killed", slot=1, path="/p/a.jpg", figures={"rss_bytes": 5, "curve": [1, 2]}
        )
    )
    written.log.line("the template is renewed")
    first, second = map(json.loads, written.lines())
    assert first.pop("at") > 0
    assert first == {
        "kind": "hard_limit", "severity": "warning", "slot": 1, "path": "/p/a.jpg",
        "figures": {"rss_bytes": 5}, "message": "worker 1\nis killed",
    }  # fmt: skip
    assert (second["kind"], second["message"]) == ("note", "the template is renewed")


def test_the_name_of_a_file_does_not_act_on_the_terminal() -> None:
    written = Written()
    written.log.decision(decision("too_large", "/p/\x1b[2J\n.jpg is too large"))
    (line,) = written.lines()
    assert "\x1b" not in line and "\\x1b[2J\\n.jpg" in line
