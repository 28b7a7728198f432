"""Takes the pictures of Dagster's page: `make screenshots`.

Starts `dagster-webserver` on loopback with the definitions of `examples/demo`, materializes both assets
there as a click on the button would, and photographs logs, metadata, checks and the error with
its group members by a headless Chromium. Nothing of it is left running.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "screenshots"
DEFINITIONS = ROOT / "examples" / "demo" / "defs.py"
SETTINGS = """\
telemetry: {enabled: false}
nux: {enabled: false}
# Runs start at once, without Dagster's daemon.
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAUNCH = """
mutation Launch($assets: [AssetKeyInput!]!, $location: String!, $repository: String!) {
  launchRun(executionParams: {
    selector: {
      repositoryLocationName: $location, repositoryName: $repository,
      jobName: "__ASSET_JOB", assetSelection: $assets
    },
    runConfigData: {}, mode: "default"
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
SHORTEN = """
prefixes => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    for (const prefix of prefixes)
      texts.currentNode.data = texts.currentNode.data.replaceAll(prefix, "…");
}
"""
REPOSITORIES = (
    "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
)
STATUS = "query S($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def main() -> None:
    """Take all pictures."""
    chromium = find_chromium()
    with webserver() as address:
        runs = {name: materialize(address, name) for name in ("orders", "exported_orders")}
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            photograph(page, address, runs)
            browser.close()


def find_chromium() -> str:
    """Chromium's path; installs Debian's package if there is none and this is root."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        sys.exit("Chromium is needed: install it, or run this as root on Debian or Ubuntu")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=True)
    return shutil.which("chromium") or sys.exit("apt-get has installed no chromium")


@contextlib.contextmanager
def webserver(definitions: Path = DEFINITIONS, home: str | None = None) -> Iterator[str]:
    """Dagster's web server with these definitions, on a free port of loopback.

    In a home that exists, or in one for the time being.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as new:
        home = home or new
        Path(home, "dagster.yaml").write_text(SETTINGS)
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dagster_webserver",
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
                "-f",
                str(definitions),
            ],
            env={**os.environ, "DAGSTER_HOME": home, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(lambda: urllib.request.urlopen(f"{address}/server_info").status == 200)
            yield address
        finally:
            server.terminate()
            server.wait(20)


def ask(address: str, query: str, **variables: Any) -> Any:
    """Put a question to Dagster's GraphQL."""
    request = urllib.request.Request(
        f"{address}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["data"]


def materialize(address: str, asset: str) -> str:
    """Materialize an asset and wait for the end of the run; return the run's id."""
    [repository] = ask(address, REPOSITORIES)["repositoriesOrError"]["nodes"]
    launched = ask(
        address,
        LAUNCH,
        assets=[{"path": [asset]}],
        location=repository["location"]["name"],
        repository=repository["name"],
    )["launchRun"]
    run_id: str = launched["run"]["runId"]
    wait_for(
        lambda: ask(address, STATUS, id=run_id)["runOrError"]["status"] in {"SUCCESS", "FAILURE"}
    )
    return run_id


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Wait until the condition holds; errors of the network count as no."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.2)
    sys.exit(f"nothing happened for {seconds:.0f} s")


def photograph(page: Page, address: str, runs: dict[str, str]) -> None:
    """Go from page to page and keep what is seen."""
    page.goto(f"{address}/runs/{runs['orders']}")
    page.get_by_text("Finished execution of run").first.wait_for()
    page.get_by_placeholder("Filter…").fill("step:orders")
    page.mouse.move(900, 600)
    page.mouse.wheel(0, -5000)  # to the first of the log lines
    page.get_by_text("fetching the orders of south").wait_for()
    keep(page, "logs")

    page.goto(f"{address}/assets/orders?view=overview")
    page.get_by_text("by_region").first.wait_for()
    keep(page, "metadata", height=1140)

    page.goto(f"{address}/assets/orders?view=checks&checkDetail=no_small_orders")
    page.get_by_text("too_small").first.wait_for()
    keep(page, "checks", height=560)

    page.goto(f"{address}/runs/{runs['exported_orders']}")
    page.get_by_placeholder("Filter…").fill("closed with exception")
    page.get_by_text("View full message").first.click()
    page.get_by_text("Copy error").wait_for()
    keep(page, "exception-group", height=820)


def keep(page: Page, name: str, height: int = 900) -> None:
    """Write the picture, in few colours; paths of this machine are shortened."""
    page.set_viewport_size({"width": 1280, "height": height})
    page.wait_for_timeout(1500)  # for what is still moving
    page.evaluate(SHORTEN, [str(ROOT), sys.base_prefix])
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        PICTURES / f"{name}.png", optimize=True
    )
    print(f"{PICTURES / name}.png")


if __name__ == "__main__":
    main()
