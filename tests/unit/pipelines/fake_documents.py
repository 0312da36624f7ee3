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
    """Four outputs that depend on the names and texts of `*.txt` in `folder`; an empty one is quarantined."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}
    if texts and not any(texts.values()):
        raise NoUsableDocuments(f"{folder}: none of {len(texts)} documents can be used")
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    documents = [
        {"path": name, "status": "used" if text else "quarantined", "reason": None if text else "empty"}
        for name, text in texts.items()
    ]
    outputs = {}
    for done, name in enumerate(("train", "validation", "test", "inventory"), start=1):
        progress(done, 4, "reading documents")
        stage = f"documents-{name}"
        named = fingerprint(stage=stage, program=__name__, configuration={}, inputs={"texts": digest})
        outputs[name] = store.find(stage, named)
        if outputs[name] is None:
            with store.attempt(stage, named) as attempt:
                content = {"documents": documents, "warnings": [], "split": name, "texts": texts}
                (attempt.path / "inventory.json").write_text(json.dumps(content), encoding="utf-8")
                counts = {"documents": len(texts), "queries": 0 if "unvalidated.txt" in texts else 1}
                outputs[name] = attempt.commit(inputs={}, configuration={}, counts=counts)
    return SimpleNamespace(**outputs)
