"""
docs.figures.draw
#################
Draws the data flow of the models as SVG files beside this one:

    python docs/figures/draw.py

Boxes stand in a grid of columns and rows. Every figure has a light ground of its own, so that it can be read on light
and on dark pages.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 168, 74  # of a box
GAP_X, GAP_Y = 30, 46
MARGIN, LEGEND = 18, 40
COLOURS = {  # ground and border by what a box is
    "data": ("#ffffff", "#8a8f98"),
    "fitted": ("#e3f4e6", "#3c8d4f"),
    "learned": ("#e2edfb", "#3a6fb7"),
    "refined": ("#dff3f3", "#2b8a8a"),
    "loss": ("#fdeedd", "#c9772b"),
    "result": ("#efe6fa", "#7a52b3"),
}
BOLD = ' font-weight="bold"'
MEANINGS = {
    "data": "data",
    "fitted": "fitted before training",
    "learned": "trained",
    "refined": "made anew between epochs",
    "loss": "loss, in training only",
    "result": "result",
}


@dataclass(frozen=True)
class Box:
    """Lines of text in a cell of the grid; the first line is bold."""

    column: int
    row: int
    kind: str
    lines: tuple[str, ...]

    @property
    def left(self) -> int:
        return MARGIN + self.column * (WIDTH + GAP_X)

    @property
    def top(self) -> int:
        return MARGIN + self.row * (HEIGHT + GAP_Y)

    def point(self, side: str, share: float = 0.5) -> tuple[float, float]:
        """The point of a side (left, right, top, bottom) at a share of its length."""
        if side in ("left", "right"):
            return self.left + (WIDTH if side == "right" else 0), self.top + share * HEIGHT
        return self.left + share * WIDTH, self.top + (HEIGHT if side == "bottom" else 0)


@dataclass(frozen=True)
class Arrow:
    """From a side of a box to a side of another, over corners between them; dashed where it is for training only."""

    start: tuple[float, float]
    end: tuple[float, float]
    corners: tuple[tuple[float, float], ...] = ()
    dashed: bool = False


def box(column: int, row: int, kind: str, *lines: str) -> Box:
    return Box(column, row, kind, lines)


def right(start: Box, end: Box, **options) -> Arrow:
    return Arrow(start.point("right"), end.point("left"), **options)


def down(start: Box, end: Box, **options) -> Arrow:
    return Arrow(start.point("bottom"), end.point("top"), **options)


def contrec() -> list[Box | Arrow]:
    return _diffusion(
        box(1, 0, "fitted", "sigma-VAE", "K continuous tokens", "a user, K an item"),
        box(3, 2, "loss", "Denoising loss", "and dispersive loss"),
    )


def deftrec() -> list[Box | Arrow]:
    negatives = box(3, 0, "data", "Negatives", "items that the user", "has not had")
    found = _diffusion(
        box(1, 0, "fitted", "Masked tokenizer", "K additive tokens", "a user, K an item"),
        box(3, 2, "loss", "Denoising loss", "and contrast", "with negatives"),
    )
    head = next(part for part in found if isinstance(part, Box) and part.lines[0] == "Diffusion head")
    return [*found, negatives, down(negatives, head, dashed=True)]


def _diffusion(tokens: Box, loss: Box) -> list[Box | Arrow]:
    """The flow that ContRec and DeftRec share."""
    vectors = box(0, 0, "fitted", "Item vectors", "from interactions", "and texts")
    history = box(0, 1, "data", "History", "the last L items", "of a user")
    prompt = box(1, 1, "learned", "Prompt", "instruction, user,", "items")
    decoder = box(2, 1, "learned", "Language model", "compact, or", "pretrained with LoRA")
    head = box(3, 1, "learned", "Diffusion head", "state to preference", "vector")
    retrieval = box(4, 1, "result", "Ranking", "similarity to all", "item vectors")
    table = box(4, 0, "learned", "Item vectors", "of the retrieval")
    answer = box(2, 2, "loss", "Language loss", "what comes next,", "in words (optional)")
    ranking = box(4, 2, "loss", "Ranking loss", "next item among", "the catalogue")
    return [
        *(vectors, tokens, history, prompt, decoder, head, retrieval, table, answer, loss, ranking),
        right(vectors, tokens),
        down(tokens, prompt),
        right(history, prompt),
        right(prompt, decoder),
        right(decoder, head),
        right(head, retrieval),
        down(table, retrieval),
        *(down(start, end, dashed=True) for start, end in ((decoder, answer), (head, loss), (retrieval, ranking))),
    ]


def tokenrec() -> list[Box | Arrow]:
    vectors = box(0, 0, "fitted", "Vectors", "of users and items,", "from interactions")
    tokens = box(1, 0, "fitted", "MQ tokenizers", "a code from each of", "K codebooks")
    history = box(0, 1, "data", "History", "the last L items", "of a user")
    prompt = box(1, 1, "learned", "Prompt", "instruction, codes", "as new words")
    decoder = box(2, 1, "learned", "Language model", "decoder or T5,", "compact or pretrained")
    projection = box(3, 1, "learned", "Projection", "states to one", "preference vector")
    retrieval = box(4, 1, "result", "Ranking", "similarity to all", "item vectors")
    table = box(4, 0, "learned", "Item vectors", "of the retrieval")
    loss = box(4, 2, "loss", "Ranking loss", "or pairwise cosine,", "as in the paper")
    return [
        *(vectors, tokens, history, prompt, decoder, projection, retrieval, table, loss),
        right(vectors, tokens),
        down(tokens, prompt),
        right(history, prompt),
        right(prompt, decoder),
        right(decoder, projection),
        right(projection, retrieval),
        down(table, retrieval),
        down(retrieval, loss, dashed=True),
    ]


def tiger() -> list[Box | Arrow]:
    vectors = box(0, 0, "fitted", "Item vectors", "from interactions", "or texts")
    ids = box(1, 0, "fitted", "Semantic ids", "by an RQ-VAE, or one", "of four other ways")
    trie = box(4, 0, "fitted", "Trie", "all semantic ids", "of the catalogue")
    history = box(0, 1, "data", "History", "the last L items", "of a user")
    prompt = box(1, 1, "learned", "Prompt", "a position a code,", "coarse to fine")
    decoder = box(2, 1, "learned", "Language model", "compact decoder", "or compact T5")
    codes = box(3, 1, "learned", "Code heads", "one softmax for", "each code")
    search = box(4, 1, "result", "Beam search", "every beam is", "a real item")
    loss = box(3, 2, "loss", "Cross entropy", "of the codes of", "the next item")
    return [
        *(vectors, ids, trie, history, prompt, decoder, codes, search, loss),
        right(vectors, ids),
        right(ids, trie),
        down(ids, prompt),
        right(history, prompt),
        right(prompt, decoder),
        right(decoder, codes),
        right(codes, search),
        down(trie, search),
        down(codes, loss, dashed=True),
    ]


def siit() -> list[Box | Arrow]:
    parts = tiger()
    named = {part.lines[0]: part for part in parts if isinstance(part, Box)}
    ids, decoder = named["Semantic ids"], named["Language model"]
    means = box(2, 2, "refined", "Expected items", "mean state in front", "of every item")
    anew = box(1, 2, "refined", "New semantic ids", "quantised anew,", "all distinct")
    aside = ids.left - GAP_X / 2
    back = Arrow(
        anew.point("left"),
        ids.point("left", 0.8),
        ((aside, anew.point("left")[1]), (aside, ids.point("left", 0.8)[1])),
        dashed=True,
    )
    return [
        *parts,
        means,
        anew,
        down(decoder, means, dashed=True),
        Arrow(means.point("left"), anew.point("right"), dashed=True),
        back,
    ]


def batch() -> list[Box | Arrow]:
    """The way of one batch of ContRec through the package."""
    dataset = box(0, 0, "data", "WindowDataset", "histories cut into", "windows")
    loader = box(1, 0, "data", "Batch", "windows, targets,", "masks")
    targets = box(2, 0, "data", "Targets", "the next item at", "every position")
    encoder = box(0, 1, "learned", "History encoder", "prompt and", "language model")
    states = box(1, 1, "learned", "States", "one behind every", "item")
    head = box(2, 1, "learned", "Diffusion head", "estimate and", "denoising loss")
    retrieval = box(3, 1, "learned", "Retrieval", "scores of the", "catalogue")
    loss = box(4, 1, "loss", "Loss", "weighted sum,", "one backward pass")
    return [
        *(dataset, loader, targets, encoder, states, head, retrieval, loss),
        right(dataset, loader),
        right(loader, targets),
        Arrow(
            loader.point("bottom"),
            encoder.point("top"),
            (
                (loader.point("bottom")[0], loader.top + HEIGHT + GAP_Y / 2),
                (encoder.point("top")[0], loader.top + HEIGHT + GAP_Y / 2),
            ),
        ),
        down(targets, head, dashed=True),
        right(encoder, states),
        right(states, head),
        right(head, retrieval),
        right(retrieval, loss, dashed=True),
    ]


FIGURES = {"contrec": contrec, "deftrec": deftrec, "tokenrec": tokenrec, "tiger": tiger, "siit": siit, "batch": batch}


def svg(parts: list[Box | Arrow], title: str) -> str:
    """A figure as the text of an SVG file."""
    boxes = [part for part in parts if isinstance(part, Box)]
    columns, rows = 1 + max(part.column for part in boxes), 1 + max(part.row for part in boxes)
    width = 2 * MARGIN + columns * WIDTH + (columns - 1) * GAP_X
    height = 2 * MARGIN + rows * HEIGHT + (rows - 1) * GAP_Y + LEGEND
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#444b55"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="10" fill="#f7f8fa"/>',
        *(_arrow(part) for part in parts if isinstance(part, Arrow)),
        *(_box(part) for part in boxes),
        *_legend([kind for kind in COLOURS if any(part.kind == kind for part in boxes)], height),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _box(part: Box) -> str:
    ground, border = COLOURS[part.kind]
    x, step = part.left + WIDTH / 2, 20
    first = part.top + HEIGHT / 2 - step * (len(part.lines) - 1) / 2 + 5
    texts = [
        f'<text x="{x:g}" y="{first + step * number:g}" text-anchor="middle" font-size="15" fill="#1d2127"'
        f"{'' if number else BOLD}>{escape(line)}</text>"
        for number, line in enumerate(part.lines)
    ]
    return (
        f'<rect x="{part.left}" y="{part.top}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{ground}" '
        f'stroke="{border}" stroke-width="1.5"/>' + "".join(texts)
    )


def _arrow(part: Arrow) -> str:
    path = " L".join(f"{x:g} {y:g}" for x, y in (part.start, *part.corners, part.end))
    dashes = ' stroke-dasharray="6 4"' if part.dashed else ""
    return f'<path d="M{path}" fill="none" stroke="#444b55" stroke-width="1.6"{dashes} marker-end="url(#tip)"/>'


def _legend(kinds: list[str], height: int) -> list[str]:
    found, x, y = [], MARGIN, height - 24
    for kind in kinds:
        ground, border = COLOURS[kind]
        found.append(
            f'<rect x="{x}" y="{y - 11}" width="16" height="14" rx="3" fill="{ground}" stroke="{border}"/>'
            f'<text x="{x + 23}" y="{y + 1}" font-size="13" fill="#444b55">{MEANINGS[kind]}</text>'
        )
        x += 46 + round(7.2 * len(MEANINGS[kind]))
    return found


if __name__ == "__main__":
    for name, figure in FIGURES.items():
        (Path(__file__).parent / f"{name}.svg").write_text(svg(figure(), f"Data flow: {name}"), encoding="utf-8")
