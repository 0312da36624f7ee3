"""The one vocabulary of a sweep, from its plan to the last figure. Importing this module loads nothing slow.

A *cell* is one unit of a stage's work, committed as one output. It is made where the sweep is planned and
carried, typed, through every stage: names are for people, `Arm.kind` and the fields are what code asks for.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Pages = Literal["target", "shuffled", "unrelated"]
"""What CGP is trained on: the target's pages; the same pages, each with another one's text; or the base
documents' pages alone. The second and the third are controls."""
CONTROLS: tuple[Pages, ...] = ("shuffled", "unrelated")

Kind = Literal["none", "refinement", "learning rate", "adapter", "equal compute", "soup", "linear map"]
"""Why an arm is in a sweep: no CL; a way to refine that the paper compares; the primary way at another
learning rate, or with another adapter; CL alone with the compute of CGP; the mean of the seeds' adapters; a
linear map of the vectors before CL."""

DIRECTIONS = ("query_to_image", "query_to_text", "text_to_image")
"""What is searched with what: the score that counts, the text-side control, both sides of one page."""
PRIMARY_METRIC = "ndcg@10"
"""What the law is judged on; stages/evaluate/score.py has every metric."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to make an embedding model of a checkpoint.

    `changes`: of the recipe's RefineConfig; a dotted name changes a nested field ("loss.symmetric"). Of a
    linear map: `map`, which one, and `drawn`, where it draws at random and so has a result for each seed.
    """

    name: str
    kind: Kind
    changes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            raise ValueError(f"arm {self.name!r}: no kind {self.kind!r}; there are: {kinds}")


BEFORE_CL = Arm(name="before CL", kind="none")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Where one output stands: dose and pages of its CGP, arm, seed and steps of its CL, the split searched.

    A field that has no meaning for a stage keeps its default.
    """

    dose: int = 0
    """Examples seen in CGP."""
    pages: Pages = "target"
    arm: Arm = BEFORE_CL
    seed: int | None = None
    """Of CL, or of a linear map."""
    steps: int | None = None
    """Of CL."""
    split: str | None = None
    """Documents searched: "test", "validation", or the name of a further test set."""

    @property
    def words(self) -> str:
        """The place in words, the usual left out: ``dose 4,800, seed 0, text-only, 30 steps``."""
        told = [f"dose {self.dose:,}"]
        if self.pages != "target":
            told.append(f"{self.pages} pages")
        if self.seed is not None:
            told.append(f"seed {self.seed}")
        if self.arm.kind != "none":
            told.append(self.arm.name)
        if self.steps is not None:
            told.append(f"{self.steps:,} steps")
        if self.split not in (None, "test"):
            told.append(f"{self.split} split")
        return ", ".join(told)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
