"""A stand-in for `data_prep.prepare.prepare_documents`: text files as documents, no PDF is read."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data_prep.errors import NoUsableDocuments
from infra.fingerprint import fingerprint
from infra.store import Store


def prepare_documents(
    folder: Path, config: Any, store: Store, progress: Callable[[int, int, str], None], *, workers: int
) -> SimpleNamespace:
    """Outputs that depend on the names and texts of `*.txt` in `folder`, where an empty one is quarantined;
    queries, on `queries.jsonl` too."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}
    if texts and not any(texts.values()):
        raise NoUsableDocuments(f"{folder}: none of {len(texts)} documents can be used")
    asked = [path.read_text(encoding="utf-8") for path in folder.glob("queries.jsonl")]
    documents = [
        {
            "path": name,
            "status": "used" if text else "quarantined",
            "reason": None if text else "empty",
            "refused_pages": 0,
            "first_refused_pages": [],
            "left_out_characters": {},
        }
        for name, text in texts.items()
    ]
    outputs = {}
    splits = ("train", "validation", "test")
    names = (*splits, *(f"{split}_queries" for split in splits), "inventory")
    for done, name in enumerate(names, start=1):
        progress(done, len(names), "reading documents")
        stage = f"documents-{name.replace('_', '-')}"
        content = {"documents": documents, "split": name, "texts": texts, "warnings": []}
        content |= {} if name in splits else {"queries": asked, "unused_queries": []}
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        named = fingerprint(stage=stage, program=__name__, configuration={}, inputs={"content": digest})
        outputs[name] = store.find(stage, named)
        if outputs[name] is None:
            with store.attempt(stage, named) as attempt:
                (attempt.path / "inventory.json").write_text(json.dumps(content), encoding="utf-8")
                counts = {"documents": len(texts), "queries": 0 if "unvalidated.txt" in texts else 1}
                outputs[name] = attempt.commit(inputs={}, configuration={}, counts=counts)
    return SimpleNamespace(**outputs)
