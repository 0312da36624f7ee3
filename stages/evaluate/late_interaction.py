"""Late interaction without a training of its own: every token of a query against every token of a page.

MaxSim of Khattab and Zaharia (2020), "ColBERT": the sum over the query's tokens of the highest cosine with
any visual token. Models that search so are trained for it; here it is measured as it comes."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from stages.backbones.backbone import Backbone
from stages.evaluate.search_task import SearchTask
from stages.train.batches import collate
from stages.train.forward import hidden_states
from stages.train.sequences import SequenceBuilder, TokenSequence


@torch.inference_mode()
def late_interaction(
    backbone: Backbone, task: SearchTask, batch_size: int, on_batch: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Return float32 [queries, pages]; zero for a query without text."""
    builder = SequenceBuilder(backbone)
    asked = [builder.summarize_text(query.text) for query in task.queries]
    queries = []
    for rows in _batches(asked, batch_size):
        queries += _content_states(backbone, rows)
        on_batch()
    tokens, of_query = torch.cat(queries), torch.tensor([len(states) for states in queries])
    row_of = torch.repeat_interleave(torch.arange(len(queries)), of_query)
    scores = np.zeros((len(queries), len(task.corpus)), dtype=np.float32)
    for start in range(0, len(task.corpus), batch_size):
        pages = [builder.summarize_image(one.image()) for one in task.corpus[start : start + batch_size]]
        for number, states in enumerate(_content_states(backbone, pages), start=start):
            best = (tokens @ states.T).amax(dim=1)
            scores[:, number] = torch.zeros(len(queries)).index_add_(0, row_of, best).numpy()
        on_batch()
    return scores


def _content_states(backbone: Backbone, rows: Sequence[TokenSequence]) -> list[torch.Tensor]:
    """L2-normalised hidden states of each row's image or text, without its prompt [tokens, hidden]."""
    states = hidden_states(backbone.model, collate(rows, pad_token=backbone.tokenizer.pad_token_id))
    states = torch.nn.functional.normalize(states.last_hidden_state.float(), dim=-1)
    starts = (states.shape[1] - len(row) for row in rows)  # padded on the left
    return [
        of_row[start + row.content.start : start + row.content.stop]
        for of_row, row, start in zip(states, rows, starts, strict=True)
    ]


def _batches(rows: Sequence[TokenSequence], size: int) -> Iterator[Sequence[TokenSequence]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
