"""Draws the pictures of the docs as SVG: `python tools/draw.py` writes them into docs/pictures."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
COLOURS = {  # on a light page, on a dark one
    "ink": ("#24292f", "#d0d7de"),
    "soft": ("#6e7781", "#909dab"),
    "line": ("#9ecbff", "#1f4b7d"),
    "other": ("#c8e1ff", "#24384f"),
    "torn": ("#ffb3ba", "#7d2f38"),
    "fill": ("#d5e8d4", "#2b4a33"),
    "space": ("#eaeef2", "#2d333b"),
}
INK, SOFT, LINE, OTHER, TORN, FILL, SPACE = (f"var(--{name})" for name in COLOURS)
DAY, NIGHT = ("".join(f"--{n}:{c[i]};" for n, c in COLOURS.items()) for i in (0, 1))
STYLE = f":root{{{DAY}}}@media (prefers-color-scheme:dark){{:root{{{NIGHT}}}}}"
FONT = "font-family='ui-sans-serif, system-ui, sans-serif'"


class Picture:
    """A canvas; lengths are in pixels."""

    def __init__(self, width: int, height: int, about: str) -> None:
        self.width, self.height = width, height
        self.parts = [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'",
            f" width='{width}' height='{height}' role='img'>",
            f"<title>{escape(about)}</title>",
            f"<style>{STYLE}</style>",
            "<defs><marker id='tip' markerWidth='8' markerHeight='8' refX='7' refY='4' orient='auto'>",
            f"<path d='M0,0 L8,4 L0,8 z' fill='{INK}'/></marker></defs>",
        ]

    def box(self, x: float, y: float, w: float, h: float, fill: str, text: str = "") -> None:
        self.parts.append(
            f"<rect x='{x}' y='{y}' width='{w}' height='{h}' fill='{fill}' "
            f"stroke='{INK}' stroke-width='1'/>"
        )
        if text:
            self.text(x + w / 2, y + h / 2 + 4, text, anchor="middle", size=12)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        size: int = 13,
        ink: str = INK,
    ) -> None:
        self.parts.append(
            f"<text x='{x}' y='{y}' text-anchor='{anchor}' font-size='{size}' fill='{ink}' {FONT}>"
            f"{escape(text)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> None:
        dash = " stroke-dasharray='4 3'" if dashed else ""
        self.parts.append(f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='{INK}'{dash}/>")

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.parts.append(
            f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='{INK}' marker-end='url(#tip)'/>"
        )

    def save(self, name: str) -> None:
        (PICTURES / name).write_text("\n".join([*self.parts, "</svg>", ""]))


def pages(picture: Picture, y: float, count: int, x: float = 40, width: float = 180) -> None:
    """Dashed borders of pages and their sizes."""
    for number in range(count + 1):
        picture.line(x + number * width, y - 8, x + number * width, y + 48, dashed=True)
        if number < count:
            label = "page of 4,096 bytes" if number == 0 else "page"
            picture.text(
                x + (number + 0.5) * width, y - 12, label, anchor="middle", size=11, ink=SOFT
            )


def session() -> None:
    """Who starts whom, and what flows where."""
    p = Picture(720, 270, "Dagster launches the job, which reads its context and appends messages")
    p.box(20, 30, 250, 200, SPACE)
    p.text(145, 22, "Dagster", anchor="middle")
    p.box(450, 30, 250, 200, SPACE)
    p.text(575, 22, "your process", anchor="middle")
    p.box(40, 50, 210, 34, LINE, "PipesSubprocessClient.run(...)")
    p.box(470, 50, 210, 34, LINE, "python job.py")
    p.arrow(250, 67, 468, 67)
    p.text(359, 60, "starts, with two variables", anchor="middle", size=11, ink=SOFT)
    p.box(310, 104, 100, 30, OTHER, "context")
    p.arrow(250, 119, 308, 119)
    p.arrow(410, 119, 468, 119)
    p.box(470, 104, 210, 30, LINE, "open_dagster_pipes()")
    p.box(470, 150, 210, 30, LINE, "pipes.log / pipes.report_...")
    p.box(310, 150, 100, 30, OTHER, "messages")
    p.arrow(468, 165, 412, 165)
    p.arrow(308, 165, 252, 165)
    p.box(40, 150, 210, 30, LINE, "reads while it runs")
    p.arrow(145, 180, 145, 196)
    p.box(40, 198, 210, 24, FILL, "logs, materializations, checks")
    p.box(470, 198, 210, 24, FILL, "closed, last")
    p.arrow(575, 180, 575, 196)
    p.save("session.svg")


def torn() -> None:
    """A line over a page border, and what a reader sees in between."""
    p = Picture(640, 300, "A line that crosses a page border is seen in two pieces")
    p.text(20, 24, "One write of three lines. The file grows page by page:")
    pages(p, 60, 3)
    for x, w, fill, text in (
        (40, 130, LINE, "line 1"),
        (170, 110, TORN, "line 2"),
        (280, 120, LINE, "line 3"),
    ):
        p.box(x, 60, w, 40, fill, text)
    p.text(
        20, 138, "1  The kernel has copied the first page. Its end is the end of the file, for now:"
    )
    p.box(40, 150, 130, 40, LINE, "line 1")
    p.box(170, 150, 50, 40, TORN, "line 2, h")
    p.arrow(220, 212, 220, 194)
    p.text(228, 212, "the reader comes by and takes half a line", size=12)
    p.text(20, 246, "2  Half a line is not JSON: the reader stops. What comes later is never read:")
    p.box(220, 256, 60, 32, SPACE, "alf")
    p.box(280, 256, 120, 32, SPACE, "line 3")
    p.text(410, 277, "... and the asset is green", size=12)
    p.save("torn.svg")


def padded() -> None:
    """Our layout: no line crosses a page border."""
    p = Picture(640, 200, "Every line ends before its page does; the rest is filled")
    p.text(20, 24, "The same three lines, laid out by dagsterpipes:")
    pages(p, 60, 3)
    p.box(40, 60, 130, 40, LINE, "line 1")
    p.box(170, 60, 50, 40, FILL, "filler")
    p.box(220, 60, 110, 40, LINE, "line 2")
    p.box(330, 60, 70, 40, FILL, "filler")
    p.box(400, 60, 120, 40, LINE, "line 3")
    p.text(
        20, 140, "A filler is spaces before the newline, or a message that prints nothing.", size=12
    )
    p.text(20, 160, "Wherever the file ends while it grows, it ends between two lines:", size=12)
    p.text(20, 180, "a reader that never sleeps sees whole lines only.", size=12)
    p.save("padded.svg")


def runway() -> None:
    """Lines longer than a page: fillers before them."""
    p = Picture(640, 200, "Small fillers before a long line keep the reader busy until it is whole")
    p.text(20, 24, "A line longer than a page, in one write with a runway of fillers before it:")
    for number in range(16):
        p.box(40 + number * 15, 50, 15, 40, FILL)
    p.box(280, 50, 320, 40, LINE, "the long line")
    p.text(160, 110, "256 kB of small fillers", anchor="middle", size=12, ink=SOFT)
    p.arrow(80, 150, 240, 150)
    p.text(40, 172, "the reader: microseconds for each filler", size=12)
    p.arrow(330, 150, 600, 150)
    p.text(330, 172, "the writer: long done with the line", size=12)
    p.save("runway.svg")


def flow() -> None:
    """Threads, queue, channel."""
    p = Picture(720, 250, "Callers encode and append; one thread takes batches to the channel")
    p.text(20, 24, "any thread, any event loop")
    p.text(430, 24, "the session's own thread")
    p.line(405, 34, 405, 235, dashed=True)
    for number, name in enumerate(
        ("pipes.log.info(...)", "pipes.report_...(...)", "pipes.log.error(...)")
    ):
        p.box(20, 40 + number * 50, 150, 34, LINE, name)
        p.arrow(170, 57 + number * 50, 228, 107)
    p.box(230, 85, 150, 44, OTHER, "bounded queue")
    p.arrow(380, 107, 428, 107)
    p.box(430, 85, 120, 44, LINE, "drain: a batch")
    p.arrow(550, 107, 598, 107)
    p.box(600, 85, 100, 44, FILL, "channel")
    p.text(20, 200, "check, encode, append: raises here, waits for nothing", size=12, ink=SOFT)
    p.text(430, 150, "file, stream, or your own", size=12, ink=SOFT)
    p.text(430, 200, "at most flush_interval later;", size=12, ink=SOFT)
    p.text(430, 218, "reports, WARNING and above at once", size=12, ink=SOFT)
    p.save("flow.svg")


def layers() -> None:
    """The packages; each imports only what is below it."""
    p = Picture(720, 320, "The packages of dagsterpipes; each imports only what is below it")
    p.box(20, 20, 680, 40, LINE, "public names, cli, testing, pytest_plugin")
    p.box(20, 84, 180, 100, FILL, "_reader")
    p.text(110, 156, "what Dagster does with a line", anchor="middle", size=11, ink=SOFT)
    p.box(220, 84, 480, 40, OTHER, "_session: opening, context, loggers, signals, forks, close")
    p.box(220, 148, 130, 36, LINE, "loaders")
    p.box(370, 148, 330, 36, LINE, "writers")
    p.box(20, 208, 420, 40, FILL, "_protocol: values to lines")
    p.box(460, 208, 240, 40, FILL, "_delivery: queue, drain, channels")
    p.box(20, 272, 680, 34, SPACE, "exceptions, typing")
    for x, top in (
        (110, 60),
        (460, 60),
        (285, 124),
        (535, 124),
        (110, 184),
        (285, 184),
        (405, 184),
        (580, 184),
        (230, 248),
        (580, 248),
    ):
        p.arrow(x, top, x, top + 23)
    p.save("layers.svg")


def states() -> None:
    """A session from its opening to its end."""
    p = Picture(720, 300, "The states of a session: opening, open, closing, closed")
    for x, name, below in (
        (20, "opening", "logs wait in the queue"),
        (210, "open", "batches are written"),
        (400, "closing", "the queue is sealed"),
        (590, "closed", "every call raises"),
    ):
        width = 110
        p.box(x, 60, width, 44, LINE, name)
        p.text(x + width / 2, 122, below, anchor="middle", size=11, ink=SOFT)
    for x, cause, effect in (
        (130, "context loaded,", "opened is first"),
        (320, "close, signal,", "exit"),
        (510, "all delivered,", "closed is last"),
    ):
        p.arrow(x, 82, x + 78, 82)
        p.text(x + 39, 34, cause, anchor="middle", size=11, ink=SOFT)
        p.text(x + 39, 50, effect, anchor="middle", size=11, ink=SOFT)
    p.arrow(75, 132, 75, 178)
    p.text(82, 160, "it fails", size=11, ink=SOFT)
    p.box(20, 180, 110, 44, TORN, "failed")
    p.text(75, 242, "the error is raised", anchor="middle", size=11, ink=SOFT)
    p.text(75, 256, "nothing stays behind", anchor="middle", size=11, ink=SOFT)
    p.arrow(240, 132, 240, 178)
    p.arrow(290, 180, 290, 134)
    p.text(232, 160, "a write fails", anchor="end", size=11, ink=SOFT)
    p.text(298, 160, "it succeeds", size=11, ink=SOFT)
    p.box(210, 180, 110, 44, FILL, "trying again")
    p.text(265, 242, "after 20 ms to 1 s;", anchor="middle", size=11, ink=SOFT)
    p.text(265, 256, "the queue fills up", anchor="middle", size=11, ink=SOFT)
    p.arrow(455, 132, 455, 178)
    p.text(462, 160, "close_timeout is over", size=11, ink=SOFT)
    p.box(400, 180, 110, 44, TORN, "lost")
    p.text(455, 242, "recovery file,", anchor="middle", size=11, ink=SOFT)
    p.text(455, 256, "MessagesLostError", anchor="middle", size=11, ink=SOFT)
    p.line(510, 202, 645, 202)
    p.arrow(645, 202, 645, 132)
    p.save("states.svg")


if __name__ == "__main__":
    for draw in (session, torn, padded, runway, flow, layers, states):
        draw()
