"""`capture_logging` and a root logger that the job configures inside the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
import logging, logging.config, logging.handlers
from dagsterpipes import open_dagster_pipes
{before}
with open_dagster_pipes(capture_logging={level!r}) as pipes:
    logging.getLogger("shop").info("first")
    {inside}
    logging.getLogger("shop").info("second")
    logging.warning("third")
logging.getLogger("shop").warning("after")
{after}
"""
DICT = """logging.config.dictConfig({
        "version": 1, "disable_existing_loggers": %s,
        "handlers": {"out": {"class": "logging.StreamHandler"}},
        "root": {"level": "INFO", "handlers": ["out"]},
    })"""
RECONFIGURED = {
    "basicConfig": 'logging.basicConfig(level="INFO")',
    "basicConfig with force": 'logging.basicConfig(level="INFO", force=True)',
    "dictConfig": DICT % "False",
    "handlers cleared": "logging.getLogger().handlers.clear(); "
    "logging.getLogger().addHandler(logging.StreamHandler())",
}


@pytest.mark.parametrize("before", ["", "logging.basicConfig(level='WARNING')"])
@pytest.mark.parametrize("inside", RECONFIGURED.values(), ids=RECONFIGURED)
def test_a_root_logger_that_is_configured_inside_the_session_still_reaches_dagster(
    tmp_path: Path, inside: str, before: str
) -> None:
    """And its own handlers show what they did without us."""
    launch = Launch(tmp_path)
    result = launch.run(JOB.format(before=before, inside=inside, after="", level=True))
    assert result.returncode == 0, result.stderr
    assert launch.logs() == ["first", "second", "third"]
    assert "third" in result.stderr
    assert "after" in result.stderr


def test_a_level_that_the_configuration_raises_is_kept(tmp_path: Path) -> None:
    """The root logger's level is the application's: the session does not set it back."""
    launch = Launch(tmp_path)
    script = JOB.format(
        before="",
        inside='logging.basicConfig(level="ERROR", force=True)',
        after="print(logging.getLogger().level)",
        level="DEBUG",
    )
    result = launch.run(script)
    assert launch.logs() == ["first"]
    assert result.stdout == "40\n"


def test_the_level_is_put_back_where_nobody_changed_it(tmp_path: Path) -> None:
    """As it was before the session; `callHandlers` is `logging`'s own again."""
    launch = Launch(tmp_path)
    after = "print(logging.getLogger().level, logging.Logger.callHandlers.__module__)"
    result = launch.run(JOB.format(before="", inside="pass", after=after, level="DEBUG"))
    assert result.stdout == "30 logging\n"


@pytest.mark.parametrize("is_launched", [True, False])
def test_a_first_basic_config_inside_the_session_makes_its_file(
    tmp_path: Path, is_launched: bool
) -> None:
    """Under Dagster and outside of it."""
    launch = Launch(tmp_path)
    file = tmp_path / "log"
    if not is_launched:
        launch.env.clear()
    result = launch.run(
        JOB.format(
            before="",
            inside=f"logging.basicConfig(filename={str(file)!r}, level='INFO')",
            after="",
            level=True,
        )
    )
    assert result.returncode == 0, result.stderr
    assert "second" in file.read_text()
    assert launch.logs() == (["first", "second", "third"] if is_launched else [])
    if not is_launched:
        assert "first" in result.stderr
        assert "second" not in result.stderr


def test_each_record_is_sent_once(tmp_path: Path) -> None:
    """With handlers on the way, a queue in between, and a logger that does not propagate."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        import logging, logging.handlers, queue
        from dagsterpipes import open_dagster_pipes
        logging.basicConfig(level="INFO")
        with open_dagster_pipes(capture_logging=True):
            logging.getLogger("a.b.c").info("deep")
            alone = logging.getLogger("alone")
            alone.propagate = False
            alone.addHandler(logging.NullHandler())
            alone.info("not for the root logger")
            waiting = queue.SimpleQueue()
            quiet = logging.getLogger("a")
            quiet.addHandler(logging.handlers.QueueHandler(waiting))
            quiet.info("with a handler of its own")
            logging.getLogger("a.b").setLevel("ERROR")
            logging.getLogger("a.b.c").info("below the level of its parent")
        """
    )
    assert result.returncode == 0, result.stderr
    assert launch.logs() == ["deep", "with a handler of its own"]


def test_sessions_that_follow_each_other_are_bridged_each(tmp_path: Path) -> None:
    """And what replaced `callHandlers` meanwhile stays."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        import logging
        from dagsterpipes import open_dagster_pipes
        seen = []
        for number in range(3):
            with open_dagster_pipes(capture_logging=True):
                logging.info("session %d", number)
                if number == 1:
                    ours = logging.Logger.callHandlers
                    def theirs(self, record):
                        seen.append(record.msg)
                        ours(self, record)
                    logging.Logger.callHandlers = theirs
                    logging.info("patched")
        logging.info("nobody")
        print(len(seen), logging.Logger.callHandlers is theirs)
        """
    )
    assert result.returncode == 0, result.stderr
    assert launch.logs() == ["session 0", "session 1", "patched", "session 2"]
    assert result.stdout == "2 True\n"
