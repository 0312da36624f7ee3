"""Late interaction without a training of its own: every token of a query against every token of a page.

MaxSim of Khattab and Zaharia (2020), "ColBERT": the sum over the query's tokens of the highest cosine with
any visual token. Models that search so are trained for it; here it is measured as it comes."""

from collections.abc import Callable

import numpy as np
import torch

from stages.backbones.backbone import Backbone
from stages.evaluate.encoding import TaskEncoder


def late_interaction(
    encoder: TaskEncoder, backbone: Backbone, on_batch: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Return float32 [queries, pages]; zero for a query without text."""
    asked = dict(encoder.content_states(backbone, "queries", on_batch))
    queries = [asked[row] for row in range(len(asked))]
    tokens = torch.cat(queries)
    row_of = torch.repeat_interleave(torch.arange(len(queries)), torch.tensor([len(one) for one in queries]))
    scores = np.zeros((len(queries), len(encoder.task.corpus)), dtype=np.float32)
    for page, states in encoder.content_states(backbone, "images", on_batch):
        best = (tokens @ states.T).amax(dim=1)
        scores[:, page] = torch.zeros(len(queries)).index_add_(0, row_of, best).numpy()
    return scores
